"""Arrays of bands: which axis has the channels, what each band becomes, and what pictures cannot have."""

import numpy as np
import pytest
import torch

from gan_engine.data import DataConfig, DataError, ImageSet, load, sources
from gan_engine.system.outside import REGISTERED


def bands(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def saved(path, values=None, **named):
    if named:
        np.savez(path / "a.npz", **named)
        return path / "a.npz"
    np.save(path / "a.npy", values)
    return path / "a.npy"


def loaded(source, resolution, channels=None, bits=8):
    return load(DataConfig(str(source), bits=bits), resolution=resolution, channels=channels)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("channels", "side", "asked"), [(2, 80, None), (5, 80, None), (5, 16, 5), (13, 8, 13), (64, 8, 64)]
)
def test_bands_are_kept_in_their_order(tmp_path, channels, side, asked, last):
    values = bands(3, channels, side, side)
    data = loaded(saved(tmp_path, values.transpose(0, 2, 3, 1) if last else values), side, asked)
    assert data.images.dtype == torch.uint8 and np.array_equal(data.images.numpy(), values)
    assert data.notes == (f"images from a (uint8 {'NHWC' if last else 'NCHW'})",)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_band_is_cut_and_resized_like_a_grey_picture(tmp_path, bits):
    values = bands(2, 5, 70, 90)
    together = loaded(saved(tmp_path, values), (32, 24), bits=bits).images
    for i in range(5):
        alone = loaded(saved(tmp_path, values[:, i]), (32, 24), bits=bits).images
        assert torch.equal(together[:, i : i + 1].int(), alone.int())


def test_colours_come_before_bands(tmp_path):
    pictures, features = bands(2, 16, 16, 3), bands(2, 8, 8, 70)[..., :64]
    assert loaded(saved(tmp_path, pixels=pictures, features=features), 16).images.shape == (2, 3, 16, 16)
    assert loaded(tmp_path / "a.npz", 8, 64).images.shape == (2, 64, 8, 8)


@pytest.mark.parametrize(
    ("shape", "channels", "want"),
    [
        ((2, 5, 16, 16), None, r"either second or last, got uint8 \[2, 5, 16, 16\], .* both; want --channels 5 or 16"),
        ((2, 5, 16, 16), 3, r"either second or last, got uint8 \[2, 5, 16, 16\], .* both; want --channels 5 or 16"),
        ((2, 5, 16, 5), 5, r"either second or last, got uint8 \[2, 5, 16, 5\], which may be both$"),
        ((2, 5, 80, 80), 6, r"a must be \[N, H, W, 6\] or \[N, 6, H, W\], got uint8 \[2, 5, 80, 80\]"),
        (
            (2, 5, 80, 80),
            3,
            r"want --channels 5, as bands keep the channels of a, which is uint8 \[2, 5, 80, 80\], got 3",
        ),
        ((2, 16, 16), 5, r"want --channels 1, as bands keep the channels of a, which is uint8 \[2, 16, 16\], got 5"),
        ((2, 65, 80, 80), None, r"must be \[N, H, W\], .* or other C up to 64, got uint8 \[2, 65, 80, 80\]"),
        ((2, 65, 80, 80), 65, "channels must be 1 to 64, got 65"),
    ],
)
def test_other_arrays_are_refused(tmp_path, shape, channels, want):
    with pytest.raises(DataError, match=want):
        loaded(saved(tmp_path, bands(*shape)), 16, channels)


@pytest.mark.parametrize("source", ["toy", "fashion-mnist", "photos"])
def test_pictures_have_no_bands(source):
    with pytest.raises(
        DataError, match=r"1 \(grey\), 3 \(RGB\) or 4 \(RGBA\), got 5; the arrays of an .npy or .npz may"
    ):
        loaded(source, 16, 5)


@pytest.mark.parametrize(("images", "mask"), [("x", "y"), ("x_train", "cloud"), ("images", "mask")])
def test_a_mask_beside_bands_is_not_taken_for_the_images(images, mask, tmp_path):
    values = bands(6, 13, 80, 80)
    data = loaded(saved(tmp_path, **{images: values, mask: values[:, 0] > 9}), 80)
    assert np.array_equal(data.images.numpy(), values) and data.labels is None


def test_channels_tell_bands_from_a_mask(tmp_path):
    path = saved(tmp_path, bands=bands(6, 13, 80, 80), mask=bands(6, 80, 80))
    with pytest.raises(DataError, match="want one array of images, or an array called images"):
        loaded(path, 80)
    assert loaded(path, 80, 13).images.shape[1] == 13


def test_a_plug_in_gives_as_many_bands_as_it_is_asked_for(monkeypatch):
    made = ImageSet("mine", torch.zeros(4, 5, 16, 16, dtype=torch.uint8))
    monkeypatch.setitem(sources.NAMED, "mine", lambda root, **sizes: made)
    monkeypatch.setitem(REGISTERED, "data mine", "a plug-in")
    assert loaded("mine", 16, 5) is made
