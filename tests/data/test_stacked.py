"""Stacked garments: every mode as often as any other, each channel a garment of the class that the label says."""

import pytest
import torch

from gan_engine.data import DataConfig, load
from gan_engine.data.image_set import DataError
from gan_engine.data.stacked import MODES, PER_MODE


@pytest.fixture(scope="module")
def stacked():
    return load(DataConfig("stacked"), resolution=32, channels=None)


def test_every_mode_is_there_equally_often_in_random_order(stacked):
    assert stacked.images.shape == (50_000, 3, 32, 32) and stacked.num_classes == 1000
    assert stacked.labels.bincount(minlength=1000).tolist() == [PER_MODE] * 1000
    assert MODES[123] == "Trouser + Pullover + Dress" and stacked.class_names == MODES
    assert len(set(stacked.labels[:1000].tolist())) > 500  # modes that follow one another would be alike in a batch


def test_each_channel_is_a_garment_of_the_class_of_its_digit(stacked):
    garments = load(DataConfig("fashion-mnist"), resolution=32, channels=1)
    classes = {
        image.numpy().tobytes(): int(label) for image, label in zip(garments.images, garments.labels, strict=True)
    }
    for image, label in zip(stacked.images[:500], stacked.labels[:500], strict=True):
        found = [classes[channel.numpy().tobytes()] for channel in image]
        assert found == [int(digit) for digit in f"{label:03}"]


def test_the_draw_is_the_same_in_every_run_and_uses_many_garments(stacked):
    again = load(DataConfig("stacked"), resolution=32, channels=3, seed=7)
    assert again.sha256 == stacked.sha256
    red = {image.numpy().tobytes() for image in stacked.images[:, 0]}
    assert len(red) > 9_800  # of 10,000; 50,000 draws miss about 0.7 % of them


def test_stacked_is_in_colour_and_of_any_resolution():
    with pytest.raises(DataError, match="stacked: want 3 channels, one for each garment, got 1"):
        load(DataConfig("stacked"), resolution=32, channels=1)
    small = load(DataConfig("stacked"), resolution=16, channels=3)
    assert small.images.shape == (50_000, 3, 16, 16) and small.images.dtype == torch.uint8
