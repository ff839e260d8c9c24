"""Pictures with 16 bits per channel keep all of them. Each value is compared with the values that were written."""

import contextlib
import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, features

from gan_engine.data import DataConfig, DataError, describe, load
from gan_engine.data.decode import fit, read_picture
from tests.data.test_modes import SRGB, SWAPPED, in_planes, saved
from tests.data.test_modes import tiff as tiff_of_a_row

NOISE = np.random.default_rng(0).integers(0, 65536, (13, 11, 4)).astype(np.uint16)
GREY, GREY_ALPHA, RGB, RGBA = NOISE[..., :1], NOISE[..., :2], NOISE[..., :3], NOISE
COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}  # {channels: colour type of a PNG}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # Adam7


def png(values, *, interlaced=False, before=b"", after=b""):
    """A PNG of uint16 [H, W, C], with chunks before and after its pixels."""
    passes = [values[y::down, x::across] for x, y, across, down in PASSES] if interlaced else [values]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for part in passes if part.size for row in part)
    height, width, channels = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPE[channels], 0, 0, interlaced)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + pixels + after + chunk(b"IEND", b"")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(values, *, order="<", packed=False, orientation=1, opacity=2, kind=2, planes=False):
    """A TIFF of uint16 [H, W, C], in one strip or in one for each plane."""
    height, width, channels = values.shape
    strips = [values[..., i] for i in range(channels)] if planes else [values]
    strips = [strip.astype(f"{order}u2").tobytes() for strip in strips]
    strips = [zlib.compress(strip) if packed else strip for strip in strips]
    strips = [strip + bytes(len(strip) % 2) for strip in strips]
    data, lists = b"".join(strips), {}
    starts = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    for tag, code, numbers in ((258, "H", [16] * channels), (273, "I", starts), (279, "I", [*map(len, strips)])):
        lists[tag] = numbers[0] if len(numbers) == 1 else 8 + len(data)
        data += struct.pack(f"{order}{len(numbers)}{code}", *numbers) if len(numbers) > 1 else b""
    fields = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, lists[258]), (259, 3, 1, 8 if packed else 1)]
    fields += [(262, 3, 1, kind), (273, 4, len(strips), lists[273]), (274, 3, 1, orientation), (277, 3, 1, channels)]
    fields += [(278, 3, 1, height), (279, 4, len(strips), lists[279]), (284, 3, 1, 1 + planes)]
    fields += [(338, 3, 1, opacity)] if channels == 4 and kind == 2 else []
    data += bytes(len(data) % 2)
    entries = struct.pack(f"{order}H", len(fields))
    for tag, code, count, value in fields:
        short = code == 3 and count == 1
        entries += struct.pack(order + ("HHIHH" if short else "HHII"), tag, code, count, value, *[0] * short)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return head + data + entries + bytes(4)


def tiff_with_a_number_too_many():
    """A TIFF of three channels of 8 bits, whose tag has a fourth number: that of the tags, which is 10 or more."""
    content = tiff_of_a_row(8, 2, b"\1\2\3", 1, samples=3)
    return content.replace(struct.pack("<HHI", 258, 3, 3), struct.pack("<HHI", 258, 3, 4))


def jpeg2000_of_12_bits(mode):
    """A JPEG2000 whose head alone has 12 bits."""
    content = bytearray(saved(Image.new(mode, (8, 8)), None, "JPEG2000"))
    start = content.index(b"\xff\x4f\xff\x51") + 42
    content[start : start + 3 * len(mode) : 3] = bytes([11] * len(mode))
    return bytes(content)


def bmp_of_16_bits_a_pixel(pixel):
    """A BMP with 5, 6 and 5 bits of red, green and blue."""
    head = struct.pack("<IiiHHIIiiII3I", 40, 1, 1, 1, 16, 3, 4, 0, 0, 0, 0, 0xF800, 0x7E0, 0x1F)
    return b"BM" + struct.pack("<III", 18 + len(head), 0, 14 + len(head)) + head + struct.pack("<HH", pixel, 0)


def pixels(content, channels, remarks=None):
    """[H, W, C] of a file"""
    picture = read_picture(io.BytesIO(content), channels=channels, bits=16, remarks=remarks)
    return picture.pixels().transpose(1, 2, 0)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("values", [GREY, RGB, RGBA], ids=["grey", "RGB", "RGBA"])
def test_a_png_keeps_every_value(values, interlaced):
    assert np.array_equal(pixels(png(values, interlaced=interlaced), values.shape[2]), values)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("values", [RGB, RGBA], ids=["RGB", "RGBA"])
def test_a_tiff_keeps_every_value(values, order, packed):
    content = tiff(values, order=order, packed=packed)
    assert np.array_equal(pixels(content, values.shape[2]), values)
    turned = tiff(values, order=order, packed=packed, orientation=6)
    assert np.array_equal(pixels(turned, values.shape[2]), np.rot90(values, -1))
    with_unused_channel = tiff(RGBA, order=order, packed=packed, opacity=0)
    assert np.array_equal(pixels(with_unused_channel, 3), RGB)


def test_grey_colour_and_transparency_become_each_other():
    opaque = np.full_like(GREY, 65535)
    assert np.array_equal(pixels(png(GREY), 3), np.repeat(GREY, 3, 2))
    assert np.array_equal(pixels(png(GREY), 4), np.concatenate([GREY] * 3 + [opaque], 2))
    assert np.array_equal(pixels(png(RGB), 4), np.concatenate([RGB, opaque], 2))
    assert np.array_equal(pixels(png(GREY_ALPHA), 4), NOISE[..., [0, 0, 0, 1]])
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    assert abs(pixels(png(RGB), 1)[..., 0] - luma).max() <= 0.51
    remarks = []
    on_white = 65535 + (RGB - 65535.0) * (RGBA[..., 3:] / 65535)
    assert abs(pixels(png(RGBA), 3, remarks) - on_white).max() <= 0.51
    on_white = 65535 + (GREY - 65535.0) * (GREY_ALPHA[..., 1:] / 65535)
    assert abs(pixels(png(GREY_ALPHA), 1, remarks) - on_white).max() <= 0.51
    assert remarks == ["with transparency, which becomes white"] * 2


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_value_of_a_png_is_one_value(channels):
    """All 16 bits are compared: the second pixel has the same upper byte, but is not transparent."""
    values = np.repeat(np.array([[[0x1234], [0x1299], [0x8080]]], np.uint16), channels, 2)
    content = png(values, before=chunk(b"tRNS", struct.pack(">H", 0x1234) * channels))
    assert pixels(content, 4)[0, :, [0, 3]].T.tolist() == [[65535, 0], [0x1299, 65535], [0x8080, 65535]]
    assert pixels(content, channels)[0, :, 0].tolist() == [65535, 0x1299, 0x8080]


def test_a_cut_and_a_turn_keep_every_value():
    exif = Image.Exif()
    exif[0x0112] = 6
    for place in ("before", "after"):
        turned = png(RGB, **{place: chunk(b"eXIf", exif.tobytes()[6:])})
        assert np.array_equal(pixels(turned, 3), np.rot90(RGB, -1))
    cut = fit(read_picture(io.BytesIO(png(RGB)), channels=3, bits=16), 11)
    assert np.array_equal(cut, RGB[1:12].transpose(2, 0, 1))


def test_resizing_is_that_of_8_bits_with_more_levels():
    smooth = np.linspace(0, 65535, 40 * 40 * 3).reshape(40, 40, 3).astype(np.uint16)
    smooth[..., 1] = smooth[::-1, :, 1]
    file = io.BytesIO(png(smooth))
    eight, deep = (fit(read_picture(file, channels=3, bits=bits), (12, 16)) for bits in (8, 16))
    assert abs(deep / 257 - eight).max() < 1.5 and len(np.unique(deep)) > 300


def test_the_colours_of_invisible_pixels_are_not_seen_beside_them():
    values = np.full((40, 40, 4), [1000, 30000, 60000, 50000], np.uint16)
    values[:, 21:] = [65535, 0, 0, 0]
    deep = fit(read_picture(io.BytesIO(png(values)), channels=4, bits=16), (12, 16))
    assert np.array_equal(deep[3:], fit(read_picture(io.BytesIO(png(values[..., 3:])), channels=1, bits=16), (12, 16)))
    clear = deep[3] > 1000
    assert abs(deep[:3, clear].T.astype(int) - values[0, 0, :3]).max() <= 1 and 50 < clear.sum() < 150
    assert (deep[:3, deep[3] == 0] == 65535).all() and (deep[3] == 0).any()


@pytest.mark.parametrize(
    ("content", "channels", "want"),
    [
        (saved(Image.new("RGB", (1, 1), (1, 2, 3)), None), 3, [257, 514, 771]),
        (saved(Image.new("RGBA", (1, 1), (1, 2, 3, 128)), None), 4, [257, 514, 771, 128 * 257]),
        (saved(Image.new("RGBA", (1, 1), (1, 2, 3, 0)), None), 4, [65535, 65535, 65535, 0]),
        (saved(Image.new("RGB", (1, 1), (1, 2, 3)).quantize(2), None), 3, [257, 514, 771]),
        (saved(Image.new("LA", (1, 1), (7, 0)), None), 1, [65535]),
        (saved(Image.new("RGB", (1, 1), (9, 9, 9)), None, "TIFF", compression="tiff_lzw"), 3, [9 * 257] * 3),
        (in_planes(8, np.array([[255, 7], [0, 255], [0, 128]])), 3, [65535, 0, 0]),
        (tiff_with_a_number_too_many(), 3, [257, 514, 771]),
        (saved(Image.new("RGB", (1, 1), (1, 2, 3)), None, "TGA"), 3, [257, 514, 771]),
        (saved(Image.new("LA", (1, 1), (7, 0)), None, "TGA"), 1, [65535]),
        (b"qoif" + struct.pack(">IIBB", 1, 1, 3, 0) + b"\xfe\1\2\3" + bytes(7) + b"\1", 3, [257, 514, 771]),
        (saved(Image.new("RGB", (1, 1), (1, 2, 3)), None, "DIB"), 3, [257, 514, 771]),
        (bmp_of_16_bits_a_pixel(0xF800), 3, [65535, 0, 0]),
        (b"P6\n1 1\n255\n\1\2\3", 3, [257, 514, 771]),
        (b"P3\n1 1\n100\n0 50 100", 3, [0, 128 * 257, 65535]),
        (saved(Image.new("RGB", (8, 8), (1, 2, 3)), None, "JPEG2000"), 3, [257, 514, 771]),
        (saved(Image.new("LA", (8, 8), (7, 0)), None, "JPEG2000"), 1, [65535]),
    ],
)
def test_pictures_of_8_bits_are_scaled(content, channels, want):
    assert pixels(content, channels)[0, 0].tolist() == want


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_an_avif_is_scaled():
    content = saved(Image.new("RGB", (8, 8), "white"), None, "AVIF")
    assert pixels(content, 3)[0, 0].tolist() == [65535] * 3


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"P6\n1 1\n65535\n" + bytes(6), "a PPM with RGB of 16 bits"),
        (b"P3\n1 1\n1023\n0 0 0", "a PPM with RGB of 10 bits"),
        (jpeg2000_of_12_bits("RGB"), "a JPEG2000 with RGB of 12 bits"),
        (jpeg2000_of_12_bits("LA"), "a JPEG2000 with LA of 12 bits"),
        (tiff(RGBA, kind=5), "a TIFF with CMYK of 16 bits"),
        (tiff(RGBA, opacity=1), "a TIFF with RGBa of 16 bits"),
        (tiff(RGB, planes=True), "a TIFF with planes of 16 bits"),
        (tiff(RGB, planes=True, packed=True), "a TIFF with planes of 16 bits"),
    ],
)
def test_colours_that_pillow_reduces_to_8_bits_are_refused(content, got):
    with pytest.raises(
        ValueError, match=f"want 16 bits in grey, or in RGB or RGBA of a PNG or TIFF without planes, got {got}$"
    ):
        pixels(content, 3)


def test_floats_are_refused_as_with_8_bits():
    file = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.float32)).save(file, "TIFF")
    with pytest.raises(ValueError, match="want integer pixels, got floating point"):
        pixels(file.getvalue(), 1)


def test_a_colour_profile_does_nothing_but_a_remark():
    for profile, want in ((SWAPPED, ["in another colour space (not converted)"]), (SRGB, [])):
        remarks, packed = [], zlib.compress(profile)
        content = png(RGB, before=chunk(b"iCCP", b"x\0\0" + packed))
        assert np.array_equal(pixels(content, 3, remarks), RGB) and remarks == want


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_pixel_takes_24_bytes_beside_those_of_pillow(channels):
    """The values as they are stored take 8 bytes, and four channels in float32 take 16."""
    file = io.BytesIO(png(np.tile(RGBA, (20, 30, 1))))
    tracemalloc.start()  # it sees the memory of NumPy, and not that of Pillow
    try:
        size = read_picture(file, channels=channels, bits=16).size
        assert tracemalloc.get_traced_memory()[1] < 24.5 * size[0] * size[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("left", "right", "is_pair"),
    [
        ([100, 100, 100, 255], [109, 109, 109, 255], True),  # the mean with the opacity moves by 6.75
        ([90, 90, 90], [90, 105, 90], True),  # luma moves by 8.8, and the mean by 5
        ([90, 90, 90], [90, 90, 120], False),  # luma moves by 3.4, and the mean by 10
    ],
)
def test_a_seam_is_seen_in_luma(left, right, is_pair, bits, tmp_path):
    values = np.repeat(np.array([left, right], np.uint16) * 257, 30, 0)[None].repeat(40, 0)
    (tmp_path / "a.png").write_bytes(png(values))
    with contextlib.nullcontext() if is_pair else pytest.raises(DataError, match="got 60x40 pixels of one picture"):
        load(DataConfig(str(tmp_path), bits=bits), resolution=8, channels=len(left), kind="pairs")


def test_every_reader_of_pictures_keeps_the_values_of_colours(tmp_path):
    content, want = png(RGB), RGB[1:12].transpose(2, 0, 1)
    for folder in ("photos", "pairs/A", "pairs/B"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.png").write_bytes(content)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "a.png").write_bytes(png(np.concatenate([RGB[:11], RGB[1:12, ::-1]], 1)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", content)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    for source in ("photos", "a.zip", "a.tar"):
        for _ in range(2):  # the second time from the cache
            data = load(DataConfig(str(tmp_path / source), bits=16), resolution=11, channels=None)
            assert data.images.dtype == torch.uint16 and np.array_equal(data.images[0].numpy(), want)
            assert "3x11x11 of 16 bits" in describe(data)
    for kind in ("pairs", "unpaired"):
        data = load(DataConfig(str(tmp_path / "pairs"), bits=16), resolution=11, channels=None, kind=kind)
        assert np.array_equal(data.images[0].numpy(), want) and np.array_equal(data.source.images[0].numpy(), want)
    data = load(DataConfig(str(tmp_path / "beside"), bits=16), resolution=11, channels=3, kind="pairs")
    assert np.array_equal(data.source.images[0].numpy(), RGB[:11].transpose(2, 0, 1))


def test_a_table_keeps_the_values_of_colours(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"image": [png(RGB)]}), tmp_path / "a.parquet")
    data = load(DataConfig(str(tmp_path / "a.parquet"), bits=16), resolution=11, channels=3)
    assert np.array_equal(data.images[0].numpy(), RGB[1:12].transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["image", "pairs"])
def test_a_picture_that_is_skipped_does_not_decide_the_channels(tmp_path, kind):
    beside = np.concatenate([GREY[:11]] * 2, 1)
    (tmp_path / "a.png").write_bytes(png(beside))
    (tmp_path / "b.ppm").write_bytes(b"P6\n2 1\n65535\n" + b"\xff\0\0\0\0\0" * 2)
    with pytest.warns(UserWarning, match="skipped 1 image: b.ppm"):
        data = load(DataConfig(str(tmp_path), bits=16), resolution=8, channels=None, kind=kind)
    assert data.images.shape == (1, 1, 8, 8)


def test_channels_are_found_as_with_8_bits(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.repeat(GREY, 3, 2)))
    assert load(DataConfig(str(tmp_path), bits=16), resolution=8, channels=None).images.shape[1] == 1
    (tmp_path / "b.png").write_bytes(png(RGB))
    assert load(DataConfig(str(tmp_path), bits=16), resolution=8, channels=None).images.shape[1] == 3
    (tmp_path / "c.ppm").write_bytes(b"P6\n1 1\n65535\n" + bytes(6))
    with pytest.warns(UserWarning, match=r"skipped 1 image: c.ppm \(ValueError: want 16 bits in grey, or in RGB"):
        load(DataConfig(str(tmp_path), bits=16), resolution=8, channels=None)
    with pytest.raises(DataError, match=r"channels must be 1 \(grey\), 3 \(RGB\) or 4 \(RGBA\), got 2; the arrays"):
        load(DataConfig(str(tmp_path), bits=16), resolution=8, channels=2)
