"""Discriminators drawn from a grammar of what torch.nn has. One seed makes one network, again and again."""

import functools
import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tests.losses.networks import Lambda

Rng = random.Random


class Layer(nn.Module):
    """function(modules, x), with the modules that it runs"""

    def __init__(self, function: Callable, *parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.parts = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))
        self.weights = nn.ParameterList(part for part in parts if not isinstance(part, nn.Module))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts, *self.weights)


def weighted(rng: Rng, layer: nn.Module) -> nn.Module:
    """The layer, its weight as it is, frozen, or made by a parametrization of the old or of the new kind."""
    ways = ["frozen", "weight", "old weight", "spectral", "old spectral", "evaluated", "orthogonal"]
    way = rng.choice(["plain"] * 4 + ways)
    if way == "frozen":
        layer.weight.requires_grad_(False)
    if "weight" in way:
        layer = (nn.utils.weight_norm if "old" in way else parametrizations.weight_norm)(layer)
    if "spectral" in way or way == "evaluated":
        layer = (nn.utils.spectral_norm if "old" in way else parametrizations.spectral_norm)(layer)
    if way == "orthogonal" and isinstance(layer, nn.Linear):
        layer = parametrizations.orthogonal(layer)
    return layer.eval() if way == "evaluated" else layer


def convolution(rng: Rng, c: int) -> nn.Module:
    o, groups = rng.choice([(4, 1), (4, 2 if c % 2 == 0 else 1), (6, 1), (c, c)])
    padding = rng.choice([1, 1, "same"])
    stride = 1 if padding == "same" else rng.choice([1, 1, 2])
    mode = rng.choice(["zeros", "zeros", "reflect", "replicate", "circular"])
    options: dict[str, Any] = {"groups": groups, "padding_mode": mode, "bias": rng.random() < 0.7}
    return weighted(rng, nn.Conv2d(c, o, 3, stride, padding, **options))


def other_convolution(rng: Rng, c: int) -> nn.Module:
    return rng.choice(
        [
            lambda: weighted(rng, nn.ConvTranspose2d(c, 4, 3, rng.choice([1, 2]), 1)),
            lambda: Layer(lambda x, f: f(x.flatten(2)).unflatten(2, x.shape[2:]), nn.Conv1d(c, 4, 3, 1, 2, 2)),
            lambda: Layer(lambda x, f: f(x[:, None]).flatten(1, 2), nn.Conv3d(1, 2, 3, padding=1)),
            lambda: Layer(lambda x, f: f(x.movedim(1, -1)).permute(0, 3, 1, 2), weighted(rng, nn.Linear(c, 5))),
        ]
    )()


ACTIVATIONS: list[Callable[[], nn.Module]] = [
    *(
        nn.ReLU,
        nn.LeakyReLU,
        nn.PReLU,
        nn.ELU,
        nn.GELU,
        nn.SiLU,
        nn.Tanh,
        nn.Sigmoid,
        nn.Softplus,
        nn.ReLU6,
        nn.Hardtanh,
    ),
    *(nn.Mish, nn.CELU, nn.SELU, nn.Softsign, nn.LogSigmoid, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.RReLU),
    *(lambda: nn.LeakyReLU(0.2), lambda: nn.LeakyReLU(0.1, inplace=True), lambda: nn.RReLU().eval()),
    *(lambda: nn.Threshold(0.1, -0.3), lambda: nn.Softmax(1), lambda: nn.ReLU(inplace=True), nn.Hardswish),
]
STRAIGHT = [nn.ReLU, lambda: nn.LeakyReLU(0.2), nn.PReLU, nn.ReLU6, nn.Hardtanh, lambda: nn.ReLU(inplace=True)]


def norm(rng: Rng, c: int) -> nn.Module:
    layer = rng.choice(
        [
            lambda: nn.BatchNorm2d(c),
            lambda: nn.BatchNorm2d(c).eval(),
            lambda: nn.BatchNorm2d(c, affine=False, momentum=None),
            lambda: nn.InstanceNorm2d(c, affine=True),
            lambda: nn.InstanceNorm2d(c, track_running_stats=True).eval(),
            lambda: nn.GroupNorm(1, c),
            lambda: Layer(lambda x, f: f(x.movedim(1, -1)).movedim(-1, 1), nn.LayerNorm(c)),
            lambda: Layer(lambda x, f: f(x.movedim(1, -1)).movedim(-1, 1), nn.RMSNorm(c, eps=1e-3)),
            lambda: nn.LocalResponseNorm(2),
        ]
    )()
    for name, buffer in layer.named_buffers():
        if name.startswith("running"):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return layer


def resampling(rng: Rng, c: int) -> nn.Module:
    return rng.choice(
        [
            *(lambda: nn.MaxPool2d(2, ceil_mode=True), lambda: nn.AvgPool2d(2, 1), lambda: nn.LPPool2d(2, 2)),
            *(lambda: nn.AdaptiveAvgPool2d(3), lambda: nn.AdaptiveMaxPool2d(3), lambda: nn.MaxPool2d(3, 1, 1)),
            *(lambda: nn.ReflectionPad2d(1), lambda: nn.ReplicationPad2d(1), lambda: nn.CircularPad2d(1)),
            *(lambda: nn.ConstantPad2d(1, 0.5), lambda: nn.ZeroPad2d((1, 0, -1, 2)), lambda: nn.PixelUnshuffle(1)),
            *(lambda: nn.Upsample(scale_factor=2), lambda: nn.Upsample(size=5, mode="bilinear")),
            *(lambda: nn.Dropout(0.3), lambda: nn.Dropout2d(0.3), lambda: nn.AlphaDropout(0.2)),
            *(lambda: nn.Dropout(0.3, inplace=True), lambda: nn.Identity(), lambda: nn.ChannelShuffle(1)),
            *(lambda: nn.FractionalMaxPool2d(2, 3), lambda: nn.FeatureAlphaDropout(0.2)),
            lambda: Layer(lambda x, f: f(x.flatten(2))[..., None], rng.choice([nn.AvgPool1d, nn.MaxPool1d])(2)),
            lambda: Layer(lambda x, f: f(x[:, None]).squeeze(1), rng.choice([nn.AvgPool3d, nn.MaxPool3d])((1, 2, 2))),
            lambda: Layer(lambda x, f, g: g(*f(x)), nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)),
        ]
    )()


def attention(rng: Rng, c: int) -> nn.Module:
    dim = 4
    part = rng.choice(
        [
            lambda: Layer(
                lambda x, f: f(x, x, x, need_weights=False)[0], nn.MultiheadAttention(dim, 2, batch_first=True)
            ),
            lambda: Layer(lambda x, f: f(x, x, x)[0], nn.MultiheadAttention(dim, 1, dropout=0.2, batch_first=True)),
            lambda: Lambda(lambda x: F.scaled_dot_product_attention(x, x.flip(2), x)),
            lambda: nn.TransformerEncoderLayer(dim, 2, 8, batch_first=True, norm_first=True),
            lambda: Layer(lambda x, f: f(x)[0], rng.choice([nn.GRU, nn.LSTM])(dim, dim, batch_first=True)),
            lambda: Layer(lambda x, f: f(x)[0], nn.RNN(dim, dim, batch_first=True, nonlinearity="relu")),
        ]
    )()
    return Layer(lambda x, into, f: f(into(x.flatten(2).mT)).mT.unflatten(2, x.shape[2:]), nn.Linear(c, dim), part)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return 2 * dy


def function(rng: Rng, c: int) -> nn.Module:
    w, s = torch.randn(5, c), torch.randn(c, 1, 1)
    grid = torch.rand(1, 4, 4, 2) * 2 - 1
    return rng.choice(
        [
            lambda: Layer(lambda x, w: torch.einsum("nchw,oc->nohw", x, w), w),
            lambda: Layer(lambda x, w: (w @ x.flatten(2)).unflatten(2, x.shape[2:]), w),
            lambda: Layer(lambda x, s: torch.maximum(x, s) + torch.lerp(x, s, 0.3), s),
            lambda: Layer(lambda x, s: x.clamp(min=-0.3) * s + torch.where(x > 0, x, 0.1 * x), s),
            lambda: Layer(lambda x, s: x.addcmul(x, s, value=0.5).clamp(max=1.0), s),
            lambda: Layer(lambda x, s: torch.cat([x.flip(3), s.expand(len(x), 1, *x.shape[1:])[:, 0]], 1), s),
            lambda: Lambda(lambda x: torch.cat([*x.roll(1, 2).chunk(2, 3)][::-1], 3)),
            lambda: Lambda(lambda x: x.abs() + x.narrow(1, 0, 1).repeat(1, c, 1, 1)),
            lambda: Lambda(lambda x: x[:, [0, -1]] - x.amax(1, keepdim=True)),
            # randn_like fills memory in the order of its strides, which a level may choose otherwise.
            lambda: Lambda(lambda x: x + torch.ones(1).to(x) + 0.1 * torch.randn(x.shape).to(x)),
            lambda: Lambda(lambda x: F.grid_sample(x, grid.to(x).expand(len(x), -1, -1, -1), align_corners=False)),
            lambda: Lambda(lambda x: x.sort(1).values.cumsum(2)),
            lambda: Lambda(
                lambda x: torch.cat([x, x.std(0, unbiased=False).mean().expand(len(x), 1, *x.shape[2:])], 1)
            ),
            lambda: Lambda(lambda x: x + x.detach().abs()),
            lambda: Lambda(lambda x: x * x.mean((2, 3), keepdim=True)),
            lambda: Lambda(lambda x: F.normalize(x, dim=1) + x.square()),
            lambda: Lambda(Doubled.apply),
            lambda: Lambda(lambda x: (x * 1).mul_(0.5).add_(0.2)),
            # Behind a batch norm the sum is 0 but for rounding, which must not decide.
            lambda: Lambda(lambda x: x.masked_fill(x < -0.2, 0.0) if x.sum() > 0.01 else x * 0.5),
            lambda: Lambda(lambda x: F.unfold(x, 3, padding=1).unflatten(1, (-1, 9)).amax(2).unflatten(2, x.shape[2:])),
        ]
    )()


def composite(rng: Rng, c: int) -> nn.Module:
    def same() -> nn.Module:
        return weighted(rng, nn.Conv2d(c, c, 3, padding=1))

    act = rng.choice(STRAIGHT)
    block = nn.Sequential(act(), same())
    hooks = ["pre-hook", "forward hook", "backward hook", "weight hook"]
    kind = rng.choice(["residual", "shared", "checkpoint", "branches", "named", *hooks])
    if kind == "residual":
        return Layer(lambda x, f: x + f(x.clone()), block)
    if kind == "shared":
        return nn.Sequential(conv := same(), act(), conv)
    if kind == "checkpoint":
        return Layer(lambda x, f: checkpoint(f, x, use_reentrant=False), nn.Sequential(same(), act()))
    if kind == "branches":
        return Layer(lambda x, f, g: torch.stack([f(x * 1), g(x * 1)], 2).flatten(1, 2), block, nn.Sequential(same()))
    if kind == "named":
        return Layer(lambda x, of: of["act"](of["conv"](x)), nn.ModuleDict({"conv": same(), "act": act()}))
    conv = nn.Conv2d(c, c, 1)
    if kind == "pre-hook":
        conv.register_forward_pre_hook(lambda module, args: (args[0] * 0.5,))
    elif kind == "forward hook":
        conv.register_forward_hook(lambda module, args, y: y + args[0])
    elif kind == "backward hook":
        conv.register_full_backward_hook(lambda module, by_x, by_y: tuple(None if g is None else g * 0.5 for g in by_x))
    else:
        conv.weight.register_hook(lambda grad: grad * 2)
    return conv


# What D returns of its logits [N] and features. All but the last are found by rule; the last wants `logits=PICKED`.
RETURNED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "logits": lambda logits, h: logits,
    "column": lambda logits, h: logits[:, None],
    "two for each": lambda logits, h: torch.stack([logits, h.mean((1, 2, 3))], 1),
    "list": lambda logits, h: [logits, h.mean(1, keepdim=True)],
    "towers": lambda logits, h: [logits],  # and those of another network, which sees the image at two scales
    "pair": lambda logits, h: (logits, [h, h.mean(1)]),
    "dict": lambda logits, h: {"logits": logits, "features": [h]},
    "picked": lambda logits, h: (h, {"score": logits}),
}


def picked(returned: Any) -> Tensor:
    return returned[1]["score"]


class Discriminator(nn.Module):
    """layers, then a head: all features, their mean, or a mean over patches; with classes in one of several forms."""

    def __init__(self, layers: nn.Sequential, channels: int, size: int, head: str, classes: bool, returns: str) -> None:
        super().__init__()
        self.layers, self.head, self.returns = layers, head, returns
        self.last = (
            nn.Conv2d(channels, 1, 1) if head == "patches" else nn.Linear(size if head == "all" else channels, 1)
        )
        self.embed = nn.Embedding(3, channels) if classes else None
        if returns == "towers":
            self.tower = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten(2), nn.Linear(9, 2))

    def forward(self, x: Tensor, c: Any = None) -> Any:
        h = self.layers(x * 1)  # a layer may write into its input
        if self.head == "patches":
            logits = self.last(h).mean((1, 2, 3))
        elif self.head == "addmm":
            logits = torch.addmm(self.last.bias.unsqueeze(0), h.mean((2, 3)), self.last.weight.t()).squeeze(1)
        else:
            logits = self.last(h.flatten(1) if self.head == "all" else h.mean((2, 3))).flatten()
        if self.embed is not None:
            label = c["label"] if isinstance(c, dict) else c[0] if isinstance(c, tuple) else c
            logits = logits + (h.mean((2, 3)) * self.embed(label)).sum(1)
        returned = RETURNED[self.returns](logits, h)
        if self.returns == "towers":
            scales = F.avg_pool2d(x, 2), F.max_pool2d(F.pad(x, (0, 0, 1, -1)), 2)
            returned += [self.tower(scale).mean((1, 2)) for scale in scales]
        return returned


CURVED_TOO = [convolution, convolution, other_convolution, norm, resampling, attention, function, composite, None]
STRAIGHT_ONLY = [convolution, convolution, other_convolution, resampling, function, composite, None]


def draw(seed: int) -> tuple[Callable, Discriminator, Tensor, Any]:
    """(what is called, the network behind it, images in float64, classes) of `seed`"""
    rng = Rng(seed)
    torch.manual_seed(seed)
    x = torch.randn(rng.randint(2, 4), 3, 6, 6)
    straight = rng.random() < 0.6
    layers, h = nn.Sequential(), x
    for _ in range(rng.randint(1, 5)):
        kind = rng.choice(STRAIGHT_ONLY if straight else CURVED_TOO)
        layer = rng.choice(STRAIGHT if straight else ACTIVATIONS)() if kind is None else kind(rng, h.shape[1])
        try:
            with torch.no_grad():
                h = layer(h * 1)
        except RuntimeError:  # the image has become too small for this layer
            continue
        layers.append(layer)
    head = rng.choice(["all", "mean", "patches", "addmm"])
    form = rng.choice([None, None, None, "tensor", "tuple", "dict"])
    returns = rng.choice(["logits", "logits", "logits", *RETURNED])
    D = Discriminator(layers, h.shape[1], h[0].numel(), head, form is not None, returns).double()
    label = torch.randint(0, 3, (len(x),))
    c = {None: None, "tensor": label, "tuple": (label, "more"), "dict": {"label": label}}[form]
    called = rng.choice([D, D, D, D.forward, functools.partial(D), lambda *given: D(*given)])
    return called, D, x.double(), c
