"""The random numbers of ADA for each image, in float64 (Karras et al. 2020, arXiv:2006.06676, appendix B).

The probability p is a number, or a float64 [] on the device of the numbers: then the host need not know it. The paper's
Lognormal(0, (s ln 2)^2) is 2^(s z) with a standard normal number z.
"""

import math

import torch
from torch import Tensor

from gan_engine.augment import geometry
from gan_engine.system.devices import constant

SPECTRUM = (10, 1, 1, 1)  # the expected power of images in each of the four bands, up to a factor


Device = torch.device | str
Size = tuple[int, int]  # (H, W)


def gated(p: float | Tensor, values: Tensor, neutral: float) -> Tensor:
    """values [N, ...] in float64 with probability p, else `neutral`; each image has one coin"""
    coin = torch.rand(len(values), device=values.device) < p
    return values.double().where(coin.view(-1, *[1] * (values.ndim - 1)), neutral)


def angles(n: int, device: Device = "cpu") -> Tensor:
    """[n], uniform from -pi to pi"""
    return (2 * torch.rand(n, device=device) - 1) * math.pi


def blits(n: int, size: Size, p: float | Tensor, device: Device = "cpu") -> Tensor:
    """G [n, 3, 3]: flips left to right, quarter turns, and shifts by up to an eighth of `size`, in whole pixels

    A flip is drawn from {no, yes}, and a number of quarter turns from {0, 1, 2, 3}: half of the drawn flips and a
    quarter of the drawn turns change nothing. Rectangles get half turns in the place of quarter turns, which would turn
    them out of their shape: half of the drawn turns then change nothing.
    """
    flip = 1 - 2 * gated(p, torch.randint(2, (n,), device=device), 0)
    G = geometry.scale(flip, torch.ones_like(flip))
    # The cosine of a quarter turn is not exactly 0, so it is rounded.
    turn = math.pi / 2 if size[0] == size[1] else math.pi
    G = geometry.rotate(turn * gated(p, torch.randint(4, (n,), device=device), 0)).round() @ G
    shift = gated(p, (2 * torch.rand(n, 2, device=device) - 1) / 8, 0)
    return geometry.translate(*(shift * _width_height(size, device)).round().unbind(1)) @ G


def warpings(n: int, size: Size, p: float | Tensor, device: Device = "cpu") -> Tensor:
    """G [n, 3, 3]: scaling, rotation, scaling of one axis against the other, rotation, shift by a normal distance

    Each of the two rotations has probability 1 - sqrt(1 - p), so at least one is drawn with probability p.
    """
    p_rotation = 1 - (1 - p) ** 0.5
    s = gated(p, torch.exp2(0.2 * torch.randn(n, device=device)), 1)
    G = geometry.scale(s, s)
    G = geometry.rotate(gated(p_rotation, angles(n, device), 0)) @ G
    s = gated(p, torch.exp2(0.2 * torch.randn(n, device=device)), 1)
    G = geometry.scale(s, 1 / s) @ G
    G = geometry.rotate(gated(p_rotation, angles(n, device), 0)) @ G
    shift = gated(p, torch.randn(n, 2, device=device) / 8, 0)
    return geometry.translate(*(shift * _width_height(size, device)).unbind(1)) @ G


def _width_height(size: Size, device: Device) -> Tensor:
    return constant(size[::-1], torch.float64, torch.device(device))


def colors(n: int, p: float | Tensor, device: Device = "cpu") -> Tensor:
    """C [n, 4, 4], for (r, g, b, 1): brightness, contrast, mirrored luma, rotated hue, saturation

    Luma is the direction v = (1, 1, 1) / sqrt(3). Mirroring is I - 2 v v', and hue is a rotation around v. Saturation
    multiplies the part of a colour that is orthogonal to v.
    """
    options = {"dtype": torch.float64, "device": device}
    eye = torch.eye(3, **options)
    luma = torch.full_like(eye, 1 / 3)  # v v'
    rest = eye - luma
    cross = constant(((0.0, -1, 1), (1, 0, -1), (-1, 1, 0)), **options) / 3**0.5  # v x u = cross u

    C = torch.eye(4, **options).repeat(n, 1, 1)
    C[:, :3, 3] = gated(p, 0.2 * torch.randn(n, 1, device=device), 0)  # brightness
    contrast, flip, hue, saturation = (
        gated(p, values[:, None, None], neutral)
        for values, neutral in (
            (torch.exp2(0.5 * torch.randn(n, device=device)), 1),
            (torch.randint(2, (n,), device=device), 0),
            (angles(n, device), 0),
            (torch.exp2(torch.randn(n, device=device)), 1),
        )
    )
    rotation = luma + hue.cos() * rest + hue.sin() * cross  # Rodrigues' formula
    for A in (contrast * eye, eye - 2 * flip * luma, rotation, luma + saturation * rest):
        C[:, :3] = A @ C[:, :3]
    return C


def band_gains(n: int, p: float | Tensor, device: Device = "cpu") -> Tensor:
    """g [n, 4], the gains of the frequency bands [0, pi/8], [pi/8, pi/4], [pi/4, pi/2], [pi/2, pi]

    One band after the other gets a gain; then all four gains are divided, so that the expected power of an image stays
    the same.
    """
    options = {"dtype": torch.float64, "device": device}
    power = constant(SPECTRUM, **options)
    g = torch.ones(n, 4, **options)
    for i in range(4):
        t = torch.ones(n, 4, **options)
        t[:, i] = gated(p, torch.exp2(torch.randn(n, device=device)), 1)
        g = g * t / ((power * t.square()).sum(1, keepdim=True) / power.sum()).sqrt()
    return g
