"""The promises of pixel_norm beyond the properties that every op has."""

import math

import pytest
import torch

from gan_engine import backends
from gan_engine.ops import pixel_norm


@pytest.fixture(autouse=True)
def skip_refused(backend: str, device: str) -> None:
    reason = backends.refusal("pixel_norm", backend, torch.empty(0, device=device))
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 64, 600])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (9, 33), (20, 41)])
def test_all_sizes_of_tiles_and_tails(channels: int, size: tuple[int, int], layout, backend: str, device: str):
    others = size in ((3, 5), (8, 8)) or channels in (15, 16, 64) or (channels, size) == (600, (20, 41))
    if backend == "triton" and backends.INTERPRET and others:
        pytest.skip("the other sizes reach all tails, and the interpreter is slow")
    torch.manual_seed(0)
    x = torch.randn(2, channels, *size, device=device).to(memory_format=layout).requires_grad_()
    y = pixel_norm(x, backend=backend)
    want = x.double() / (x.double().square().mean(1, keepdim=True) + 1e-8).sqrt()
    torch.testing.assert_close(y, want.float())
    dy = torch.randn_like(y)
    dx, dwant = (torch.autograd.grad(out, x, dy.to(out.dtype))[0] for out in (y, want))
    scale = dy.abs().max() / x.detach().square().mean(1).sqrt().min()  # terms of this size cancel where C is small
    torch.testing.assert_close(dx, dwant, rtol=1e-5, atol=1e-6 * scale.item())


def test_zeros_stay_zeros_with_a_gradient(backend: str, device: str):
    x = torch.zeros(1, 4, 2, 2, device=device).requires_grad_()
    y = pixel_norm(x, backend=backend)
    dx = torch.autograd.grad(y.sum(), x)[0]
    assert y.abs().max() == 0
    torch.testing.assert_close(dx, torch.full_like(x, 1e4))


def test_the_third_order_is_that_of_the_definition(backend: str, device: str):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, dtype=torch.float64, device=device).requires_grad_()
    found = {}
    for name in (backend, "reference"):
        value = pixel_norm(x, eps=0.1, backend=name).sin().sum()
        for _ in range(3):
            found[name] = torch.autograd.grad(value, x, create_graph=True)[0]
            value = found[name].sin().sum()
    torch.testing.assert_close(found[backend], found["reference"])


@pytest.mark.parametrize(
    ("x", "options", "error", "sentence"),
    [
        (torch.ones(2, 3), {"dim": 2}, ValueError, r"dim must be in \[-2, 1\] for x \[2, 3\], got 2"),
        (torch.ones(2, 0), {}, ValueError, r"must not be empty along dim 1, got \[2, 0\]"),
        (torch.ones(2, 3), {"eps": -1.0}, ValueError, "eps must be at least 0, got -1"),
        (torch.ones(2, 3), {"eps": math.nan}, ValueError, "eps must be at least 0, got nan"),
        (torch.ones(2, 3).int(), {}, TypeError, "x must be float32, .* got torch.int32"),
    ],
)
def test_bad_input_is_refused_with_want_and_got(x, options, error, sentence, backend):
    with pytest.raises(error, match=sentence):
        pixel_norm(x, backend=backend, **options)
