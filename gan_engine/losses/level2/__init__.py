"""Gradient penalties in four passes, for a discriminator that is piecewise linear. README.md here explains them."""

# These fill the table of rules, before anybody adds one.
from gan_engine.losses.level2 import (  # noqa: F401
    activations,
    convolution,
    linear,
    pieces,
    products,
    selections,
    shapes,
    sums,
)
