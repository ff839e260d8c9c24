"""Code that torch.compile makes for all sizes of images: our ops before and behind a convolution of PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.ops import avg_pool2d, bias_act, filter2d, setup_filter, upsample2d

# PyTorch 2.11 does not tell the layout of a convolution's result, if its size is unknown while it compiles.
KNOWS_LAYOUTS = torch.torch_version.TorchVersion(torch.__version__) >= "2.12"
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def resampled(x: Tensor, f: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Sizes that a filter makes, which the compiler puts in order as it lays out the convolution behind."""
    return filter2d(F.conv2d(upsample2d(x, f), w, padding=1), f)


def activated(x: Tensor, f: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The tensor that the activation saves, which the compiler lays out anew for the convolution behind."""
    return avg_pool2d(bias_act(F.conv2d(bias_act(x, b, act="lrelu", clamp=1), w, padding=1), b, act="tanh"), 2)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("function", [resampled, activated], ids=lambda f: f.__name__)
def test_compiled_for_all_sizes_it_is_what_it_is_in_eager_mode(function, layout: torch.memory_format):
    torch.manual_seed(0)
    f, w, b = setup_filter([1, 3, 3, 1]), torch.randn(8, 8, 3, 3) / 8, torch.randn(8)
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True)
    for size in ((2, 8, 12, 10), (3, 8, 16, 8)):
        x = torch.randn(size).to(memory_format=layout).requires_grad_()
        got, want = compiled(x, f, w, b), function(x, f, w, b)
        if KNOWS_LAYOUTS or function is activated:
            assert got.stride() == want.stride()
        else:
            assert got.is_contiguous()
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (got, want)]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)
