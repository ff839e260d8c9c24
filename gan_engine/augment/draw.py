"""What ADA draws for each image, on the CPU and in float64 (Karras et al. 2020, arXiv:2006.06676, appendix B).

Lognormal(0, (s ln 2)^2), as the paper has it, is 2 to the power of s times a standard normal number.
"""

import math

import torch
from torch import Tensor

from gan_engine.augment import geometry

SPECTRUM = (10, 1, 1, 1)  # the expected power of images in each of the four bands, up to a factor


def gated(p: float, values: Tensor, neutral: float) -> Tensor:
    """values [N, ...] float64 where a coin of probability p says so, else `neutral`; one coin for each image"""
    coin = torch.rand(len(values)) < p
    return values.double().where(coin.view(-1, *[1] * (values.ndim - 1)), neutral)


def angles(n: int) -> Tensor:
    """[n], uniform from -pi to pi"""
    return (2 * torch.rand(n) - 1) * math.pi


def blits(n: int, size: int, p: float) -> Tensor:
    """G [n, 3, 3]: flips left to right, quarter turns, shifts of images of `size` pixels by up to an eighth

    A flip is drawn from {no, yes} and a turn from {0, 1, 2, 3}, so that one in two or four of them changes nothing.
    """
    flip = 1 - 2 * gated(p, torch.randint(2, (n,)), 0)
    G = geometry.scale(flip, torch.ones_like(flip))
    # Rounded: the cosine of a quarter turn is not quite 0.
    G = geometry.rotate(math.pi / 2 * gated(p, torch.randint(4, (n,)), 0)).round() @ G
    shift = gated(p, (2 * torch.rand(n, 2) - 1) / 8, 0)
    return geometry.translate(*(shift * size).round().unbind(1)) @ G


def warpings(n: int, size: int, p: float) -> Tensor:
    """G [n, 3, 3]: scaling, rotation, scaling of one axis against the other, rotation, shift by a normal distance

    Of the two rotations either has probability 1 - sqrt(1 - p), so that there is any with probability p.
    """
    p_rotation = 1 - math.sqrt(1 - p)
    s = gated(p, torch.exp2(0.2 * torch.randn(n)), 1)
    G = geometry.scale(s, s)
    G = geometry.rotate(gated(p_rotation, angles(n), 0)) @ G
    s = gated(p, torch.exp2(0.2 * torch.randn(n)), 1)
    G = geometry.scale(s, 1 / s) @ G
    G = geometry.rotate(gated(p_rotation, angles(n), 0)) @ G
    shift = gated(p, torch.randn(n, 2) / 8, 0)
    return geometry.translate(*(shift * size).unbind(1)) @ G


def colors(n: int, p: float) -> Tensor:
    """C [n, 4, 4], for (r, g, b, 1): brightness, contrast, mirrored luma, rotated hue, saturation

    Luma is the direction v = (1, 1, 1) / sqrt(3): mirroring is I - 2 v v', hue a rotation around v, and saturation
    multiplies what is not along v.
    """
    eye = torch.eye(3, dtype=torch.float64)
    luma = torch.full_like(eye, 1 / 3)  # v v'
    rest = eye - luma
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / 3**0.5  # v x u = cross u

    C = torch.eye(4, dtype=torch.float64).repeat(n, 1, 1)
    C[:, :3, 3] = gated(p, 0.2 * torch.randn(n, 1), 0)  # brightness
    contrast, flip, hue, saturation = (
        gated(p, values[:, None, None], neutral)
        for values, neutral in (
            (torch.exp2(0.5 * torch.randn(n)), 1),
            (torch.randint(2, (n,)), 0),
            (angles(n), 0),
            (torch.exp2(torch.randn(n)), 1),
        )
    )
    rotation = luma + hue.cos() * rest + hue.sin() * cross  # Rodrigues' formula
    for A in (contrast * eye, eye - 2 * flip * luma, rotation, luma + saturation * rest):
        C[:, :3] = A @ C[:, :3]
    return C


def gains(n: int, p: float) -> Tensor:
    """g [n, 4], the gains of the bands [0, pi/8], [pi/8, pi/4], [pi/4, pi/2], [pi/2, pi]

    For each band in turn, its gain against that of the others: with the expected power of an image left as it is.
    """
    power = torch.tensor(SPECTRUM, dtype=torch.float64)
    g = torch.ones(n, 4, dtype=torch.float64)
    for i in range(4):
        t = torch.ones(n, 4, dtype=torch.float64)
        t[:, i] = gated(p, torch.exp2(torch.randn(n)), 1)
        g = g * t / ((power * t.square()).sum(1, keepdim=True) / power.sum()).sqrt()
    return g
