"""The promises of scale_bias_act beyond the properties that every op has."""

import pytest
import torch

from gan_engine.ops import eager, scale_bias_act
from tests.ops.undefined_gradients import assert_undefined_gradients_stay_undefined

OP = "scale_bias_act"


def refused(**wrong):
    arguments = {"x": torch.randn(2, 3, 4, 5), "scale": torch.randn(2, 3), "b": torch.randn(3)} | wrong
    return lambda: scale_bias_act(**arguments)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (refused(act="tanh"), ValueError, "act must be linear, relu or lrelu, got 'tanh'"),
        (refused(x=torch.randn(2, 3)), ValueError, r"x must be \[N, C, H, W\], got \[2, 3\]"),
        (refused(x=torch.ones(2, 3, 4, 5, dtype=torch.int32)), TypeError, "x must be float32, .* got torch.int32"),
        (refused(scale=torch.randn(3)), ValueError, r"scale must be \[N, C\] = \[2, 3\], got \[3\]"),
        (refused(b=torch.randn(4)), ValueError, r"b must be \[C\] = \[3\], got \[4\]"),
        (
            refused(noise=torch.randn(3, 1, 4, 5)),
            ValueError,
            r"noise must be \[N, 1, H, W\] = \[2, 1, 4, 5\] or \[1, 1, H, W\] = \[1, 1, 4, 5\], got \[3, 1, 4, 5\]",
        ),
        (refused(b=torch.randn(3).double()), TypeError, "b must be torch.float32 like x, .* got torch.float64"),
        (refused(clamp=-1.0), ValueError, "clamp must be at least 0, got -1"),
    ],
)
def test_bad_input_is_refused_with_want_and_got(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_undefined_gradients_stay_undefined(backend: str, device: str):
    if backend == "reference":
        pytest.skip("reference: PyTorch's own double backward makes these zeros")
    shapes = {"x": (2, 3, 4, 4), "scale": (2, 3), "b": (3,), "noise": (2, 1, 4, 4)}
    tensors = {name: torch.randn(shape, device=device).requires_grad_() for name, shape in shapes.items()}
    y = scale_bias_act(**tensors, act="lrelu", clamp=0.5, backend=backend)
    assert_undefined_gradients_stay_undefined(y, tensors)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_without_a_scale_two_bits_an_element_are_saved(layout: torch.memory_format, backend: str, device: str):
    if backend == "reference":
        pytest.skip("reference: PyTorch saves what it likes")
    x = torch.randn(2, 16, 8, 8, device=device).to(memory_format=layout).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        scale_bias_act(x, None, torch.zeros(16, device=device), act="lrelu", clamp=1.0, backend=backend)
    assert sum(t.numel() * t.element_size() for t in saved) == x.numel() * 2 // 8


def test_noise_of_one_image_serves_all(backend: str, device: str):
    x, noise = torch.randn(3, 2, 4, 4, device=device), torch.randn(1, 1, 4, 4, device=device).requires_grad_()
    one = scale_bias_act(x, noise=noise, backend=backend)
    every = scale_bias_act(x, noise=noise.expand(3, 1, 4, 4), backend=backend)
    torch.testing.assert_close(one, every)
    got, want = (torch.autograd.grad(y.square().sum(), noise)[0] for y in (one, every))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("left_out", ["nothing", "scale", "b", "noise"])
def test_third_order(left_out: str, layout: torch.memory_format, backend: str, device: str):
    shapes = {"x": (2, 3, 4, 5), "scale": (2, 3), "b": (3,), "noise": (1, 1, 4, 5)}
    tensors = {
        name: torch.randn(shape, dtype=torch.float64, device=device).requires_grad_()
        for name, shape in shapes.items()
        if name != left_out
    }
    tensors["x"] = tensors["x"].detach().to(memory_format=layout).requires_grad_()

    def third(function, **options) -> tuple[torch.Tensor, ...]:
        total = function(**tensors, act="lrelu", clamp=2.0, **options).cos().sum()
        for _ in range(2):
            gradients = torch.autograd.grad(total, list(tensors.values()), create_graph=True)
            total = sum((g + 0.1).cos().sum() for g in gradients)
        return torch.autograd.grad(total, list(tensors.values()))

    for got, want in zip(third(scale_bias_act, backend=backend), third(eager.scale_bias_act), strict=True):
        torch.testing.assert_close(got, want)
        assert want.abs().max() > 0


def test_second_order_of_each_result_alone(backend: str, device: str):
    """What the second order computes and reads depends on which gradients are undefined."""
    shapes = {"x": (2, 3, 4, 17), "scale": (2, 3), "b": (3,), "noise": (2, 1, 4, 17)}
    tensors = {
        name: torch.randn(shape, dtype=torch.float64, device=device).requires_grad_() for name, shape in shapes.items()
    }
    dy = torch.randn(shapes["x"], dtype=torch.float64, device=device).requires_grad_()
    inputs = [*tensors.values(), dy]

    def second(function, result: int, **options) -> list[torch.Tensor | None]:
        y = function(**tensors, act="lrelu", clamp=2.0, **options)
        first = torch.autograd.grad(y, list(tensors.values()), dy, create_graph=True)
        found = torch.autograd.grad(first[result].square().sum(), inputs, allow_unused=True)
        return [torch.zeros_like(t) if g is None else g for g, t in zip(found, inputs, strict=True)]

    for result in range(len(tensors)):
        got, want = second(scale_bias_act, result, backend=backend), second(eager.scale_bias_act, result)
        torch.testing.assert_close(got, want)
