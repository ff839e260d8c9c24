"""Pictures of any size through a generator that enlarges, in tiles without seams."""

import torch
from torch import Tensor, nn

# Surroundings of a tile on each side, in pixels of the source. A pixel of rrdb depends on 350 pixels around it. Pixels
# farther than 32 change it by less than a thousandth of a 255th. The weights had He's size (23 blocks of 32 feature
# maps, 2026-11).
_MAX_OVERLAP = 64


@torch.no_grad()
def enlarge(G: nn.Module, source: Tensor, *, tile: int = 256) -> Tensor:
    """img [1, C, scale * H, scale * W] of source [1, C, H, W], on the CPU

    It equals G(source). A tile of the source is computed together with its surroundings, and then cut out. The
    surroundings are as wide as a pixel depends on them (G.config.reach), but at most 64 pixels.
    """
    config, device = G.config, next(G.parameters()).device
    overlap, scale = min(config.reach, _MAX_OVERLAP), config.scale
    height, width = source.shape[2:]
    img = torch.empty(1, config.channels, scale * height, scale * width)
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            top, left = max(y - overlap, 0), max(x - overlap, 0)
            bottom, right = min(y + tile, height), min(x + tile, width)
            part = G(source[:, :, top : bottom + overlap, left : right + overlap].to(device))
            part = part[:, :, scale * (y - top) : scale * (bottom - top), scale * (x - left) : scale * (right - left)]
            img[:, :, scale * y : scale * bottom, scale * x : scale * right] = part.cpu()
    return img
