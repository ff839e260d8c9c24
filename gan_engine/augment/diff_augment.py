"""Differentiable augmentation with a fixed strength (Zhao et al. 2020, arXiv:2006.10738)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gan_engine.augment.geometry import pixels
from gan_engine.augment.values import erase, rectangle
from gan_engine.ops.kernel_op import layout, wide

POLICY = "color,translation,cutout"


def diff_augment(img: Tensor, policy: str = POLICY) -> Tensor:
    """Every transform of `policy`, in its order, on every image   # arXiv:2006.10738

        color        three steps: brightness adds U(-1/2, 1/2); saturation multiplies the distance of the channels of a
                     pixel from their mean by U(0, 2); contrast multiplies the distance of all values from the mean of
                     the image by U(1/2, 3/2)
        translation  shifts by up to an eighth of the image, in whole pixels, with zeros outside
        cutout       puts zeros in a rectangle of half the width and height, anywhere

    Args:
        img: [N, C, H, W], in [-1, 1], with any number of channels.
        policy: some of the three names, with commas between; "" is no transform.

    Returns:
        y: [N, C, H, W] in the dtype and layout of img, computed in float32.

    All numbers are drawn from torch's global generator of the device of img.

    Raises:
        ValueError: an unknown name, or an img that is not [N, C, H, W].

    Gradients: every order in img. The transforms are affine in img.
    """
    names = [name for name in policy.split(",") if name]
    if unknown := [name for name in names if name not in _TRANSFORMS]:
        raise ValueError(f"diff_augment: policy must be of {', '.join(_TRANSFORMS)}, got {unknown[0]!r}")
    if img.ndim != 4:
        raise ValueError(f"diff_augment: img must be [N, C, H, W], got {list(img.shape)}")
    if not names:
        return img
    y = img.to(wide(img.dtype))
    for name in names:
        y = _TRANSFORMS[name](y)
    return y.to(img.dtype).contiguous(memory_format=layout(img))


def _color(img: Tensor) -> Tensor:
    brightness, saturation, contrast = (_uniform(img, *bounds) for bounds in ((-0.5, 0.5), (0.0, 2.0), (0.5, 1.5)))
    img = img + brightness
    grey = img.mean(1, keepdim=True)
    img = grey + saturation * (img - grey)
    mean = img.mean((1, 2, 3), keepdim=True)
    return mean + contrast * (img - mean)


def _uniform(img: Tensor, low: float, high: float) -> Tensor:
    """[N, 1, 1, 1] on the device and in the dtype of img"""
    return (low + (high - low) * torch.rand(len(img), 1, 1, 1, device=img.device)).to(img)


def _translation(img: Tensor) -> Tensor:
    n, _, h, w = img.shape
    dx, dy = (torch.randint(-round(size / 8), round(size / 8) + 1, (n, 1, 1), device=img.device) for size in (w, h))
    return shift(img, dx, dy)


def shift(img: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """y[n, :, i, j] = img[n, :, i - dy, j - dx], zero outside, for integers dx, dy [N, 1, 1] smaller than W, H"""
    n, _, h, w = img.shape
    # Everything outside is read from one row or column of zeros around the image.
    x = (torch.arange(1, w + 1, device=img.device) - dx).clamp(0, w + 1).expand(n, h, w)
    y = (torch.arange(1, h + 1, device=img.device)[:, None] - dy).clamp(0, h + 1).expand(n, h, w)
    return pixels(F.pad(img, [1, 1, 1, 1]), x, y)


def _cutout(img: Tensor) -> Tensor:
    n, _, h, w = img.shape
    centre = torch.rand(2, n, device=img.device)
    return erase(img, rectangle(centre[0], w), rectangle(centre[1], h))


_TRANSFORMS = {"color": _color, "translation": _translation, "cutout": _cutout}
