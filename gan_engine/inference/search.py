"""Search the w whose picture is nearest to a given picture."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.data.decode import fit
from gan_engine.metrics.perceptual import PerceptualDistance
from gan_engine.pictures import files
from gan_engine.system.resolution import height_width

Space = Literal["w", "w+"]  # one w for all layers, or one for each


def read(path: Path, G: nn.Module, bits: int = 8) -> Tensor:
    """The picture at `path`, img [1, C, H, W] in the size and on the device of G, with 8 or 16 bits. Raises ValueError.

    A warning says what the picture has that was not read, or was changed.
    """
    resolution, remarks = G.config.resolution, []
    picture = files.read(path, G.config.channels, resolution=resolution, bits=bits, remarks=remarks)
    files.warn_of(path, remarks)
    return files.to_tensor(fit(picture, resolution)).to(next(G.parameters()).device)


def distance(G: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """The function to minimise: perceptual distance + mean square difference [N] of images [N, C, H, W]"""
    perceptual = PerceptualDistance().to(next(G.parameters()).device)
    small = -(-32 // min(height_width(G.config.resolution)))  # the classifier needs at least 32 pixels

    def between(x: Tensor, y: Tensor) -> Tensor:
        x, y = (F.interpolate(img, scale_factor=small) if small > 1 else img for img in (x, y))
        return perceptual(x, y) + (x - y).square().mean((1, 2, 3))

    return between


def project(
    G: nn.Module,
    img: Tensor,
    c: Tensor | None,
    distance: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    space: Space = "w",
    seed: int = 0,
    lr: float = 0.1,
) -> Iterator[tuple[Tensor, float]]:
    """w [1, 1 or num_ws, w_dim] after each of `steps`, and distance(G(w), img) before it: Adam on w from its mean

    The method is appendix D of Karras et al. 2020, arXiv:1912.04958, without the noise maps. Noise is added to w in the
    first three quarters, and dies out. The learning rate rises and falls. Every layer has its own w in the space "w+"
    (Abdal et al. 2019, arXiv:1904.03189): pictures come nearer but mix worse. img [1, C, H, W], c [1, c_dim].
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        z = torch.randn(1000, G.config.z_dim, generator=generator).to(img.device)
        many = G.mapping(z, None if c is None else c.expand(len(z), -1))
        spread = (many - many.mean(0)).square().sum(1).mean().sqrt() / math.sqrt(many.shape[1])
    w = G.mapping.mean(c).detach()[:, None].repeat(1, G.config.num_ws if space == "w+" else 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([w], betas=(0.9, 0.999))
    for step in range(steps):
        t = step / steps
        noise = torch.randn(w.shape, generator=generator).to(w) * spread * 0.05 * max(0, 1 - t / 0.75) ** 2
        fall = min(1, (1 - t) / 0.25)
        optimizer.param_groups[0]["lr"] = lr * min(1, t / 0.05) * (0.5 - 0.5 * math.cos(math.pi * fall))
        drawn = G.synthesis((w + noise).expand(-1, G.config.num_ws, -1))
        off = distance(drawn, img).sum()
        optimizer.zero_grad()
        off.backward()
        optimizer.step()
        yield w.detach(), float(off.detach())
