"""Parts that the tests of level 2 share: images, a discriminator, a step, and the comparison of gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.losses.penalties import backward_with_penalty
from tests.losses.networks import softplus


def images_fixture(n: int) -> Any:
    """The fixture `img`: n images in float64. It also sets the seed."""

    @pytest.fixture(name="img")
    def images() -> Tensor:
        torch.manual_seed(1)
        return torch.randn(n, 3, 8, 8, dtype=torch.float64)

    return images


class Net(nn.Module):
    """Piecewise linear, or not where it is `curved`."""

    curved = False

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6 * 64, 1)
        self.double()

    def forward(self, x: Tensor, c: Any = None) -> Tensor:
        h = F.leaky_relu(self.conv(x), 0.2)
        return self.last((h.tanh() if self.curved else h).flatten(1))


def small() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(6 * 64, 1), nn.Flatten(0)
    return nn.Sequential(*layers).double()


def step(D: Callable, net: nn.Module, img: Tensor, level: Any, **options: Any) -> list[Tensor]:
    """The logits, the penalty, and the gradients of the parameters of `net`, which D runs."""
    net.zero_grad(set_to_none=True)
    found = backward_with_penalty(D, img, softplus, gamma=1.0, level=level, **options)
    return [*found, *(torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters())]


def taken(leaves: list[Tensor]) -> list[Tensor | None]:
    """The gradients of the leaves, which have none afterwards."""
    found = [None if leaf.grad is None else leaf.grad.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return found


def assert_equal(got: list[Tensor | None], want: list[Tensor | None]) -> None:
    """A missing gradient equals a gradient of zeros, which autograd makes in some places."""
    for g, w in zip(got, want, strict=True):
        if g is None or w is None:
            assert all(x is None or not x.any() for x in (g, w))
        else:
            torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-13)
