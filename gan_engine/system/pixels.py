"""The bits and the channels that images may have."""

BITS = (8, 16)
COLOURS = (1, 3, 4)  # grey, RGB, RGBA: the channels of pictures
MOST_CHANNELS = 64  # of arrays, whose channels may be bands of any kind


def white(bits: int) -> int:
    """The largest value of a pixel with so many bits: 255 or 65535."""
    return 2**bits - 1
