"""Pictures in every mode and orientation are decoded to the same pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from gan_engine.data.decode import decode_arrays, fit, read_picture


def decode(image, format="PNG", *, channels=3, resolution=8, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    pixels = fit(read_picture(file, channels=channels, resolution=resolution), resolution)
    assert pixels.dtype == np.uint8 and pixels.shape == (channels, resolution, resolution)
    return pixels


def colours(pixels):
    """The value of each channel. Fails if a channel has several values."""
    assert (pixels == pixels[:, :1, :1]).all()
    return pixels[:, 0, 0].tolist()


def test_rgb_is_kept_and_grey_is_luma():
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    assert colours(decode(image)) == [200, 100, 50]
    assert colours(decode(image, channels=1)) == [124]  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50


def test_grey_becomes_rgb_by_repetition():
    assert colours(decode(Image.new("L", (8, 8), 77))) == [77, 77, 77]
    assert colours(decode(Image.new("1", (8, 8), 1))) == [255, 255, 255]


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_grey_arrays_of_the_right_size_are_copied(channels):
    arrays = np.random.default_rng(0).integers(0, 256, (5, 8, 8)).astype(np.uint8)
    copied = decode_arrays("a", arrays, resolution=8, channels=channels)
    assert copied.equal(decode_arrays("a", arrays, np.copy, resolution=8, channels=channels))
    assert copied.shape == (5, channels or 1, 8, 8)


def test_transparency_is_white():
    assert colours(decode(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))) == [255, 255, 255]
    assert colours(decode(Image.new("RGBA", (8, 8), (255, 0, 0, 51)))) == [255, 204, 204]
    assert colours(decode(Image.new("LA", (8, 8), (0, 0)), channels=1)) == [255]


def test_palette_with_and_without_transparency():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert colours(decode(image)) == [10, 200, 30]
    assert colours(decode(image, "GIF")) == [10, 200, 30]
    assert colours(decode(image, transparency=1)) == [255, 255, 255]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format):
    ramp = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    assert np.array_equal(decode(Image.fromarray(ramp), format, channels=1)[0], (ramp / 257).round())


def test_integer_pixels_beyond_16_bits_are_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 65535\], got \[70000, 70000\]"):
        decode(Image.new("I", (8, 8), 70000), "TIFF")


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(format):
    red, green, blue = colours(decode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), format))
    assert red > 250 and green < 5 and blue < 5


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(format):
    upright = Image.new("L", (16, 16), 0)
    upright.paste(255, (0, 0, 16, 8))  # white above black
    exif = Image.Exif()
    exif[0x0112] = 6  # the picture is stored turned a quarter to the left
    turned = decode(upright.transpose(Image.Transpose.ROTATE_90), format, channels=1, exif=exif)[0]
    assert turned[:3].min() > 250 and turned[-3:].max() < 5


def test_animated_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    assert colours(decode(frames[0], "GIF", save_all=True, append_images=frames[1:])) == [255, 0, 0]


@pytest.mark.parametrize("size", [(32, 8), (8, 32)])
def test_the_centre_square_is_kept(size):
    image = Image.new("RGB", size, "red")
    left, top = (size[0] - 8) // 2, (size[1] - 8) // 2
    image.paste("blue", (left, top, left + 8, top + 8))
    assert colours(decode(image)) == [0, 0, 255]


def test_shrinking_averages():
    checkers = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    assert abs(decode(checkers, channels=1).astype(int) - 127).max() <= 3


def photograph(width, height):
    """Smooth colours with details of all sizes, as in photographs."""
    rng = np.random.default_rng(0)
    pixels = np.full((height, width, 3), 128.0)
    for size in (3, 9, 27, 81):
        noise = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        pixels += (np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float64) - 128) / 4
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_decoded_small_and_looks_the_same(orientation, channels):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    photograph(1216, 1024).save(file, "JPEG", quality=92, exif=exif)
    whole = fit(read_picture(file, channels=channels), 16)
    small = read_picture(file, channels=channels, resolution=16)
    assert sorted(small.size) == [128, 152]
    assert abs(fit(small, 16).astype(int) - whole).max() <= 1


@pytest.mark.parametrize(
    ("size", "format", "want"),
    [
        ((1024, 1024), "JPEG", 128),
        ((1024, 1016), "JPEG", 256),
        ((1028, 1024), "JPEG", 257),
        ((1030, 1024), "JPEG", 515),
        ((1027, 1024), "JPEG", 1027),
        ((1024, 250), "JPEG", 1024),
        ((1024, 1024), "PNG", 1024),
    ],
)
def test_a_picture_stays_large_enough_and_whole(size, format, want):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, format)
    assert read_picture(file, channels=3, resolution=16).width == want
    assert read_picture(file, channels=3).size == size


def test_a_single_pixel_is_a_picture():
    assert colours(decode(Image.new("RGB", (1, 1), (1, 2, 3)))) == [1, 2, 3]
