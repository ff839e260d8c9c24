"""Pictures with 16 bits per channel. Pillow has no mode for several such channels, so each channel is a picture."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from gan_engine.data.modes import (
    both_bytes,
    eight_bits,
    has_both_bytes,
    levels,
    raw_mode,
    remark_on_opacity,
    require_read_right,
    to_grey_or_rgb,
    to_srgb,
    upright,
)

WHITE = 65535.0

# Remark on a picture that has no more than `--bits 8` keeps. Resized values lie between its levels.
AT_MOST_8_BITS = "with at most 8 bits (--bits 16 only makes their resizing finer)"

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow has it


@dataclass(frozen=True)
class Planes:
    """A grey, RGB or RGBA picture: one picture in the mode F, with values in [0, 65535], for each channel.

    The colours of RGBA are multiplied by the opacity, so that pixels that cannot be seen have no colour when the
    picture is resized.
    """

    channels: tuple[Image.Image, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self.channels[0].size

    @property
    def width(self) -> int:
        return self.channels[0].width

    @property
    def height(self) -> int:
        return self.channels[0].height

    def crop(self, box: tuple[int, int, int, int]) -> "Planes":
        """The part within box = (left, upper, right, lower)."""
        return self.each(lambda channel: channel.crop(box))

    def each(self, change: Callable[[Image.Image], Image.Image]) -> "Planes":
        """The picture of `change` of each channel."""
        return Planes(tuple(change(channel) for channel in self.channels))

    def luma(self) -> np.ndarray:
        """float32 [H, W] in [0, 65535]: the grey of the colours, whatever their opacity."""
        colours = self.pixels()[:3]
        return colours[0].astype(np.float32) if len(colours) == 1 else _luma(colours)

    def pixels(self) -> np.ndarray:
        """uint16 [C, H, W]. Pixels of RGBA that cannot be seen become white."""
        values = np.stack([np.asarray(channel) for channel in self.channels])
        if len(values) == 4:
            opacity = values[3]
            values[:3] = np.where(opacity < 0.5, WHITE, values[:3] * WHITE / opacity.clip(0.5))
        return np.rint(values).clip(0, WHITE).astype(np.uint16)


def sixteen_bits(image: ImageFile.ImageFile, *, channels: int, remarks: list[str] | None = None) -> Planes:
    """Load an opened picture with 16 bits per channel, in 1, 3 or 4 channels, and turn it upright by EXIF.

    Values of other widths are scaled by their white, and inverted if a TIFF says that white is 0. Grey, colour and
    transparency become each other as in `modes.to_grey_or_rgb`, with all bits. Colour profiles do nothing. AVIF and
    HEIF are read with 8 bits in colour, and a remark says so if they have more.

    Args:
        remarks: list to which changes are added, as text, that the pixels alone do not show.

    Raises ValueError for other colours that Pillow reduces to 8 bits, and as `eight_bits` does.
    """
    remarks = [] if remarks is None else remarks
    profile, mode = image.info.get("icc_profile"), "L" if image.mode.startswith("I") else image.mode
    if profile and mode != "1" and to_srgb(profile, mode if mode in ("L", "CMYK") else "RGB") is not None:
        remarks.append("in another colour space (not converted)")
    if has_both_bytes(image) or image.mode.startswith("I"):
        values = _with_channels(_values(image), channels, remarks)
        return _planes(values).each(lambda channel: upright(channel, image))
    _require_8_bits(image)
    bits, picture = _bits_of_avif_and_heif(image), eight_bits(image)
    remarks.append(f"in {image.format} with {bits} bits (read with 8)" if bits > 8 else AT_MOST_8_BITS)
    values = np.asarray(to_grey_or_rgb(picture, channels=channels, remarks=remarks))
    return _planes([channel * np.float32(WHITE / 255) for channel in np.atleast_3d(values).transpose(2, 0, 1)])


def _require_8_bits(image: ImageFile.ImageFile) -> None:
    """Raise ValueError for colours of more than 8 bits, which Pillow reduces to 8. See `has_both_bytes` for others."""
    what, _, rest = raw_mode(image).partition(";")
    bits = 16 if image.format == "TIFF" and rest.startswith("16") else 8
    if image.format == "TIFF" and image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:
        what, bits = "planes", max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    elif image.format == "PPM" and isinstance(args := image.tile[0].args, tuple):
        bits = args[1].bit_length()  # of white
    elif image.format == "JPEG2000":
        what, bits = image.mode, _bits_of_jpeg2000(image.fp)
    if bits > 8:
        want = "want 16 bits in grey, or in RGB or RGBA of a PNG or TIFF without planes"
        raise ValueError(f"{want}, got a {image.format} with {what} of {bits} bits")


def _bits_of_jpeg2000(file: BinaryIO) -> int:
    """The most bits of a channel, by the first segment of the codestream (ISO 15444-1, A.5.1)."""
    content = _content(file)
    start = content.index(b"\xff\x4f\xff\x51")  # the markers SOC and SIZ
    (channels,) = struct.unpack_from(">H", content, start + 40)
    return max((bits & 0x7F) + 1 for bits in content[start + 42 : start + 42 + 3 * channels : 3])


def _bits_of_avif_and_heif(image: ImageFile.ImageFile) -> int:
    """The bits of a channel before the decoder makes 8 of them. 8 for all other formats."""
    if image.format == "AVIF":
        content = _content(image.fp)
        flags = content[content.index(b"av1C") + 6]  # high_bitdepth and twelve_bit (AV1-ISOBMFF 2.3.3)
        return 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    return int(image.info["bit_depth"]) if image.format == "HEIF" else 8  # pillow-heif says it


def _content(file: BinaryIO) -> bytes:
    """The whole file, which stays at its place."""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return content


def _values(image: ImageFile.ImageFile) -> list[np.ndarray]:
    """float32 [H, W] in [0, 65535] for each channel: grey, grey and opacity, RGB, or RGBA."""
    if image.mode.startswith("I"):
        raw = raw_mode(image)
        if image.format == "TIFF":
            require_read_right(image, raw)
        image.load()
        stored, values = np.asarray(image)[..., None], [levels(image, raw, 65535).astype(np.float32)]
    else:
        stored = both_bytes(image)
        values = [channel.astype(np.float32) for channel in stored.transpose(2, 0, 1)]
    if "transparency" in image.info:
        seen = (stored != image.info["transparency"]).any(-1)  # one value of a PNG is transparent
        values.append(seen * np.float32(WHITE))
    return values


def _with_channels(values: list[np.ndarray], channels: int, remarks: list[str]) -> list[np.ndarray]:
    """1 to 4 channels float32 [H, W], which change in place, as 1, 3 or 4; see `modes.to_grey_or_rgb`."""
    opacity = values.pop() if len(values) in (2, 4) else None
    if opacity is not None:
        remark_on_opacity(opacity.min(), opacity.max(), WHITE, channels, remarks)
        if channels != 4:
            opacity /= WHITE
            for value in values:  # WHITE + (value - WHITE) * opacity
                value -= WHITE
                value *= opacity
                value += WHITE
    if channels == 1:
        return values if len(values) == 1 else [_luma(values)]
    if len(values) == 1:
        values = [values[0], values[0].copy(), values[0].copy()]
    if channels == 4:
        values.append(np.full_like(values[0], WHITE) if opacity is None else opacity)
    return values


def _luma(colours: Sequence[np.ndarray]) -> np.ndarray:
    """float32 [H, W] of red, green and blue. Every CPU gives the same bits, unlike a product of matrices."""
    red, green, blue = colours
    grey = red * _LUMA[0]
    grey += green * _LUMA[1]
    grey += blue * _LUMA[2]
    return grey


def _planes(values: list[np.ndarray]) -> Planes:
    """Channels float32 [H, W] as a picture. They change in place, and leave the list, so that their memory is freed."""
    opacity = values[3] / WHITE if len(values) == 4 else None
    channels = []
    while values:
        value = values.pop(0)
        if opacity is not None and values:  # a colour, as the opacity is the last
            value *= opacity
        channels.append(Image.fromarray(value))
    return Planes(tuple(channels))
