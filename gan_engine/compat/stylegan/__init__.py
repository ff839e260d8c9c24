"""The modules of StyleGAN's `torch_utils.ops`, and the modulated convolutions of its networks.

    from gan_engine.compat.stylegan import bias_act, conv2d_resample, upfirdn2d  # in place of `from torch_utils.ops`

Where their code for GPUs and their definition differ, these functions follow the definition: a clamped output has no
gradient also behind act="linear", and PyTorch's slope holds at |y| = clamp. Gradients have every order.
"""

from gan_engine.compat.stylegan import (
    bias_act,
    conv2d_gradfix,
    conv2d_resample,
    filtered_lrelu,
    fma,
    grid_sample_gradfix,
    networks_stylegan2,
    networks_stylegan3,
    upfirdn2d,
)

__all__ = [
    "bias_act",
    "conv2d_gradfix",
    "conv2d_resample",
    "filtered_lrelu",
    "fma",
    "grid_sample_gradfix",
    "networks_stylegan2",
    "networks_stylegan3",
    "upfirdn2d",
]
