"""Samples of bias_act, scale_bias_act and alias_free_activation."""

import torch

from gan_engine.ops import eager
from gan_engine.ops.alias_free_activation import alias_free_activation
from gan_engine.ops.bias_act import ACTIVATIONS, bias_act
from gan_engine.ops.samples.sample import LAST, Op, Sample, Shapes
from gan_engine.ops.samples.taps import with_taps
from gan_engine.ops.scale_bias_act import scale_bias_act


def _nchw(n: int, c: int, h: int, w: int) -> Shapes:
    return {"x": (n, c, h, w), "b": (c,)}


def _affine(n: int, c: int, h: int, w: int, noise_n: int | None = None) -> Shapes:
    return {"x": (n, c, h, w), "scale": (n, c), "b": (c,), "noise": (n if noise_n is None else noise_n, 1, h, w)}


def _snake(*x: int) -> Shapes:
    return {"x": x, "alpha": (x[1],)}


def _snake_beta(*x: int) -> Shapes:
    return {"x": x, "alpha": (x[1],), "beta": (x[1],)}


_LOG = {"log_scale": True}  # alpha and beta are positive
_BY_OPTIONS = {"fu": "taps_up", "fd": "taps_down"}

ACTIVATION = {
    "bias_act": Op(
        bias_act,
        eager.bias_act,
        tiny=(
            Sample("lrelu-channels_last", _nchw(2, 16, 3, 3), {"act": "lrelu", "clamp": 1.0}, LAST),
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
            Sample("lrelu-channels_last-odd", _nchw(2, 5, 3, 3), {"act": "lrelu"}, LAST),
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
        larger=(  # several blocks, and shares of the bias gradient
            Sample("lrelu-264-channels_last", _nchw(2, 264, 8, 16), {"act": "lrelu", "clamp": 1.0}, LAST),
            Sample("lrelu-64x64", _nchw(4, 2, 64, 64), {"act": "lrelu", "clamp": 1.0}),
        ),
        triton=(  # channels that are innermost, in shares and in blocks; rows of 1024, 256, 64 and 16; others
            Sample("lrelu-channels_last", _nchw(2, 16, 16, 33), {"act": "lrelu", "clamp": 1.0}, LAST),
            Sample("linear-24-channels_last", _nchw(1, 24, 3, 3), {"gain": 2.0}, LAST),
            Sample("lrelu-32x64", _nchw(1, 2, 32, 64), {"act": "lrelu", "clamp": 1.0}),
            Sample("relu-no-bias", {"x": (2, 3, 8, 16)}, {"act": "relu"}),
            Sample("lrelu-8x8", _nchw(2, 3, 8, 8), {"act": "lrelu"}),
            Sample("swish-8x8", _nchw(2, 3, 8, 8), {"act": "swish", "clamp": 0.8}),
            Sample("lrelu-4x4", _nchw(2, 3, 4, 4), {"act": "lrelu"}),
            Sample("tanh-odd", _nchw(2, 3, 5, 7), {"act": "tanh", "clamp": 0.8}),
        ),
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
            Sample("channels_last", _affine(2, 16, 3, 3), {"act": "lrelu", "clamp": 1.0}, LAST),
            Sample("channels_last-odd", _affine(2, 5, 3, 4, noise_n=1), {"act": "relu"}, LAST),
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
        larger=(Sample("80-channels_last", _affine(2, 80, 9, 9), {"act": "lrelu", "clamp": 1.0}, LAST),),  # bands
        triton=(  # images whose columns are 512 and more, 64 and more, and fewer, in both layouts
            Sample("512-channels_last", _affine(1, 512, 4, 5), {"act": "lrelu", "clamp": 1.0}, LAST),
            Sample("80-channels_last", _affine(2, 80, 9, 9), {"act": "lrelu", "clamp": 1.0}, LAST),
            Sample("19-channels_last", _affine(2, 19, 5, 7, noise_n=1), {"act": "relu"}, LAST),
            Sample("24x24", _affine(2, 17, 24, 24), {"act": "lrelu", "clamp": 1.0}),
            Sample("8x9", _affine(2, 3, 8, 9, noise_n=1), {"act": "lrelu"}),
            Sample("5x7", _affine(2, 3, 5, 7)),
        ),
    ),
    "alias_free_activation": Op(
        with_taps(alias_free_activation, **_BY_OPTIONS),
        with_taps(eager.alias_free_activation, **_BY_OPTIONS),
        tiny=(
            Sample("snake-beta", _snake_beta(2, 3, 34), _LOG),
            Sample("image", _snake_beta(2, 3, 5, 6), _LOG),
            Sample("snake", _snake(2, 3, 18), _LOG),
            Sample("linear-scale", _snake(2, 3, 16)),
            Sample("one", _snake_beta(2, 3, 1), _LOG),
            Sample("two", _snake_beta(1, 2, 2), _LOG),
            Sample("five", _snake(3, 1, 5), _LOG),
            Sample("own-filters", _snake_beta(1, 3, 21), {**_LOG, "taps_up": "12", "taps_down": "12"}),
            Sample("24-taps", _snake_beta(1, 2, 9), {**_LOG, "taps_up": "24", "taps_down": "1331"}),
            Sample("image-channels_last", _snake(2, 5, 5, 7), _LOG, LAST),
            Sample("gelu", {"x": (2, 3, 11)}, {"act": torch.nn.functional.gelu}),
            Sample("tanh-image", {"x": (1, 2, 4, 3)}, {"act": torch.tanh}),
            Sample("pieces", _snake(1, 2, 1027), _LOG),
            Sample("empty-batch", _snake_beta(0, 3, 7), _LOG),
        ),
        real=(  # of BigVGAN
            Sample("8x256x256", _snake_beta(8, 256, 256), _LOG),
            Sample("8x128x2048", _snake_beta(8, 128, 2048), _LOG),
            Sample("8x32x8192", _snake_beta(8, 32, 8192), _LOG),
            Sample("4x64x64x64", _snake_beta(4, 64, 64, 64), _LOG),
            Sample("8x256x16x16", _snake_beta(8, 256, 16, 16), _LOG),
        ),
        larger=(
            Sample("threads", _snake_beta(3, 5, 2100), _LOG),
            Sample("tiles", _snake_beta(2, 2, 66, 130), _LOG),
        ),
    ),
}
