"""The promises of upfirdn2d_act beyond the properties that every op has."""

import pytest
import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops import scale_bias_act, setup_filter, upfirdn2d, upfirdn2d_act
from gan_engine.system import native
from tests.ops.undefined_gradients import assert_undefined_gradients_stay_undefined

OP = "upfirdn2d_act"

SHAPES = {"x": (2, 3, 5, 5), "scale": (2, 3), "b": (3,), "noise": (2, 1, 4, 4)}
BEHIND_UP = {"padding": 1, "fir_gain": 4, "act": "lrelu", "clamp": 0.8}


def inputs(dtype: torch.dtype, device: str, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {k: torch.randn(s, generator=generator, dtype=torch.float64) for k, s in (SHAPES | shapes).items()}
    return {name: t.to(device, dtype).requires_grad_() for name, t in made.items()}


def taps(device: str) -> Tensor:
    return setup_filter([1, 3, 3, 1], device=device)


def refused(**wrong):
    arguments = {name: t.detach() for name, t in inputs(torch.float32, "cpu").items()} | wrong
    return lambda: upfirdn2d_act(f=arguments.pop("f", taps("cpu")), **arguments, **BEHIND_UP)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (refused(x=torch.randn(2, 3)), ValueError, r"x must be \[N, C, H, W\], got \[2, 3\]"),
        (refused(scale=torch.randn(3)), ValueError, r"scale must be \[N, C\] = \[2, 3\], got \[3\]"),
        (refused(noise=torch.randn(2, 1, 5, 5)), ValueError, r"noise must be \[N, 1, H, W\] = \[2, 1, 4, 4\] or"),
        (refused(f=torch.ones(4).double()), TypeError, "f must be torch.float32 .*, got torch.float64"),
        (refused(f=torch.ones(9)), ValueError, "x upsampled and padded must hold the 9 taps along y, got 7"),
    ],
)
def test_bad_input_is_refused_with_want_and_got(call, error, sentence):
    with pytest.raises(error, match=f"upfirdn2d_act: {sentence}"):
        call()


def test_undefined_gradients_stay_undefined(backend: str, device: str):
    if backend == "reference":
        pytest.skip("reference: PyTorch's own double backward makes these zeros")
    tensors = inputs(torch.float32, device)
    y = upfirdn2d_act(f=taps(device), **tensors, **BEHIND_UP, backend=backend)
    assert_undefined_gradients_stay_undefined(y, tensors)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_the_third_order_is_right(layout: torch.memory_format, backend: str, device: str):
    if backend == "reference":
        pytest.skip("reference: that is PyTorch's own")
    c = 8 if layout == torch.channels_last else 2
    tensors = inputs(torch.float64, device, x=(1, c, 3, 4), scale=(1, c), b=(c,), noise=(1, 1, 2, 3))
    tensors["x"] = tensors["x"].detach().to(memory_format=layout).requires_grad_()

    def gradients(*values: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(tensors, values, strict=True))
        y = upfirdn2d_act(f=taps(device), **named, padding=1, act="lrelu", backend=backend)
        return torch.autograd.grad(y.sin().sum(), values, create_graph=True)

    torch.autograd.gradgradcheck(gradients, tuple(tensors.values()), fast_mode=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_two_bits_an_element_are_saved_and_x_for_a_scale(layout: torch.memory_format, backend: str, device: str):
    if backend != "cpu" and (backend != "cuda" or layout != torch.channels_last):
        pytest.skip("two passes, which save as they do")
    x = torch.randn(2, 16, 9, 9, device=device).to(memory_format=layout).requires_grad_()
    f, b, scale = taps(device), torch.zeros(16, device=device), torch.ones(2, 16, device=device)
    for extra, numbers in ((None, 0), (scale, x.numel() + scale.numel())):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, to=saved: to.append(t) or t, lambda t: t):
            upfirdn2d_act(x, f, extra, b, padding=1, act="lrelu", clamp=1.0, backend=backend)
        bits = 2 * 16 * 8 * (8 if layout == torch.channels_last else 16) * 2  # rows of bits are of 16
        assert sum(t.numel() * t.element_size() for t in saved) == bits // 8 + 4 * (numbers + f.numel())


@pytest.mark.skipif(native.WHY_NO_CPU is not None, reason=str(native.WHY_NO_CPU))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_sums_are_the_same_however_threads_share_the_rows(layout: torch.memory_format):
    shapes = {"x": (1, 2, 301, 299), "scale": (1, 2), "b": (2,), "noise": (1, 1, 300, 298)}
    tensors = inputs(torch.float64, "cpu", **shapes)
    tensors["x"] = tensors["x"].detach().to(memory_format=layout).requires_grad_()

    def gradients(backend: str) -> tuple[Tensor, ...]:
        y = upfirdn2d_act(f=taps("cpu"), **tensors, **BEHIND_UP, backend=backend)
        return torch.autograd.grad(y.cos().sum(), tensors.values())

    want, before = gradients("reference"), torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            torch.testing.assert_close(gradients("cpu"), want)
    finally:
        torch.set_num_threads(before)


def test_half_precision_is_rounded_once(backend: str, device: str):
    if backend not in ("cpu", "cuda"):
        pytest.skip("two passes, which round twice")
    shapes = {"x": (2, 16, 33, 33), "scale": (2, 16), "b": (16,)}
    tensors = {name: t.detach() for name, t in inputs(torch.bfloat16, device, **shapes).items()}
    tensors["x"] = tensors["x"].to(memory_format=torch.channels_last)
    del tensors["noise"]
    got = upfirdn2d_act(f=taps(device), **tensors, **BEHIND_UP, backend=backend)
    wide = {name: t.double() for name, t in tensors.items()}
    want = upfirdn2d_act(f=taps(device), **wide, **BEHIND_UP, backend="reference")
    torch.testing.assert_close(got.double(), want, rtol=2**-8 * 1.01, atol=1e-6)


def test_is_the_filter_and_scale_bias_act_behind_it(backend: str, device: str):
    tensors, f = inputs(torch.float64, device), taps(device)
    got = upfirdn2d_act(f=f, **tensors, **BEHIND_UP, backend=backend)
    u = upfirdn2d(tensors.pop("x"), f, padding=1, gain=4, backend="reference")
    torch.testing.assert_close(got, scale_bias_act(u, **tensors, act="lrelu", clamp=0.8, backend="reference"))


def test_runs_where_scale_bias_act_runs():
    for backend in backends.ORDER:
        x = torch.empty(1)
        assert (backends.refusal(OP, backend, x) is None) == (backends.refusal("scale_bias_act", backend, x) is None)
