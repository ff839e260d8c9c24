"""torch.jit.trace and torch.export record every op in operators of PyTorch."""

import pytest
import torch

from gan_engine.ops import conv2d
from gan_engine.ops.samples import OPS

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
CASES = [pytest.param(op, sample, id=f"{name}-{sample.name}") for name, op in OPS.items() for sample in op.tiny[:3]]


class Module(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, *tensors):
        return self.call(*tensors)


def assert_recorded(call, tensors, **tolerance):
    want = call(*tensors)
    traced = torch.jit.trace(call, tensors)
    assert {node.kind().split("::")[0] for node in traced.inlined_graph.nodes()} <= {"aten", "prim"}
    torch.testing.assert_close(traced(*tensors), want, **tolerance)
    exported = torch.export.export(Module(call), tensors)
    assert not [node for node in exported.graph.nodes if "gan_engine" in str(node.target)]
    torch.testing.assert_close(exported.module()(*tensors), want, **tolerance)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_an_op_is_recorded(op, sample):
    given = {name: t.detach() for name, t in sample.tensors(torch.float64).items()}
    assert_recorded(lambda *t: op.function(**dict(zip(given, t, strict=True)), **sample.options), tuple(given.values()))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_that_has_a_kernel_is_recorded(stride):
    torch.manual_seed(0)
    x, w, b = torch.randn(4, 64, 16, 16), torch.randn(64, 64, 3, 3) / 24, torch.randn(64)
    assert_recorded(lambda *t: conv2d(*t, stride=stride, padding=1), (x, w, b), rtol=1e-3, atol=1e-4)
