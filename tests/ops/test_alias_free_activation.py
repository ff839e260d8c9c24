"""What alias_free_activation has beyond the properties of all ops: errors, large arguments, rows in pieces, orders."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops import alias_free_activation, kaiser_sinc
from gan_engine.system import devices

OP = "alias_free_activation"


def skip_without_kernel() -> None:
    reason = backends.refusal(OP, "cpu", torch.empty(1))
    if reason is not None:
        pytest.skip(reason)


def skip_unless_one_pass(backend: str, dims: int = 3) -> None:
    reason = backends.refusal(OP, backend, torch.empty(1))
    if reason is not None or backend == "triton" or (backend == "cuda" and dims == 4):
        pytest.skip(f"{backend}: {reason or 'runs upfirdn2d, which has tests of its own'}")


def snake(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x, alpha and beta of SnakeBeta, none of them near 0"""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    alpha, beta = (torch.rand(shape[1], generator=generator, dtype=torch.float64).to(dtype) + 0.5 for _ in range(2))
    return x.requires_grad_(), alpha.requires_grad_(), beta.requires_grad_()


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"x": torch.randn(3, 4)}, ValueError, r"x must be \[N, C, T\] or \[N, C, H, W\], .*, got \[3, 4\]"),
        ({"x": torch.randn(2, 3, 0)}, ValueError, r"T, H, W at least 1, got \[2, 3, 0\]"),
        ({"alpha": torch.ones(4)}, ValueError, r"alpha must be \[C\] = \[3\], got \[4\]"),
        ({"beta": torch.ones(3).double()}, TypeError, "beta must be torch.float32 like x, or .*, got torch.float64"),
        ({"alpha": None}, ValueError, "want alpha, alpha and beta, or act, got none of them"),
        ({"alpha": None, "beta": torch.ones(3)}, ValueError, "want alpha, .*, got beta"),
        ({"act": torch.tanh}, ValueError, "want alpha, .*, got alpha and act"),
        ({"alpha": None, "act": "gelu"}, TypeError, "act must be a function of a tensor, got 'gelu'"),
        ({"fu": torch.ones(11)}, ValueError, r"fu must be \[taps\], an even number of them, got \[11\]"),
        ({"fd": torch.ones(12, 12)}, ValueError, r"fd must be \[taps\], an even number of them, got \[12, 12\]"),
        ({"fd": torch.ones(12).double()}, TypeError, "fd must be torch.float32, got torch.float64"),
        ({"fu": torch.ones(12).requires_grad_()}, RuntimeError, "fu has no gradient, but requires one"),
        ({"x": torch.ones(2, 3, 4, dtype=torch.int32)}, TypeError, "x must be float32, .*, got torch.int32"),
    ],
)
def test_a_wrong_call_says_what_it_wants_and_what_it_got(change: dict, error: type, sentence: str):
    call: dict[str, Any] = {"x": torch.randn(2, 3, 4), "alpha": torch.ones(3), **change}
    with pytest.raises(error, match=f"{OP}: {sentence}" if "T, H" not in sentence else sentence):
        alias_free_activation(**call)


@pytest.mark.parametrize(
    ("act", "error", "sentence"),
    [
        (lambda u: u[..., 1:], ValueError, r"the shape that it gets, \[2, 3, 8\], got \[2, 3, 7\]"),
        (lambda u: u.mean(), ValueError, r"the shape that it gets, \[2, 3, 8\], got \[\]"),
        (lambda u: u > 0, TypeError, "a tensor of floating point, got one of torch.bool"),
        (lambda u: u.to(torch.complex64), TypeError, "a tensor of floating point, got one of torch.complex64"),
        (lambda u: None, TypeError, "a tensor of floating point, got NoneType"),
    ],
)
def test_what_a_function_returns_is_checked(act: Callable, error: type, sentence: str, backend: str, device: str):
    with pytest.raises(error, match=f"{OP}: act must return {sentence}"):
        alias_free_activation(torch.randn(2, 3, 4, device=device), act=act, backend=backend)


@pytest.mark.parametrize("shape", [(2, 0, 5), (2, 0, 5, 4), (0, 3, 5), (0, 3, 5, 4)], ids=str)
@pytest.mark.parametrize("by", ["alpha", "act"])
def test_a_call_without_elements(shape: tuple[int, ...], by: str, backend: str, device: str):
    x = torch.empty(shape, device=device, requires_grad=True)
    alpha = torch.ones(shape[1], device=device, requires_grad=True)
    y = alias_free_activation(x, **({"alpha": alpha} if by == "alpha" else {"act": torch.tanh}), backend=backend)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad is not None and x.grad.shape == shape
    assert by == "act" or torch.equal(alpha.grad, torch.zeros_like(alpha))


@pytest.mark.parametrize("shape", [(2, 3, 20), (2, 3, 6, 5)], ids=str)
@pytest.mark.parametrize("by", ["alpha", "act"])
def test_autocast_changes_nothing(shape: tuple[int, ...], by: str, backend: str, device: str):
    x, alpha, beta = (t.detach().to(device).requires_grad_() for t in snake(*shape, dtype=torch.float32))
    inputs = {"x": x, "alpha": alpha, "beta": beta} if by == "alpha" else {"x": x}
    act = None if by == "alpha" else torch.tanh
    found = []
    for autocast in (False, True):
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            y = alias_free_activation(**inputs, act=act, backend=backend)
            first = torch.autograd.grad(y.square().sum(), list(inputs.values()), create_graph=True)
            squares = sum(g.square().sum() for g in first)
            found.append((y, *first, *torch.autograd.grad(squares, list(inputs.values()), create_graph=True)))
    for inside, outside in zip(*found, strict=True):
        torch.testing.assert_close(inside, outside, rtol=0, atol=0)


def test_a_function_runs_outside_autocast(backend: str, device: str):
    def by_product(u: Tensor) -> Tensor:
        return u.new_full((1, 1), 0.3).matmul(u.reshape(1, -1)).reshape(u.shape)

    x = torch.randn(2, 3, 20, device=device)
    wanted = alias_free_activation(x, act=by_product, backend=backend)
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(alias_free_activation(x, act=by_product, backend=backend), wanted)


@pytest.mark.parametrize("mode", ["torch.inference_mode()", 'torch.device("meta")'])
def test_an_import_inside_a_mode_breaks_no_later_call(mode: str):
    code = f"""
import torch
with {mode}:
    from gan_engine.ops import alias_free_activation
x = torch.randn(1, 2, 9, requires_grad=True)
alias_free_activation(x, torch.ones(2)).sum().backward()
assert x.grad.isfinite().all()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def in_inference_mode(x: Tensor, alpha: Tensor) -> None:
    with torch.inference_mode():
        alias_free_activation(x, alpha)


def on_fake_tensors(x: Tensor, alpha: Tensor) -> None:
    with torch._subclasses.FakeTensorMode() as mode:
        y = alias_free_activation(mode.from_tensor(x), mode.from_tensor(alpha))
    assert y.shape == x.shape


def in_a_transform(x: Tensor, alpha: Tensor) -> None:
    torch.func.grad(lambda x: alias_free_activation(x, alpha).sum())(x)


@pytest.mark.parametrize("before", [in_inference_mode, on_fake_tensors, in_a_transform])
def test_the_default_filter_of_a_call_inside_a_mode_is_not_that_of_later_calls(before: Callable):
    x, alpha, _ = snake(2, 3, 9, dtype=torch.float32)
    taps = kaiser_sinc()
    (wanted,) = torch.autograd.grad(alias_free_activation(x, alpha, fu=taps, fd=taps).sum(), x)
    devices.constant.cache_clear()
    for _ in range(2):  # without a kept filter, and with one
        before(x.detach(), alpha.detach())
        (dx,) = torch.autograd.grad(alias_free_activation(x, alpha).sum(), x)
        kept = devices.constant(tuple(taps.tolist()), torch.float32, x.device)
        assert torch.equal(dx, wanted) and not torch._C._functorch.is_functorch_wrapped_tensor(kept)


@pytest.mark.parametrize("taps", [0, 5])
def test_a_filter_has_an_even_number_of_taps(taps: int):
    with pytest.raises(ValueError, match=f"kaiser_sinc: taps must be even and at least 2, got {taps}"):
        kaiser_sinc(taps)


def test_the_filter_is_the_one_of_bigvgan():
    """scipy.signal.firwin(12, 0.25, window=("kaiser", kaiser_beta(51.02)), fs=1)"""
    half = [0.00202897, 0.00938946, -0.02554346, -0.05765738, 0.12857261, 0.44320980]
    wanted = torch.tensor([*half, *reversed(half)])
    torch.testing.assert_close(kaiser_sinc(), wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("size", [1, 2, 5, 16, 1024, 1025, 1027, 2048, 3001])
def test_pieces_of_a_row_meet_without_a_seam(size: int, backend: str):
    skip_unless_one_pass(backend)
    found = {}
    for name in (backend, "reference"):
        inputs = snake(2, 3, size)
        y = alias_free_activation(*inputs, backend=name)
        first = torch.autograd.grad(y.cos().sum(), inputs, create_graph=True)
        squares = sum(g.square().sum() for g in first)
        found[name] = (y, *first, *torch.autograd.grad(squares, inputs))
    for got, want in zip(found[backend], found["reference"], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    "shape",
    [(2, 3, 1, 1), (1, 2, 2, 3), (1, 17, 4, 9), (1, 130, 36, 5), (2, 5, 66, 70), (1, 3, 33, 129), (1, 1, 3, 260)],
    ids=str,
)
def test_tiles_of_an_image_meet_without_a_seam(shape: tuple[int, ...], layout: torch.memory_format, backend: str):
    """Blocks of sixteen planes, the last one with fewer; rows and columns in several tiles; images below the taps."""
    skip_unless_one_pass(backend, dims=4)
    x, alpha, beta = snake(*shape)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    found = {}
    for name in (backend, "reference"):
        y = alias_free_activation(x, alpha, beta, backend=name)
        first = torch.autograd.grad(y.cos().sum(), (x, alpha, beta), create_graph=True)
        squares = sum(g.square().sum() for g in first)
        found[name] = (y, *first, *torch.autograd.grad(squares, (x, alpha, beta)))
    for got, want in zip(found[backend], found["reference"], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(1, 4, 200), (1, 4, 10, 20)], ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0, 3e4, 1e6, 1e9])
def test_large_arguments_of_the_sine(scale: float, shape: tuple[int, ...], backend: str):
    """Each number of u is one of x, and alpha a power of 2: the argument has no error. Beyond 32768 is another way."""
    skip_unless_one_pass(backend, dims=len(shape))
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(3)) * scale).requires_grad_()
    alpha = torch.tensor([0.5, 1.0, 2.0, 4.0])
    one = torch.zeros(12)
    one[5:7] = 0.5
    found = []
    for dtype, name in ((torch.float32, backend), (torch.float64, "reference")):
        y = alias_free_activation(x.to(dtype), alpha.to(dtype), fu=one, fd=one, backend=name)
        found.append((y.detach().double(), torch.autograd.grad(y.sum(), x)[0].double()))
    (y, dx), (y_wanted, dx_wanted) = found
    assert float((y - y_wanted).abs().max()) <= 1e-6 + scale * 2**-21
    assert float((dx - dx_wanted).abs().max()) <= 2e-6  # dx = 1 + sin(2 alpha u)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_stays_near(value: float):
    skip_without_kernel()
    x = torch.ones(1, 2, 100)
    x[0, 0, 50] = value
    y = alias_free_activation(x, torch.ones(2), backend="cpu")
    near = torch.arange(100).sub(50).abs() <= 6
    assert y[0, 0, 50].isnan() and y[0, 0, ~near].isfinite().all() and y[0, 1].isfinite().all()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_stays_near_in_an_image(value: float):
    skip_without_kernel()
    x = torch.ones(1, 2, 30, 90)
    x[0, 0, 15, 50] = value
    y = alias_free_activation(x, torch.ones(2), backend="cpu")
    rows, columns = torch.arange(30).sub(15).abs() <= 6, torch.arange(90).sub(50).abs() <= 6
    near = rows[:, None] & columns
    assert y[0, 0, 15, 50].isnan() and y[0, 0, ~near].isfinite().all() and y[0, 1].isfinite().all()


@pytest.mark.parametrize("shape", [(2, 3, 500), (2, 3, 20, 25)], ids=str)
def test_x_alone_is_saved(shape: tuple[int, ...]):
    skip_without_kernel()
    x, alpha, beta = snake(*shape, dtype=torch.float32)
    kept: list[Tensor] = []

    def keep(t: Tensor) -> Tensor:
        kept.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        alias_free_activation(x, alpha, beta, backend="cpu")
    assert sorted(t.numel() for t in kept if t.numel() > 12) == [x.numel()]


@pytest.mark.parametrize("shape", [(2, 9, 3000), (2, 9, 70, 130)], ids=str)
def test_the_number_of_threads_changes_no_digit(shape: tuple[int, ...]):
    skip_without_kernel()
    before, found = torch.get_num_threads(), []
    inputs = snake(*shape, dtype=torch.float32)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y = alias_free_activation(*inputs, backend="cpu")
            found.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("shape", [(1, 2, 7), (1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("first", ["dx", "dalpha", "dbeta"])
def test_third_order(first: str, shape: tuple[int, ...]):
    """Gradients of each first gradient alone, of two further orders"""
    skip_without_kernel()
    inputs = snake(*shape)
    which = ["dx", "dalpha", "dbeta"].index(first)

    def gradient(*inputs: Tensor) -> Tensor:
        y = alias_free_activation(*inputs, backend="cpu").sin()
        return torch.autograd.grad(y.sum(), inputs, create_graph=True)[which]

    torch.autograd.gradgradcheck(gradient, inputs, fast_mode=True)


@pytest.mark.parametrize("shape", [(2, 3, 40), (2, 3, 6, 7)], ids=str)
def test_half_precision_is_rounded_once(shape: tuple[int, ...]):
    skip_without_kernel()
    x, alpha, _ = (t.detach() for t in snake(*shape, dtype=torch.bfloat16))
    wanted = alias_free_activation(x.float(), alpha.float(), backend="cpu").bfloat16()
    assert torch.equal(alias_free_activation(x, alpha, backend="cpu"), wanted)


def test_snake_is_snake_beta_of_equal_numbers_and_logarithms_are_exponentiated():
    x, alpha, _ = snake(2, 3, 20)
    wanted = alias_free_activation(x, alpha)
    torch.testing.assert_close(alias_free_activation(x, alpha, alpha), wanted)
    torch.testing.assert_close(alias_free_activation(x, alpha.log(), log_scale=True), wanted)


def test_fewer_aliases_than_the_bare_function():
    """A tone of 0.3 cycles per element: its third harmonic, 0.9, folds to 0.1 unless a filter takes it out."""
    tone = torch.sin(2 * torch.pi * 0.3 * torch.arange(1000, dtype=torch.float64))[None, None]
    cube = {"alias-free": alias_free_activation(tone, act=lambda u: u**3), "bare": tone**3}
    alias = {name: float(torch.fft.rfft(y[0, 0, 100:900]).abs()[80]) for name, y in cube.items()}
    assert alias["alias-free"] < 0.2 * alias["bare"]
