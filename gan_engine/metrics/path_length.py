"""Perceptual path length: how much images change along short steps in the latents w of a generator."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

STEP = 1e-4
_TAILS = 0.01  # the share of the shortest, and of the longest steps that is left out


@torch.no_grad()
def path_length(
    G: nn.Module,
    distance: Callable[[Tensor, Tensor], Tensor],
    num: int,
    *,
    seed: int,
    classes: list[int] | None = None,
    batch: int = 100,
) -> float:
    """mean of d(G(w), G(lerp(w, w', e))) / e^2 with e = 1e-4   # Karras et al. 2019, arXiv:1812.04948, section 4.1

    The steps begin at w, the end of the path from w to w'. The mean leaves out the 1 % of steps that are shortest and
    longest, as its authors do.

    Args:
        G: a generator with latents w: `ws` and `synthesis`.
        distance: (x, y) -> [N], the squared distance of images in [-1, 1].
        num: number of steps, each between two new latents.
        seed: of the noise.
        classes: the class of both ends of each step.
        batch: images per pass.
    """
    steps = _steps(G, num, seed, classes, max(1, batch // 2))
    lengths = torch.cat([distance(*G.synthesis(ends).float().chunk(2)).double().cpu() for ends in steps]) / STEP**2
    return _without_tails(lengths)


def _steps(G: nn.Module, num: int, seed: int, classes: list[int] | None, batch: int) -> Iterator[Tensor]:
    """Batches of ws: the first ends of steps, then the other ends."""
    device, generator = next(G.parameters()).device, torch.Generator().manual_seed(seed)
    for i in range(0, num, batch):
        n = min(batch, num - i)
        z = torch.randn(2 * n, G.config.z_dim, generator=generator).to(device)
        c = None if classes is None else torch.eye(G.config.c_dim, device=device)[classes[i : i + n]].repeat(2, 1)
        first, other = G.ws(z, c).chunk(2)
        yield torch.cat([first, first.lerp(other, STEP)])


def _without_tails(lengths: Tensor) -> float:
    low, high = (lengths.quantile(q, interpolation="lower") for q in (_TAILS, 1 - _TAILS))
    return float(lengths[(lengths >= low) & (lengths <= high)].mean())
