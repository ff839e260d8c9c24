"""Sample calls of every op: tests state its properties on the tiny ones, and benchmarks time the real ones."""

from gan_engine.ops.samples.activation import ACTIVATION
from gan_engine.ops.samples.convolution import CONVOLUTION, INSIDE
from gan_engine.ops.samples.gradient_penalty import GRADIENT_PENALTY
from gan_engine.ops.samples.normalization import NORMALIZATION
from gan_engine.ops.samples.resampling import RESAMPLING
from gan_engine.ops.samples.sample import Op, Sample, doubled, orders

__all__ = ["CHECKED", "OPS", "Op", "Sample", "doubled", "orders"]

OPS: dict[str, Op] = {**ACTIVATION, **CONVOLUTION, **RESAMPLING, **NORMALIZATION, **GRADIENT_PENALTY}
CHECKED: dict[str, Op] = OPS | INSIDE  # by the self-check
