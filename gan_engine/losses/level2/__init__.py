"""Gradient penalties in four passes, for a discriminator that is piecewise linear. README.md here explains them."""
