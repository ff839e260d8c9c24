"""Bit depth, white, transparency and colour space of pictures, each compared with values computed by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from gan_engine.data.decode import read_picture

VALUES = np.array([0, 0x1234, 0x8080, 0xFFFF])
SCALED = [0, 18, 128, 255]  # x * 255 / 65535
MARKED = struct.pack(">H", 0x1234)


def read(data, channels=1, bits=8):
    """The pixels of the first row, [W] or [W, 3]."""
    picture = read_picture(io.BytesIO(data), channels=channels, bits=bits)
    return picture.pixels()[0, 0].tolist() if bits == 16 else np.asarray(picture)[0].tolist()


def tiff(bits, photometric, data, width, *, samples=1, sample_format=1, extra=None, order="<", packed=False):
    """A TIFF of one row, with the tags given."""
    data = zlib.compress(data) if packed else data
    fields = [
        (256, 3, 1, width),
        (257, 3, 1, 1),
        (259, 3, 1, 8 if packed else 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
    ]
    fields += [(277, 3, 1, samples), (278, 3, 1, 1), (279, 4, 1, len(data)), (339, 3, 1, sample_format)]
    fields += [(258, 3, 1, bits)] if samples == 1 else []
    fields += [(338, 3, 1, extra)] if extra is not None else []
    data += bytes(len(data) % 2)
    if samples == 2:
        fields.append((258, 3, 2, bits | bits << 16))  # two numbers fit into the field
    elif samples > 2:
        fields.append((258, 3, samples, 8 + len(data)))
        data += struct.pack(f"{order}{samples}H", *[bits] * samples)
    entries = struct.pack(f"{order}H", len(fields))
    for tag, kind, count, value in sorted(fields):
        one_short = kind == 3 and count == 1
        entries += struct.pack(order + ("HHIHH" if one_short else "HHII"), tag, kind, count, value, *[0] * one_short)
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}I", 8 + len(data)) + data + entries + bytes(4)


def png(width, depth, colour, row, transparent=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    marked = chunk(b"tRNS", transparent) if transparent else b""
    body = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + marked + body + chunk(b"IEND", b"")


def twelve_bits(values):
    return int("".join(f"{value >> 4:012b}" for value in values), 2).to_bytes(6, "big")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff(16, 1, VALUES.astype("<u2").tobytes(), 4), SCALED),
        (tiff(16, 1, VALUES.astype(">u2").tobytes(), 4, order=">"), SCALED),
        (tiff(12, 1, twelve_bits(VALUES), 4), SCALED),
        (tiff(16, 1, (VALUES // 2).astype("<i2").tobytes(), 4, sample_format=2), SCALED),
        (tiff(16, 1, (VALUES // 2).astype(">i2").tobytes(), 4, sample_format=2, order=">"), SCALED),
        (tiff(32, 1, VALUES.astype("<i4").tobytes(), 4, sample_format=2), SCALED),
        (b"P5\n4 1\n65535\n" + VALUES.astype(">u2").tobytes(), SCALED),
        (b"P5\n4 1\n4095\n" + (VALUES >> 4).astype(">u2").tobytes(), SCALED),
        (b"P5\n4 1\n100\n" + bytes([0, 7, 50, 100]), [0, 18, 128, 255]),
        (png(4, 16, 0, VALUES.astype(">u2").tobytes()), SCALED),
        (png(4, 16, 2, np.repeat(VALUES, 3).astype(">u2").tobytes()), SCALED),
        (png(4, 2, 0, b"\x1b"), [0, 85, 170, 255]),
        (tiff(1, 1, b"\xa0", 4), [255, 0, 255, 0]),
    ],
)
def test_every_depth_is_scaled_to_8_bits(data, expected):
    assert read(data) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff(16, 1, VALUES.astype("<u2").tobytes(), 4), VALUES),
        (tiff(16, 1, VALUES.astype(">u2").tobytes(), 4, order=">"), VALUES),
        (tiff(16, 0, VALUES.astype("<u2").tobytes(), 4), 65535 - VALUES),
        (tiff(12, 1, twelve_bits(VALUES), 4), np.rint((VALUES >> 4) * (65535 / 4095))),
        (
            tiff(16, 1, (VALUES // 2).astype("<i2").tobytes(), 4, sample_format=2),
            np.rint(VALUES // 2 * (65535 / 32767)),
        ),
        (
            tiff(16, 1, (VALUES // 2).astype(">i2").tobytes(), 4, sample_format=2, order=">"),
            np.rint(VALUES // 2 * (65535 / 32767)),
        ),
        (tiff(32, 1, VALUES.astype("<i4").tobytes(), 4, sample_format=2), VALUES),
        (b"P5\n4 1\n65535\n" + VALUES.astype(">u2").tobytes(), VALUES),
        (b"P5\n4 1\n255\n" + bytes([0, 7, 50, 255]), [0, 7 * 257, 50 * 257, 65535]),
        (png(4, 16, 0, VALUES.astype(">u2").tobytes()), VALUES),
        (png(4, 2, 0, b"\x1b"), [0, 21845, 43690, 65535]),
        (tiff(1, 1, b"\xa0", 4), [65535, 0, 65535, 0]),
    ],
)
def test_every_depth_is_scaled_to_16_bits(data, expected):
    assert read(data, bits=16) == list(expected)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero(dtype, compression):
    values = (VALUES >> (8 if dtype == np.uint8 else 0)).astype(dtype)[None]
    stored = 255 - values if dtype == np.uint8 else values  # Pillow itself inverts 8-bit pixels when it writes them
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "TIFF", compression=compression, tiffinfo={262: 0})
    assert read(file.getvalue()) == pytest.approx([255, 237, 127, 0], abs=1)


@pytest.mark.parametrize(("bits", "row"), [(1, b"\xa0"), (2, b"\xcc"), (4, b"\xf0\xf0")])
def test_white_is_zero_in_few_bits(bits, row):
    assert read(tiff(bits, 0, row, 4)) == [0, 255, 0, 255]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(4, 16, 0, VALUES.astype(">u2").tobytes(), MARKED), [0, 255, 128, 255]),
        (png(4, 8, 0, (VALUES >> 8).astype("u1").tobytes(), b"\0\x12"), [0, 255, 128, 255]),
        (png(4, 4, 0, b"\x05\xff", b"\0\x05"), [0, 255, 255, 255]),
        (png(4, 2, 0, b"\x1b", b"\0\x01"), [0, 255, 170, 255]),
        (png(4, 1, 0, b"\xa0", b"\0\x00"), [255, 255, 255, 255]),
    ],
)
def test_the_transparent_grey_of_a_png_is_white(data, expected):
    assert read(data) == pytest.approx(expected, abs=1)


def test_the_transparent_colour_of_a_16_bit_png_is_one_colour():
    """All 16 bits are compared: the second pixel has the same upper bytes, but is not transparent."""
    colours = np.repeat([0x1234, 0x1299, 0x8080], 3).astype(">u2").tobytes()
    assert read(png(3, 16, 2, colours, MARKED * 3), channels=3) == [[255] * 3, [0x12] * 3, [128] * 3]


def test_orientation_of_16_bits_and_of_tiff():
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = np.array([[0, 65535, 0], [0, 65535, 0]], np.uint16)
    for format in ("PNG", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(rows).save(file, format, exif=exif)
        upright = read_picture(io.BytesIO(file.getvalue()), channels=1)
        assert np.array_equal(np.asarray(upright), [[0, 0], [255, 255], [0, 0]])


@pytest.mark.parametrize("extra", [1, 2], ids=["premultiplied", "straight"])
def test_alpha_of_a_tiff(extra):
    half = 128 / 255
    grey = tiff(8, 1, bytes([100, 128]), 1, samples=2, extra=extra)
    colour = tiff(8, 2, bytes([100, 50, 0, 128]), 1, samples=4, extra=extra)
    expected = [value * (half if extra == 2 else 1) + 255 * (1 - half) for value in (100, 50, 0)]
    assert read(grey) == pytest.approx(expected[:1], abs=1)
    assert read(colour, 3)[0] == pytest.approx(expected, abs=1)


def in_planes(bits, values):
    """An RGB TIFF of one uncompressed row, with one plane for each channel; values: [3, W]."""
    planes = [channel.astype(f"<u{bits // 8}").tobytes() for channel in values]
    size, end = len(planes[0]), 8 + 3 * len(planes[0])
    tables = struct.pack("<3I3I3H", *(8 + i * size for i in range(3)), *[size] * 3, *[bits] * 3)
    fields = [(256, 3, 1, values.shape[1]), (257, 3, 1, 1), (258, 3, 3, end + 24), (259, 3, 1, 1), (262, 3, 1, 2)]
    fields += [(273, 4, 3, end), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 3, end + 12), (284, 3, 1, 2)]
    packed = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"II*\0" + struct.pack("<I", end + len(tables)) + b"".join(planes) + tables + packed + bytes(4)


COLOURS = np.array([[255, 0, 10], [0, 255, 20], [0, 128, 30]])


def test_planes_of_8_bits():
    assert read(in_planes(8, COLOURS), channels=3) == COLOURS.T.tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (in_planes(16, COLOURS * 257), "want planes of 8 bits, .* got uncompressed planes of 16 bits"),
        (tiff(8, 1, b"\x00\x40\x7f\xff", 4, sample_format=2), "got signed 8-bit pixels"),
        (tiff(16, 1, b"\x01\x02", 1, sample_format=2, order=">", packed=True), "big-endian pixels of 16 bits$"),
        (tiff(32, 1, b"\0\0\x01\x02", 1, sample_format=2, order=">", packed=True), "big-endian pixels of 32 bits$"),
        (tiff(32, 1, (VALUES / 65535).astype("<f4").tobytes(), 4, sample_format=3), "floating point"),
        (b"Pf\n4 1\n-1.0\n" + (VALUES / 65535).astype("<f4").tobytes(), "floating point"),
        (tiff(16, 1, VALUES.astype("<u2").tobytes(), 4, sample_format=2), r"\[0, 32767\], got \[-32640"),
        (tiff(32, 1, np.array([0, 9, 255, 1], "<i4").tobytes(), 4, sample_format=2), "white may be 255 or 65535"),
    ],
)
def test_pixels_without_an_agreed_white_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        read(data)


# Colour spaces


def profile_of(colour_space, tags):
    """A version 2 display profile with these tags {name: content}."""
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s12s4s", 132 + 12 * len(tags) + len(body), b"lcms", 0x02100000, b"mntr",
                       colour_space, b"XYZ ", bytes(12), b"acsp")  # fmt: skip
    return head + bytes(68 - len(head)) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + table + body


def xyz(*values):
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


LINEAR = b"curv" + bytes(8)
WHITE_POINT = {b"wtpt": xyz(0.9642, 1, 0.8249)}
LINEAR_GREY = profile_of(b"GRAY", WHITE_POINT | {b"kTRC": LINEAR})
RED, GREEN, BLUE = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
SWAPPED = profile_of(  # sRGB's primaries with red and green exchanged, linear
    b"RGB ",
    WHITE_POINT
    | {b"rXYZ": xyz(*GREEN), b"gXYZ": xyz(*RED), b"bXYZ": xyz(*BLUE)}
    | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), LINEAR),
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(image, profile, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, icc_profile=profile, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGB", (1, 1), (255, 0, 55)), (0, 255, 128)),  # 55 in linear light is 128 in sRGB
        (Image.new("RGBA", (1, 1), (255, 0, 55, 255)), (0, 255, 128)),
        (Image.new("RGB", (1, 1), (255, 0, 55)).quantize(2), (0, 255, 128)),
    ],
)
def test_colours_of_a_profile_become_srgb(image, expected):
    assert read(saved(image, SWAPPED), 3)[0] == pytest.approx(expected, abs=2)


def test_a_change_of_colour_space_adds_a_remark():
    for profile, expected in ((SWAPPED, ["in another colour space (converted to sRGB)"]), (SRGB, [])):
        remarks = []
        read_picture(io.BytesIO(saved(Image.new("RGB", (1, 1)), profile)), channels=3, remarks=remarks)
        assert remarks == expected


def test_grey_of_a_profile_becomes_srgb():
    assert read(saved(Image.new("L", (1, 1), 55), LINEAR_GREY)) == pytest.approx([128], abs=1)
    assert read(saved(Image.new("LA", (1, 1), (55, 255)), LINEAR_GREY)) == pytest.approx([128], abs=1)
    deep = Image.fromarray(np.full((1, 1), 55 * 257, np.uint16))
    assert read(saved(deep, LINEAR_GREY)) == pytest.approx([128], abs=1)


@pytest.mark.parametrize(
    ("mode", "profile"), [("RGB", SRGB), ("RGB", LINEAR_GREY), ("L", SWAPPED), ("RGB", b"no profile"), ("CMYK", SRGB)]
)
def test_srgb_and_profiles_that_do_not_fit_leave_every_pixel(mode, profile):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, len(mode)), dtype=np.uint8).squeeze()
    image = Image.fromarray(pixels, mode)
    assert read(saved(image, profile, "TIFF"), 3) == read(saved(image, None, "TIFF"), 3)


def test_lab():
    """CIE 1976, from sRGB's primaries under D50; a and b are signed."""
    colour = np.array([180, 90, 60])
    linear = ((colour / 255 + 0.055) / 1.055) ** 2.4
    x, y, z = np.cbrt(linear @ np.array([RED, GREEN, BLUE]) / [0.9642, 1, 0.8249])
    values = [(116 * y - 16) * 2.55, 500 * (x - y), 200 * (y - z)]
    pixel = bytes(round(value) % 256 for value in values)
    assert read(tiff(8, 8, pixel, 1, samples=3), 3)[0] == pytest.approx(colour, abs=3)
    assert read(tiff(8, 8, pixel, 1, samples=3)) == pytest.approx([113], abs=3)  # 0.299 R + 0.587 G + 0.114 B
