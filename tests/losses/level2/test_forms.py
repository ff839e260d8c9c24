"""Functions of PyTorch that are linear or have straight pieces: level 2 takes each, and its step is autograd's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.losses import penalties
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.ops import grid_sample
from tests.losses.networks import GRID_SAMPLE_TWICE, around, conv, gradients, images, softplus, written_out


def constant(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


class Learned(nn.Module):
    """function(x, parameters ...)"""

    def __init__(self, function: Callable, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.given = nn.ParameterList(torch.randn(shape) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.given)


def normalised(kind: type, **options: Any) -> nn.Module:
    layer = kind(4, **options)
    layer.running_mean.copy_(constant(4))
    layer.running_var.copy_(constant(4).square() + 0.5)
    return layer.eval()


GRID = F.affine_grid(constant(4, 2, 3), [4, 4, 8, 8], align_corners=False)
MASK = constant(4, 4, 8, 8) > 0

PIECES: dict[str, Callable[[], Any]] = {
    "abs": lambda: torch.abs,
    "abs of zeros": lambda: lambda x: F.pad(x.relu(), (1, 0)).abs()[..., 1:],
    "abs in place": lambda: lambda x: (x * 1).abs_(),
    "prelu": lambda: nn.PReLU(),
    "prelu of channels": lambda: nn.PReLU(4, 0.3),
    "prelu of features": lambda: lambda x: F.prelu(x.flatten(1), constant(256)),
    "relu6": lambda: lambda x: F.relu6(8 * x),
    "relu6 in place": lambda: nn.Sequential(conv(), nn.ReLU6(inplace=True)),
    "hardtanh": lambda: nn.Hardtanh(-0.3, 0.7),
    "hardshrink": lambda: nn.Hardshrink(0.4),
    "softshrink": lambda: nn.Softshrink(0.4),
    "threshold": lambda: nn.Threshold(0.2, -0.4),
    "clamp": lambda: lambda x: x.clamp(-0.2, 0.9),
    "clamp(min=0)": lambda: lambda x: x.clamp(min=0),
    "clamp_max": lambda: lambda x: x.clamp_max(0.4),
    "clamp in place": lambda: lambda x: (x * 1).clamp_(max=0.4),
    "clamp at a parameter": lambda: Learned(lambda x, low: x.clamp(min=low), (4, 1, 1)),
    "rrelu": lambda: nn.RReLU().eval(),
    "dropout": lambda: nn.Dropout(0.4),
    "dropout in place": lambda: nn.Sequential(conv(), nn.Dropout(0.4, inplace=True)),
    "dropout2d": lambda: nn.Dropout2d(0.4),
    "dropout of a function": lambda: lambda x: torch.dropout(x, 0.3, train=True),
    "where": lambda: lambda x: torch.where(x > 0, x, 0.3 * x),
    "where of constants": lambda: lambda x: torch.where(MASK, x, 0.5) + torch.where(MASK, constant(4, 1, 1), x),
    "masked_fill": lambda: lambda x: x.masked_fill(MASK, 2.0),
    "a mask by comparison": lambda: lambda x: x * (x > 0) + x.sign(),
    "addcmul and lerp": lambda: lambda x: torch.addcmul(x, x, constant(8), value=0.5).lerp(constant(8, 8), 0.3),
    "noise": lambda: lambda x: x + 0.1 * torch.randn_like(x),
    "max pooling": lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "max pooling 1d": lambda: lambda x: F.max_pool1d(x.flatten(2), 2),
    "max pooling 3d": lambda: lambda x: F.max_pool3d(x[:, None], 2),
    "adaptive max pooling": lambda: nn.AdaptiveMaxPool2d(3),
    "max pooling of zeros": lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)),
    "maxout": lambda: lambda x: x.unflatten(1, (2, 2)).max(2).values,
    "max over the image": lambda: lambda x: x.amax((2, 3)),
    "min": lambda: lambda x: torch.min(x, dim=-1, keepdim=True)[0],
    "ties of amax": lambda: lambda x: torch.cat([x, x, x], 1).amax(1),
    "maximum": lambda: lambda x: torch.maximum(x, x.flip(1)),
    "maximum at ties": lambda: lambda x: torch.maximum(x.relu(), x.abs()),
    "minimum of a constant": lambda: lambda x: torch.minimum(constant(8), x),
    "max of a parameter": lambda: Learned(torch.max, (4, 1, 1)),
    "topk": lambda: lambda x: x.flatten(1).topk(5)[0],
    "sort": lambda: lambda x: x.sort(dim=1, descending=True).values,
}

LINEAR: dict[str, Callable[[], Any]] = {
    "addmm": lambda: Learned(lambda x, b, w: torch.addmm(b.unsqueeze(0), x.flatten(1), w.t()), (5,), (5, 256)),
    "addmm with factors": lambda: Learned(
        lambda x, b, w: torch.addmm(b, x.flatten(1), w, beta=0.5, alpha=2), (4, 5), (256, 5)
    ),
    "baddbmm": lambda: Learned(lambda x, b, w: torch.baddbmm(b, x.flatten(2), w.expand(4, -1, -1)), (4, 4, 5), (64, 5)),
    "bmm": lambda: lambda x: torch.bmm(constant(4, 3, 4), x.flatten(2)),
    "matmul from the left": lambda: Learned(lambda x, w: w @ x, (1, 1, 5, 8)),
    "matmul of an activation in it": lambda: Learned(lambda x, b: b + x @ constant(8, 8), (8, 8)),
    "mv": lambda: Learned(lambda x, w: torch.mv(x.flatten(1), w)[:, None], (256,)),
    "einsum": lambda: Learned(lambda x, w: torch.einsum("nchw,oc->nohw", x, w), (5, 4)),
    "einsum with dots": lambda: Learned(lambda x, w: torch.einsum("...w,vw->...v", x, w), (5, 8)),
    "einsum of samples": lambda: lambda x: torch.einsum("bc, bchw -> bchw", constant(4, 4), x),
    "bilinear": lambda: Learned(lambda x, w: F.bilinear(x.flatten(1), constant(4, 3), w), (5, 256, 3)),
    "grid_sample": lambda: lambda x: F.grid_sample(x, GRID, align_corners=False),
    "grid_sample reflected": lambda: lambda x: F.grid_sample(x, GRID, "bicubic", "reflection", align_corners=True),
    "our grid_sample": lambda: lambda x: grid_sample(x, GRID),
    "batch norm in eval": lambda: normalised(nn.BatchNorm2d),
    "batch norm without weights": lambda: normalised(nn.BatchNorm2d, affine=False),
    "instance norm in eval": lambda: normalised(nn.InstanceNorm2d, affine=True, track_running_stats=True),
    "constant.to": lambda: lambda x: x + torch.ones(1).to(x) * constant(8).type_as(x),
    "type_as": lambda: lambda x: x.type_as(constant(1)).to(constant(1)).type(torch.float64),
    "shapes of others": lambda: lambda x: x.flatten(2).view_as(x).reshape_as(x) + constant(8).expand_as(x),
    "flip and roll": lambda: lambda x: x.flip(-1).roll((1, 2), (2, 3)).flip([1, 2]).roll(1, 1),
    "repeat and tile": lambda: lambda x: x.repeat(1, 2, 1, 1).tile(2).repeat_interleave(2, dim=1),
    "narrow and select": lambda: lambda x: x.narrow(1, 1, 2).select(-1, 3),
    "index": lambda: lambda x: x[:, [0, 2]][..., torch.tensor([1, 1, 3])],
    "index by a mask": lambda: lambda x: x[:, :, MASK[0, 0]],
    "index_select and gather": lambda: (
        lambda x: x.index_select(1, torch.tensor([2, 0])).gather(1, torch.zeros(4, 1, 8, 8, dtype=torch.long))
    ),
    "movedim": lambda: lambda x: x.movedim(1, -1).moveaxis((1, 2), (2, 1)),
    "cumsum and diff": lambda: lambda x: x.cumsum(2).diff().diff(dim=1),
    "diff beside a constant": lambda: lambda x: x.diff(1, 2, constant(4, 4, 1, 8)) + torch.diff(x, append=x[..., :1]),
    "diff beside a weight": lambda: Learned(lambda x, w: x.diff(2, dim=1, append=w.expand(4, 2, 8, 8)), (2, 1, 1)),
    "expand_as": lambda: lambda x: x + x.mean((1, 2, 3), keepdim=True).expand_as(x),
    "unfold and fold": lambda: lambda x: F.fold(F.unfold(x, 2), 8, 2) + F.pad(x.unfold(3, 8, 1).squeeze(3), (0, 0)),
    "rot90, diagonal and tril": lambda: lambda x: x.rot90(1, (2, 3)).tril().mT + x.diagonal(0, 2, 3)[..., None],
    "pixel shuffles": lambda: lambda x: F.channel_shuffle(F.pixel_unshuffle(F.pixel_shuffle(x, 2), 4), 4),
    "pad with 1": lambda: lambda x: F.pad(x, (1, 1), value=1.0),
    "pads": lambda: (
        lambda x: F.pad(
            F.pad(F.pad(x, (1, 2, 0, 0), mode="circular"), (1, 1, 0, 1), mode="reflect"), (-1, 1), mode="constant"
        )
    ),
    "padding modes": lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"),
    "old weight norm": lambda: nn.utils.weight_norm(conv()),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(conv()),
    "old spectral norm": lambda: nn.utils.spectral_norm(conv()).eval(),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(conv()).eval(),
    "audio, channels apart": lambda: (
        lambda x: F.conv1d(F.avg_pool1d(x.flatten(2), 4, 2, 1), constant(8, 2, 5), groups=2, dilation=2)
    ),
    "audio, periods": lambda: (
        lambda x: F.conv2d(F.pad(x.flatten(2), (0, 2), mode="reflect").unflatten(2, (22, 3)), constant(3, 4, 5, 1))
    ),
    "volumes": lambda: (
        lambda x: F.conv_transpose3d(F.conv3d(x[:, None], constant(2, 1, 3, 3, 3)), constant(2, 1, 2, 2, 2))
    ),
}


NEWER = ("grid_sample", "grid_sample reflected")  # PyTorch 2.11 differentiates them once


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=GRID_SAMPLE_TWICE) if name in NEWER else name for name in PIECES | LINEAR]
)
def test_level_2_takes_it_and_equals_autograd(name: str):
    D = around((PIECES | LINEAR)[name](), conv_of_anything())
    assert penalties.refusal(D, images()) is None
    for loss in (softplus, None):
        got = gradients(D, lambda loss=loss: backward_with_penalty(D, images(), loss, gamma=3.0, level=2))
        want = gradients(D, lambda loss=loss: written_out(D, images(), loss, gamma=3.0))
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


AT_TIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "maximum of a constant": lambda x, y: torch.maximum(x, torch.zeros(1, 8, dtype=x.dtype)) + y,
    "amax": lambda x, y: torch.stack([x, y], 2).amax(2),
    "max": lambda x, y: torch.stack([x, y], 2).max(2).values,
    "topk": lambda x, y: torch.stack([x, y], 2).topk(1, 2).values.squeeze(2),
    "max_pool1d": lambda x, y: F.max_pool1d(torch.stack([x, y], 2), 2).squeeze(2),
    "where": lambda x, y: torch.where(x > y, x, y),
    "clamp": lambda x, y: x.clamp(min=0) + y.clamp_max(0),
    "hardtanh": lambda x, y: F.hardtanh(x, 0, 1) + F.relu6(y),
    "threshold": lambda x, y: F.threshold(x, 0, 0.3) + F.softshrink(y, 0.0),
}


class Tied(nn.Module):
    """Layers without biases, so that both are 0 for an image of zeros, with slopes of their own."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.first, self.second = (nn.Linear(6, 8, bias=False) for _ in range(2))
        self.last = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x), self.second(x))).squeeze(1)


@pytest.mark.parametrize("name", AT_TIES)
def test_at_ties_it_equals_autograd(name: str):
    torch.manual_seed(0)
    D, img = Tied(AT_TIES[name]).double(), torch.randn(4, 6, dtype=torch.float64)
    img[1:3] = 0
    got = gradients(D, lambda: backward_with_penalty(D, img, softplus, gamma=3.0, level=2))
    want = gradients(D, lambda: written_out(D, img, softplus, gamma=3.0))
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_hardsigmoid_whose_second_gradient_pytorch_lacks():
    grads = []
    for layer in (F.hardsigmoid, lambda x: F.relu6(x + 3) / 6):
        D = around(lambda x, layer=layer: layer(5 * x), conv_of_anything())
        grads.append(gradients(D, lambda D=D: backward_with_penalty(D, images(), softplus, gamma=3.0, level=2)))
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-13)


def conv_of_anything() -> nn.Module:
    """A layer with slopes of its own, for a tensor of any shape."""
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(7), nn.LeakyReLU(0.2))


REFUSED: dict[str, tuple[Callable, str]] = {
    "flip": (lambda x: x.flip(0), "flip along dimension 0 ties samples together"),
    "roll": (lambda x: x.roll(1), "roll without dimensions moves samples"),
    "repeat": (lambda x: x.repeat(2, 1, 1, 1)[:4], "repeat repeats the batch"),
    "narrow": (lambda x: x.narrow(0, 0, 4), "narrow along dimension 0"),
    "movedim": (lambda x: x.movedim(0, 1), "movedim moves the batch"),
    "lists apart": (lambda x: x[:, [0, 1, 2, 3], :, [0, 1, 2, 3]], "indexing must leave dimension 0"),
    "list": (lambda x: x[[1, 0, 2, 3]], "indexing must leave dimension 0"),
    "max": (lambda x: x / 1 - x.max(0).values, "max along dimension 0"),
    "max of all": (lambda x: x - x.max(), "max over dimension 0"),
    "amax": (lambda x: x - x.amax(), "amax along dimension 0"),
    "sort": (lambda x: x.sort(0).values, "sort along dimension 0"),
    "einsum": (lambda x: torch.einsum("nchw,mn->mchw", x, constant(4, 4)), "einsum .* sums over it"),
    "einsum that moves": (
        lambda x: torch.einsum("nchw,c->hnw", x, constant(4)).movedim(0, 1),
        "einsum .* moves the batch",
    ),
    "matrix": (lambda x: constant(4, 4) @ x.flatten(1), "matmul of a matrix with an activation sums over the batch"),
    "two": (lambda x: torch.bmm(x[:, 0], x[:, 1]), "the product of two activations"),
    "grid": (lambda x: F.grid_sample(x, x[:, :2].movedim(1, -1)), "its grid depends on the image"),
    "glu": (lambda x: F.glu(x, 1), "glu is curved"),
    "fmax": (lambda x: torch.fmax(x, constant(4, 8, 8)), "fmax is not known"),  # at ties it takes the first alone
    "maximum": (lambda x: torch.maximum(x, constant(2, 4, 4, 8, 8))[0], "moves the batch"),
    "diff": (lambda x: x.diff(dim=0, append=constant(1, 4, 8, 8)), "diff along dimension 0"),
    "expand_as": (lambda x: x.mean((1, 2, 3)).expand_as(x[:, :, 0, 0]), "expand moves the batch"),
    "where": (
        lambda x: torch.where(MASK[:, 0, :4, 0], x.mean((1, 2, 3)), x[:, :, 0, 0]),
        r"where of \[4\] and \[4, 4\] ties samples together",
    ),
    "where by a matrix": (
        lambda x: torch.where(torch.eye(4) > 0, x.mean((1, 2, 3)), x.amax((1, 2, 3))),
        "moves the batch from dimension 0",
    ),
    "gru": (lambda x: nn.GRU(8, 8, batch_first=True).double()(x[:, 0])[0], "gru is curved"),
    "lstm": (lambda x: nn.LSTM(8, 8, batch_first=True).double()(x[:, 0])[0], "lstm is curved"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_ties_samples_together_is_refused(name: str):
    function, sentence = REFUSED[name]
    D = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), around_function(function), nn.Flatten()).double()
    with pytest.raises(penalties.NotPiecewiseLinear, match=sentence):
        backward_with_penalty(D, images(), softplus, gamma=3.0, level=2)


def around_function(function: Callable) -> nn.Module:
    return Learned(lambda x: function(x))
