"""Convolution and average pooling whose gradients are of their own kind, held to those of PyTorch."""

import contextlib
import functools
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from gan_engine.ops import avg_pool2d, conv2d, convolution
from gan_engine.ops.convolution import maps
from gan_engine.ops.thresholds import TABLE

CONVOLUTIONS = {
    "plain": ((2, 3, 5, 6), (4, 3, 3, 3), {}),
    "stride and padding": ((2, 3, 8, 7), (4, 3, 4, 4), {"stride": 2, "padding": 1}),
    "groups": ((3, 4, 5, 5), (6, 2, 3, 3), {"padding": 1, "groups": 2}),
    "pairs": ((2, 2, 9, 8), (3, 2, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
    "pixels": ((1, 4, 3, 3), (2, 4, 1, 1), {}),
}
POOLS = {
    "halves": {"kernel_size": 2},
    "overlap": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    "open end": {"kernel_size": 2, "stride": 3, "ceil_mode": True, "count_include_pad": False},
    "divisor": {"kernel_size": 2, "divisor_override": 3},
}
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def made(*shapes: tuple[int, ...], layout: torch.memory_format = torch.contiguous_format) -> list[Tensor]:
    torch.manual_seed(0)
    drawn = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    return [(t.to(memory_format=layout) if t.ndim == 4 else t).requires_grad_() for t in drawn]


def orders(function, inputs: list[Tensor]) -> list[Tensor]:
    """The value and the gradients of three orders, each of a curved function of the one before."""
    found = [function(*inputs)]
    for _ in range(3):
        total = sum(t.sin().sum() for t in found[-len(inputs) :])
        found += torch.autograd.grad(total, inputs, create_graph=True)
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.usefixtures("poisoned_memory")
def test_conv2d_has_the_value_and_gradients_of_pytorch(case: str, layout: torch.memory_format):
    x, w, options = CONVOLUTIONS[case]
    inputs = made(x, w, w[:1], layout=layout)
    got, want = (orders(functools.partial(f, **options), inputs) for f in (conv2d, F.conv2d))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    assert got[0].stride() == want[0].stride()


def test_the_gradient_by_a_1x1_weight_with_a_stride_is_made_in_contiguous_memory(monkeypatch: pytest.MonkeyPatch):
    """PyTorch's kernel for channels_last writes beyond its memory there, of few channels."""
    seen, by_pytorch = [], maps._gradients_by_pytorch

    def spied(dy, x, w, arguments, wanted):
        seen.append([t.is_contiguous() for t in (dy, x)])
        return by_pytorch(dy, x, w, arguments, wanted)

    monkeypatch.setattr(maps, "_gradients_by_pytorch", spied)
    for channels, safe in ((3, True), (16, False)):
        x, w = made((4, channels, 12, 12), (8, channels, 1, 1), layout=torch.channels_last)
        x, w = (t.detach().float().requires_grad_() for t in (x, w))
        dy = torch.randn(4, 8, 6, 6).to(memory_format=torch.channels_last)
        (dw,) = torch.autograd.grad(conv2d(x, w, stride=2), w, dy)
        torch.testing.assert_close(dw[:, :, 0, 0], torch.einsum("nohw,nihw->oi", dy, x.detach()[:, :, ::2, ::2]))
        assert seen.pop() == [safe, safe]


@contextlib.contextmanager
def in_faster_layouts() -> Iterator[None]:
    """Strided convolutions run in layouts of their own, as they do with more channels."""
    with pytest.MonkeyPatch.context() as patch:
        few = TABLE["few channels for layouts"]
        patch.setitem(TABLE, "few channels for layouts", few._replace(number=TABLE["few channels"].number))
        yield


@pytest.mark.parametrize("side", [6, 7])  # of which one leaves a pixel over
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_strided_convolutions_have_the_value_and_gradients_of_pytorch(name: str, side: int):
    """The layouts are the faster ones for more channels."""
    x, weight = (t.detach().float() for t in made((2, 32, side, 8), (32, 32, 3, 3)))
    inputs = [x.requires_grad_(), (weight / 17).requires_grad_()]  # y is about 1
    functions = (getattr(module, name) for module in (convolution, F))
    with in_faster_layouts():
        got, want = (orders(functools.partial(f, stride=2, padding=1), inputs) for f in functions)
    for a, b in zip(got, want, strict=True):
        assert (a - b).norm() < 1e-3 * b.norm()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("case", POOLS)
@pytest.mark.usefixtures("poisoned_memory")
def test_avg_pool2d_has_the_value_and_gradients_of_pytorch(case: str, layout: torch.memory_format):
    inputs = made((2, 3, 7, 6), layout=layout)
    got, want = (orders(functools.partial(f, **POOLS[case]), inputs) for f in (avg_pool2d, F.avg_pool2d))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def squared_gradient(function) -> object:
    """The gradients by all inputs of the sum of squared gradients by the first."""

    def total(*inputs: Tensor) -> Tensor:
        return torch.func.grad(lambda x: function(x, *inputs[1:]).cos().sum())(inputs[0]).square().sum()

    return lambda *inputs: torch.func.grad(total, argnums=tuple(range(len(inputs))))(*inputs)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_second_gradients_are_those_of_pytorch(backend: str):
    x, w, b = (t.detach() for t in made((2, 3, 6, 6), (4, 3, 3, 3), (4,)))
    got, want = (
        squared_gradient(lambda x, w, b, conv=conv, pool=pool: pool(conv(x, w, b), 2))
        for conv, pool in ((conv2d, avg_pool2d), (F.conv2d, F.avg_pool2d))
    )
    torch._dynamo.reset()
    compiled = torch.compile(got, fullgraph=True, backend=backend)
    for a, b_ in zip(compiled(x, w, b), want(x, w, b), strict=True):
        torch.testing.assert_close(a, b_)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_second_gradients_of_strided_convolutions_are_those_of_pytorch(backend: str):
    """Up and down again, as the layers do that resample, in the layouts that are faster for more channels."""
    x, w = (t.detach().float() for t in made((1, 32, 3, 3), (32, 32, 3, 3)))

    def got(x: Tensor, w: Tensor) -> Tensor:
        y = convolution.conv_transpose2d(x, convolution.transposed(w), stride=2)
        return convolution.conv2d(y, w, stride=2)

    def want(x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(F.conv_transpose2d(x, w.transpose(0, 1).flip(2, 3), stride=2), w, stride=2)

    inputs = x, w / 17
    torch._dynamo.reset()
    compiled = torch.compile(squared_gradient(got), fullgraph=True, backend=backend)
    wanted = squared_gradient(want)(*(t.double() for t in inputs))
    with in_faster_layouts():
        found = compiled(*inputs)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).norm() < 1e-4 * b.norm()


def test_conv2d_heeds_autocast():
    x, w, b = (t.detach().float() for t in made((2, 3, 5, 5), (4, 3, 3, 3), (4,)))
    with torch.autocast("cpu", torch.bfloat16):
        got, want = conv2d(x, w, b), F.conv2d(x, w, b)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, want)


def test_conv2d_refuses_what_has_no_batch():
    x, w = made((3, 5, 5), (4, 3, 3, 3))
    with pytest.raises(ValueError, match=r"conv2d: x and w must have 4 dimensions, got \[3, 5, 5\]"):
        conv2d(x, w)


# Which gradients are computed: those that the backward pass wants, and no others.


class Kernels(TorchDispatchMode):
    """Counts the calls of the kernels for data and for weight gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.data = self.weight = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.aten.convolution_backward:
            self.data += args[10][0]
            self.weight += args[10][1]
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("computed", [False, True], ids=["leaves", "computed"])
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("way", ["grad", "backward"])
def test_the_gradients_that_are_asked_for_are_computed_and_no_others(way: str, wanted: tuple, computed: bool):
    found, counts = [], []
    for function in (conv2d, F.conv2d):
        leaves = made((2, 3, 5, 5), (4, 3, 3, 3), (4,))
        inputs = [2 * t for t in leaves] if computed else leaves
        asked = [inputs[i] for i in wanted]
        total = function(*inputs).sin().sum()
        with Kernels() as kernels:
            if way == "grad":
                grads = torch.autograd.grad(total, asked, retain_graph=True)
            else:
                total.backward(inputs=asked, retain_graph=True)
                grads = [t.grad for t in asked]
        assert all(t.grad is None for i, t in enumerate(leaves) if computed or way == "grad" or i not in wanted)
        found.append([*grads, *torch.autograd.grad(total, leaves)])  # the graph still has the others
        counts.append((kernels.data, kernels.weight))
    torch.testing.assert_close(*found)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("wanted", [(0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("first", [(0,), (1,), (0, 1)], ids=str)
def test_second_gradients_compute_what_they_are_asked_for(first: tuple, wanted: tuple):
    """The gradients of _ImageGradient and _WeightGradient, and third ones behind them."""
    results = []
    for function in (conv2d, F.conv2d):
        x, w, _ = inputs = made((2, 3, 5, 5), (4, 3, 3, 3), (4,))
        grads = torch.autograd.grad(function(*inputs).sin().sum(), [inputs[i] for i in first], create_graph=True)
        second = torch.autograd.grad(
            sum(g.square().sum() for g in grads), [inputs[i] for i in wanted], create_graph=True
        )
        results.append([*second, *torch.autograd.grad(sum(g.square().sum() for g in second), (x, w))])
    torch.testing.assert_close(*results)


def test_the_second_gradient_by_the_image_computes_none_by_weights():
    x, w, b = made((2, 3, 5, 5), (4, 3, 3, 3), (4,))
    (g,) = torch.autograd.grad(conv2d(x, w, b).sin().sum(), x, create_graph=True)
    with Kernels() as kernels:
        torch.autograd.grad(g.square().sum(), x)
    assert (kernels.data, kernels.weight) == (1, 0)


def test_a_hook_may_run_another_backward_pass():
    """Each of two passes, one inside of the other, gets what it asked for."""
    x, w, b = made((2, 3, 5, 5), (4, 3, 3, 3), (4,))
    inner_w = w.detach().clone().requires_grad_()
    y = conv2d(x, w, b)

    def inner(dy: Tensor) -> None:
        with torch.enable_grad():
            conv2d(x.detach(), inner_w).square().sum().backward()
            torch.autograd.grad(conv2d(x, inner_w).sum(), x)

    y.register_hook(inner)
    got = torch.autograd.grad(y.square().sum(), (x, w), retain_graph=True)
    want = torch.autograd.grad(F.conv2d(x, w, b).square().sum(), (x, w))
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(inner_w.grad, torch.autograd.grad(F.conv2d(x, inner_w).square().sum(), inner_w)[0])
    y.square().sum().backward()
    torch.testing.assert_close((x.grad, w.grad), want)


def test_a_checkpoint_inside_a_backward_pass_gets_the_gradients_of_its_weights():
    x, w, b = made((2, 3, 5, 5), (4, 3, 3, 3), (4,))
    found = []
    for function in (conv2d, F.conv2d):
        for reentrant in (True, False):
            y = checkpoint(function, x, w, b, use_reentrant=reentrant)
            for t in (x, w, b):
                t.grad = None
            y.sin().sum().backward()
            found.append([t.grad for t in (x, w, b)])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_compiled_autograd_gets_every_gradient():
    x, w, b = made((2, 3, 5, 5), (4, 3, 3, 3), (4,))
    for inputs in ((x,), (w,), (x, w, b)):
        want = torch.autograd.grad(conv2d(x, w, b).sin().sum(), inputs)
        y = conv2d(x, w, b).sin().sum()
        with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
            torch.testing.assert_close(torch.autograd.grad(y, inputs), want)
