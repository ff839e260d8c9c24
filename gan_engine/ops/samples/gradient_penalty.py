"""Samples of sum_of_squares and mix."""

from gan_engine.ops import eager
from gan_engine.ops.gradient_penalty import mix, sum_of_squares
from gan_engine.ops.samples.sample import LAST, Op, Sample, Shapes


def _two(*shape: int) -> Shapes:
    return {"x": shape, "y": shape, "a": shape[:1], "b": shape[:1]}


GRADIENT_PENALTY = {
    "sum_of_squares": Op(
        sum_of_squares,
        eager.sum_of_squares,
        tiny=(
            Sample("images", {"x": (3, 3, 5, 7)}),
            Sample("channels_last", {"x": (2, 16, 4, 4)}, layout=LAST),
            Sample("rows", {"x": (5, 1)}),
            Sample("numbers", {"x": (4,)}),
            Sample("volume", {"x": (2, 3, 2, 2, 5)}),
            Sample("empty-batch", {"x": (0, 3, 4, 4)}),
        ),
        real=(Sample("16x3x256x256", {"x": (16, 3, 256, 256)}),),
        larger=(Sample("shares", {"x": (2, 3, 80, 81)}),),
        triton=(Sample("shares", {"x": (2, 3, 80, 81)}),),
    ),
    "mix": Op(
        mix,
        eager.mix,
        tiny=(
            Sample("images", _two(3, 3, 5, 7)),
            Sample("channels_last", _two(2, 16, 4, 4), layout=LAST),
            Sample("rows", _two(5, 1)),
            Sample("empty-batch", _two(0, 3, 4, 4)),
        ),
        real=(Sample("16x3x256x256", _two(16, 3, 256, 256)),),
        larger=(Sample("blocks", _two(8, 3, 40, 35)),),
        triton=(Sample("blocks", _two(2, 3, 20, 21)),),
    ),
}
