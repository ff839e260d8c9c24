"""The promises of filtered_lrelu beyond the properties that every op has."""

import pytest
import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops import filtered_lrelu, setup_filter

OP = "filtered_lrelu"
LAYER = {"up": 2, "down": 2, "padding": [11, 10, 11, 10], "clamp": 0.8}


def taps(n: int = 12) -> Tensor:
    return setup_filter(torch.hamming_window(n + 2, periodic=False, dtype=torch.float64)[1:-1])


def skip_without_kernel() -> None:
    reason = backends.refusal(OP, "cpu", torch.empty(1))
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"x": torch.randn(3, 4)}, ValueError, r"x must be \[N, C, H, W\], got \[3, 4\]"),
        ({"b": torch.randn(4)}, ValueError, r"b must be \[C\] = \[3\], got \[4\]"),
        ({"b": torch.randn(3).double()}, TypeError, "b must be torch.float32 like x"),
        ({"fu": taps().double()}, TypeError, r"fu must be torch.float32 \(see setup_filter\), got torch.float64"),
        ({"fd": taps()[None, None]}, ValueError, r"fd must be \[taps\] or \[taps_y, taps_x\], got \[1, 1, 12\]"),
        ({"fd": taps().requires_grad_()}, RuntimeError, "fd has no gradient, but requires one"),
        ({"fd": taps(60)}, ValueError, "x upsampled and padded must hold the 60 taps along y, got 18"),
        ({"clamp": -1.0}, ValueError, "clamp must be at least 0, got -1.0"),
        ({"up": 0}, ValueError, r"up must be an integer or \[x, y\], at least 1, got 0"),
        ({"down": 1.5}, (ValueError, TypeError), "down|float"),
    ],
)
def test_a_wrong_call_says_what_it_wants_and_what_it_got(change: dict, error: type, sentence: str):
    call = {"x": torch.randn(2, 3, 4, 5), "fu": taps(), "fd": taps(), "b": torch.randn(3), **LAYER, **change}
    with pytest.raises(error, match=sentence):
        filtered_lrelu(call.pop("x"), call.pop("fu"), call.pop("fd"), call.pop("b"), **call)


@pytest.mark.parametrize("clamp", [None, 0.8])
def test_bits_alone_are_saved(clamp: float | None):
    skip_without_kernel()
    x, b = torch.randn(2, 16, 20, 20, requires_grad=True), torch.randn(16, requires_grad=True)
    kept: list[Tensor] = []

    def keep(t: Tensor) -> Tensor:
        kept.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        filtered_lrelu(x, taps(), taps(), b, **{**LAYER, "clamp": clamp}, backend="cpu")
    u = 2 * 16 * 50 * 50  # elements: 2 * 20 + 21 - 11
    planes = 1 if clamp is None else 2
    assert sorted(t.numel() * t.element_size() for t in kept) == [48, 48, planes * u // 8]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", [(1, 2, 3, 400), (1, 20, 50, 9)], ids=["columns", "rows"])
def test_tiles_meet_without_a_seam(shape: tuple, layout: torch.memory_format):
    """An image in strips of columns, and one whose rows several threads share, where there are several."""
    skip_without_kernel()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    found = {}
    for backend in ("cpu", "reference"):
        y = filtered_lrelu(x, taps(24), taps(), up=4, down=2, padding=22, clamp=0.5, backend=backend)
        dx = torch.autograd.grad(y.cos().sum(), x, create_graph=True)[0]
        found[backend] = y, dx, torch.autograd.grad(dx.square().sum(), x)[0]
    for got, want in zip(found["cpu"], found["reference"], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_number_of_threads_changes_no_digit():
    skip_without_kernel()
    x, before = torch.randn(2, 20, 60, 60, requires_grad=True), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y = filtered_lrelu(x, taps(), taps(), **LAYER, backend="cpu")
            found.append((y, torch.autograd.grad(y.square().sum(), x)[0]))
    finally:
        torch.set_num_threads(before)
    for y, dx in found[1:]:
        assert torch.equal(y, found[0][0]) and torch.equal(dx, found[0][1])


def test_third_order():
    skip_without_kernel()
    generator = torch.Generator().manual_seed(1)
    x, v = (torch.randn(1, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    b = torch.randn(2, generator=generator, dtype=torch.float64, requires_grad=True)

    def second(x: Tensor, b: Tensor, v: Tensor) -> Tensor:
        y = filtered_lrelu(x, taps(), taps(), b, **LAYER, backend="cpu").sin()
        dx, db = torch.autograd.grad(y.sum(), (x, b), create_graph=True)
        return torch.autograd.grad((dx * v).sum() + db.square().sum(), x, create_graph=True)[0]

    torch.autograd.gradgradcheck(second, (x, b, v), fast_mode=True)


def test_a_gradient_of_b_alone_needs_no_gradient_of_x():
    x, b = torch.randn(2, 3, 5, 5), torch.randn(3, requires_grad=True)
    wanted = torch.autograd.grad(filtered_lrelu(x, taps(), taps(), b, **LAYER, backend="reference").sum(), b)[0]
    got = torch.autograd.grad(filtered_lrelu(x, taps(), taps(), b, **LAYER).sum(), b)[0]
    torch.testing.assert_close(got, wanted)


def test_half_precision_is_rounded_once():
    skip_without_kernel()
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, 12, 13, generator=generator).bfloat16()
    wanted = filtered_lrelu(x.float(), taps(), taps(), **LAYER, backend="cpu").bfloat16()
    assert torch.equal(filtered_lrelu(x, taps(), taps(), **LAYER, backend="cpu"), wanted)
