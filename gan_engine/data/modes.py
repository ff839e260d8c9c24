"""What the numbers of a picture mean: from any of Pillow's modes to grey or RGB of 8 bits."""

import functools
import io

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, TiffImagePlugin

# White, where it is not 65535, by the raw mode that Pillow's decoder is given.
_WHITE = {"I;12": 4095, "I;16S": 32767}
# Pillow widens grey values of 2 and 4 bits to 8 by these factors, but leaves the one that is transparent as it is.
_WIDENED = {"L;2": 85, "L;4": 17}

# EXIF's orientation, and what makes the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Levels by which colours may move when a profile is applied, for it to count as sRGB.
SAME_LEVELS = 2


def eight_bits(image: ImageFile.ImageFile) -> Image.Image:
    """A picture that was opened and not yet loaded, in 8 bits per channel, with its transparency, upright by EXIF.

    Grey of more bits is scaled by its white, and turned round where a TIFF says that white is 0. RGB of 16 bits comes
    from Pillow as its upper 8 bits.

    Raises:
        ValueError: pixels without an agreed white (floating point, or integers beyond 16 bits), and those of a TIFF
            that Pillow reads wrongly: of 8 bits with a sign, and planes of 16 bits that are not compressed.
    """
    raw = _raw_mode(image)
    if image.format == "TIFF":
        _require_read_right(image, raw)
    opaque = _opaque(image) if raw == "RGB;16B" and "transparency" in image.info else None
    image.load()
    picture: Image.Image = image
    if image.mode == "F":
        raise ValueError("floating point pixels have no agreed white")
    if image.mode.startswith("I"):
        picture = _grey(image, raw)
    elif opaque is not None:
        picture = Image.merge("RGBA", (*image.split(), opaque))
    elif raw in _WIDENED and "transparency" in image.info:
        image.info["transparency"] *= _WIDENED[raw]
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    return picture if turn is None else picture.transpose(turn)


def plain(
    image: Image.Image, *, channels: int, profile: bytes | None = None, remarks: list[str] | None = None
) -> Image.Image:
    """A picture of 8 bits per channel in the mode L or RGB.

    Transparency is composited on white; grey becomes RGB by repetition, colour becomes grey by ITU-R 601 luma.

    Args:
        profile: an ICC profile; see `in_srgb`.
        remarks: takes what was done to the picture, in words, and is not seen in its numbers.
    """
    remarks = [] if remarks is None else remarks
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        opaque, image = "L" if image.mode in ("1", "L", "LA") else "RGB", image.convert("RGBA")
        if image.getchannel("A").getextrema()[1] == 0:
            remarks.append("wholly transparent (white)")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert(opaque)
    if image.mode == "LAB":
        image = image.convert("RGB")
    coloured = in_srgb(image, profile)
    if coloured is not image:
        remarks.append("in another colour space (brought to sRGB)")
    return coloured.convert("L" if channels == 1 else "RGB")


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture with its colours brought from an ICC profile to sRGB; the very same one where they stay as they are.

    A profile that is damaged, or made for other channels than the picture has, is ignored, as browsers do.
    """
    if not profile or image.mode == "1":
        return image
    mode = image.mode if image.mode in ("L", "CMYK") else "RGB"
    transform = _to_srgb(profile, mode)
    return image if transform is None else ImageCms.applyTransform(image.convert(mode), transform)


def _require_read_right(image: ImageFile.ImageFile, raw: str) -> None:
    """Raise ValueError for a TIFF that Pillow would read as if its pixels were bytes without a sign."""
    tags = image.tag_v2
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if bits == 8 and 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, ()):
        raise ValueError("want pixels without a sign, got 8 bits with a sign")
    if bits > 8 and len(raw) == 1 and raw in "RGBACMYK":  # the bytes of one plane
        raise ValueError(f"want planes of 8 bits, or compressed ones, got planes of {bits} bits without compression")


def _raw_mode(image: ImageFile.ImageFile) -> str:
    args = image.tile[0].args if image.tile else ""
    return str(args[0]) if isinstance(args, tuple) and args else str(args)


def _grey(image: ImageFile.ImageFile, raw: str) -> Image.Image:
    """Integer pixels as L, or as LA where a value is transparent."""
    values, white = np.asarray(image), _WHITE.get(raw, 65535)
    low, high = values.min(), values.max()
    if low < 0 or high > white:
        raise ValueError(f"integer pixels must lie in [0, {white}], got [{low}, {high}]")
    if raw.startswith("I;32") and 0 < high <= 255:
        raise ValueError(f"white may be 255 or 65535 in 32-bit pixels of at most {high}; want 8 or 16 bits")
    grey = (values / (white / 255)).round().astype(np.uint8)
    if image.format == "TIFF" and image.tag_v2.get(262) == 0:  # PhotometricInterpretation: WhiteIsZero
        grey = 255 - grey
    picture, transparent = Image.fromarray(grey), image.info.get("transparency")
    if transparent is None:
        return picture
    return Image.merge("LA", (picture, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))))


def _opaque(image: ImageFile.ImageFile) -> Image.Image:
    """L: 0 where a PNG of 16 bits has its transparent colour, else 255.

    Pillow keeps the upper byte of each value. Read as if it were little-endian, the same file gives the lower one.
    """
    place = image.fp.tell()
    image.fp.seek(0)
    content = image.fp.read()
    image.fp.seek(place)
    with Image.open(io.BytesIO(content)) as upper, Image.open(io.BytesIO(content)) as lower:
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        values = np.asarray(upper).astype(np.uint16) << 8 | np.asarray(lower)
    return Image.fromarray(np.where((values == image.info["transparency"]).all(-1), 0, 255).astype(np.uint8))


@functools.lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What brings a picture of that mode to RGB in sRGB, or None where its colours stay as they are."""
    try:
        transform = ImageCms.buildTransform(io.BytesIO(profile), ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3) if mode == "RGB" else steps[None]
        applied = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform)).astype(int)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    moved = np.abs(applied - (colours if mode == "RGB" else colours[..., None])).max()
    return transform if moved > SAME_LEVELS else None
