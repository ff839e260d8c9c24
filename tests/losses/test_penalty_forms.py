"""The penalties by themselves: R1, R2, WGAN-GP, DRAGAN and path lengths by their formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.discriminators import convolutions
from gan_engine.losses import penalties
from gan_engine.ops import conv2d


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


def test_zero_gradient_in_the_forms_by_themselves():
    D, img = convolutions(4, 2), torch.randn(2, 4, 8, 8)
    for parameter in D.parameters():
        nn.init.zeros_(parameter)
    G = lambda ws: D[:-1](ws[:, :, None, None].expand(-1, -1, 8, 8))  # noqa: E731
    found = [penalties.r1(D, img), penalties.wgan_gp(D, img, -img), penalties.dragan(D, img)]
    found.append(penalties.path_length(G, img[:, :, 0, 0], torch.zeros(())))
    sum(penalty.mean() for penalty in found).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in D.parameters())


@pytest.mark.parametrize("convolve", [F.conv2d, conv2d, F.conv_transpose2d])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_path_lengths_through_weights_that_the_latents_make(convolve, part):
    """A hypernetwork on latents from a mapping network: the whole gradient by the latents must come back."""
    torch.manual_seed(0)
    channels, features = (3, 4) if convolve is F.conv_transpose2d else (4, 3)
    mapping, to_weight, to_bias = (nn.Linear(8, n).double() for n in (8, 3 * 4 * 9, features))
    fixed, x = torch.randn(3, 4, 3, 3).double(), torch.randn(2, channels, 6, 6).double()

    def G(ws):
        weight = to_weight(ws.mean(0)).reshape(3, 4, 3, 3).tanh() if part == "weight" else fixed
        bias = to_bias(ws.mean(0)).tanh() if part == "bias" else None
        return convolve(x * ws[:, :1, None, None], weight, bias, padding=1)

    def gradients(level):
        mapping.zero_grad(set_to_none=True)
        ws = mapping(torch.ones(2, 8).double())
        generator = torch.Generator().manual_seed(1)
        penalty = penalties.path_length(G, ws, torch.ones((), dtype=torch.float64), generator=generator, level=level)
        penalty.sum().backward()
        return [penalty.detach(), mapping.weight.grad]

    for got, want in zip(gradients(None), gradients("autograd"), strict=True):
        torch.testing.assert_close(got, want)


def test_path_lengths_have_no_level_2():
    with pytest.raises(ValueError, match=r'path_length: level must be 1, "autograd" or None, got 2'):
        penalties.path_length(lambda ws: ws[:, :, None, None], torch.randn(2, 3), torch.zeros(()), level=2)
