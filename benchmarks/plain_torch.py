"""The networks of the families as one would write them without this project: on the definitions of all ops."""

from contextlib import AbstractContextManager

from gan_engine import backends


def plain_torch() -> AbstractContextManager[None]:
    """Inside, every op is its definition in PyTorch, and every convolution PyTorch's own, in one layout throughout."""
    return backends.use("reference")
