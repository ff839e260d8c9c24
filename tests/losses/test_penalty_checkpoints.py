"""Penalties of networks that use torch.utils.checkpoint: what runs again is what ran first."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from gan_engine.losses import penalties
from tests.losses.networks import (
    STEPS,
    Lambda,
    around,
    conv,
    gradients,
    images,
)


class Checkpointed(nn.Module):
    """A block behind a checkpoint, or without where `off`."""

    def __init__(self, block: nn.Module, run: Callable) -> None:
        super().__init__()
        self.block, self.run, self.off = block, run, False

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) if self.off else self.run(self.block, x)


def regular(block: nn.Module, x: Tensor) -> Tensor:
    return checkpoint(block, x, use_reentrant=False)


def trusting(block: nn.Module, x: Tensor) -> Tensor:
    """The checkpoint does not compare the second run of the block with the first."""
    return checkpoint(block, x, use_reentrant=False, determinism_check="none")


def in_sequence(block: nn.Module, x: Tensor) -> Tensor:
    return checkpoint_sequential(block, 2, x, use_reentrant=False)


def nested(block: nn.Module, x: Tensor) -> Tensor:
    inner = lambda x: F.leaky_relu(regular(block, F.leaky_relu(x, 0.1)), 0.3)  # noqa: E731
    return checkpoint(inner, x, use_reentrant=False)


class WithAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        y = F.scaled_dot_product_attention(tokens, tokens, tokens, is_causal=True)
        return F.leaky_relu(tokens + self.attention(y, y, y, need_weights=False)[0], 0.2)


class HalfWithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.leaky_relu(F.dropout(self.conv(x), 0.3), 0.2).to(x.dtype)


BLOCKS = {
    "activation": lambda: nn.Sequential(nn.LeakyReLU(0.2), conv(), nn.Tanh()),
    "in place": lambda: nn.Sequential(conv(), nn.LeakyReLU(0.2, inplace=True), conv(), nn.ReLU(inplace=True)),
    "norm and pool": lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.LeakyReLU(0.2), nn.AvgPool2d(2), conv()),
    "attention": lambda: nn.Sequential(conv(), WithAttention()),
    "autocast and dropout": lambda: nn.Sequential(HalfWithDropout(), nn.Dropout(0.2), nn.LeakyReLU(0.2)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("run", [regular, trusting, in_sequence, nested], ids=lambda f: f.__name__)
@pytest.mark.parametrize("step", STEPS)
def test_a_checkpoint_changes_nothing(step: str, run: Callable, block: str, dtype: torch.dtype):
    """A leaky ReLU in float32 that saves other values of the same shape would give a wrong gradient silently."""
    part = Checkpointed(BLOCKS[block](), run)
    D, img = around(nn.LeakyReLU(0.2), part, nn.LeakyReLU(0.2)).to(dtype), images().to(dtype)
    found = []
    for part.off in (True, False):
        if part.off and run is nested:  # the same network without checkpoints
            part.off = False
            part.run = lambda block, x: F.leaky_relu(block(F.leaky_relu(x, 0.1)), 0.3)
        else:
            part.run = run
        found.append(gradients(D, lambda: STEPS[step](D, img)))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11 if dtype == torch.float64 else 1e-9)


def test_a_checkpoint_inside_a_generator_of_path_lengths():
    torch.manual_seed(0)
    block = Checkpointed(nn.Sequential(nn.LeakyReLU(0.2), conv(), WithAttention()), regular)
    to_images = Lambda(lambda x: x.transpose(1, 2).unflatten(2, (4, 4)))
    G = nn.Sequential(nn.Linear(6, 64), nn.Unflatten(1, (4, 4, 4)), block, to_images).double()
    ws = torch.randn(3, 6, dtype=torch.float64)
    found = []
    for level in (None, 1, "autograd"):
        for block.off in (True, False):
            mean = torch.zeros((), dtype=torch.float64)
            generator = torch.Generator().manual_seed(4)
            options = {"generator": generator, "level": level}
            step = lambda m=mean, o=options: penalties.path_length(G, ws, m, **o).mean().backward()  # noqa: E731
            found.append(gradients(G, step))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-12)
    assert found[0]["0.weight"].any()


@pytest.mark.parametrize("step", STEPS)
def test_a_reentrant_checkpoint_is_refused_by_what_it_says(step: str):
    D = around(Checkpointed(conv(), lambda block, x: checkpoint(block, x, use_reentrant=True)), nn.LeakyReLU(0.2))
    with pytest.raises(RuntimeError, match=r"use_reentrant=True, torch\.utils\.checkpoint is incompatible with"):
        STEPS[step](D, images())
