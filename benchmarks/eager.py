"""The baseline of the benchmarks: the same networks as a user would write them without this package."""

from contextlib import AbstractContextManager

from gan_engine import backends


def eager_pytorch() -> AbstractContextManager[None]:
    """Run every op as its definition in PyTorch inside this context, and every convolution as PyTorch's own."""
    return backends.use("reference")
