"""Sample calls of every op: tiny ones, on which tests state its properties, and real ones, which benchmarks time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gan_engine.ops import eager
from gan_engine.ops.bias_act import ACTIVATIONS, bias_act
from gan_engine.ops.gradient_penalty import mix, sum_of_squares
from gan_engine.ops.grid_sample import grid_sample, grid_sample_ref
from gan_engine.ops.minibatch_stddev import minibatch_stddev
from gan_engine.ops.modulated_conv2d import modulated_conv2d
from gan_engine.ops.norm_act import norm_act
from gan_engine.ops.pixel_norm import pixel_norm
from gan_engine.ops.resample_conv2d import downsample_conv2d, upsample_conv2d
from gan_engine.ops.scale_bias_act import scale_bias_act
from gan_engine.ops.upfirdn2d import upfirdn2d
from gan_engine.ops.upfirdn2d_act import upfirdn2d_act


@dataclass(frozen=True)
class Sample:
    """One call: the shapes of the differentiable tensors by name, and the options that go with them."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    options: dict[str, Any] = field(default_factory=dict)
    layout: torch.memory_format = torch.contiguous_format
    step: float = 0.0  # round the numbers to multiples of this: zeros, and values just at a clamp

    def tensors(self, dtype: torch.dtype, device: str | torch.device = "cpu", *, seed: int = 0) -> dict[str, Tensor]:
        """Standard normal tensors that require gradients; images or volumes are laid out as the sample says."""
        generator = torch.Generator().manual_seed(seed)
        made = {}
        for name, shape in self.shapes.items():
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            x = ((x / self.step).round() * self.step if self.step else x).to(device, dtype)
            if x.ndim == (5 if self.layout == torch.channels_last_3d else 4):
                x = x.to(memory_format=self.layout)
            made[name] = x.requires_grad_()
        return made


@dataclass(frozen=True)
class Op:
    """An op, the chain of PyTorch calls that its users would write without it, and its samples.

    The first `compiled` tiny samples are also tried under torch.compile and torch.func. Benchmarks time `variants` too,
    other ways to write that chain, and `floors`, calls below which no implementation can go, such as the bare
    convolution. All take what the op takes, less `backend`; the floors take the first two tensors alone.
    """

    function: Callable[..., Tensor]
    eager: Callable[..., Tensor]
    tiny: tuple[Sample, ...]
    real: tuple[Sample, ...]
    compiled: int = 1
    variants: dict[str, Callable[..., Tensor]] = field(default_factory=dict)
    floors: dict[str, Callable[..., Tensor]] = field(default_factory=dict)


def _affine(n: int, c: int, h: int, w: int, noise_n: int | None = None) -> dict[str, tuple[int, ...]]:
    return {"x": (n, c, h, w), "scale": (n, c), "b": (c,), "noise": (n if noise_n is None else noise_n, 1, h, w)}


def _modulated(
    n: int, i: int, h: int, o: int, out: int | None = None, *, noise_n: int | None = None
) -> dict[str, tuple[int, ...]]:
    noise = (n if noise_n is None else noise_n, 1, out or h, out or h)
    return {
        "x": (n, i, h, h),
        "weight": (o, i, 3, 3),
        "styles": (n, i),
        "noise": noise,
        "noise_strength": (),
        "bias": (o,),
    }


def _conv(n: int, i: int, h: int, w: int, o: int, k: int) -> dict[str, tuple[int, ...]]:
    return {"x": (n, i, h, w), "weight": (o, i, k, k), "bias": (o,)}


_TAPS = {
    "1331": [0.125, 0.375, 0.375, 0.125],
    "3": [0.5, -0.25, 1.0],
    "12": [0.01, -0.03, 0.02, -0.11, 0.3, 0.8, 0.7, 0.2, -0.05, -0.02, 0.04, 0.03],
    "2x3": [[1.0, -0.5, 0.25], [0.75, 0.3, -0.2]],
    "4x4": [[0.1, 0.2, 0.3, 0.4], [0.5, -0.6, 0.7, 0.8], [0.9, 1.0, -0.1, 0.2], [0.3, 0.4, 0.5, -0.6]],
}
_FILTERS = {
    (name, device): torch.tensor(taps, device=device)
    for name, taps in _TAPS.items()
    for device in ("cpu", *(("cuda",) if torch.cuda.is_available() else ()))
}


def _with_taps(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """op with its filter by name, since an option is no tensor."""

    def call(x: Tensor, *others: Tensor, taps: str | None = None, **options: Any) -> Tensor:
        return op(x, *others, f=None if taps is None else _FILTERS[taps, x.device.type], **options)

    call.__name__ = op.__name__
    return call


def _defined_upfirdn2d(x: Tensor, **options: Any) -> Tensor:
    """Zeros between and around the pixels, a convolution, and every down-th pixel of that."""
    return upfirdn2d(x, **options, backend="reference")


def _filtered(x: tuple[int, ...], *size: int, noise_n: int | None = None) -> dict[str, tuple[int, ...]]:
    return {"x": x, "scale": x[:2], "b": x[1:2], "noise": (x[0] if noise_n is None else noise_n, 1, *size)}


def _image(*shape: int) -> dict[str, tuple[int, ...]]:
    return {"x": shape}


def _two(*shape: int) -> dict[str, tuple[int, ...]]:
    return {"x": shape, "y": shape, "a": shape[:1], "b": shape[:1]}


def _nchw(n: int, c: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
    return {"x": (n, c, h, w), "b": (c,)}


def _on_grid(n: int, c: int, h: int, w: int, *out: int) -> dict[str, tuple[int, ...]]:
    return {"x": (n, c, h, w), "grid": (n, *out, 2)}


def _normed(n: int, c: int, *size: int) -> dict[str, tuple[int, ...]]:
    return {"x": (n, c, *size), "weight": (c,), "bias": (c,)}


_LAST = torch.channels_last
_FIR = {"mode": "fir", "taps": "1331"}
_UP2 = {"taps": "1331", "up": 2, "padding": [2, 1, 2, 1], "gain": 4}
_DOWN2 = {"taps": "1331", "down": 2, "padding": 1}
_BLUR = {"taps": "1331", "padding": [2, 1, 2, 1]}
_BEHIND_UP = {"taps": "1331", "padding": 1, "fir_gain": 4, "act": "lrelu"}

OPS = {
    "bias_act": Op(
        bias_act,
        eager.bias_act,
        tiny=(
            Sample("lrelu-channels_last", _nchw(2, 16, 3, 3), {"act": "lrelu", "clamp": 1.0}, _LAST),
            Sample("tanh-odd", _nchw(2, 3, 5, 7), {"act": "tanh", "clamp": 0.8}),
            Sample("swish-odd", _nchw(2, 3, 5, 7), {"act": "swish", "clamp": 0.8}),
            Sample("linear-gain", _nchw(2, 3, 5, 7), {"gain": 2.0}),
            *(Sample(act, _nchw(2, 3, 5, 7), {"act": act}) for act in ACTIVATIONS),
            *(Sample(f"{act}-at-0", _nchw(2, 3, 5, 7), {"act": act}, step=0.5) for act in ACTIVATIONS),
            *(
                Sample(f"{act}-at-clamp", _nchw(2, 3, 5, 7), {"act": act, "gain": 1.0, "clamp": 1.0}, step=0.5)
                for act in ("linear", "relu", "lrelu")
            ),
            *(Sample(f"{act}-clamp", _nchw(2, 3, 4, 4), {"act": act, "clamp": 0.8}) for act in ACTIVATIONS),
            Sample("lrelu-channels_last-odd", _nchw(2, 5, 3, 3), {"act": "lrelu"}, _LAST),
            Sample("lrelu-alpha-gain", _nchw(1, 4, 4, 8), {"act": "lrelu", "alpha": -0.5, "gain": -1.7}),
            Sample("lrelu-rows", _nchw(2, 2, 4, 8), {"act": "lrelu", "clamp": 0.5}),
            Sample("relu-no-bias", {"x": (3, 2, 5)}, {"act": "relu"}),
            Sample("tanh-last-dim", {"x": (4, 6), "b": (6,)}, {"act": "tanh", "dim": -1, "gain": 0.5}),
            Sample("lrelu-first-dim", {"x": (3, 4, 5), "b": (3,)}, {"act": "lrelu", "dim": 0}),
            Sample("lrelu-vector", {"x": (19,), "b": (19,)}, {"act": "lrelu", "dim": 0}),
            Sample("swish-volume", {"x": (1, 2, 3, 2, 2), "b": (2,)}, {"act": "swish", "clamp": 0.6}),
            Sample("empty-batch", _nchw(0, 3, 4, 4), {"act": "lrelu"}),
        ),
        real=(
            Sample("4x128x128x128", _nchw(4, 128, 128, 128), {"act": "lrelu", "clamp": 256.0}),
            Sample("8x64x256x256", _nchw(8, 64, 256, 256), {"act": "lrelu", "clamp": 256.0}),
        ),
        compiled=4,
    ),
    "scale_bias_act": Op(
        scale_bias_act,
        eager.scale_bias_act,
        tiny=(
            Sample("lrelu", _affine(2, 3, 5, 7), {"act": "lrelu"}),
            Sample("lrelu-clamp", _affine(2, 5, 4, 8), {"act": "lrelu", "clamp": 0.8, "alpha": 0.1, "gain": 0.7}),
            Sample("relu-noise-for-all", _affine(3, 2, 4, 4, noise_n=1), {"act": "relu"}),
            Sample("linear-clamp", _affine(2, 3, 4, 5), {"clamp": 1.0}),
            Sample("linear", _affine(1, 3, 3, 3)),
            Sample("channels_last", _affine(2, 16, 3, 3), {"act": "lrelu", "clamp": 1.0}, _LAST),
            Sample("channels_last-odd", _affine(2, 5, 3, 4, noise_n=1), {"act": "relu"}, _LAST),
            Sample("scale-alone", {"x": (2, 3, 4, 5), "scale": (2, 3)}),
            Sample("bias-alone", {"x": (2, 3, 4, 5), "b": (3,)}, {"act": "lrelu"}),
            Sample("noise-alone", {"x": (2, 3, 4, 5), "noise": (2, 1, 4, 5)}, {"act": "lrelu"}),
            Sample("negative-alpha-gain", _affine(2, 2, 3, 3), {"act": "lrelu", "alpha": -0.5, "gain": -1.7}),
            Sample("threads", _affine(3, 4, 64, 65), {"act": "lrelu", "clamp": 1.0}),
            Sample("empty-batch", _affine(0, 3, 4, 4), {"act": "lrelu"}),
        ),
        real=(
            Sample("8x512x16x16", _affine(8, 512, 16, 16), {"act": "lrelu", "clamp": 256.0}),
            Sample("8x128x64x64", _affine(8, 128, 64, 64), {"act": "lrelu", "clamp": 256.0}),
        ),
    ),
    "modulated_conv2d": Op(
        _with_taps(modulated_conv2d),
        _with_taps(eager.modulated_conv2d),
        tiny=(
            Sample("lrelu", _modulated(2, 3, 5, 4), {"act": "lrelu"}),
            Sample("clamp-channels_last", _modulated(2, 4, 4, 3, noise_n=1), {"act": "lrelu", "clamp": 1.0}, _LAST),
            Sample(
                "to-rgb",
                {"x": (2, 5, 4, 4), "weight": (3, 5, 1, 1), "styles": (2, 5), "bias": (3,)},
                {"demodulate": False},
            ),
            Sample("no-padding", {"x": (1, 2, 6, 5), "weight": (3, 2, 3, 2), "styles": (1, 2)}, {"padding": 0}),
            Sample("empty-batch", _modulated(0, 3, 4, 2), {"act": "lrelu"}),
            Sample("up2", _modulated(2, 3, 3, 2, 6), {"act": "lrelu", "up": 2, "taps": "1331"}),
            Sample("down2", _modulated(2, 2, 6, 3, 3), {"act": "lrelu", "down": 2, "taps": "1331"}),
        ),
        real=(
            *(
                Sample(f"{n}x{c}x{h}x{h}", _modulated(n, c, h, c), {"act": "lrelu", "clamp": 256.0}, _LAST)
                for n, c, h in ((8, 512, 8), (8, 512, 16), (8, 256, 32), (8, 128, 64))
            ),
            *(  # the layers of StyleGAN2 that double the image
                Sample(
                    f"up2-{n}x{c}x{h}x{h}",
                    _modulated(n, c, h, c, 2 * h),
                    {"act": "lrelu", "clamp": 256.0, "up": 2, "taps": "1331"},
                    _LAST,
                )
                for n, c, h in ((8, 512, 8), (8, 256, 32), (4, 128, 64))
            ),
        ),
        variants={"grouped": _with_taps(eager.grouped_modulated_conv2d)},
        floors={"convolution": eager.convolution},
    ),
    "upsample_conv2d": Op(
        _with_taps(upsample_conv2d),
        _with_taps(eager.upsample_conv2d),
        tiny=(
            Sample("3x3", _conv(2, 3, 4, 5, 4, 3), {"act": "lrelu"}),
            Sample("1x1", _conv(2, 3, 4, 5, 4, 1), {"act": "relu"}),
            Sample("5x5-channels_last", _conv(2, 3, 6, 6, 4, 5), {"act": "lrelu"}, _LAST),
            Sample("fir", _conv(2, 3, 4, 6, 4, 3), {"act": "lrelu", **_FIR}),
            Sample("fir-1x1-channels_last", _conv(2, 3, 4, 4, 4, 1), _FIR, _LAST),
            Sample("fir-2-dimensional", _conv(1, 2, 4, 4, 3, 5), {"mode": "fir", "taps": "4x4"}),
        ),
        real=(
            Sample("4x128x32x32", _conv(4, 128, 32, 32, 128, 3), {"act": "relu"}),
            Sample("4x64x64x64", _conv(4, 64, 64, 64, 64, 3), {"act": "relu"}),
            Sample("fir-4x128x32x32", _conv(4, 128, 32, 32, 128, 3), {"act": "lrelu", **_FIR}, _LAST),
        ),
    ),
    "downsample_conv2d": Op(
        _with_taps(downsample_conv2d),
        _with_taps(eager.downsample_conv2d),
        tiny=(
            Sample("3x3", _conv(2, 2, 4, 6, 3, 3), {"act": "lrelu"}),
            Sample("1x1", _conv(2, 3, 4, 6, 4, 1), {"act": "relu"}),
            Sample("5x5-channels_last", _conv(2, 3, 6, 6, 4, 5), {"act": "lrelu"}, _LAST),
            Sample("fir", _conv(2, 3, 4, 6, 4, 3), {"act": "lrelu", **_FIR}),
            Sample("fir-1x1-channels_last", _conv(2, 3, 4, 4, 4, 1), _FIR, _LAST),
            Sample("fir-2-dimensional", _conv(1, 2, 4, 4, 3, 5), {"mode": "fir", "taps": "4x4"}),
        ),
        real=(
            Sample("4x128x64x64", _conv(4, 128, 64, 64, 128, 3), {"act": "lrelu"}),
            Sample("4x64x128x128", _conv(4, 64, 128, 128, 64, 3), {"act": "lrelu"}),
            Sample("fir-4x128x64x64", _conv(4, 128, 64, 64, 128, 3), {"act": "lrelu", **_FIR}, _LAST),
        ),
    ),
    "grid_sample": Op(
        grid_sample,
        grid_sample_ref,
        tiny=(
            Sample("few", _on_grid(1, 2, 3, 2, 2, 2)),
            Sample("up", _on_grid(2, 3, 5, 7, 6, 9)),
            Sample("channels_last", _on_grid(2, 4, 4, 8, 3, 3), layout=_LAST),
            Sample("pixel", _on_grid(2, 1, 1, 1, 2, 3)),
            Sample("empty-batch", _on_grid(0, 3, 4, 4, 2, 2)),
        ),
        real=(
            Sample("16x3x256x256", _on_grid(16, 3, 256, 256, 256, 256)),
            Sample("64x3x64x64", _on_grid(64, 3, 64, 64, 64, 64)),
        ),
        variants={"F.grid_sample": eager.grid_sample},
    ),
    "minibatch_stddev": Op(
        minibatch_stddev,
        eager.minibatch_stddev,
        tiny=(
            Sample("groups", {"x": (8, 3, 2, 3)}),
            Sample("channels_last", {"x": (4, 6, 3, 3)}, {"group_size": 2, "num_channels": 2}, _LAST),
            Sample("whole-batch", {"x": (3, 2, 4, 4)}, {"group_size": None}),
        ),
        real=(Sample("32x512x4x4", {"x": (32, 512, 4, 4)}),),
    ),
    "pixel_norm": Op(
        pixel_norm,
        eager.pixel_norm,
        tiny=(
            Sample("odd", {"x": (2, 5, 3, 7)}),
            Sample("channels_last", {"x": (2, 19, 3, 3)}, layout=_LAST),
            Sample("wide", {"x": (1, 3, 4, 80)}),
            Sample("vector", {"x": (3, 37)}, {"dim": -1}),
            Sample("first-dim", {"x": (4, 3, 5)}, {"dim": 0, "eps": 0.1}),
            Sample("empty-batch", {"x": (0, 3, 4, 4)}),
        ),
        real=(
            Sample("16x512x16x16", {"x": (16, 512, 16, 16)}),
            Sample("8x128x64x64", {"x": (8, 128, 64, 64)}),
            Sample("4x32x256x256", {"x": (4, 32, 256, 256)}),
            Sample("64x512", {"x": (64, 512)}),
        ),
    ),
    "norm_act": Op(
        norm_act,
        eager.norm_act,
        tiny=(
            Sample("lrelu", _normed(3, 4, 3, 5), {"act": "lrelu"}),
            Sample("relu-channels_last", _normed(2, 19, 3, 3), {"act": "relu"}, _LAST),
            Sample("linear-rows", _normed(2, 3, 4, 10)),
            Sample("instance", _normed(2, 3, 5, 7), {"act": "relu", "norm": "instance"}),
            Sample("instance-channels_last", _normed(2, 18, 3, 3), {"act": "lrelu", "norm": "instance"}, _LAST),
            Sample("vectors", _normed(7, 5), {"act": "lrelu", "alpha": 0.01}),
            Sample("volume", _normed(2, 3, 2, 3, 2), {"act": "relu"}),
            Sample("volume-channels_last", _normed(2, 3, 2, 3, 2), {"act": "relu"}, torch.channels_last_3d),
        ),
        real=(  # DCGAN, CycleGAN, SRGAN
            Sample("64x64x32x32", _normed(64, 64, 32, 32), {"act": "lrelu"}),
            Sample("64x256x8x8", _normed(64, 256, 8, 8), {"act": "relu"}),
            Sample("1x256x64x64-instance", _normed(1, 256, 64, 64), {"act": "relu", "norm": "instance"}),
            Sample("16x64x96x96", _normed(16, 64, 96, 96), {"act": "lrelu"}),
        ),
    ),
    "upfirdn2d": Op(
        _with_taps(upfirdn2d),
        _with_taps(eager.upfirdn2d),
        tiny=(
            Sample("up2", _image(1, 2, 3, 5), _UP2),
            Sample("down2", _image(2, 1, 6, 8), _DOWN2),
            Sample("blur", _image(1, 2, 5, 7), _BLUR),
            Sample("up2-channels_last", _image(1, 16, 4, 3), _UP2, _LAST),
            Sample("down2-channels_last-odd", _image(2, 3, 6, 5), _DOWN2, _LAST),
            Sample("blur-channels_last-odd", _image(1, 19, 3, 4), _BLUR, _LAST),
            Sample("up2-wide", _image(1, 2, 2, 37), _UP2),
            Sample("down2-wide", _image(1, 2, 5, 71), _DOWN2),
            Sample("up2-3", _image(1, 2, 4, 4), {"taps": "3", "up": 2, "padding": [1, 2, 0, 3], "flip_filter": True}),
            Sample("up2-12", _image(1, 1, 4, 21), {"taps": "12", "up": 2, "padding": [6, 5], "gain": 4}),
            Sample("down2-12", _image(1, 1, 9, 38), {"taps": "12", "down": 2, "padding": 5}),
            Sample("2x3", _image(2, 1, 4, 5), {"taps": "2x3", "gain": -1.5}),
            Sample("4x4-up2", _image(1, 2, 4, 20), {"taps": "4x4", "up": 2, "padding": 2, "flip_filter": True}),
            Sample("4x4-up2-channels_last", _image(1, 3, 4, 5), {"taps": "4x4", "up": 2, "padding": 2}, _LAST),
            Sample("4x4-down2", _image(1, 2, 6, 7), {"taps": "4x4", "down": 2, "padding": 1}),
            Sample(
                "up3x2-down2x5-crop",
                _image(1, 2, 9, 11),
                {"taps": "2x3", "up": [3, 2], "down": [2, 5], "padding": [-2, 3, 4, -1]},
            ),
            Sample("up4-down3", _image(1, 2, 4, 23), {"taps": "3", "up": 4, "down": 3, "padding": [2, 1]}),
            Sample("down3-crop", _image(1, 2, 12, 60), {"taps": "3", "down": [3, 1], "padding": [-3, -1, -2, -4]}),
            Sample("identity", _image(1, 2, 3, 4)),
            Sample("empty-batch", _image(0, 3, 4, 4), _UP2),
        ),
        real=tuple(
            Sample(f"{name}-{'x'.join(map(str, shape))}", _image(*shape), options)
            for name, options in (("up2", _UP2), ("down2", _DOWN2), ("blur", _BLUR))
            for shape in ((4, 64, 64, 64), (4, 32, 128, 128))
        ),
        variants={"definition": _with_taps(_defined_upfirdn2d)},
    ),
    "upfirdn2d_act": Op(
        _with_taps(upfirdn2d_act),
        _with_taps(eager.upfirdn2d_act),
        tiny=(
            Sample("up-layer", _filtered((3, 2, 5, 9), 4, 8), {**_BEHIND_UP, "clamp": 1.0}),
            Sample("up-layer-channels_last", _filtered((2, 19, 5, 4), 4, 3, noise_n=1), _BEHIND_UP, _LAST),
            Sample("wide", _filtered((1, 2, 3, 38), 2, 37), {**_BEHIND_UP, "clamp": 1.0}),
            Sample(
                "up2-relu",
                _filtered((2, 2, 3, 17), 6, 34, noise_n=1),
                {"taps": "1331", "up": 2, "padding": [2, 1, 2, 1], "fir_gain": 4, "act": "relu"},
            ),
            Sample(
                "down2-channels_last", _filtered((1, 16, 6, 8), 3, 4), {**_DOWN2, "act": "lrelu", "alpha": 0.5}, _LAST
            ),
            Sample("down2-wide", _filtered((1, 2, 4, 70), 2, 35), {**_DOWN2, "gain": 0.5, "clamp": 0.4}),
            Sample(
                "4x4-up2",
                _filtered((1, 2, 4, 5), 9, 11),
                {"taps": "4x4", "up": 2, "padding": 2, "flip_filter": True, "act": "lrelu"},
            ),
            Sample(
                "up3x2-down2x5-crop",
                _filtered((1, 2, 9, 11), 4, 16),
                {"taps": "2x3", "up": [3, 2], "down": [2, 5], "padding": [-2, 3, 4, -1], "act": "lrelu"},
            ),
            Sample(
                "beyond-channels_last",
                _filtered((1, 3, 3, 4), 9, 11),
                {"taps": "3", "padding": [7, 2, -1, 9], "act": "lrelu"},
                _LAST,
            ),
            Sample("beyond", _filtered((2, 2, 3, 4), 13, 20), {"taps": "3", "padding": [6, 12, 6, 6], "act": "relu"}),
            Sample("few-of-many", _filtered((1, 2, 9, 21), 2, 3), {"taps": "3", "down": [7, 4]}),
            Sample("scale-alone", {"x": (2, 3, 4, 5), "scale": (2, 3)}, {**_BLUR, "act": "lrelu"}),
            Sample("bias-alone", {"x": (2, 3, 4, 5), "b": (3,)}, {**_BLUR, "act": "lrelu"}),
            Sample("noise-alone", {"x": (2, 3, 4, 5), "noise": (2, 1, 4, 5)}, {**_BLUR, "act": "lrelu"}),
            Sample("no-filter", {"x": (2, 3, 4, 5), "scale": (2, 3), "b": (3,), "noise": (2, 1, 4, 5)}),
            Sample("threads", _filtered((3, 4, 65, 66), 64, 65), {**_BEHIND_UP, "clamp": 1.0}),
            Sample("threads-channels_last", _filtered((3, 4, 65, 66), 64, 65), _BEHIND_UP, _LAST),
            Sample("empty-batch", _filtered((0, 3, 5, 5), 4, 4), _BEHIND_UP),
        ),
        real=(  # behind the transposed convolutions of StyleGAN2
            Sample("8x256x65x65", _filtered((8, 256, 65, 65), 64, 64), {**_BEHIND_UP, "clamp": 256.0}, _LAST),
            Sample("4x128x129x129", _filtered((4, 128, 129, 129), 128, 128), {**_BEHIND_UP, "clamp": 256.0}, _LAST),
        ),
    ),
    "sum_of_squares": Op(
        sum_of_squares,
        eager.sum_of_squares,
        tiny=(
            Sample("images", {"x": (3, 3, 5, 7)}),
            Sample("channels_last", {"x": (2, 16, 4, 4)}, layout=_LAST),
            Sample("rows", {"x": (5, 1)}),
            Sample("numbers", {"x": (4,)}),
            Sample("volume", {"x": (2, 3, 2, 2, 5)}),
            Sample("empty-batch", {"x": (0, 3, 4, 4)}),
        ),
        real=(Sample("16x3x256x256", {"x": (16, 3, 256, 256)}),),
    ),
    "mix": Op(
        mix,
        eager.mix,
        tiny=(
            Sample("images", _two(3, 3, 5, 7)),
            Sample("channels_last", _two(2, 16, 4, 4), layout=_LAST),
            Sample("rows", _two(5, 1)),
            Sample("empty-batch", _two(0, 3, 4, 4)),
        ),
        real=(Sample("16x3x256x256", _two(16, 3, 256, 256)),),
    ),
}
