"""Level 2 is exact on random discriminators, which hypothesis draws."""

import contextlib
from collections.abc import Iterator

import hypothesis.strategies as st
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, note, settings
from torch import Tensor, nn

from gan_engine import backends
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.ops import bias_act

SLOPES = st.sampled_from([0.2, 0.01, 0.0, 1.0, -0.5])


class Residual(nn.Module):
    def __init__(self, branch: nn.Module, skip: nn.Module, scale: float) -> None:
        super().__init__()
        self.branch, self.skip, self.scale = branch, skip, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) * self.scale + self.branch(x)


class Concatenate(nn.Module):
    """Two branches, and a plane of numbers that do not depend on the image."""

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.plane = a, b, nn.Parameter(torch.randn(1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        return torch.cat([a, b, self.plane.expand(len(x), 1, *a.shape[2:])], 1)


class BiasAct(nn.Module):
    def __init__(self, channels: int, act: str, alpha: float, gain: float | None, clamp: float | None) -> None:
        super().__init__()
        self.bias = nn.Parameter(0.5 * torch.randn(channels))
        self.options = {"act": act, "alpha": alpha, "gain": gain, "clamp": clamp}

    def forward(self, x: Tensor) -> Tensor:
        return bias_act(x, self.bias, **self.options)


class Affine(nn.Module):
    """A scale and a shift for each channel, written in three usual ways."""

    def __init__(self, channels: int, way: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(1 + 0.3 * torch.randn(channels, 1, 1))
        self.shift = nn.Parameter(0.3 * torch.randn(1, channels, 1, 1))
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        if self.way == 0:
            return self.scale * x - self.shift
        if self.way == 1:
            x = x / self.scale.exp()
            x += self.shift
            return x
        return 1.5 - (x * 0.5 + self.shift * self.scale)


class Views(nn.Module):
    def __init__(self, way: int) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if self.way == 0:
            x = x.permute(0, 2, 3, 1).contiguous().view(n, h * w, c).transpose(1, 2).reshape(n, c, h, w)
            # A batch of one may have any stride between samples by now, for which PyTorch's grouped convolutions on
            # the CPU give wrong gradients of their weights (float64, or one thread; PyTorch 2.13).
            return x.contiguous()
        if self.way == 1:
            first, rest = x[:, :1], x[:, 1:]
            return torch.cat((rest, -first), dim=1)
        halves = x.chunk(2, dim=2)
        return torch.cat([halves[-1], *halves[:-1]], 2)


class Resample(nn.Module):
    def __init__(self, way: int) -> None:
        super().__init__()
        self.way = way
        f = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("f", f.outer(f) / 64)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == 0:
            return F.avg_pool2d(x, 2, ceil_mode=True)
        if self.way == 1:
            return F.interpolate(x, scale_factor=0.5, mode="bilinear")
        if self.way == 2:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        if self.way == 3:
            return F.interpolate(F.pad(x, (1, 1, 1, 1), mode="replicate"), size=[5, 5], mode="bicubic")
        if self.way == 4:
            return F.adaptive_avg_pool2d(x, 4)
        f = self.f.to(x.dtype).expand(x.shape[1], 1, 4, 4)
        return F.conv2d(F.pad(x, (1, 2, 1, 2)), f, stride=2, groups=x.shape[1])


class Head(nn.Module):
    """Features [N, C] -> logits [N], with a projection of the class."""

    def __init__(self, channels: int, projected: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 1)
        self.embed = nn.Embedding(3, channels) if projected else None

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        logits = self.linear(x)
        if self.embed is not None:
            logits = logits + (x * self.embed(c)).sum(dim=1, keepdim=True)
        return logits.squeeze(1)


class Discriminator(nn.Module):
    def __init__(self, body: nn.Module, flatten: bool, channels: int, projected: bool) -> None:
        super().__init__()
        self.body, self.flatten = body, flatten
        self.head = Head(channels * 9 if flatten else channels, projected)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        x = self.body(img)
        x = torch.flatten(F.adaptive_avg_pool2d(x, 3), 1) if self.flatten else x.mean((2, 3))
        return self.head(x, c)


def convolution(draw, i: int, o: int, *, same: bool = False) -> nn.Module:
    kernel = draw(st.sampled_from([1, 3] if same else [1, 3, 4]))
    groups = draw(st.sampled_from([g for g in (1, 2, 3, 4) if i % g == 0 and o % g == 0]))
    # With a stride, PyTorch's gradient by a 1x1 weight of few channels writes beyond its memory (maps._oversteps).
    stride, padding = 1 if same or kernel == 1 else draw(st.sampled_from([1, 1, 2])), kernel // 2
    layer = nn.Conv2d(i, o, kernel, stride, padding, groups=groups, bias=draw(st.booleans()))
    return nn.utils.parametrizations.spectral_norm(layer).eval() if draw(st.integers(0, 7)) == 0 else layer


def activation(draw, channels: int) -> nn.Module:
    kind = draw(st.sampled_from(["lrelu", "lrelu in place", "relu", "bias_act", "bias_act"]))
    if kind == "relu":
        return nn.ReLU(inplace=draw(st.booleans()))
    if kind != "bias_act":
        slope = draw(SLOPES)
        return nn.LeakyReLU(slope, inplace=kind != "lrelu" and slope >= 0)  # PyTorch refuses both at once
    act = draw(st.sampled_from(["lrelu", "relu", "linear"]))
    return BiasAct(
        channels, act, draw(SLOPES), draw(st.sampled_from([None, 1.0, -0.7])), draw(st.sampled_from([None, 0.5, 2.0]))
    )


def block(draw, channels: int, depth: int) -> tuple[nn.Module, int]:
    """A block that takes `channels` channels, and the number of channels of its result."""
    kind = draw(st.sampled_from(["conv", "conv", "residual", "concatenate", "resample", "affine", "views"]))
    if kind == "resample":
        return Resample(draw(st.integers(0, 5))), channels
    if kind == "affine":
        return Affine(channels, draw(st.integers(0, 2))), channels
    if kind == "views":
        return Views(draw(st.integers(0, 2))), channels
    o = draw(st.sampled_from([2, 4, 6]))
    if kind == "conv" or depth > 1:
        return nn.Sequential(convolution(draw, channels, o), activation(draw, o)), o
    branches = []
    for _ in range(2):
        layers = [convolution(draw, channels, o, same=True)]
        if draw(st.booleans()):
            layers += [activation(draw, o), convolution(draw, o, o, same=True)]
        branches.append(nn.Sequential(*layers))
    if kind == "residual":
        return Residual(*branches, draw(st.sampled_from([1.0, 0.7]))), o
    return Concatenate(*branches), 2 * o + 1


@st.composite
def discriminators(draw) -> nn.Module:
    torch.manual_seed(draw(st.integers(0, 2**16)))
    channels, blocks = 3, []
    for _ in range(draw(st.integers(1, 5))):
        layer, channels = block(draw, channels, 1)
        blocks.append(layer)
    D = Discriminator(nn.Sequential(*blocks), draw(st.booleans()), channels, draw(st.booleans()))
    return D.to(memory_format=draw(st.sampled_from([torch.contiguous_format, torch.channels_last])))


@contextlib.contextmanager
def pytorch_alone() -> Iterator[None]:
    with backends.use("reference"):
        yield


def _zeros(logits: Tensor) -> Tensor:
    """A loss that the logits play no part in."""
    return torch.zeros_like(logits, requires_grad=True)


def run(D: nn.Module, img: Tensor, c: Tensor | None, level, loss, centre: float) -> dict[str, Tensor]:
    D.zero_grad(set_to_none=True)
    backward_with_penalty(D, img, loss, gamma=2.0, c=c, level=level, centre=centre)
    return {name: p.grad.double() for name, p in D.named_parameters() if p.grad is not None}


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    D=discriminators(),
    batch=st.integers(1, 5),
    size=st.sampled_from([8, 9, 12]),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    loss=st.sampled_from([lambda logits: F.softplus(-logits), lambda logits: F.relu(1 - logits), None]),
    centre=st.sampled_from([0.0, 1.0]),
)
def test_both_levels_are_as_exact_as_autograd(D, batch, size, layout, loss, centre):
    """|ours - truth| <= 2 |autograd - truth| + 1 ulp over all gradients, and to 1e-5 in each parameter by itself.

    The truth is autograd in float64. The error of autograd in float32 is a matter of chance, and can be 0 in a single
    parameter. It is therefore taken over all parameters, as the larger error of two orders of the batch. One ulp is
    allowed on top. (Over 1,200 networks neither level needed more. The median error of a parameter over 3,000 networks
    was 1.0 ulp by autograd and 0.9 ulp at level 2.)
    """
    note(str(D))
    img = torch.randn(batch, 3, size, size).to(memory_format=layout)
    c = torch.randint(0, 3, (batch,)) if D.head.embed is not None else None
    with pytorch_alone():
        orders = torch.arange(batch), torch.randperm(batch)
        eager = [run(D, img[i], None if c is None else c[i], "autograd", loss, centre) for i in orders]
        main = run(D, img, c, "autograd", loss or _zeros, centre)
    ours = {level: run(D, img, c, level, loss, centre) for level in (2, 1)}
    with pytorch_alone():
        truth = run(D.double(), img.double(), c, "autograd", loss, centre)
    D.float()
    ulp = torch.finfo(torch.float32).eps * norm(truth)
    off = max(norm(difference(grads, truth)) for grads in eager)
    for level, got in ours.items():
        assert got.keys() <= main.keys()
        error = difference(got, truth)
        assert norm(error) <= 2 * off + ulp, f"level {level}: {norm(error):.3g}, autograd {off:.3g}"
        for name, wrong in error.items():
            allowed = 2 * max(difference(grads, truth)[name].norm() for grads in eager) + 1e-5 * truth[name].norm()
            assert wrong.norm() <= allowed, f"level {level}, {name}: {wrong.norm():.3g}, {allowed:.3g} allowed"


def difference(grads: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: grads.get(name, 0) - want for name, want in truth.items()}


def norm(grads: dict[str, Tensor]) -> float:
    return float(sum(g.square().sum() for g in grads.values())) ** 0.5
