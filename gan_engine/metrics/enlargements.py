"""Enlarged pictures, compared with their originals: PSNR in dB, SSIM and, if it is installed, perceptual distance."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.metrics.perceptual import PerceptualDistance
from gan_engine.metrics.similarity import psnr, ssim


def compare(
    img: Tensor, source: Tensor, original: Tensor, *, scale: int, perceptual: PerceptualDistance | None
) -> list[list[float]]:
    """The numbers of an enlarged picture, and the same numbers of a bicubic enlargement.

    Args:
        img: the picture [1, C, scale * H, scale * W] in [-1, 1] that was made of `source`.
        source: [1, C, H, W].
        original: of the size of img.
        scale: ratio of the sides of img and source. PSNR and SSIM ignore as many pixels at each edge.
        perceptual: None leaves the perceptual distance out.

    Raises ValueError for pictures that are too small for SSIM.
    """
    bicubic = F.interpolate(source, scale_factor=scale, mode="bicubic", align_corners=False)
    return [_numbers(picture, original, scale, perceptual) for picture in (img, bicubic)]


def _numbers(img: Tensor, original: Tensor, scale: int, perceptual: PerceptualDistance | None) -> list[float]:
    found = [psnr(img, original, border=scale), ssim(img, original, border=scale)]
    if perceptual is not None:
        found.append(in_tiles(perceptual, img, original))
    return [float(value) for value in found]


@torch.no_grad()
def in_tiles(perceptual: PerceptualDistance, img: Tensor, original: Tensor, *, side: int = 512) -> float:
    """The mean distance over tiles, weighted by their pixels, so that memory does not grow with the picture."""
    device, total = perceptual.stem.weight.device, 0.0
    for tiles in zip(img.split(side, 2), original.split(side, 2), strict=True):
        for a, b in zip(*(tile.split(side, 3) for tile in tiles), strict=True):
            total += float(perceptual(a.to(device), b.to(device))) * a[0, 0].numel()
    return total / img[0, 0].numel()
