"""Directions in the latents of a generator along which its images change most, for sliders."""

import torch
from torch import Tensor

from gan_engine.inference.generator import TrainedGenerator, latents

_W_SAMPLES = 4096  # of w: a pass of the mapping network alone
_Z_SAMPLES, _BATCH = 128, 16  # of z: a pass of G and a gradient


def of_w(trained: TrainedGenerator, num: int) -> Tensor:
    """The first `num` principal components of w, each as long as the standard deviation along it: [num, w_dim]

    Härkönen et al. 2020 (GANSpace), arXiv:2004.02546. Where G has classes, w counts from the mean of its class. A w_dim
    below `num` gives w_dim directions.
    """
    G, config = trained.network, trained.config
    with torch.no_grad():
        z, c = latents(G, _W_SAMPLES, classes=_classes(config.c_dim, _W_SAMPLES))
        w = G.mapping(z, c)
        member = torch.ones(len(w), 1).to(w) if c is None else c.to(w)  # [N, classes]
        w = w - member @ (member.t() @ w / member.sum(0)[:, None].clamp(min=1))
        _, lengths, directions = torch.linalg.svd(w, full_matrices=False)
    return _signed(directions[:num] * lengths[:num, None] / len(w) ** 0.5)


def of_z(trained: TrainedGenerator, num: int) -> Tensor:
    """The first `num` eigenvectors of E[J^T J], where J = dG(z)/dz: orthonormal [num, z_dim]

    They are the directions in which z changes the image most, on the average (Wang and Ponce 2021, arXiv:2101.06006).
    The gradient g of <v, G(z)> for normal v has E[g g^T] = E[J^T J], so a gradient for each z is enough. A z_dim below
    `num` gives z_dim directions.
    """
    G, config = trained.network, trained.config
    z, c = latents(G, _Z_SAMPLES, classes=_classes(config.c_dim, _Z_SAMPLES))
    random = torch.Generator().manual_seed(0)
    gradients = []
    for part, classes in zip(z.split(_BATCH), [None] * _Z_SAMPLES if c is None else c.split(_BATCH)):
        with torch.enable_grad():
            img = G(part.requires_grad_(), classes)
            v = torch.randn(img.shape, generator=random).to(img.device)
            gradients += torch.autograd.grad((v * img).sum(), part)
    return _signed(torch.linalg.svd(torch.cat(gradients), full_matrices=False).Vh[:num])


def _classes(c_dim: int, num: int) -> list[int] | None:
    return [i % c_dim for i in range(num)] if c_dim else None


def _signed(directions: Tensor) -> Tensor:
    """Each direction so that its largest number is positive: both signs are right, and runs should agree."""
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return directions * largest.sign()
