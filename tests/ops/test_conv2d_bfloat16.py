"""Convolutions of bfloat16 images are computed in float32 on CPUs where that is faster, in all orders of gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine import backends
from gan_engine.layers import Conv2d
from gan_engine.ops import convolution
from gan_engine.ops.convolution import forms, maps
from gan_engine.ops.convolution.autograd import conv2d
from gan_engine.system import bfloat16, native

pytestmark = pytest.mark.skipif(native.WHY_NO_CPU is not None, reason=str(native.WHY_NO_CPU))
# (n, i, o, side, kernel, options): minimal filtering, PyTorch's kernels, and a stride
CALLS = {
    "3x3": (2, 64, 64, 16, 3, {"padding": 1}),
    "1x1": (4, 64, 48, 16, 1, {}),
    "4x4-stride2": (2, 64, 64, 16, 4, {"stride": 2, "padding": 1}),
}


@pytest.fixture(params=[3.5, 0.2], ids=["slow bfloat16", "fast bfloat16"])
def time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(maps, "BFLOAT16_TIME", request.param)
    return request.param


def made(name: str) -> tuple[list[Tensor], dict]:
    n, i, o, side, k, options = CALLS[name]
    torch.manual_seed(0)
    tensors = [torch.randn(n, i, side, side), torch.randn(o, i, k, k) / (k * i**0.5), torch.randn(o)]
    tensors[0] = tensors[0].to(memory_format=torch.channels_last)
    return [t.bfloat16().requires_grad_() for t in tensors], options


def orders(f, tensors: list[Tensor], options: dict) -> list[Tensor]:
    """y, the gradients of |y|^2 / 2, and the gradients of the square of the gradient by the image"""
    y = f(*tensors, **options)
    first = torch.autograd.grad(y, tensors, y.detach(), create_graph=True)
    second = torch.autograd.grad(first[0], tensors[1], first[0].detach())
    return [y, *first, *second]


@pytest.mark.parametrize("name", CALLS)
def test_every_order_is_at_least_as_exact_as_pytorchs(name: str, time: float):
    tensors, options = made(name)
    exact = orders(F.conv2d, [t.detach().double().requires_grad_() for t in tensors], options)
    found, by_pytorch = (orders(f, tensors, options) for f in (conv2d, F.conv2d))
    assert [t.stride() for t in found[:2]] == [t.stride() for t in by_pytorch[:2]]
    for got, theirs, want in zip(found, by_pytorch, exact, strict=True):
        assert got.dtype == torch.bfloat16
        error, allowed = ((t.double() - want).norm() / want.norm() for t in (got, theirs))
        assert error < 1.1 * allowed + 1e-4


@pytest.mark.parametrize("name", CALLS)
def test_the_faster_dtype_is_chosen_and_bfloat16_is_saved(name: str, time: float):
    (x, w, b), options = made(name)
    saved: list[Tensor] = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t),
        backends.watched() as choices,
    ):
        convolution.conv2d(x, w, b, **options)
    assert {t.dtype for t in saved} == {torch.bfloat16}
    assert [choice.backend for choice in choices] == ["cpu" if time > 1 else "pytorch"]
    assert time > 1 or "no faster in float32" in choices[0].reasons["cpu"]


def test_autocast_is_heeded(time: float):
    x, layer = torch.randn(2, 64, 16, 16), Conv2d(64, 64, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16), backends.watched() as choices:
        got = layer(x)
        want = F.conv2d(x, layer.weight, layer.bias, padding=1)
    assert got.dtype == torch.bfloat16 and choices[0].backend == ("cpu" if time > 1 else "pytorch")
    assert torch.equal(got, want) or time > 1
    assert (got - want).float().norm() < 6e-3 * want.float().norm()
    (dw,) = torch.autograd.grad(got.float().square().sum(), layer.weight)
    (want,) = torch.autograd.grad(want.float().square().sum(), layer.weight)
    assert dw.dtype == torch.float32 and (dw - want).norm() < 1e-2 * want.norm()


def test_autocast_does_not_round_the_float32_copies(monkeypatch):
    monkeypatch.setattr(maps, "BFLOAT16_TIME", 3.5)
    (x, w, b), options = made("1x1")
    with torch.autocast("cpu", torch.bfloat16):
        got = convolution.conv2d(x, w, b, **options)
    assert torch.equal(got, F.conv2d(x.float(), w.float(), b.float(), **options).bfloat16())


def test_a_bias_of_another_dtype_is_refused_as_by_pytorch(time: float):
    (x, w, b), options = made("3x3")
    with pytest.raises(RuntimeError, match="bias"):
        convolution.conv2d(x, w, b.float(), **options)


@pytest.mark.parametrize("rounds", [False, True])
def test_the_gradient_by_the_weight_is_made_of_float32_copies_where_pytorch_rounds_its_sums(monkeypatch, rounds):
    monkeypatch.setattr(maps, "BFLOAT16_TIME", 0.2)
    monkeypatch.setattr(maps, "ROUNDS_SUMS", rounds)
    (x, w, b), options = made("1x1")
    with backends.watched() as choices:
        conv2d(x, w, b, **options).sum().backward()
    chosen = {choice.op: choice.backend for choice in choices}
    assert chosen["conv2d_weight_gradient"] == ("cpu" if rounds else "pytorch")
    assert chosen["conv2d"] == chosen["conv2d_image_gradient"] == "pytorch"


@pytest.mark.skipif(forms.WHY_NOT is not None, reason=f"no minimal filtering here: {forms.WHY_NOT}")
def test_half_of_the_time_is_beaten_by_minimal_filtering_of_many_channels(monkeypatch):
    monkeypatch.setattr(maps, "BFLOAT16_TIME", 0.5)
    for channels, backend in ((256, "cpu"), (32, "pytorch")):
        x, w = torch.zeros(8, channels, 32, 32).bfloat16(), torch.zeros(channels, channels, 3, 3).bfloat16()
        x = x.to(memory_format=torch.channels_last)
        with backends.watched() as choices:
            convolution.conv2d(x, w, padding=1)
        assert choices[0].backend == backend


@pytest.mark.parametrize(("capability", "backend"), [("AVX2", "cpu"), ("AVX512", "pytorch")])
def test_what_a_conversion_costs_depends_on_the_instruction_set(capability, backend, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(maps, "CONVERSION", bfloat16.conversion())
    monkeypatch.setattr(maps, "BFLOAT16_TIME", 3.5)
    with backends.watched() as choices:
        convolution.conv2d(torch.zeros(8, 16, 32, 32).bfloat16(), torch.zeros(16, 16, 1, 1).bfloat16())
    assert choices[0].backend == backend
