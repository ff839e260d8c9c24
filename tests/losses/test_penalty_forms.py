"""The penalties by themselves: R1, R2, WGAN-GP, DRAGAN and path lengths by their formulas."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.discriminators import plain
from gan_engine.losses import penalties


@pytest.fixture
def small() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    D = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 1), nn.Flatten(0))
    return D.double(), torch.randn(5, 3, 8, 8, dtype=torch.float64)


def input_gradient(D: nn.Module, img: Tensor) -> Tensor:
    img = img.detach().requires_grad_()
    (g,) = torch.autograd.grad(D(img).sum(), img, create_graph=True)
    return g.flatten(1)


@pytest.mark.parametrize("function", [penalties.r1, penalties.r2])
def test_r1_and_r2(small, function):
    D, img = small
    torch.testing.assert_close(function(D, img), input_gradient(D, img).square().sum(1))


def test_wgan_gp_and_dragan(small):
    D, real = small
    fake = torch.randn_like(real)
    eps = torch.rand(5, generator=torch.Generator().manual_seed(3)).double()[:, None, None, None]
    want = (input_gradient(D, eps * real + (1 - eps) * fake).norm(dim=1) - 1).square()
    got = penalties.wgan_gp(D, real, fake, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(got, want)

    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(real.shape, generator=generator).double()
    eps = torch.rand(5, generator=generator).double()[:, None, None, None]
    x = real + (1 - eps) * 0.5 * real.std() * noise
    got = penalties.dragan(D, real, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(got, (input_gradient(D, x).norm(dim=1) - 1).square())


def test_path_length():
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(6, 3 * 4 * 4), nn.Tanh(), nn.Unflatten(-1, (3, 4, 4))).double()
    G_of_ws = lambda ws: G(ws.sum(1))  # noqa: E731
    ws, mean = torch.randn(5, 2, 6, dtype=torch.float64), torch.tensor(0.5)
    got = penalties.path_length(G_of_ws, ws, mean, generator=torch.Generator().manual_seed(1))
    y = torch.empty(5, 3, 4, 4, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(1)) / 4
    jacobian = torch.autograd.functional.jacobian(lambda w: (G_of_ws(w) * y).sum((1, 2, 3)).sum(), ws)
    lengths = jacobian.square().sum(2).mean(1).sqrt()
    assert mean.item() == pytest.approx(0.99 * 0.5 + 0.01 * lengths.mean().item())
    torch.testing.assert_close(got, (lengths - mean).square())
    got.mean().backward()
    assert all(p.grad.isfinite().all() for p in G[0].parameters())


def test_zero_gradient_in_the_plain_forms():
    D, img = plain(4, 2), torch.randn(2, 4, 8, 8)
    for parameter in D.parameters():
        nn.init.zeros_(parameter)
    G = lambda ws: D[:-1](ws[:, :, None, None].expand(-1, -1, 8, 8))  # noqa: E731
    found = [penalties.r1(D, img), penalties.wgan_gp(D, img, -img), penalties.dragan(D, img)]
    found.append(penalties.path_length(G, img[:, :, 0, 0], torch.zeros(())))
    sum(penalty.mean() for penalty in found).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in D.parameters())
