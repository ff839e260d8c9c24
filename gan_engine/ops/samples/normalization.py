"""Samples of the ops that work with means and variances: minibatch_stddev, pixel_norm and norm_act."""

import torch

from gan_engine.ops import eager
from gan_engine.ops.minibatch_stddev import minibatch_stddev
from gan_engine.ops.norm_act import norm_act
from gan_engine.ops.pixel_norm import pixel_norm
from gan_engine.ops.samples.sample import LAST, Op, Sample, Shapes


def _normed(n: int, c: int, *size: int) -> Shapes:
    return {"x": (n, c, *size), "weight": (c,), "bias": (c,)}


NORMALIZATION = {
    "minibatch_stddev": Op(
        minibatch_stddev,
        eager.minibatch_stddev,
        tiny=(
            Sample("groups", {"x": (8, 3, 2, 3)}),
            Sample("channels_last", {"x": (4, 6, 3, 3)}, {"group_size": 2, "num_channels": 2}, LAST),
            Sample("whole-batch", {"x": (3, 2, 4, 4)}, {"group_size": None}),
        ),
        real=(Sample("32x512x4x4", {"x": (32, 512, 4, 4)}),),
    ),
    "pixel_norm": Op(
        pixel_norm,
        eager.pixel_norm,
        tiny=(
            Sample("odd", {"x": (2, 5, 3, 7)}),
            Sample("channels_last", {"x": (2, 19, 3, 3)}, layout=LAST),
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
        larger=(
            Sample("threads", {"x": (2, 64, 17, 16)}),
            Sample("threads-channels_last", {"x": (2, 64, 17, 16)}, layout=LAST),
        ),
        triton=(
            Sample("300-channels_last", {"x": (2, 300, 3, 3)}, layout=LAST),
            Sample("40x9x9", {"x": (2, 40, 9, 9)}),
        ),
    ),
    "norm_act": Op(
        norm_act,
        eager.norm_act,
        tiny=(
            Sample("lrelu", _normed(3, 4, 3, 5), {"act": "lrelu"}),
            Sample("relu-channels_last", _normed(2, 19, 3, 3), {"act": "relu"}, LAST),
            Sample("linear-rows", _normed(2, 3, 4, 10)),
            Sample("instance", _normed(2, 3, 5, 7), {"act": "relu", "norm": "instance"}),
            Sample("instance-channels_last", _normed(2, 18, 3, 3), {"act": "lrelu", "norm": "instance"}, LAST),
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
        larger=(
            Sample("threads", _normed(4, 16, 23, 24), {"act": "lrelu"}),
            Sample("threads-channels_last", _normed(4, 16, 23, 24), {"act": "lrelu"}, LAST),
        ),
        triton=(  # several tiles of each shape
            Sample("70-channels_last", _normed(3, 70, 5, 9), {"act": "lrelu"}, LAST),
            Sample("18-instance-channels_last", _normed(2, 18, 9, 9), {"act": "relu", "norm": "instance"}, LAST),
            Sample("32x33", _normed(5, 2, 32, 33), {"act": "relu"}),
            Sample("32x33-instance", _normed(2, 2, 32, 33), {"act": "lrelu", "norm": "instance"}),
            Sample("8x9", _normed(70, 2, 8, 9), {"act": "lrelu"}),
            Sample("8x9-instance", _normed(2, 3, 8, 9), {"norm": "instance"}),
        ),
    ),
}
