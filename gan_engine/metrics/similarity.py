"""L1, PSNR and SSIM, which compare a picture with its original, as papers on translation and super-resolution report.

PSNR and SSIM read the luma Y of ITU-R 601 on the scale of television, 16 to 235. Images are in [-1, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def l1(x: Tensor, y: Tensor) -> Tensor:
    """|x - y| [N], the mean over all but the first dimension, in float32"""
    return (x.float() - y.float()).abs().flatten(1).mean(1)


def luma(img: Tensor) -> Tensor:
    """img [N, 1 or 3, H, W] in [-1, 1] -> Y [N, 1, H, W] in [16, 235], float64"""
    img = (img.double().clamp(-1, 1) + 1) / 2
    if img.shape[1] == 3:
        weight = torch.tensor([0.299, 0.587, 0.114], dtype=img.dtype, device=img.device)
        img = torch.einsum("nchw,c->nhw", img, weight)[:, None]
    return 16 + 219 * img


def psnr(img: Tensor, original: Tensor, *, border: int = 0) -> Tensor:
    """10 log10(255^2 / mean (Y - Y')^2) [N], in dB; `border` pixels on each side are left out"""
    a, b = _pair(img, original, border)
    return 10 * torch.log10(255**2 / (a - b).square().flatten(1).mean(1))


def ssim(img: Tensor, original: Tensor, *, border: int = 0) -> Tensor:
    """The structural similarity [N], at most 1   # Wang et al. 2004, equation 13

    mean of (2 m m' + C1) (2 s + C2) / ((m^2 + m'^2 + C1) (v + v' + C2)), with the means m, variances v and covariance s
    of Y and Y' under a Gaussian window of 11x11 pixels. Its standard deviation is 1.5 pixels. The mean is over all
    places where the window fits into the image.
    """
    a, b = _pair(img, original, border)
    if min(a.shape[2:]) < 11:
        raise ValueError(f"ssim: want at least 11x11 pixels without the border, got {list(a.shape[2:])}")
    taps = torch.exp(-((torch.arange(11, dtype=a.dtype, device=a.device) - 5) ** 2) / (2 * 1.5**2))
    window = taps.outer(taps)[None, None] / taps.sum() ** 2
    ma, mb, aa, bb, ab = (F.conv2d(x, window) for x in (a, b, a * a, b * b, a * b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    v, w, s = aa - ma * ma, bb - mb * mb, ab - ma * mb
    return ((2 * ma * mb + c1) * (2 * s + c2) / ((ma * ma + mb * mb + c1) * (v + w + c2))).flatten(1).mean(1)


def _pair(img: Tensor, original: Tensor, border: int) -> tuple[Tensor, Tensor]:
    if img.shape != original.shape:
        raise ValueError(f"want images of one shape, got {list(img.shape)} and {list(original.shape)}")
    inner = slice(border, -border or None)
    return luma(img)[..., inner, inner], luma(original)[..., inner, inner]
