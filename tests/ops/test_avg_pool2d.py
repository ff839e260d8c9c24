"""avg_pool2d by the FIR kernel: the means of 2x2 pixels on CPUs, beside PyTorch's operator."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from gan_engine import backends
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.ops import avg_pool2d
from gan_engine.ops.thresholds import TABLE
from gan_engine.system import native

pytestmark = pytest.mark.skipif(native.WHY_NO_CPU is not None, reason=str(native.WHY_NO_CPU))
LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format
FEW = int(TABLE["few elements to halve"].number)


def ran(x: Tensor, *arguments, **options) -> tuple[Tensor, bool]:
    """y, and whether the FIR kernel has computed it."""
    with backends.watched() as choices:
        y = avg_pool2d(x, *arguments, **options)
    ops = [(choice.op, choice.backend) for choice in choices]
    assert (("pooling_filter", "pytorch") in ops) == (("upfirdn2d", "cpu") in ops)
    return y, ("upfirdn2d", "cpu") in ops


def image(*shape: int, dtype: torch.dtype = torch.float64, layout: torch.memory_format = CONTIGUOUS) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.to(dtype).contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 8, 64, 64), CONTIGUOUS),
        ((1, 2, 129, 257), CONTIGUOUS),  # the last row and column are in no window
        ((3, 3, 64, 66), LAST),
        ((2, 31, 33, 34), LAST),
        ((64, 128, 2, 2), CONTIGUOUS),
        ((1, 1, 3, 16384), CONTIGUOUS),
    ],
)
def test_the_filter_is_the_pooling_to_the_second_order(shape, layout):
    x = image(*shape, layout=layout)
    y, by_filter = ran(x, 2)
    want = F.avg_pool2d(x, 2)
    dy = torch.randn_like(y).requires_grad_()
    assert by_filter and y.stride() == want.stride()
    torch.testing.assert_close(y, want, rtol=0, atol=1e-14)
    found = []
    for each in (y, want):
        (g,) = torch.autograd.grad(each.square().sum() / 2 + (each * dy).sum(), x, create_graph=True)
        found.append([g, *torch.autograd.grad(g.pow(3).sum(), (x, dy))])
    for got, expected in zip(*found):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_is_as_near_to_float64_as_pytorch(dtype):
    x = image(2, 8, 64, 64, dtype=dtype)
    y, by_filter = ran(x, 2)
    want = F.avg_pool2d(x.double(), 2)
    assert by_filter and y.dtype == dtype
    assert (y - want).abs().max() <= 2 * (F.avg_pool2d(x, 2) - want).abs().max()


@pytest.mark.parametrize(
    ("shape", "arguments", "layout"),
    [
        ((1, 7, 64, 64), (2,), CONTIGUOUS),  # few elements
        ((2, 32, 64, 64), (2,), LAST),  # PyTorch's kernel is as fast there
        ((2, 8, 64, 64), (3, 2), CONTIGUOUS),
        ((2, 8, 64, 64), (2, 1), CONTIGUOUS),
        ((2, 8, 64, 64), (2, 2, 1), CONTIGUOUS),
        ((2, 8, 65, 64), (2, 2, 0, True), CONTIGUOUS),
        ((2, 8, 64, 64), (2, 2, 0, False, True, 3), CONTIGUOUS),
        ((16, 64, 64), (2,), CONTIGUOUS),
    ],
)
def test_other_calls_are_left_to_pytorch(shape, arguments, layout):
    x = image(*shape, layout=layout)
    y, by_filter = ran(x, *arguments)
    assert not by_filter and (y == F.avg_pool2d(x, *arguments)).all()


@pytest.mark.parametrize("layout", [CONTIGUOUS, LAST])
def test_a_part_of_an_image_is_left_to_pytorch(layout):
    x = image(2, 64, 64, 64, layout=layout)[:, :32]
    y, by_filter = ran(x, 2)
    assert not by_filter and y.stride() == F.avg_pool2d(x, 2).stride()


def test_a_request_for_other_ops_does_not_stop_it():
    x = image(2, 8, 64, 64)
    for backend in ("pytorch", "cuda"):
        with backends.use(backend):
            for size in (2, 3):
                torch.testing.assert_close(avg_pool2d(x, size), F.avg_pool2d(x, size), rtol=0, atol=1e-14)


def test_modes_of_pytorch_leave_nothing_behind():
    x = image(2, 8, 64, 64)
    with torch.inference_mode():
        avg_pool2d(x.detach(), 2)
    with FakeTensorMode() as mode:
        assert avg_pool2d(mode.from_tensor(x), 2).shape == (2, 8, 32, 32)
    traced = make_fx(lambda x: avg_pool2d(x, 2), tracing_mode="fake")(x.detach())
    torch.testing.assert_close(traced(x), F.avg_pool2d(x, 2), rtol=0, atol=1e-14)
    torch.autograd.grad(avg_pool2d(x, 2).sum(), x)


def test_a_window_that_is_too_large_has_pytorchs_error():
    with pytest.raises(RuntimeError, match="Output size is too small"):
        avg_pool2d(torch.zeros(1, FEW, 1, 2), 2)


def test_the_reference_is_pytorchs_function():
    x = image(2, 8, 64, 64)
    with backends.use("reference"):
        y, by_filter = ran(x, 2)
    assert not by_filter and (y == F.avg_pool2d(x, 2)).all()


def test_compiled_as_one_graph():
    x = image(2, 8, 64, 64)
    compiled = torch.compile(lambda x: avg_pool2d(x * 2, 2), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), F.avg_pool2d(x * 2, 2), rtol=0, atol=1e-14)
    (got,) = torch.autograd.grad(compiled(x).square().sum(), x)
    (want,) = torch.autograd.grad(F.avg_pool2d(x * 2, 2).square().sum(), x)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_levels_of_penalties_take_the_filter():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 8, 3, padding=1), nn.LeakyReLU(0.2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8 * 32 * 32, 1)
    D = nn.Sequential(*layers).double()
    img = image(2, 1, 64, 64).detach()
    gradients = {}
    for level in ("autograd", 1, 2):
        D.zero_grad()
        with backends.watched() as choices:
            backward_with_penalty(D, img, lambda logits: F.softplus(-logits), gamma=1.0, level=level)
        taken = any((choice.op, choice.backend) == ("pooling_filter", "pytorch") for choice in choices)
        assert taken == (level != "autograd")
        gradients[level] = [p.grad.clone() for p in D.parameters()]
    for level in (1, 2):
        torch.testing.assert_close(gradients[level], gradients["autograd"], rtol=1e-9, atol=1e-12)
