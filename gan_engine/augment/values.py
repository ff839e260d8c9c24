"""Transforms of the values of images: colours, frequencies, noise, and rectangles of zeros."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gan_engine.augment.geometry import reflect

# The wavelet "symlet 2", or Daubechies 2: (1 + sqrt 3, 3 + sqrt 3, 3 - sqrt 3, 1 - sqrt 3) / (4 sqrt 2).
SYM2 = tuple((a + b * 3**0.5) / 32**0.5 for a, b in ((1, 1), (3, 1), (3, -1), (1, -1)))


def recolor(img: Tensor, C: Tensor) -> Tensor:
    """y[n, :, h, w] = C[n] (img[n, :, h, w], 1) for img [N, 3, H, W], C [N, 4, 4]; see `Ada` for C = 1, 4"""
    if img.shape[1] == 4:
        return torch.cat([recolor(img[:, :3], C), img[:, 3:]], 1)
    A, b = C[:, :3, :3], C[:, :3, 3:]
    if img.shape[1] == 1:
        A, b = A.sum(2, keepdim=True).mean(1, keepdim=True), b.mean(1, keepdim=True)
    A, b = (t.to(img.dtype)[..., None] for t in (A, b))  # [N, C, C, 1], [N, C, 1, 1]
    return sum((A[:, :, k, :, None] * img[:, k : k + 1] for k in range(img.shape[1])), b)


def equalize(img: Tensor, g: Tensor) -> Tensor:
    """y[n, c] = M[n] img[n, c] M'[n]^T, M[n] = sum over i of g[n, i] B[i], for img [N, C, H, W] and g [N, 4]

    B[i] [H, H] filters a column of the image to its i-th frequency band. The column is continued by its mirror image.
    M' does the same to rows, by matrices [W, W].
    Any filter of any image is a product of matrices, and so are its gradients of every order.
    """
    g = g.to(img.dtype)
    of_columns, of_rows = (
        torch.einsum("ni,ihk->nhk", g, _band_matrices(size, img.dtype, img.device))[:, None] for size in img.shape[2:]
    )
    return of_columns @ img @ of_rows.mT


@lru_cache(maxsize=4)
def _band_matrices(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """B [4, size, size]"""
    filters = bands()
    reach = filters.shape[1] // 2
    row = torch.arange(size)[:, None].expand(-1, filters.shape[1])
    column = reflect(row + torch.arange(-reach, reach + 1), size)
    B = torch.zeros(4, size, size, dtype=torch.float64)
    for band, taps in zip(B, filters, strict=True):
        band.index_put_((row, column), taps.expand(size, -1), accumulate=True)
    return B.to(device, dtype)


def bands() -> Tensor:
    """b [4, 43] float64, symmetric: the filters of the four bands, which add up to a single 1 in the middle

    H is the transfer function of `SYM2`. H(z) H(1/z) / 2 passes the lower half of the spectrum, and its difference from
    1 passes the upper half. The same filter in z^2 divides the lower half again, and in z^4 the lowest quarter.
    """
    half = np.convolve(SYM2, SYM2[::-1]) / 2
    low, result = np.ones(1), []
    for octave in (1, 2, 4):
        spread = np.zeros(6 * octave + 1)
        spread[::octave] = half
        lower = np.convolve(low, spread)
        result.insert(0, np.pad(low, 3 * octave) - lower)
        low = lower
    return torch.from_numpy(np.stack([np.pad(b, (len(low) - len(b)) // 2) for b in (low, *result)]))


def add_noise(img: Tensor, sigma: Tensor) -> Tensor:
    """y = img + sigma[n] N(0, 1) for img [N, C, H, W] and sigma [N]; the noise is drawn on the device of img"""
    return img + sigma.to(img.dtype)[:, None, None, None] * torch.randn_like(img)


def rectangle(centre: Tensor, size: int) -> Tensor:
    """bool [N, size]: which i are inside a rectangle of half the size that begins at round((centre - 1/4) size)"""
    low, high = (((centre + reach) * size).round()[:, None] for reach in (-0.25, 0.25))
    i = torch.arange(size, device=centre.device)
    return (i >= low) & (i < high)


def erase(img: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """img [N, C, H, W] with zeros in the columns, bool [N, W], and rows, bool [N, H], on one device"""
    return img.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0)
