"""The chooser as a whole: requests of a block, and the record of `watched`."""

import threading

import pytest
import torch
import torch.nn.functional as F

from gan_engine import backends
from gan_engine.layers import Conv2d, ConvTranspose2d
from gan_engine.ops import bias_act, conv2d
from gan_engine.system import native


def names(choices: list[backends.Choice]) -> list[str]:
    return [choice.op for choice in choices]


def test_watched_blocks_may_be_inside_each_other():
    x = torch.randn(2, 3, 8, 8)
    with backends.watched() as outer:
        bias_act(x)
        with backends.watched() as inner:
            conv2d(x, torch.randn(4, 3, 3, 3))
        bias_act(x)
    bias_act(x)
    assert names(inner) == ["conv2d"] and names(outer) == ["bias_act", "conv2d", "bias_act"]


def test_watched_blocks_that_overlap_in_threads_end_both():
    entered, left = threading.Event(), threading.Event()
    found: list[backends.Choice] = []

    def other() -> None:
        with backends.watched() as choices:
            entered.set()
            assert left.wait(60)
            bias_act(torch.randn(2, 3))
        found.extend(choices)

    thread = threading.Thread(target=other)
    with backends.watched() as ours:
        thread.start()
        assert entered.wait(60)
    left.set()
    thread.join()
    bias_act(torch.randn(2, 3))
    assert names(found) == ["bias_act"] and not ours


@pytest.mark.parametrize("backend", backends.ORDER)
@pytest.mark.parametrize("layer", [Conv2d(3, 4, 3, padding=1), ConvTranspose2d(3, 4, 4, stride=2, padding=1)])
def test_a_request_of_a_block_leaves_images_without_a_batch_alone(layer, backend):
    if backend == "cpu" and native.WHY_NO_CPU is not None:
        pytest.skip(native.WHY_NO_CPU)
    x = torch.randn(3, 8, 8)
    with backends.use(backend):
        torch.testing.assert_close(layer(x), layer(x[None])[0])


def test_an_export_of_conv2d_holds_the_operator_of_pytorch():
    """Code that rewrites exported graphs, as quantisers do, looks for aten.conv2d."""

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return conv2d(x, w, stride=2, padding=1)

    x, w = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    exported = torch.export.export(Net(), (x, w), strict=False)
    targets = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert targets == [torch.ops.aten.conv2d.default]
    torch.testing.assert_close(exported.module()(x, w), F.conv2d(x, w, stride=2, padding=1))
