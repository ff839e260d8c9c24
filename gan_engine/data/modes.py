"""Convert a picture in any of Pillow's modes to grey, RGB or RGBA with 8 bits per channel."""

import functools
import io
import struct
import sys
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, TiffImagePlugin

# {raw mode of Pillow's decoder: the value of white}. White is 65535 in other modes of integers.
_WHITE = {"I;12": 4095, "I;16S": 32767, "I;16BS": 32767, "I;16NS": 32767}  # I;16NS: compressed, in Pillow 11.0
# Pillow multiplies grey values of 2 and 4 bits by these factors, but does not multiply the transparent value.
_WIDENED = {"L;2": 85, "L;4": 17}
# Raw modes: of a PNG in grey with opacity, 16 bits each; and {order of bytes: the other order}, N for that of the CPU.
_GREY_AND_OPACITY = "LA;16B"
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

# {EXIF orientation: the operation that turns the picture upright}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Keywords of those texts of a PNG in which Pillow finds an orientation.
_TURNING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")

_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange the sides

# Remark on a picture whose transparency is lost.
TRANSPARENT = "with transparency, which becomes white"

# A colour profile counts as sRGB if it moves no colour by more than this many levels.
SAME_LEVELS = 2


def is_sideways(image: ImageFile.ImageFile) -> bool:
    """Whether the EXIF orientation exchanges the sides that an opened picture has.

    A PNG is decoded to tell if EXIF or XMP stands behind its pixels. Pillow turns a TIFF by itself, and has exchanged
    its sides already if a tag says the orientation. XMP counts when the pixels are loaded.
    """
    if image.format == "TIFF" and ExifTags.Base.Orientation in image.tag_v2:
        return False
    in_head = image.format == "PNG" and not _may_turn_behind_pixels(image.fp)
    exif = Image.Image.getexif(image) if in_head else image.getexif()  # that of PNGs always decodes
    return exif.get(ExifTags.Base.Orientation) in _SIDEWAYS


def _may_turn_behind_pixels(png: BinaryIO) -> bool:
    """Whether EXIF, XMP, or EXIF as text, which may say an orientation, stands behind the pixels of a PNG."""
    place, behind, found = png.tell(), False, False
    png.seek(8)  # the signature
    while not found and len(head := png.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        start = png.tell()
        behind = behind or kind == b"IDAT"
        is_text = kind in (b"tEXt", b"zTXt", b"iTXt") and png.read(max(map(len, _TURNING))).startswith(_TURNING)
        found = behind and (kind == b"eXIf" or is_text)
        png.seek(start + length + 4)  # the data of the chunk, and their checksum
    png.seek(place)
    return found


def eight_bits(image: ImageFile.ImageFile) -> Image.Image:
    """Load an opened picture with 8 bits per channel, keep its transparency, and turn it upright by EXIF.

    Grey values of more than 8 bits are scaled by their white, and inverted if a TIFF says that white is 0. Pillow gives
    the upper 8 bits of 16-bit RGB.

    Raises:
        ValueError: pixels without an agreed white: floating point, or integers beyond 16 bits. Or a TIFF that Pillow
            reads wrongly; see `require_read_right`.
    """
    raw = raw_mode(image)
    if image.format == "TIFF":
        require_read_right(image, raw)
    opaque = None
    if raw == "RGB;16B" and "transparency" in image.info:
        seen = (both_bytes(image) != image.info["transparency"]).any(-1)
        opaque = Image.fromarray(np.where(seen, 255, 0).astype(np.uint8))
    image.load()
    picture: Image.Image = image
    if image.mode == "F":
        raise ValueError("want integer pixels, got floating point, which has no agreed white")
    if image.mode.startswith("I"):
        picture = _grey(image, raw)
    elif opaque is not None:
        picture = Image.merge("RGBA", (*image.split(), opaque))
    elif raw in _WIDENED and "transparency" in image.info:
        image.info["transparency"] *= _WIDENED[raw]
    return upright(picture, image)


def upright(picture: Image.Image, image: ImageFile.ImageFile) -> Image.Image:
    """`picture`, made of the pixels of `image`, turned as the EXIF orientation of `image` says."""
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    return picture if turn is None else picture.transpose(turn)


def to_grey_or_rgb(
    image: Image.Image, *, channels: int, profile: bytes | None = None, remarks: list[str] | None = None
) -> Image.Image:
    """Convert a picture with 8 bits per channel to the mode L (channels 1), RGB (channels 3) or RGBA (channels 4).

    Transparent pixels are blended with white, unless there are 4 channels. Grey becomes RGB by repetition; colour
    becomes grey by ITU-R 601 luma.

    Args:
        profile: an ICC profile; see `in_srgb`.
        remarks: list to which changes are added, as text, that the pixels alone do not show.
    """
    remarks = [] if remarks is None else remarks
    if image.mode == "La":
        image = image.convert("LA")
    opacity = None
    if image.has_transparency_data:
        opaque, image = "L" if image.mode in ("1", "L", "LA") else "RGB", image.convert("RGBA")
        opacity = image.getchannel("A")
        remark_on_opacity(*opacity.getextrema(), 255, channels, remarks)
        image = (image if channels == 4 else on_white(image)).convert(opaque)
    if image.mode == "LAB":
        image = image.convert("RGB")
    coloured = in_srgb(image, profile)
    if coloured is not image:
        remarks.append("in another colour space (converted to sRGB)")
    coloured = coloured.convert("L" if channels == 1 else "RGB")
    if channels == 4:
        coloured.putalpha(255 if opacity is None else opacity)
    return coloured


def remark_on_opacity(least: float, most: float, white: float, channels: int, remarks: list[str]) -> None:
    """Add a remark to `remarks` if transparency is lost, or if nothing can be seen. White is opaque."""
    if most == 0:
        remarks.append("fully transparent" + " (white)" * (channels != 4))
    elif least < white and channels != 4:
        remarks.append(TRANSPARENT)


def on_white(image: Image.Image) -> Image.Image:
    """A picture in the mode RGBA blended with white, in the mode RGB. Pictures in other modes stay as they are."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert the colours of a picture from an ICC profile to sRGB. Return the same object if they do not change.

    A profile that is damaged, or made for other channels than the picture has, is ignored, as in web browsers.
    """
    if not profile or image.mode == "1":
        return image
    mode = image.mode if image.mode in ("L", "CMYK") else "RGB"
    transform = to_srgb(profile, mode)
    return image if transform is None else ImageCms.applyTransform(image.convert(mode), transform)


def require_read_right(image: ImageFile.ImageFile, raw: str) -> None:
    """Raise ValueError for a TIFF whose pixels Pillow would take for unsigned bytes, or whose bytes it would swap."""
    tags = image.tag_v2
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if bits == 8 and 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, ()):
        raise ValueError("want unsigned pixels, got signed 8-bit pixels")
    if raw.endswith("BS") and image.tile[0].codec_name == "libtiff":  # libtiff gives the bytes in the order of the CPU
        want = "want unsigned pixels, or signed ones uncompressed or in little-endian order"
        raise ValueError(f"{want}, got compressed signed big-endian pixels of {bits} bits")
    if bits > 8 and len(raw) == 1 and raw in "RGBACMYK":  # each channel is stored as its own plane
        raise ValueError(f"want planes of 8 bits, or compressed planes, got uncompressed planes of {bits} bits")


def raw_mode(image: ImageFile.ImageFile) -> str:
    args = image.tile[0].args if image.tile else ""
    return str(args[0]) if isinstance(args, tuple) and args else str(args)


def _grey(image: ImageFile.ImageFile, raw: str) -> Image.Image:
    """Convert integer pixels to the mode L, or to LA if one value is transparent."""
    picture = Image.fromarray(levels(image, raw, 255).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is None:
        return picture
    opacity = np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (picture, Image.fromarray(opacity)))


def levels(image: ImageFile.ImageFile, raw: str, most: int) -> np.ndarray:
    """Integer pixels as whole numbers float64 [H, W] in [0, most]: 0 is black, `most` white."""
    values, white = np.asarray(image), _WHITE.get(raw, 65535)
    low, high = values.min(), values.max()
    if low < 0 or high > white:
        raise ValueError(f"integer pixels must lie in [0, {white}], got [{low}, {high}]")
    if raw.startswith("I;32") and 0 < high <= 255:
        raise ValueError(f"want pixels of 8 or 16 bits, got 32 bits of at most {high}: white may be 255 or 65535")
    scaled = values / (white / most)
    scaled.round(out=scaled)
    if image.format == "TIFF" and image.tag_v2.get(262) == 0:  # PhotometricInterpretation: WhiteIsZero
        return most - scaled
    return scaled


def has_both_bytes(image: ImageFile.ImageFile) -> bool:
    """Whether `both_bytes` reads an opened picture: a PNG or TIFF with 16 bits per channel, and not in grey alone.

    No TIFF with one plane for each channel, of which Pillow gives the upper byte in any order of bytes.
    """
    raw = raw_mode(image)
    if image.format == "TIFF" and image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:
        return False
    return image.format in ("PNG", "TIFF") and (
        raw == _GREY_AND_OPACITY or raw[:-1] in ("RGB;16", "RGBA;16", "RGBX;16")
    )


def both_bytes(image: ImageFile.ImageFile) -> np.ndarray:
    """uint16 [H, W, C]: all bits of an opened picture that `has_both_bytes`: grey and opacity, RGB, or RGBA.

    Pillow keeps only the upper byte of each value. Reading the file again in the other order of bytes gives the lower.
    """
    raw, file = raw_mode(image), image.fp
    image.load()
    file.seek(0)
    with Image.open(file, formats=[image.format]) as again:
        new = "RGBA" if raw == _GREY_AND_OPACITY else raw[:-1] + _OTHER_ORDER[raw[-1]]
        again.tile = [
            tile._replace(args=new if isinstance(tile.args, str) else (new, *tile.args[1:])) for tile in again.tile
        ]
        if raw == _GREY_AND_OPACITY:  # four bytes of a pixel, taken for four channels
            return np.asarray(again).view(">u2").astype(np.uint16)
        upper = np.asarray(image)
        values = np.empty(upper.shape, "<u2")
        both = values.view(np.uint8).reshape(*upper.shape, 2)
        both[..., 1] = upper
        del upper
        both[..., 0] = np.asarray(again)
    return values


@functools.lru_cache(maxsize=64)
def to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform of a picture of that mode to sRGB in the mode RGB. None if its colours do not change."""
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
