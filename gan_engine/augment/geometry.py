"""Affine maps of images by homogeneous matrices: `blit` copies pixels, and `warp` samples between orthogonal filters.

A matrix G [N, 3, 3] moves the point (x, y, 1) to G (x, y, 1). x and y are pixels to the right and down from the centre
of the image. Outside of the image lies its mirror image, again and again; the border pixels are not repeated.
"""

from functools import lru_cache

import torch
from torch import Tensor

from gan_engine.ops import grid_sample, setup_filter, upfirdn2d, upsample2d
from gan_engine.system.devices import constant

# The wavelet "symlet 6", the least asymmetric Daubechies wavelet with six vanishing moments (digits of PyWavelets 1.9).
# Its even shifts are orthonormal, so upsampling by 2 and downsampling by 2 changes nothing.
SYM6 = (
    *(-0.007800708325034148, 0.0017677118642428036, 0.04472490177066578, -0.021060292512300564),
    *(-0.07263752278646252, 0.3379294217276218, 0.787641141030194, 0.49105594192674662),
    *(-0.048311742585632998, -0.11799011114819057, 0.0034907120842174702, 0.015404109327027373),
)
# The filter moves an image by this many upsampled pixels, because its centre of mass is not exactly its middle.
DELAY = sum(i * tap for i, tap in enumerate(SYM6)) / sum(SYM6) - (len(SYM6) - 1) / 2
MARGIN = len(SYM6) // 2  # pixels around an image that the filter reads


def scale(x: Tensor, y: Tensor) -> Tensor:
    """[N, 3, 3] for x, y [N]"""
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], -1))


def rotate(angle: Tensor) -> Tensor:
    """[N, 3, 3], from the x axis to the y axis, for angle [N] in radians"""
    cos, sin, o, i = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, -sin, o, sin, cos, o, o, o, i], -1).unflatten(-1, (3, 3))


def translate(x: Tensor, y: Tensor) -> Tensor:
    """[N, 3, 3] for x, y [N] in pixels"""
    o, i = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([i, o, x, o, i, y, o, o, i], -1).unflatten(-1, (3, 3))


def reflect(position: Tensor, size: int) -> Tensor:
    """`position` in pixels, mirrored at the centres of the first and the last of `size` pixels until it is inside"""
    period = max(2 * (size - 1), 1)
    position = position.remainder(period)
    return torch.minimum(position, period - position) if size > 1 else torch.zeros_like(position)


def blit(img: Tensor, G: Tensor) -> Tensor:
    """y[n, c] at G[n] (x, y, 1) = img[n, c] at (x, y, 1), for a G that moves pixels to pixels, so values are copied

    Args:
        img: [N, C, H, W].
        G: [N, 3, 3] of flips, half turns, quarter turns of square images and shifts by whole pixels.

    Gradients: every order in img.
    """
    h, w = img.shape[2:]
    x, y = _sources(G, torch.arange(w, device=img.device), torch.arange(h, device=img.device), (h, w))
    return pixels(img, reflect(x.round().long(), w), reflect(y.round().long(), h))


def pixels(img: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[N, C, H', W'], the pixels of img [N, C, H, W] in columns x and rows y, which are int64 [N, H', W']"""
    index = (y * img.shape[3] + x).flatten(1)[:, None].expand(-1, img.shape[1], -1)
    return img.flatten(2).gather(2, index).unflatten(2, x.shape[1:])


def warp(img: Tensor, G: Tensor) -> Tensor:
    """y[n, c] at G[n] (x, y, 1) = img[n, c] at (x, y, 1), bilinear at twice the resolution   # 2006.06676, appendix B.2

    The image is upsampled with `SYM6`, sampled, and downsampled with the same filter reversed, so the identity returns
    img. Positions beyond the image and its margin are reflected into the image. The margin thus has one size for all G.

    Args:
        img: [N, C, H, W], float32 or float64.
        G: [N, 3, 3], invertible.

    Gradients: every order in img.
    """
    h, w = img.shape[2:]
    options = {"dtype": img.dtype, "device": img.device}
    f = _filter(img.device)
    columns, rows = (reflect(torch.arange(-MARGIN, n + MARGIN, device=img.device), n) for n in (w, h))
    large = upsample2d(img.index_select(2, rows).index_select(3, columns), f)
    # Upsampling moves a pixel at `position` to 2 position + 1 / 2 + DELAY. Downsampling reads 5 more on each side.
    x, y = (torch.arange(-5, 2 * n + 5, **options) / 2 - (0.5 + DELAY) / 2 for n in (w, h))
    grid = []
    for position, n in zip(_sources(G, x, y, (h, w)), (w, h), strict=True):
        far = (position - (n - 1) / 2).abs() > (n - 1) / 2 + MARGIN / 2
        position = torch.where(far, reflect(position, n), position)
        grid.append((2 * (2 * (position + MARGIN) + 0.5 + DELAY) + 1) / (2 * n + 4 * MARGIN) - 1)
    return upfirdn2d(grid_sample(large, torch.stack(grid, -1)), f, down=2, flip_filter=True)


@lru_cache(maxsize=4)
def _filter(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return setup_filter(SYM6, device=device)


def _inverse(G: Tensor) -> Tensor:
    """The inverse of G [N, 3, 3], affine. On a GPU it is written out, because LAPACK's makes the host wait."""
    if G.device.type == "cpu":
        return torch.linalg.inv(G)
    a, b, c, d = G[:, :2, :2].flatten(1).unbind(1)
    A = torch.stack([d, -b, -c, a], 1).unflatten(1, (2, 2)) / (a * d - b * c)[:, None, None]
    return torch.cat([torch.cat([A, -A @ G[:, :2, 2:]], 2), G[:, 2:]], 1)


def _sources(G: Tensor, x: Tensor, y: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(columns, rows), each [N, H', W']: where G finds the values for columns x and rows y, in images of `size`"""
    inverse = _inverse(G.double())
    # The map of pixel coordinates, whose origin is not the centre of the image, is computed in float64.
    h, w = size
    centre = constant(((w - 1) / 2, (h - 1) / 2), torch.float64, G.device)
    shift = inverse[:, :2, 2] - (inverse[:, :2, :2] @ centre) + centre
    dtype = x.dtype if x.is_floating_point() else torch.float64
    a = torch.cat([inverse[:, :2, :2], shift[..., None]], -1).to(dtype)[..., None, None]
    return tuple(a[:, i, 0] * x.to(dtype) + a[:, i, 1] * y.to(dtype)[:, None] + a[:, i, 2] for i in (0, 1))
