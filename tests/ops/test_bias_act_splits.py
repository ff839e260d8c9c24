"""Tensors large and odd enough that kernels split them: over threads, blocks, tiles and slots of partial sums.

All numbers are small integers, so that float32 computes every sum exactly in any order, and results must be equal.
"""

import pytest
import torch

from gan_engine import backends
from gan_engine.ops import bias_act

LAST = torch.channels_last

SHAPES = [
    pytest.param((2, 3, 128, 128), None, id="rows"),
    pytest.param((3, 2, 97, 101), None, id="odd-rows"),
    pytest.param((1100, 9, 3, 3), None, id="short-odd-rows"),
    pytest.param((1100, 9, 4, 4), None, id="short-rows"),
    pytest.param((3, 64, 16, 24), LAST, id="columns"),
    pytest.param((9, 3, 61, 61), LAST, id="three-columns"),
    pytest.param((2, 515, 9, 7), LAST, id="many-odd-columns"),
    pytest.param((40001, 1), None, id="one-column"),
    pytest.param((9000, 7), None, id="matrix"),
    pytest.param((4099,), None, id="vector"),
]


def integers(shape: tuple[int, ...], device: str, seed: int) -> torch.Tensor:
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).float().to(device)


@pytest.mark.parametrize("start", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize(("shape", "layout"), SHAPES)
def test_split_work_is_exact(shape, layout, start, backend, device):
    if start and backend == "triton" and backends.INTERPRET:
        pytest.skip("the interpreter loads element by element, wherever they lie")
    dim = min(1, len(shape) - 1)
    b = integers(shape[dim : dim + 1], device, 0).requires_grad_()
    x, dy, d_dx = (integers(shape, device, seed) for seed in (1, 2, 3))
    if layout is not None:
        x, dy, d_dx = (t.to(memory_format=layout) for t in (x, dy, d_dx))
    # The same layout, one element into the memory it lies in: no vector load of it is aligned.
    memory = [torch.empty(t.numel() + start, device=device) for t in (x, dy, d_dx)]
    x, dy, d_dx = (
        m[start:].as_strided(t.shape, t.stride()).copy_(t).requires_grad_()
        for m, t in zip(memory, (x, dy, d_dx), strict=True)
    )
    d_db = integers(b.shape, device, 4)

    def orders(name: str) -> list[torch.Tensor]:
        y = bias_act(x, b, dim=dim, act="lrelu", alpha=0.5, gain=2.0, clamp=9.0, backend=name)
        dx, db = torch.autograd.grad(y, (x, b), dy, create_graph=True)
        alone = torch.autograd.grad(y, x, dy, retain_graph=True)[0]
        (d_dy,) = torch.autograd.grad((dx, db), dy, (d_dx, d_db))
        return [y, dx, db, alone, d_dy]

    for name, got, want in zip(
        ("y", "dx", "db", "dx alone", "d_dy"), orders(backend), orders("reference"), strict=True
    ):
        assert torch.equal(got, want), name
