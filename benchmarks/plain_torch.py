"""The networks of the families as one would write them without this project: on the definitions of all ops."""

import contextlib
from collections.abc import Iterator

from gan_engine import backends
from gan_engine.ops import convolution


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Inside, every op is its definition in PyTorch, and every convolution PyTorch's own, in one layout throughout."""
    before = convolution._mixes
    convolution._mixes = lambda x, weight, stride: False
    try:
        with backends.use("reference"):
            yield
    finally:
        convolution._mixes = before
