"""What upsample_conv2d and downsample_conv2d promise beyond the properties that every op has."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from gan_engine.ops import downsample_conv2d, upsample_conv2d


@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_equals_resampling_beside_the_convolution(k: int, backend: str, device: str):
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64, device=device)
    weight = torch.randn(4, 3, k, k, dtype=torch.float64, device=device)
    up = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=k // 2)
    torch.testing.assert_close(upsample_conv2d(x, weight, backend=backend), up)
    down = F.avg_pool2d(F.conv2d(x, weight, padding=k // 2), 2)
    torch.testing.assert_close(downsample_conv2d(x, weight, backend=backend), down)


@pytest.mark.parametrize("op", [upsample_conv2d, downsample_conv2d])
def test_saves_multiplications_in_every_pass(op, backend: str, device: str):
    if backend == "reference":
        pytest.skip("reference: the definition saves nothing")
    x = torch.randn(2, 8, 8, 8, device=device).requires_grad_()
    weight = torch.randn(8, 8, 3, 3, device=device).requires_grad_()

    def flops(backend: str) -> int:
        with FlopCounterMode(display=False) as counter:
            y = op(x, weight, backend=backend)
            torch.autograd.grad(y.sum(), (x, weight))
        counts = counter.get_flop_counts()["Global"]
        return sum(n for name, n in counts.items() if "convolution" in str(name))

    assert flops(backend) * 2.25 == flops("reference")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: upsample_conv2d(torch.randn(1, 2, 4, 4), torch.randn(3, 2, 2, 2)), r"k odd, got \[2, 2\]"),
        (lambda: upsample_conv2d(torch.randn(1, 2, 4, 4), torch.randn(3, 4, 3, 3)), r"got x \[1, 2, 4, 4\] and weight"),
        (lambda: downsample_conv2d(torch.randn(1, 2, 5, 4), torch.randn(3, 2, 3, 3)), r"must be even, got \[5, 4\]"),
    ],
)
def test_bad_input_is_refused_with_want_and_got(call, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        call()
