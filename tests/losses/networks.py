"""Small networks in float64, and their step as its formula is written, by autograd."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gan_engine.losses import penalties


def softplus(logits: Tensor) -> Tensor:
    return F.softplus(-logits)


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def around(*layers: nn.Module | Callable) -> nn.Module:
    """A float64 discriminator of images [N, 3, 8, 8] with `layers`, which see [N, 4, 8, 8], in its middle."""
    torch.manual_seed(0)
    middle = [layer if isinstance(layer, nn.Module) else Lambda(layer) for layer in layers]
    D = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *middle, nn.Flatten(), nn.LazyLinear(1)).double()
    D(images())
    return D


def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(D: nn.Module, step: Callable[[], object]) -> dict[str, Tensor]:
    D.zero_grad(set_to_none=True)
    torch.manual_seed(2)
    step()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in D.named_parameters()}


def written_out(
    D: Callable, img: Tensor, loss: Callable | None, *, gamma: Any = 1.0, c: Any = None, scale: Any = 1.0
) -> None:
    """mean(loss(logits)) + mean(gamma / 2 * |dD/dimg|^2) by autograd, attention on the math kernel, into .grad"""
    x = img.detach().clone().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        logits = (D(x) if c is None else D(x, c)).flatten()
        (g,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        penalty = (gamma / 2 * g.square().flatten(1).sum(1)).mean()
        ((penalty if loss is None else loss(logits).mean() + penalty) * scale).backward()


def assert_level_1_is_autograd(D: nn.Module) -> None:
    """Levels 1 and "autograd", and `r1`, against autograd on the functions of PyTorch."""
    state = {name: values.clone() for name, values in D.state_dict().items()}

    def compare(step: Callable[[], object], loss: Callable | None) -> None:
        got = gradients(D, step)
        D.load_state_dict(state)
        want = gradients(D, lambda: written_out(D, images(), loss, gamma=3.0))
        D.load_state_dict(state)
        assert any(g.any() for g in want.values())
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)

    compare(lambda: (1.5 * penalties.r1(D, images())).mean().backward(), None)
    for level in (1, "autograd"):
        options = {"gamma": 3.0, "level": level}
        compare(lambda o=options: penalties.backward_with_penalty(D, images(), softplus, **o), softplus)


def conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, padding=1)


STEPS = {
    "r1": lambda D, img: penalties.r1(D, img).backward(img.new_ones(len(img))),
    "wgan_gp": lambda D, img: penalties.wgan_gp(D, img, img.flip(0)).backward(img.new_ones(len(img))),
    "dragan": lambda D, img: penalties.dragan(D, img).backward(img.new_ones(len(img))),
    "level 1": lambda D, img: penalties.backward_with_penalty(D, img, softplus, gamma=3.0, level=1),
    "autograd": lambda D, img: penalties.backward_with_penalty(D, img, softplus, gamma=3.0, level="autograd"),
    "None": lambda D, img: penalties.backward_with_penalty(D, img, softplus, gamma=3.0),
}


def _differentiates_grid_sample_twice() -> bool:
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    y = F.grid_sample(x, torch.zeros(1, 1, 1, 2), align_corners=False)
    dy = torch.ones_like(y).requires_grad_()
    try:
        (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
        torch.autograd.grad(dx.sum(), dy)
    except RuntimeError:
        return False
    return True


GRID_SAMPLE_TWICE = pytest.mark.skipif(
    not _differentiates_grid_sample_twice(),
    reason=f"autograd of PyTorch {torch.__version__} has no second gradient of grid_sample to compare with",
)
