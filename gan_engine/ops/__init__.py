"""Differentiable operators on fused kernels; each is documented at its function."""

from gan_engine.ops.bias_act import bias_act

__all__ = ["bias_act"]
