"""Samples of the convolutions."""

from torch import Tensor

from gan_engine.ops import eager
from gan_engine.ops.convolution import transposed
from gan_engine.ops.convolution.autograd import conv2d
from gan_engine.ops.modulated_conv2d import modulated_conv2d
from gan_engine.ops.resample_conv2d import downsample_conv2d, upsample_conv2d
from gan_engine.ops.samples.sample import LAST, Op, Sample, Shapes
from gan_engine.ops.samples.taps import with_taps
from gan_engine.ops.weight_squares import weight_squares


def _modulated(n: int, i: int, h: int, o: int, out: int | None = None, *, noise_n: int | None = None) -> Shapes:
    noise = (n if noise_n is None else noise_n, 1, out or h, out or h)
    return {
        "x": (n, i, h, h),
        "weight": (o, i, 3, 3),
        "styles": (n, i),
        "noise": noise,
        "noise_strength": (),
        "bias": (o,),
    }


def _conv(n: int, i: int, h: int, w: int, o: int, k: int) -> Shapes:
    return {"x": (n, i, h, w), "weight": (o, i, k, k), "bias": (o,)}


def _transposed_eager(x: Tensor) -> Tensor:
    return x.transpose(0, 1).flip([2, 3])


_FIR = {"mode": "fir", "taps": "1331"}
_RESAMPLED = (  # upsample_conv2d and downsample_conv2d share these
    Sample("5x5-channels_last", _conv(2, 3, 6, 6, 4, 5), {"act": "lrelu"}, LAST),
    Sample("fir", _conv(2, 3, 4, 6, 4, 3), {"act": "lrelu", **_FIR}),
    Sample("fir-1x1-channels_last", _conv(2, 3, 4, 4, 4, 1), _FIR, LAST),
    Sample("fir-2-dimensional", _conv(1, 2, 4, 4, 3, 5), {"mode": "fir", "taps": "4x4"}),
)


def _conv2d(n: int, i: int, h: int, w: int, o: int, k: int, groups: int = 1) -> Shapes:
    return {"x": (n, i, h, w), "w": (o, i // groups, k, k), "b": (o,)}


CONVOLUTION = {
    "conv2d": Op(
        conv2d,
        eager.conv2d,
        tiny=(
            Sample("2x2", _conv2d(2, 2, 4, 5, 3, 2)),
            Sample("3x3", _conv2d(2, 3, 5, 6, 4, 3), {"padding": 1}),
            Sample("stride2-channels_last", _conv2d(2, 4, 6, 7, 3, 4), {"stride": 2, "padding": 1}, LAST),
            Sample("stride2", _conv2d(1, 3, 7, 6, 2, 3), {"stride": 2}),
            Sample("1x1", _conv2d(1, 4, 3, 3, 2, 1)),
            Sample("groups", _conv2d(3, 4, 5, 5, 6, 3, groups=2), {"padding": 1, "groups": 2}),
            Sample("pairs", _conv2d(2, 2, 9, 8, 3, 3), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
            Sample("no-bias", {"x": (2, 3, 4, 4), "w": (2, 3, 3, 3)}),
            Sample("empty-batch", _conv2d(0, 3, 4, 4, 2, 3)),
        ),
        real=(
            Sample("8x8x32x32", _conv2d(8, 8, 32, 32, 8, 3), {"padding": 1}),
            Sample("8x64x32x32", _conv2d(8, 64, 32, 32, 64, 3), {"padding": 1}),
            Sample("16x64x32x32-4x4-stride2", _conv2d(16, 64, 32, 32, 128, 4), {"stride": 2, "padding": 1}, LAST),
            Sample("8x256x16x16", _conv2d(8, 256, 16, 16, 256, 3), {"padding": 1}, LAST),
            Sample("8x256x8x8", _conv2d(8, 256, 8, 8, 256, 3), {"padding": 1}, LAST),
            Sample("8x512x4x4", _conv2d(8, 512, 4, 4, 512, 3), {"padding": 1}, LAST),
            Sample("1x256x32x32-4x4", _conv2d(1, 256, 32, 32, 512, 4), {"padding": 1}, LAST),
            Sample("8x3x64x64-1x1", _conv2d(8, 3, 64, 64, 256, 1), {}, LAST),
        ),
        larger=(  # 1x1 of few channels, and all forms of minimal filtering, each also for a gradient that it has
            Sample("1x1-from-few", _conv2d(2, 3, 25, 27, 40, 1)),
            Sample("1x1-to-few", _conv2d(2, 40, 25, 27, 4, 1), {}, LAST),
            Sample("2x2", _conv2d(2, 32, 8, 8, 32, 3), {"padding": 1}),
            Sample("4x2", _conv2d(1, 64, 16, 32, 64, 3), {"padding": 1}, LAST),
            Sample("4x4", _conv2d(1, 192, 48, 48, 32, 3), {"padding": 1}, LAST),
            Sample("4x4-kernel", _conv2d(1, 32, 21, 21, 192, 4), {"padding": 1}, LAST),
            Sample("4x4-kernel-two", _conv2d(2, 32, 21, 21, 32, 4), {"padding": 1}, LAST),
            Sample("4x4-kernel-three", _conv2d(3, 32, 31, 31, 32, 4), {"padding": 1}),
            Sample("stride2-3x3", _conv2d(6, 32, 15, 15, 32, 3), {"stride": 2}),
            Sample("stride2-3x3-large", _conv2d(1, 32, 33, 33, 32, 3), {"stride": 2}),
            Sample("stride2-4x4", _conv2d(6, 32, 14, 14, 32, 4), {"stride": 2, "padding": 1}, LAST),
            Sample("stride2-4x4-large", _conv2d(1, 32, 64, 64, 128, 4), {"stride": 2, "padding": 1}, LAST),
        ),
    ),
    "modulated_conv2d": Op(
        with_taps(modulated_conv2d),
        with_taps(eager.modulated_conv2d),
        tiny=(
            Sample("lrelu", _modulated(2, 3, 5, 4), {"act": "lrelu"}),
            Sample("clamp-channels_last", _modulated(2, 4, 4, 3, noise_n=1), {"act": "lrelu", "clamp": 1.0}, LAST),
            Sample(
                "to-rgb",
                {"x": (2, 5, 4, 4), "weight": (3, 5, 1, 1), "styles": (2, 5), "bias": (3,)},
                {"demodulate": False},
            ),
            Sample(
                "to-rgb-channels_last",
                {"x": (2, 8, 3, 4), "weight": (3, 8, 1, 1), "styles": (2, 8), "bias": (3,)},
                {"demodulate": False, "clamp": 1.0},
                LAST,
            ),
            Sample("no-padding", {"x": (3, 2, 6, 5), "weight": (3, 2, 3, 2), "styles": (3, 2)}, {"padding": 0}),
            Sample("empty-batch", _modulated(0, 3, 4, 2), {"act": "lrelu"}),
            Sample("up2", _modulated(2, 3, 3, 2, 6), {"act": "lrelu", "up": 2, "taps": "1331"}),
            Sample("down2", _modulated(2, 2, 6, 3, 3), {"act": "lrelu", "down": 2, "taps": "1331"}),
        ),
        real=(
            *(
                Sample(f"{n}x{c}x{h}x{h}", _modulated(n, c, h, c), {"act": "lrelu", "clamp": 256.0}, LAST)
                for n, c, h in ((8, 512, 8), (8, 512, 16), (8, 256, 32), (8, 128, 64))
            ),
            *(  # the layers of StyleGAN2 that double the image
                Sample(
                    f"up2-{n}x{c}x{h}x{h}",
                    _modulated(n, c, h, c, 2 * h),
                    {"act": "lrelu", "clamp": 256.0, "up": 2, "taps": "1331"},
                    LAST,
                )
                for n, c, h in ((8, 512, 8), (8, 256, 32), (4, 128, 64))
            ),
        ),
        variants={"grouped": with_taps(eager.grouped_modulated_conv2d)},
        floors={"convolution": eager.convolution},
    ),
    "upsample_conv2d": Op(
        with_taps(upsample_conv2d),
        with_taps(eager.upsample_conv2d),
        tiny=(
            Sample("3x3", _conv(2, 3, 4, 5, 4, 3), {"act": "lrelu"}),
            Sample("1x1", _conv(2, 3, 4, 5, 4, 1), {"act": "relu"}),
            *_RESAMPLED,
        ),
        real=(
            Sample("4x128x32x32", _conv(4, 128, 32, 32, 128, 3), {"act": "relu"}),
            Sample("4x64x64x64", _conv(4, 64, 64, 64, 64, 3), {"act": "relu"}),
            Sample("fir-4x128x32x32", _conv(4, 128, 32, 32, 128, 3), {"act": "lrelu", **_FIR}, LAST),
        ),
    ),
    "downsample_conv2d": Op(
        with_taps(downsample_conv2d),
        with_taps(eager.downsample_conv2d),
        tiny=(
            Sample("3x3", _conv(2, 2, 4, 6, 3, 3), {"act": "lrelu"}),
            Sample("1x1", _conv(2, 3, 4, 6, 4, 1), {"act": "relu"}),
            *_RESAMPLED,
        ),
        real=(
            Sample("4x128x64x64", _conv(4, 128, 64, 64, 128, 3), {"act": "lrelu"}),
            Sample("4x64x128x128", _conv(4, 64, 128, 128, 64, 3), {"act": "lrelu"}),
            Sample("fir-4x128x64x64", _conv(4, 128, 64, 64, 128, 3), {"act": "lrelu", **_FIR}, LAST),
        ),
    ),
}

# No public ops: for the self-check and the tests.
INSIDE = {
    "transposed_weight": Op(
        lambda x, backend: transposed(x, backend),
        _transposed_eager,
        tiny=(
            Sample("3x3", {"x": (5, 4, 3, 3)}),
            Sample("4x4-channels_last", {"x": (17, 35, 4, 4)}, layout=LAST),
        ),
        real=(),
        larger=(Sample("threads", {"x": (61, 64, 3, 3)}),),
    ),
    "weight_squares": Op(
        weight_squares,
        eager.weight_squares,
        tiny=(
            Sample("3x3", {"x": (5, 7, 3, 3)}),
            Sample("3x3-channels_last", {"x": (3, 19, 3, 3)}, layout=LAST),
            Sample("1x1", {"x": (4, 5, 1, 1)}),
            Sample("5x4", {"x": (3, 6, 5, 4)}),
            Sample("9x9", {"x": (2, 3, 9, 9)}),
            Sample("empty", {"x": (0, 3, 3, 3)}),
        ),
        real=(),
        larger=(
            Sample("threads", {"x": (61, 64, 3, 3)}),
            Sample("threads-channels_last", {"x": (5, 1030, 3, 3)}, layout=LAST),
        ),
    ),
}
