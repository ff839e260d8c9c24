"""Triton kernels, one module per operator; installed as gan_engine.kernels."""
