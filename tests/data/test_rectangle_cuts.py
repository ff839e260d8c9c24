"""Rectangles: what is cut from pictures of both orientations, by every reader, and what has one side only."""

import io
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine.data import DataConfig, DataError, describe, load
from gan_engine.data.decode import fit, num_patches, patches, pixels, read_picture
from gan_engine.data.kinds import KINDS
from gan_engine.system.resolution import height_width, named, parse, written
from tests.data.test_planes import chunk
from tests.data.test_planes import png as deep_png

XMP = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
RAW_PROFILE = b"Raw profile type exif\0\0"
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def as_text(exif):
    """EXIF in the text of a PNG, as ImageMagick writes it."""
    return b"\nexif\n1\n" + exif.hex().encode()


def marked(size, inner):
    """Red, with a centre of inner = (width, height) pixels: green, and blue in its right lower quarter."""
    image = Image.new("RGB", size, RED)
    (w, h), (width, height) = inner, size
    left, top = (width - w) // 2, (height - h) // 2
    image.paste(GREEN, (left, top, left + w, top + h))
    image.paste(BLUE, (left + w // 2, top + h // 2, left + w, top + h))
    return image


def wanted(height, width):
    want = np.zeros((3, height, width), np.uint8)
    want[1] = 255
    want[:, height // 2 :, width // 2 :] = np.array(BLUE, np.uint8)[:, None, None]
    return want


@pytest.mark.parametrize("enlarged", [1, 3])
@pytest.mark.parametrize(
    ("size", "inner", "resolution"),
    [
        ((32, 24), (32, 16), (8, 16)),  # wide of wide, which is too high
        ((48, 16), (32, 16), (8, 16)),  # wide of wider
        ((24, 32), (24, 12), (8, 16)),  # wide of high
        ((24, 32), (16, 32), (16, 8)),  # high of high, which is too wide
        ((32, 24), (12, 24), (16, 8)),  # high of wide
        ((16, 48), (16, 32), (16, 8)),  # high of higher
    ],
)
def test_the_largest_centre_of_the_shape_is_cut(size, inner, resolution, enlarged):
    image = marked([enlarged * n for n in size], [enlarged * n for n in inner])
    got, want = fit(image, resolution).astype(int), wanted(*resolution)
    assert got.shape == (3, *resolution)
    # Pillow's filter reads a little of what lies beyond the edges. A cut by one pixel beside gives 64 or more.
    h, w = resolution
    for rows in (slice(0, h // 2 - 2), slice(h // 2 + 2, h)):
        for columns in (slice(0, w // 2 - 2), slice(w // 2 + 2, w)):
            assert abs(got[:, rows, columns] - want[:, rows, columns]).max() <= 24


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_a_picture_that_is_turned_by_its_exif_is_cut_as_it_is_seen(format, orientation, tmp_path):
    seen, exif = marked((200, 100), (64, 32)), Image.Exif()
    exif[0x0112] = orientation
    stored = {1: seen, 3: seen.rotate(180), 6: seen.rotate(90, expand=True), 8: seen.rotate(270, expand=True)}
    stored[orientation].save(tmp_path / f"a.{format.lower()}", exif=exif)
    for height, width in ((32, 64), (64, 32), (100, 50)):
        got = load(DataConfig(str(tmp_path)), resolution=(height, width), channels=3, kind="patches").images
        assert got.shape == (-(-200 // width) * -(-100 // height), 3, height, width)
    with pytest.raises(DataError):
        load(DataConfig(str(tmp_path)), resolution=(192, 96), channels=3, kind="patches")


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize(("tags", "num"), [({}, 4), ({274: 1}, 3), ({274: 6}, 4)])
def test_patches_of_a_tiff_that_is_turned_by_its_xmp(tags, num, compression, tmp_path):
    """The tag wins over XMP. Three patches fit into the sides as stored, and four into the exchanged sides."""
    options = {"compression": compression, "tiffinfo": {700: XMP, **tags}}
    Image.new("RGB", (30, 20)).save(tmp_path / "a.tif", **options)
    got = load(DataConfig(str(tmp_path)), resolution=(20, 10), channels=3, kind="patches").images
    assert got.shape == (num, 3, 20, 10)


def test_a_large_jpeg_that_is_turned_keeps_eight_pixels_for_one():
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1024, 8192)).save(file, "JPEG", exif=exif)  # seen: 8192 wide, 1024 high
    assert read_picture(file, channels=3, resolution=(64, 128)).size == (4096, 512)
    assert read_picture(file, channels=3, resolution=(128, 64)).size == (8192, 1024)


def test_a_large_jpeg_is_reduced_by_the_side_that_has_fewer_pixels_to_spare():
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (20, 10, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((640, 1280)).save(file, "JPEG", quality=95)
    for resolution, width in (((16, 8), 80), ((16, 16), 160), ((8, 32), 320), ((64, 8), 320), ((80, 80), 640)):
        assert read_picture(file, channels=3, resolution=resolution).width == width
        whole = fit(read_picture(file, channels=3), resolution).astype(int)
        small = fit(read_picture(file, channels=3, resolution=resolution), resolution)
        assert abs(small - whole).max() <= 1


def test_patches_cover_the_picture_from_edge_to_edge():
    values = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) % 251
    image = Image.fromarray(values.astype(np.uint8))
    got = patches(pixels(image), (8, 16))
    places = [(y, x) for y in (0, 6, 12) for x in (0, 14)]
    assert got.shape == (6, 1, 8, 16)
    assert all((part[0] == values[y : y + 8, x : x + 16]).all() for part, (y, x) in zip(got, places, strict=True))
    file = io.BytesIO()
    image.save(file, "BMP")
    assert num_patches(lambda: io.BytesIO(file.getvalue()), (8, 16)) == 6
    assert num_patches(lambda: io.BytesIO(file.getvalue()), (21, 16)) == 0
    with pytest.raises(ValueError, match="want at least 16x21 pixels, got 30x20"):
        patches(pixels(image), (21, 16))


@pytest.mark.parametrize(
    ("said", "turned"),
    [
        (lambda exif: {}, False),
        (lambda exif: {"before": chunk(b"eXIf", exif)}, True),
        (lambda exif: {"after": chunk(b"eXIf", exif)}, True),
        (lambda exif: {"after": chunk(b"tEXt", RAW_PROFILE[:-1] + as_text(exif))}, True),
        (lambda exif: {"after": chunk(b"tEXt", b"Title\0a cat")}, False),
        (lambda exif: {"after": chunk(b"zTXt", RAW_PROFILE + zlib.compress(as_text(exif)))}, True),
        (lambda exif: {"before": chunk(b"iTXt", XMP)}, True),
        (lambda exif: {"after": chunk(b"iTXt", XMP)}, True),
    ],
    ids=[
        "nothing",
        "EXIF",
        "EXIF behind",
        "EXIF as text behind",
        "text behind",
        "EXIF as packed text behind",
        "XMP",
        "XMP behind",
    ],
)
def test_the_patches_of_a_png_are_counted_as_it_is_seen(said, turned):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = deep_png(np.zeros((20, 30, 3), np.uint16), **said(exif.tobytes()[6:]))
    seen = read_picture(io.BytesIO(content), channels=3)
    assert seen.size == ((20, 30) if turned else (30, 20))
    for resolution in ((8, 16), (16, 8), (25, 10), (10, 25)):
        fits = seen.width >= resolution[1] and seen.height >= resolution[0]
        want = len(patches(pixels(seen), resolution)) if fits else 0
        assert num_patches(lambda: io.BytesIO(content), resolution) == want


def test_the_patches_of_a_png_are_counted_without_its_pixels():
    dated = chunk(b"tEXt", b"date:create\0" + b"2026-11-30") + chunk(b"iTXt", b"Title\0\0\0\0\0a cat")
    content = deep_png(np.zeros((20, 30, 3), np.uint16), after=dated)
    damaged = content.replace(b"IDAT\x78", b"IDAT\xff")
    with pytest.raises(OSError):
        read_picture(io.BytesIO(damaged), channels=3)
    assert num_patches(lambda: io.BytesIO(damaged), (8, 16)) == 6


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def as_folder(path, data):
    (path / "set").mkdir()
    for name, content in data.items():
        (path / "set" / name).write_bytes(content)
    return path / "set"


def as_zip(path, data):
    with zipfile.ZipFile(path / "set.zip", "w") as archive:
        for name, content in data.items():
            archive.writestr(name, content)
    return path / "set.zip"


def as_tar(path, data):
    with tarfile.open(path / "set.tar", "w") as archive:
        for name, content in data.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path / "set.tar"


def as_array(path, data):
    arrays = [np.asarray(Image.open(io.BytesIO(content))) for content in data.values()]
    np.savez(path / "set.npz", images=np.stack(arrays))
    return path / "set.npz"


def as_lmdb(path, data):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path / "set.lmdb"), map_size=2**24) as environment, environment.begin(write=True) as writing:
        for name, content in data.items():
            writing.put(name.encode(), content)
    return path / "set.lmdb"


def as_parquet(path, data):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"image": list(data.values())}), path / "set.parquet")
    return path / "set.parquet"


@pytest.mark.parametrize("write", [as_folder, as_zip, as_tar, as_array, as_lmdb, as_parquet])
def test_every_reader_cuts_rectangles(tmp_path, write):
    images = [marked((40, 24), (32, 16)), marked((40, 24), (40, 24))]
    source = write(tmp_path, {f"{i}.png": png(image) for i, image in enumerate(images)})
    for resolution in ((8, 16), (24, 12), 8):
        for _ in range(2):  # the second time from the cache, whose key knows both sides
            data = load(DataConfig(str(source)), resolution=resolution, channels=3)
            want = np.stack([fit(image, resolution) for image in images])
            assert np.array_equal(data.images.numpy(), want)
            assert f"2 images 3x{named(resolution)}" in describe(data)
        assert any("from the cache" in note for note in data.notes)


def test_pairs_and_unpaired_images_have_two_sides(tmp_path):
    for side, size in (("trainA", (40, 24)), ("trainB", (40, 24))):
        (tmp_path / side).mkdir()
        marked(size, (20, 12)).save(tmp_path / side / "0.png")
    want = fit(marked((40, 24), (20, 12)), (12, 8))
    for kind in ("pairs", "unpaired"):
        data = load(DataConfig(str(tmp_path)), resolution=(12, 8), channels=3, kind=kind)
        assert np.array_equal(data.images[0].numpy(), want) and np.array_equal(data.source.images[0].numpy(), want)


def test_patches_of_a_folder(tmp_path):
    source = as_folder(tmp_path, {"0.png": png(marked((40, 24), (32, 16)))})
    assert load(DataConfig(str(source)), resolution=(8, 16), channels=3, kind="patches").images.shape == (9, 3, 8, 16)


def test_garments_keep_their_centre():
    whole = load(DataConfig("fashion-mnist"), resolution=32, channels=1)
    wide = load(DataConfig("fashion-mnist"), resolution=(24, 32), channels=1)
    assert wide.images.equal(whole.images[:, :, 4:28]) and wide.labels.equal(whole.labels)
    high = load(DataConfig("fashion-mnist"), resolution=(28, 20), channels=1)
    unpadded = load(DataConfig("fashion-mnist"), resolution=28, channels=1)
    assert high.images.equal(unpadded.images[..., 4:24])
    stacked = load(DataConfig("stacked"), resolution=(24, 32), channels=3)
    assert stacked.images.equal(load(DataConfig("stacked"), resolution=32, channels=3).images[:, :, 4:28])


@pytest.mark.parametrize("resolution", [(16, 32), (32, 16)])
def test_drawn_shapes_are_as_large_as_in_the_square_of_the_shorter_side(resolution):
    data = load(DataConfig("toy"), resolution=resolution, channels=1)
    square = load(DataConfig("toy"), resolution=16, channels=1)
    assert data.images.shape == (4096, 1, *resolution)
    areas = [
        ((images.float() - low) / (high - low)).sum((1, 2, 3))
        for images in (data.images, square.images)
        for low, high in [images.flatten(1).float().aminmax(dim=1)]
        for low, high in [(low.view(-1, 1, 1, 1), high.view(-1, 1, 1, 1))]
    ]
    torch.testing.assert_close(areas[0].mean(), areas[1].mean(), rtol=0.02, atol=0)
    for kind in ("pairs", "unpaired", "patches"):
        drawn = load(DataConfig("toy"), resolution=resolution, channels=3, kind=kind)
        assert all(part.images.shape[2:] == resolution for part in (drawn, drawn.source) if part is not None)


def test_volumes_and_points_have_one_side():
    with pytest.raises(DataError, match="resolution must be one number for voxels, got 8x16"):
        load(DataConfig("toy"), resolution=(8, 16), channels=1, kind="voxels")
    for resolution, text in (((8, 0), "8x0"), (-1, "-1")):
        with pytest.raises(DataError, match=f"resolution must be at least 1, got {text}$"):
            load(DataConfig("toy"), resolution=resolution, channels=1)
    assert KINDS["image"].sides((8, 16)) == [8, 16] and KINDS["voxels"].sides(8) == [8, 8, 8]


def test_texts_are_height_by_width():
    assert parse("64") == parse("64x64") == 64 and parse("48x64") == (48, 64)
    assert named(64) == "64x64" and named((48, 64)) == "48x64" and height_width(8) == (8, 8)
    assert written(64) == "64" and written((48, 64)) == "48x64"
    for wrong in ("", "x", "48x", "48x64x3", "48X64", "a"):
        with pytest.raises(ValueError, match=f"want a whole number or HEIGHTxWIDTH, such as 48x64, got '{wrong}'"):
            parse(wrong)
