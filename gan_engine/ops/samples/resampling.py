"""Samples of the ops that filter and resample images.

These are avg_pool2d, grid_sample, upfirdn2d, upfirdn2d_act and filtered_lrelu.
"""

from typing import Any

from torch import Tensor

from gan_engine.ops import eager
from gan_engine.ops.avg_pool2d import avg_pool2d
from gan_engine.ops.filtered_lrelu import filtered_lrelu
from gan_engine.ops.grid_sample import grid_sample, grid_sample_ref
from gan_engine.ops.samples.sample import LAST, Op, Sample, Shapes
from gan_engine.ops.samples.taps import with_taps
from gan_engine.ops.upfirdn2d import upfirdn2d
from gan_engine.ops.upfirdn2d_act import upfirdn2d_act


def _on_grid(n: int, c: int, h: int, w: int, *out: int) -> Shapes:
    return {"x": (n, c, h, w), "grid": (n, *out, 2)}


def _image(*shape: int) -> Shapes:
    return {"x": shape}


def _filtered(x: tuple[int, ...], *size: int, noise_n: int | None = None) -> Shapes:
    return {"x": x, "scale": x[:2], "b": x[1:2], "noise": (x[0] if noise_n is None else noise_n, 1, *size)}


def _defined_upfirdn2d(x: Tensor, **options: Any) -> Tensor:
    """Zeros between and around the pixels, a convolution, and every down-th pixel of its result."""
    return upfirdn2d(x, **options, backend="reference")


def _layer(*x: int) -> Shapes:
    return {"x": x, "b": x[1:2]}


_UP2 = {"taps": "1331", "up": 2, "padding": [2, 1, 2, 1], "gain": 4}
_DOWN2 = {"taps": "1331", "down": 2, "padding": 1}
_BLUR = {"taps": "1331", "padding": [2, 1, 2, 1]}
_BEHIND_UP = {"taps": "1331", "padding": 1, "fir_gain": 4, "act": "lrelu"}
# A layer of StyleGAN3: y has the size of x, and 2 / up times that of x where it upsamples by 4.
_ALIAS_FREE = {"taps_up": "12", "taps_down": "12", "up": 2, "down": 2, "padding": [11, 10, 11, 10]}
_ALIAS_FREE_UP = {**_ALIAS_FREE, "taps_up": "24", "up": 4, "padding": [20, 17, 20, 17]}
_RADIAL = {**_ALIAS_FREE, "taps_down": "12x12-radial"}
_BY_OPTIONS = {"fu": "taps_up", "fd": "taps_down"}
_IN_ONE_PASS = (  # of upfirdn2d_act, on the backend "cuda"
    Sample("eights", _filtered((2, 16, 5, 4), 4, 3), {**_BEHIND_UP, "clamp": 1.0}, LAST),
    Sample(
        "eights-crop",
        _filtered((1, 8, 21, 6), 20, 6, noise_n=1),
        {**_BEHIND_UP, "padding": [4, -1, -1, 3], "act": "relu", "flip_filter": True},
        LAST,
    ),
    Sample("eights-scale-alone", {"x": (2, 8, 4, 5), "scale": (2, 8)}, {**_BLUR, "act": "lrelu"}, LAST),
    Sample("eights-noise-alone", {"x": (2, 8, 4, 5), "noise": (2, 1, 4, 5)}, {**_BLUR, "gain": 0.5}, LAST),
    Sample("threads-channels_last", _filtered((2, 8, 49, 66), 48, 65), _BEHIND_UP, LAST),
)

RESAMPLING = {
    "avg_pool2d": Op(
        avg_pool2d,
        eager.avg_pool2d,
        tiny=(
            Sample("halves", _image(2, 3, 6, 8), {"kernel_size": 2}),
            Sample("overlap-channels_last", _image(2, 3, 7, 6), {"kernel_size": (3, 2), "stride": (2, 1)}, LAST),
            Sample("padding", _image(1, 2, 5, 6), {"kernel_size": 3, "stride": 2, "padding": 1}),
            Sample("open-end", _image(2, 2, 7, 6), {"kernel_size": 2, "stride": 3, "ceil_mode": True, "padding": 1}),
            Sample("divisor", _image(1, 2, 4, 4), {"kernel_size": 2, "divisor_override": 3}),
            Sample("empty-batch", _image(0, 3, 4, 4), {"kernel_size": 2}),
        ),
        real=(Sample("8x64x64x64", _image(8, 64, 64, 64), {"kernel_size": 2}),),
    ),
    "grid_sample": Op(
        grid_sample,
        grid_sample_ref,
        tiny=(
            Sample("few", _on_grid(1, 2, 3, 2, 2, 2)),
            Sample("up", _on_grid(2, 3, 5, 7, 6, 9)),
            Sample("channels_last", _on_grid(2, 4, 4, 8, 3, 3), layout=LAST),
            Sample("pixel", _on_grid(2, 1, 1, 1, 2, 3)),
            Sample("empty-batch", _on_grid(0, 3, 4, 4, 2, 2)),
        ),
        real=(
            Sample("16x3x256x256", _on_grid(16, 3, 256, 256, 256, 256)),
            Sample("64x3x64x64", _on_grid(64, 3, 64, 64, 64, 64)),
        ),
        variants={"F.grid_sample": eager.grid_sample},
    ),
    "upfirdn2d": Op(
        with_taps(upfirdn2d),
        with_taps(eager.upfirdn2d),
        tiny=(
            Sample("up2", _image(1, 2, 3, 5), _UP2),
            Sample("down2", _image(2, 1, 6, 8), _DOWN2),
            Sample("blur", _image(1, 2, 5, 7), _BLUR),
            Sample("up2-channels_last", _image(1, 16, 4, 3), _UP2, LAST),
            Sample("down2-channels_last-odd", _image(2, 3, 6, 5), _DOWN2, LAST),
            Sample("blur-channels_last-odd", _image(1, 19, 3, 4), _BLUR, LAST),
            Sample("down2-channels_last", _image(1, 16, 21, 4), _DOWN2, LAST),
            Sample("blur-channels_last", _image(2, 8, 11, 3), _BLUR, LAST),
            Sample("up2-channels_last-crop", _image(1, 8, 9, 4), {**_UP2, "padding": [1, 2, -1, 3]}, LAST),
            Sample("up2-even", _image(1, 2, 10, 8), _UP2),
            Sample("up2-odd", _image(1, 2, 3, 4), {**_UP2, "padding": [1, 2, 3, 0]}),
            Sample("down2-even", _image(1, 2, 18, 16), _DOWN2),
            Sample("blur-even-crop", _image(1, 2, 12, 9), {**_BLUR, "padding": [-1, 3, 4, -2]}),
            Sample("up2-wide", _image(1, 2, 2, 37), _UP2),
            Sample("down2-wide", _image(1, 2, 5, 71), _DOWN2),
            Sample("up2-3", _image(1, 2, 4, 4), {"taps": "3", "up": 2, "padding": [1, 2, 0, 3], "flip_filter": True}),
            Sample("up2-12", _image(1, 1, 4, 21), {"taps": "12", "up": 2, "padding": [6, 5], "gain": 4}),
            Sample("down2-12", _image(1, 1, 9, 38), {"taps": "12", "down": 2, "padding": 5}),
            Sample("up4-24-channels_last", _image(1, 9, 3, 4), {"taps": "24", "up": [4, 2], "padding": 13}, LAST),
            Sample("2x3", _image(2, 1, 4, 5), {"taps": "2x3", "gain": -1.5}),
            Sample("4x4-up2", _image(1, 2, 4, 20), {"taps": "4x4", "up": 2, "padding": 2, "flip_filter": True}),
            Sample("4x4-up2-channels_last", _image(1, 3, 4, 5), {"taps": "4x4", "up": 2, "padding": 2}, LAST),
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
            for shape in ((4, 64, 64, 64), (4, 32, 128, 128), (8, 512, 8, 8))
        ),
        larger=(  # several blocks; a gradient of up2 is a down2
            Sample("up2-64x9x11-channels_last", _image(2, 64, 9, 11), _UP2, LAST),
            Sample("blur-3x34x37-channels_last", _image(2, 3, 34, 37), _BLUR, LAST),
            Sample("up2-33x35", _image(2, 2, 33, 35), _UP2),
            Sample("blur-40x66", _image(2, 2, 40, 66), _BLUR),
        ),
        triton=(  # tiles of many and of few channels, and of wide and of narrow planes
            Sample("up2-65x3x3-channels_last", _image(1, 65, 3, 3), _UP2, LAST),
            Sample("blur-33x5x6-channels_last", _image(1, 33, 5, 6), _BLUR, LAST),
            Sample("down2-3x18x6-channels_last", _image(1, 3, 18, 6), _DOWN2, LAST),
            Sample("blur-3x5x6-channels_last", _image(1, 3, 5, 6), _BLUR, LAST),
            Sample("up2-3x130", _image(1, 1, 3, 130), _UP2),
            Sample("blur-5x130", _image(1, 1, 5, 130), _BLUR),
            Sample("blur-33x7", _image(1, 2, 33, 7), _BLUR),
            Sample("down2-6x14", _image(1, 2, 6, 14), _DOWN2),
        ),
        variants={"definition": with_taps(_defined_upfirdn2d)},
    ),
    "upfirdn2d_act": Op(
        with_taps(upfirdn2d_act),
        with_taps(eager.upfirdn2d_act),
        tiny=(
            Sample("up-layer", _filtered((3, 2, 5, 9), 4, 8), {**_BEHIND_UP, "clamp": 1.0}),
            Sample("up-layer-channels_last", _filtered((2, 19, 5, 4), 4, 3, noise_n=1), _BEHIND_UP, LAST),
            Sample("wide", _filtered((1, 2, 3, 38), 2, 37), {**_BEHIND_UP, "clamp": 1.0}),
            Sample(
                "up2-relu",
                _filtered((2, 2, 3, 17), 6, 34, noise_n=1),
                {"taps": "1331", "up": 2, "padding": [2, 1, 2, 1], "fir_gain": 4, "act": "relu"},
            ),
            Sample(
                "down2-channels_last", _filtered((1, 16, 6, 8), 3, 4), {**_DOWN2, "act": "lrelu", "alpha": 0.5}, LAST
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
                LAST,
            ),
            Sample("beyond", _filtered((2, 2, 3, 4), 13, 20), {"taps": "3", "padding": [6, 12, 6, 6], "act": "relu"}),
            Sample("few-of-many", _filtered((1, 2, 9, 21), 2, 3), {"taps": "3", "down": [7, 4]}),
            Sample("scale-alone", {"x": (2, 3, 4, 5), "scale": (2, 3)}, {**_BLUR, "act": "lrelu"}),
            Sample("bias-alone", {"x": (2, 3, 4, 5), "b": (3,)}, {**_BLUR, "act": "lrelu"}),
            Sample("noise-alone", {"x": (2, 3, 4, 5), "noise": (2, 1, 4, 5)}, {**_BLUR, "act": "lrelu"}),
            Sample("no-filter", {"x": (2, 3, 4, 5), "scale": (2, 3), "b": (3,), "noise": (2, 1, 4, 5)}),
            Sample("threads", _filtered((3, 4, 65, 66), 64, 65), {**_BEHIND_UP, "clamp": 1.0}),
            *_IN_ONE_PASS,
            Sample("empty-batch", _filtered((0, 3, 5, 5), 4, 4), _BEHIND_UP),
        ),
        real=(  # behind the transposed convolutions of StyleGAN2
            Sample("8x256x65x65", _filtered((8, 256, 65, 65), 64, 64), {**_BEHIND_UP, "clamp": 256.0}, LAST),
            Sample("4x128x129x129", _filtered((4, 128, 129, 129), 128, 128), {**_BEHIND_UP, "clamp": 256.0}, LAST),
        ),
        cuda=_IN_ONE_PASS,
    ),
    "filtered_lrelu": Op(
        with_taps(filtered_lrelu, **_BY_OPTIONS),
        with_taps(eager.filtered_lrelu, **_BY_OPTIONS),
        tiny=(
            Sample("layer", _layer(2, 3, 5, 6), {**_ALIAS_FREE, "clamp": 0.8}),
            Sample("layer-channels_last", _layer(2, 19, 4, 5), {**_ALIAS_FREE, "clamp": 0.8}, LAST),
            Sample("up4", _layer(2, 2, 5, 4), {**_ALIAS_FREE_UP, "gain": 1.3, "slope": 0.5}),
            Sample("to-colours", _layer(2, 3, 4, 5), {**_ALIAS_FREE, "gain": 1.0, "slope": 1.0, "clamp": 0.9}),
            Sample("many-planes", _layer(5, 7, 3, 3), {**_ALIAS_FREE, "flip_filter": True}),
            Sample("radial", _layer(1, 17, 5, 4), {**_ALIAS_FREE, "taps_down": "4x4", "clamp": 1.0}),
            Sample(
                "matrices-channels_last",
                _layer(2, 5, 6, 5),
                {"taps_up": "2x3", "taps_down": "4x4", "up": [3, 2], "down": [1, 3], "padding": [-1, 4, 3, 2]},
                LAST,
            ),
            Sample(
                "mirrored",
                _layer(2, 9, 7, 5),
                {"taps_up": "6x3-mirrored", "taps_down": "4x4-mirrored", "up": 2, "down": 2, "padding": [3, 2, 4, 3]},
            ),
            Sample(
                "mirrored-odd",
                _layer(1, 17, 5, 6),
                {"taps_up": "4x4-mirrored", "taps_down": "3x2-mirrored", "up": [1, 2], "down": [2, 1], "padding": 2},
                LAST,
            ),
            Sample("few-of-many", _layer(1, 2, 9, 21), {"taps_up": "3", "taps_down": "3", "down": [7, 4]}),
            Sample("up-alone", _layer(1, 2, 3, 4), {"taps_up": "3", "up": [1, 3], "padding": 4, "clamp": 0.5}),
            Sample("down-alone", {"x": (2, 2, 6, 7)}, {"taps_down": "1331", "down": 2, "padding": 1, "slope": 0.0}),
            Sample("no-filter", _layer(2, 3, 4, 5), {"clamp": 0.7}),
            Sample("threads", _layer(2, 3, 35, 40), {**_ALIAS_FREE, "clamp": 0.8}),
            Sample("empty-batch", _layer(0, 3, 5, 5), _ALIAS_FREE),
        ),
        real=(  # of StyleGAN3-T, and radial ones of StyleGAN3-R
            Sample("4x128x52x52", _layer(4, 128, 52, 52), {**_ALIAS_FREE, "clamp": 256.0}),
            Sample("2x128x84x84-channels_last", _layer(2, 128, 84, 84), {**_ALIAS_FREE, "clamp": 256.0}, LAST),
            Sample("up-2x128x36x36", _layer(2, 128, 36, 36), {**_ALIAS_FREE_UP, "clamp": 256.0}),
            Sample("radial-4x128x52x52", _layer(4, 128, 52, 52), {**_RADIAL, "clamp": 256.0}),
            Sample("radial-2x128x36x36", _layer(2, 128, 36, 36), {**_RADIAL, "clamp": 256.0}),
        ),
        variants={"strided": with_taps(eager.strided_filtered_lrelu, **_BY_OPTIONS)},
    ),
}
