"""gan_engine: train, run and measure generative adversarial networks on fused kernels."""

__version__ = "0.1.0"
