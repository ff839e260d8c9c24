"""EQ-T: how exactly the images of a generator move when its input moves."""

import math

import torch
from torch import Tensor, nn

from gan_engine.system.resolution import height_width

DYNAMIC_RANGE = 2  # of images in [-1, 1]
LARGEST_SHIFT = 1 / 8  # as a share of the side of an image


@torch.no_grad()
def translation_equivariance(
    G: nn.Module, num: int, *, seed: int, classes: list[int] | None = None, batch: int = 100
) -> float:
    """10 log10(2^2 / mean of (g(t(z0); w) - t(g(z0; w)))^2) in dB   # Karras et al. 2021, arXiv:2106.12423, section 2.2

    t moves by x and y, each uniform in [-1/8, 1/8] of its side and rounded to whole pixels. z0 is the input of G that
    has a place: G.synthesis(ws, translation=t) moves it. The mean is over w, t, channels, and the pixels that both
    images have. Equal images give inf.

    Args:
        G: a generator with latents w whose `synthesis` takes a translation.
        num: number of pairs of images, each with a w and a t of its own.
        seed: of the noise and of the translations.
        classes: the class of each pair.
        batch: pairs per pass.
    """
    device, random = next(G.parameters()).device, torch.Generator().manual_seed(seed)
    height, width = height_width(G.config.resolution)
    sides, total, count = torch.tensor([width, height]), 0.0, 0
    for i in range(0, num, batch):
        n = min(batch, num - i)
        z = torch.randn(n, G.config.z_dim, generator=random).to(device)
        c = None if classes is None else torch.eye(G.config.c_dim, device=device)[classes[i : i + n]]
        shifts = ((2 * torch.rand(n, 2, generator=random) - 1) * LARGEST_SHIFT * sides).round()
        ws = G.ws(z, c)
        still, moved = G.synthesis(ws), G.synthesis(ws, translation=shifts.to(ws) / sides.to(ws))
        for before, after, shift in zip(still, moved, shifts.int().tolist(), strict=True):
            difference = (_seen(after, *shift) - _seen(before, *(-x for x in shift))).double()
            total, count = total + float(difference.square().sum()), count + difference.numel()
    return 10 * math.log10(DYNAMIC_RANGE**2 * count / total) if total else math.inf


def _seen(img: Tensor, x: int, y: int) -> Tensor:
    """The pixels of img [C, H, W] that show what was inside of the image before it moved by x and y."""
    height, width = img.shape[1:]
    return img[:, max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)]
