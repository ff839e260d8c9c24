"""Level 1 changes what D runs on, and never what it computes: its gradients are those of autograd."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, weight_norm

from gan_engine import backends
from gan_engine.losses import penalties
from gan_engine.ops.grid_sample import grid_sample_ref
from tests.losses.networks import (
    GRID_SAMPLE_TWICE,
    Lambda,
    around,
    assert_level_1_is_autograd,
    conv,
    gradients,
    images,
    softplus,
    written_out,
)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.flatten(2).transpose(1, 2))[0][:, -1]


class Hooked(nn.Module):
    """Hooks that change gradients, of a module and of tensors, beside an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(4, 4, 3), nn.LeakyReLU(0.2)
        self.conv.register_full_backward_hook(lambda module, dx, dy: tuple(2 * d for d in dx))
        self.act.register_full_backward_hook(lambda module, dx, dy: tuple(3 * d for d in dx))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        x.register_hook(lambda d: 0.5 * d)
        return F.relu(x + 0.1, inplace=True)


class Classes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 64)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x.flatten(2) * self.table(F.relu(torch.arange(-1, 3)))[:, None], 0.2)


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * dy


def warped(x: Tensor) -> Tensor:
    theta = torch.tensor([[0.9, 0.2, 0.0], [-0.1, 0.8, 0.1]], dtype=x.dtype).expand(len(x), 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def own_convolution_for_each_image(x: Tensor) -> Tensor:
    weight = torch.randn(len(x), 2, 4, 3, 3, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    return torch.func.vmap(F.conv2d)(x[:, None], weight).relu()


def on_the_cpu(x: Tensor) -> Tensor:
    with torch.device("cpu"), torch.autograd.graph.save_on_cpu():
        return F.avg_pool2d(input=F.leaky_relu(x, 0.2), kernel_size=2)


SORTS = {
    "hooks": Hooked,
    "in place": lambda: nn.Sequential(conv(), nn.LeakyReLU(0.2, inplace=True), conv(), nn.ReLU(inplace=True)),
    "function of its own": lambda: nn.Sequential(conv(), nn.ReLU(), Lambda(Squared.apply)),
    "old weight norm": lambda: nn.Sequential(weight_norm(conv()), nn.LeakyReLU(0.2)),
    "new weight norm": lambda: nn.Sequential(parametrizations.weight_norm(conv()), nn.LeakyReLU(0.2)),
    "spectral norm": lambda: nn.Sequential(parametrizations.spectral_norm(conv()), nn.LeakyReLU(0.2)),
    "lstm": Recurrent,
    "conv1d": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 3, 3), nn.LeakyReLU(0.2)),
    "conv3d": lambda: nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv3d(4, 3, (1, 3, 3)), nn.LeakyReLU(0.2)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(4, 3, 3, 2, output_padding=1), nn.LeakyReLU(0.2)),
    "grid_sample": lambda: nn.Sequential(Lambda(warped), nn.ReLU()),
    "max_pool": lambda: nn.Sequential(nn.MaxPool2d(2), nn.LeakyReLU(0.2), nn.Conv2d(4, 4, 3, stride=2)),
    "embedding": Classes,
    "dropout": lambda: nn.Sequential(nn.Dropout(0.3), nn.LeakyReLU(0.2), nn.Dropout2d(0.3)),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm2d(4), nn.LeakyReLU(0.2, inplace=True), conv(), nn.GroupNorm(2, 4)),
    "smooth": lambda: nn.Sequential(nn.GELU(), conv(), nn.SiLU(), nn.Softmax(1), nn.LayerNorm([4, 8, 8])),
    "vmap": lambda: Lambda(own_convolution_for_each_image),
    "other contexts": lambda: Lambda(on_the_cpu),
}


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("sort", [pytest.param(s, marks=GRID_SAMPLE_TWICE) if s == "grid_sample" else s for s in SORTS])
def test_every_sort_of_network(sort: str, backend: str | None):
    with contextlib.nullcontext() if backend is None else backends.use(backend):
        assert_level_1_is_autograd(around(SORTS[sort]()))


@pytest.mark.parametrize("align_corners", [False, None])
def test_grid_sample_where_pytorch_differentiates_it_once(align_corners: bool | None):
    """PyTorch 2.11. The same network with the definition of grid_sample is the oracle."""
    grid = 1.2 * torch.rand(4, 8, 8, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64) - 0.6
    D = around(lambda x: F.grid_sample(x, grid, align_corners=align_corners), nn.ReLU())
    oracle = around(lambda x: grid_sample_ref(x, grid), nn.ReLU())
    for level in (1, None):
        options = {"gamma": 3.0, "level": level}
        got = gradients(D, lambda o=options: penalties.backward_with_penalty(D, images(), softplus, **o))
        want = gradients(oracle, lambda: written_out(oracle, images(), softplus, gamma=3.0))
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


def test_a_function_that_is_differentiable_once_is_refused_as_by_pytorch():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, dy: Tensor) -> Tensor:
            return dy * 2

    D = around(Once.apply, nn.ReLU())
    with pytest.raises(RuntimeError, match="differentiate twice a function that was marked with @once_differentiable"):
        penalties.r1(D, images()).sum().backward()


def test_autocast_inside_the_network():
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.conv = conv()

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                x = F.leaky_relu(self.conv(x), 0.2)
                tokens = x.flatten(2).transpose(1, 2)
                y = F.scaled_dot_product_attention(tokens.float(), tokens, tokens)
                assert {x.dtype, tokens.dtype, y.dtype} == {torch.bfloat16}
                return (self.attention(y, y, y, need_weights=False)[0] + y).float()

    D = nn.Sequential(Half(), nn.Flatten(), nn.Linear(256, 1))
    img = images().float().repeat(1, 2, 1, 1)[:, :4]
    got = gradients(D, lambda: penalties.r1(D, img).mean().backward())
    x = img.clone().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        (g,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        want = gradients(D, lambda: g.square().flatten(1).sum(1).mean().backward())
    error = sum((got[name] - g).square().sum() for name, g in want.items())
    assert error <= 0.02**2 * sum(g.square().sum() for g in want.values())  # bfloat16 has 8 bits
