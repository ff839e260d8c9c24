"""The promises of modulated_conv2d beyond the properties that every op has."""

import sys
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gan_engine import backends
from gan_engine.ops import modulated_conv2d
from gan_engine.ops.modulated_conv2d import demodulation
from gan_engine.ops.samples import OPS

OP = "modulated_conv2d"

SHAPES = {"x": (2, 3, 5, 5), "weight": (4, 3, 3, 3), "styles": (2, 3), "noise": (2, 1, 5, 5), "bias": (4,)}


def inputs(dtype: torch.dtype, device: str, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {k: torch.randn(s, generator=generator, dtype=torch.float64) for k, s in (SHAPES | shapes).items()}
    return {name: t.to(device, dtype).requires_grad_() for name, t in made.items()}


def by_definition(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
    """Image by image, with a weight made for it."""
    images = []
    for n in range(len(x)):
        w = weight * styles[n][None, :, None, None]
        w = w / (w.square().sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()
        images.append(F.conv2d(x[n : n + 1], w, padding=1))
    return F.leaky_relu(torch.cat(images) + noise + bias[:, None, None], 0.2) * 2**0.5


def test_equals_a_convolution_per_image(backend: str, device: str):
    tensors = inputs(torch.float64, device)
    got = modulated_conv2d(**tensors, act="lrelu", backend=backend)
    want = by_definition(**tensors)
    torch.testing.assert_close(got, want)
    dy = torch.randn_like(want)
    for a, b in zip(
        torch.autograd.grad(got, tensors.values(), dy), torch.autograd.grad(want, tensors.values(), dy), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_path_length_differentiates_through_styles(backend: str, device: str):
    """The penalty of Karras et al. 2020, appendix B: the gradient of <y, noise> by the styles, squared."""
    tensors = inputs(torch.float64, device)
    direction = torch.randn(2, 4, 5, 5, dtype=torch.float64, device=device)

    def penalty_gradients(y: Tensor) -> tuple:
        (g,) = torch.autograd.grad((y * direction).sum(), tensors["styles"], create_graph=True)
        return torch.autograd.grad(g.square().sum(1).sqrt().sum(), tensors.values(), allow_unused=True)

    got = penalty_gradients(modulated_conv2d(**tensors, act="lrelu", clamp=1.5, backend=backend))
    want = penalty_gradients(by_definition(**tensors).clamp(-1.5, 1.5))
    for name, a, b in zip(tensors, got, want, strict=True):
        if name in ("noise", "bias"):
            assert a is None or not a.any()
        else:
            torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


class Convolutions(TorchDispatchMode):
    """Counts the passes: forward convolutions, gradients by the input and by the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == "convolution":
            self.passes["forward"] += 1
        elif name == "convolution_backward":
            by_x, by_weight, _ = args[-1]
            self.passes["by x"] += by_x
            self.passes["by weight"] += by_weight
        return func(*args, **(kwargs or {}))


def test_no_convolution_runs_over_zeros(backend: str, device: str):
    """Three passes for the first order; path length adds the tangent's way forward, and what depends on it."""
    tensors = inputs(torch.float32, device)
    with Convolutions() as first:
        y = modulated_conv2d(**tensors, act="lrelu", backend=backend)
        torch.autograd.grad(y.square().sum(), tensors.values())
    assert first.passes == {"forward": 1, "by x": 1, "by weight": 1}
    with Convolutions() as second:
        y = modulated_conv2d(**tensors, act="lrelu", backend=backend)
        (g,) = torch.autograd.grad(y.sum(), tensors["x"], create_graph=True)
        torch.autograd.grad(g.square().sum(), [tensors["weight"], tensors["styles"]])
    assert sum(second.passes.values()) <= 6, second.passes


def test_large_styles_do_not_overflow_half_precision(backend: str, device: str):
    tensors = inputs(torch.float16, device)
    tensors["styles"] = (tensors["styles"].detach() * 3e4).requires_grad_()
    y = modulated_conv2d(**tensors, act="lrelu", backend=backend)
    want = by_definition(**{name: t.detach().double() for name, t in tensors.items()})
    torch.testing.assert_close(y.double(), want, rtol=1e-2, atol=1e-2)


def test_half_precision_takes_float32_parameters(backend: str, device: str):
    tensors = inputs(torch.float32, device)
    y = modulated_conv2d(**tensors | {"x": tensors["x"].bfloat16()}, act="lrelu", backend=backend)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), by_definition(**tensors).float(), rtol=5e-2, atol=5e-2)
    for name, g in zip(tensors, torch.autograd.grad(y.float().sum(), tensors.values()), strict=True):
        assert g.dtype == torch.float32, name


def test_the_grouped_form_of_the_benchmark_is_the_same_function():
    tensors = inputs(torch.float64, "cpu")
    grouped = OPS["modulated_conv2d"].variants["grouped"](**tensors, act="lrelu")
    torch.testing.assert_close(grouped, by_definition(**tensors))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"weight": torch.randn(4, 2, 3, 3)},
            r"weight \[O, I, kh, kw\], got x \[2, 3, 5, 5\] and weight \[4, 2, 3, 3\]",
        ),
        ({"styles": torch.randn(2, 4)}, r"styles must be \[N, I\] = \[2, 3\], got \[2, 4\]"),
        ({"bias": torch.randn(3)}, r"bias must be \[O\] = \[4\], got \[3\]"),
        ({"noise": None, "noise_strength": torch.ones(())}, "noise_strength needs noise"),
        ({"noise": torch.randn(2, 1, 4, 4)}, r"noise must be .* got \[2, 1, 4, 4\]"),
    ],
)
def test_bad_input_is_refused_with_want_and_got(wrong: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        modulated_conv2d(**{name: t.detach() for name, t in inputs(torch.float32, "cpu").items()} | wrong)


def test_autocast_leaves_the_demodulation_in_float32(device: str, backend: str):
    """The outputs have unit variance whatever the styles are, and a factor in bfloat16 would show."""
    tensors = inputs(torch.float32, device)
    want = demodulation(tensors["weight"].double(), tensors["styles"].double(), torch.float64)
    with torch.autocast(device, dtype=torch.bfloat16):
        got = demodulation(tensors["weight"], tensors["styles"], torch.float32)
        y = modulated_conv2d(**tensors, act="lrelu", backend=backend)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0)
    torch.testing.assert_close(y.float(), by_definition(**tensors), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("styled", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("weighted", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_demodulation_is_in_the_dtype_that_is_asked_for(dtype, weighted, styled, backend: str, device: str):
    torch.manual_seed(0)
    weight = (0.1 * torch.randn(5, 16, 3, 3, device=device)).to(weighted)
    styles = torch.randn(4, 16, device=device).to(styled)
    want = (weight.double()[None] * styles.double()[:, None, :, None, None]).square().sum([2, 3, 4]).rsqrt()
    with backends.use(backend):
        d = demodulation(weight, styles, dtype)
    assert d.dtype == dtype
    torch.testing.assert_close(d.double(), want, rtol=max(4 * torch.finfo(dtype).eps, 1e-6), atol=0)


@pytest.mark.parametrize(("asked", "chosen", "handed"), [(None, "triton", None), ("triton", "triton", "triton")])
def test_ops_inside_choose_for_themselves_on_a_gpu(asked, chosen, handed, monkeypatch):
    """Some of them have a kernel in CUDA C++, which comes before Triton."""
    got = {}

    def note(x, *arguments, backend, **options):
        got[backend] = got.get(backend, 0) + 1
        return x

    module = sys.modules["gan_engine.ops.modulated_conv2d"]
    monkeypatch.setattr(module.backends, "choose", lambda *arguments: chosen)
    monkeypatch.setattr(module, "scale_bias_act", note)
    monkeypatch.setattr(module, "upfirdn2d_act", note)
    x, weight, styles = torch.randn(1, 4, 4, 4), torch.randn(4, 4, 3, 3), torch.randn(1, 4)
    modulated_conv2d(x, weight, styles, up=2, f=torch.ones(4) / 4, backend=asked)
    assert got == {handed: 2}
