"""A resolution: the side of squares, or the pair (height, width) of rectangles, which is 48x64 in texts."""

Resolution = int | tuple[int, int]


def height_width(resolution: Resolution) -> tuple[int, int]:
    """(H, W) of an image of that resolution."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def named(resolution: Resolution) -> str:
    """48x64: the height and the width, of squares too."""
    return "x".join(map(str, height_width(resolution)))


def written(resolution: Resolution) -> str:
    """64 for squares, or 48x64: the text that `parse` reads."""
    return str(resolution) if isinstance(resolution, int) else named(resolution)


def parse(text: str) -> Resolution:
    """64 or 48x64 -> the resolution. Equal sides are one number. Raises ValueError for other texts."""
    try:
        sides = [int(side) for side in text.split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise ValueError(f"want a whole number or HEIGHTxWIDTH, such as 48x64, got {text!r}")
    return sides[0] if len(set(sides)) == 1 else (sides[0], sides[1])
