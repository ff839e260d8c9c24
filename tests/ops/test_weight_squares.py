"""The promises of weight_squares beyond the properties that every op has."""

import pytest
import torch

from gan_engine import backends
from gan_engine.ops import modulated_conv2d
from gan_engine.ops.weight_squares import weight_squares


@pytest.fixture(autouse=True)
def skip_refused(backend: str, device: str) -> None:
    reason = backends.refusal("weight_squares", backend, torch.empty(0, device=device))
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("kernel", [(1, 1), (1, 2), (3, 3), (4, 4), (3, 7), (8, 8), (5, 13), (9, 9)])
@pytest.mark.parametrize("channels", [(1, 1), (5, 3), (2, 15), (3, 16), (7, 33), (1, 1040), (61, 64)])
def test_all_sizes_of_blocks_and_tails(channels, kernel, layout, dtype: torch.dtype, backend: str, device: str):
    torch.manual_seed(0)
    x = torch.randn(*channels, *kernel, device=device).to(dtype, memory_format=layout).requires_grad_()
    dq = torch.randn(channels, device=device, dtype=torch.float64)
    q = weight_squares(x, backend=backend)
    want = x.detach().double().square().sum([2, 3])
    assert q.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    eps = torch.finfo(q.dtype).eps
    torch.testing.assert_close(q.double(), want, rtol=kernel[0] * kernel[1] * eps, atol=0)
    dx = torch.autograd.grad(q, x, dq.to(q.dtype))[0]
    assert dx.dtype == dtype and dx.is_contiguous(memory_format=layout)
    want = 2 * x.detach().double() * dq.to(q.dtype).double()[:, :, None, None]
    torch.testing.assert_close(dx.double(), want, rtol=torch.finfo(dtype).eps, atol=0)


def test_the_third_order_is_that_of_the_definition(backend: str, device: str):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 3, dtype=torch.float64, device=device).requires_grad_()
    found = {}
    for name in (backend, "reference"):
        value = weight_squares(x, backend=name).sin().sum()
        for _ in range(3):
            found[name] = torch.autograd.grad(value, x, create_graph=True)[0]
            value = found[name].sin().sum()
    torch.testing.assert_close(found[backend], found["reference"])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_demodulation_of_a_large_weight_runs_here(layout, backend: str, device: str):
    if backend not in backends.KERNELS:
        pytest.skip("is the definition")
    torch.manual_seed(0)
    shapes = {"x": (2, 96, 4, 4), "weight": (90, 96, 3, 3), "styles": (2, 96)}
    tensors = {name: torch.randn(shape, device=device).requires_grad_() for name, shape in shapes.items()}
    tensors["weight"].data = tensors["weight"].data.to(memory_format=layout)
    with backends.watched() as choices:
        y = modulated_conv2d(**tensors)
    assert [choice.backend for choice in choices if choice.op == "weight_squares"] == [backend]
    found = {}
    for name, value in (("ours", y), ("reference", modulated_conv2d(**tensors, backend="reference"))):
        first = torch.autograd.grad(value.square().sum(), list(tensors.values()), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), list(tensors.values()))
        found[name] = (value, *first, *second)
    for ours, reference in zip(found["ours"], found["reference"], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5 * reference.abs().max().item())
