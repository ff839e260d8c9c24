"""Differentiable operators on fused kernels; each is documented at its function."""

import gan_engine.ops.self_check  # noqa: F401  (compares kernels with the reference at their first use)
from gan_engine.ops.alias_free_activation import alias_free_activation
from gan_engine.ops.alias_free_fir import kaiser_sinc
from gan_engine.ops.avg_pool2d import avg_pool2d
from gan_engine.ops.bias_act import bias_act
from gan_engine.ops.convolution.autograd import conv2d
from gan_engine.ops.filtered_lrelu import filtered_lrelu
from gan_engine.ops.fir import setup_filter
from gan_engine.ops.gradient_penalty import mix, sum_of_squares
from gan_engine.ops.grid_sample import grid_sample
from gan_engine.ops.minibatch_stddev import minibatch_stddev
from gan_engine.ops.modulated_conv2d import modulated_conv2d
from gan_engine.ops.norm_act import norm_act
from gan_engine.ops.pixel_norm import pixel_norm
from gan_engine.ops.resample_conv2d import downsample_conv2d, upsample_conv2d
from gan_engine.ops.scale_bias_act import scale_bias_act
from gan_engine.ops.upfirdn2d import downsample2d, filter2d, upfirdn2d, upsample2d
from gan_engine.ops.upfirdn2d_act import upfirdn2d_act

__all__ = [
    "bias_act",
    "scale_bias_act",
    "modulated_conv2d",
    "upsample_conv2d",
    "downsample_conv2d",
    "setup_filter",
    "upfirdn2d",
    "filter2d",
    "upsample2d",
    "downsample2d",
    "upfirdn2d_act",
    "filtered_lrelu",
    "alias_free_activation",
    "kaiser_sinc",
    "norm_act",
    "pixel_norm",
    "minibatch_stddev",
    "grid_sample",
    "conv2d",
    "avg_pool2d",
    "sum_of_squares",
    "mix",
]
