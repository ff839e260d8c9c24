"""Families whose images begin as a few pixels that are doubled: the sides at the start, and how often they double.

A square of 2^n begins with 4x4. A rectangle begins with the fewest pixels whose sides are at least 3: 48x64 with 3x4,
64x96 with 4x6. Feature maps are counted as in the square with as many doublings, whose side is `nominal`.
"""

from gan_engine.system.resolution import Resolution, height_width, named

LEAST, MOST = 3, 16  # the sides of a rectangle at the start


def split(resolution: Resolution) -> tuple[int, int, int]:
    """(h, w, n): images begin with h x w pixels, which double n times."""
    height, width = height_width(resolution)
    doublings = 0
    while height % 2 == width % 2 == 0 and min(height, width) >= 2 * LEAST:
        height, width, doublings = height // 2, width // 2, doublings + 1
    return height, width, doublings


def start(resolution: Resolution) -> tuple[int, int]:
    """(H, W) of the first and smallest feature maps of a generator."""
    return split(resolution)[:2]


def doublings(resolution: Resolution) -> int:
    """How often the first feature maps double."""
    return split(resolution)[2]


def nominal(resolution: Resolution) -> int:
    """The side of the square that begins with 4x4 and doubles as often: the side of a square itself."""
    return 4 << doublings(resolution)


def check_doublings(resolution: Resolution, low: int, high: int) -> None:
    """Raise ValueError unless squares are a power of two from `low` to `high`, and rectangles double as often."""
    if isinstance(resolution, int):
        if not low <= resolution <= high or resolution & (resolution - 1):
            hint = f"; {_near_squares(resolution, low, high)} is near"
            raise ValueError(f"resolution: want a power of two from {low} to {high}, got {resolution}{hint}")
        return
    if not _begins(resolution, low, high):
        near = _near(resolution)
        hint = f"; {named(near)} is near" if near[0] != near[1] and _begins(near, low, high) else ""
        raise ValueError(
            f"resolution: want a power of two from {low} to {high}, or two numbers from {LEAST} to {MOST}, both times "
            f"one power of two from {low // 4} to {high // 4}, got {named(resolution)}{hint}"
        )


def _begins(resolution: tuple[int, int], low: int, high: int) -> bool:
    """True if the first feature maps are small enough, and double as often as those of squares from `low` to `high`."""
    return min(resolution) >= LEAST and max(start(resolution)) <= MOST and low <= nominal(resolution) <= high


def _near_squares(side: int, low: int, high: int) -> str:
    """The powers of two from `low` to `high` that are next to `side`: 32 or 64 for 48."""
    below = 1 << (max(1, side).bit_length() - 1)
    near = [power for power in (below, 2 * below) if low <= power <= high] or [max(low, min(side, high))]
    return " or ".join(map(str, near))


def _near(resolution: tuple[int, int]) -> tuple[int, int]:
    """Sides near those of `resolution` that begin with at most MOST pixels."""
    step = 1
    while max(resolution) > MOST * step:
        step *= 2
    height, width = (max(LEAST, round(side / step)) * step for side in resolution)
    return height, width
