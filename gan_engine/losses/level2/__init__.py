"""Gradient penalties in four passes, for a discriminator that is piecewise linear."""
