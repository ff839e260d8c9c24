"""Images large and odd enough that kernels split them: over threads, blocks, bands and slots of partial sums.

All numbers are small integers, so that float32 computes every sum exactly in any order, and results must be equal.
"""

import pytest
import torch

from gan_engine import backends
from gan_engine.ops import scale_bias_act
from tests.ops.test_bias_act_splits import integers

OP = "scale_bias_act"

SHAPES = [(2, 40, 24, 24), (3, 520, 4, 6), (1, 3, 61, 61)]


@pytest.mark.parametrize("start", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_split_work_is_exact(shape, layout, start, backend, device):
    if backend == "triton" and backends.INTERPRET and shape != SHAPES[0]:
        pytest.skip("the interpreter is slow")
    if backend == "reference" or (start and backend != "cuda"):
        pytest.skip("reference: the yardstick; only cuda asks for alignment")
    n, c, h, w = shape
    images = [integers(shape, device, seed).to(memory_format=layout) for seed in (1, 2, 3)]
    # The same layout, one element into the memory it lies in: no vector load of it is aligned.
    x, dy, d_dx = (
        torch.empty(t.numel() + start, device=device)[start:].as_strided(shape, t.stride()).copy_(t).requires_grad_()
        for t in images
    )
    scale, b, noise = others = [integers(s, device, 4).requires_grad_() for s in ((n, c), (c,), (n, 1, h, w))]
    by_others = [integers(t.shape, device, 5) for t in others]

    def orders(name: str) -> list[torch.Tensor]:
        y = scale_bias_act(x, scale, b, noise=noise, act="lrelu", alpha=0.5, gain=2.0, clamp=99.0, backend=name)
        first = torch.autograd.grad(y, (x, *others), dy, create_graph=True)
        return [y, *first, *torch.autograd.grad(first, (dy, x, scale), (d_dx, *by_others))]

    names = ("y", "dx", "d_scale", "db", "d_noise", "d_dy", "d_x", "second d_scale")
    for name, got, want in zip(names, orders(backend), orders("reference"), strict=True):
        assert torch.equal(got, want), name
