"""An ImageSet checks its images and labels; toy images have the shapes and classes that they claim."""

import pytest
import torch

from gan_engine.data import DataConfig, DataError, ImageSet, describe, kinds, load, sources, toy


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 4, 4),
        torch.zeros(3, 4, 4, dtype=torch.uint8),
        torch.zeros(2, 65, 4, 4, dtype=torch.uint8),
        torch.zeros(2, 1, 4, 4, 4, dtype=torch.uint16),
        torch.zeros(0, 3, 4, 4, dtype=torch.uint8),
    ],
)
def test_images_are_checked(images):
    with pytest.raises(DataError, match=r"uint8 or uint16 \[N, C, H, W\] with N >= 1 and C = 1 to 64, .*, got"):
        ImageSet("x", images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2), r"int64 \[N\] = \[2\], got torch.float32 \[2\]"),
        (torch.zeros(3, dtype=torch.int64), r"got torch.int64 \[3\]"),
        (torch.tensor([0, 1]), r"\[0, 1\), got \[0, 1\]"),
        (torch.tensor([-1, 0]), r"\[0, 1\), got \[-1, 0\]"),
    ],
)
def test_labels_are_checked(labels, message):
    with pytest.raises(DataError, match=message):
        ImageSet("x", torch.zeros(2, 1, 4, 4, dtype=torch.uint8), labels, ("only",))


@pytest.mark.parametrize(("resolution", "channels"), [(16, 1), (64, 3)])
def test_toy_images(resolution, channels):
    config = DataConfig("toy")
    data = load(config, resolution=resolution, channels=channels, seed=1)
    assert data.images.shape == (4096, channels, resolution, resolution)
    assert data.class_names == ("disc", "square", "triangle", "cross", "ring")
    assert data.labels.bincount().min() > 700
    again = load(config, resolution=resolution, channels=channels, seed=1)
    assert torch.equal(data.images, again.images) and torch.equal(data.labels, again.labels)
    other = load(config, resolution=resolution, channels=channels, seed=2)
    assert not torch.equal(data.images, other.images)


def test_toy_shapes_look_like_their_names():
    """Shapes are bright on dark. The centre of mass is bright in every shape but the ring."""
    data = load(DataConfig("toy"), resolution=32, channels=1)
    images = data.images[:, 0].float()
    bright = (images > 127).float()
    covered = bright.mean((1, 2))
    assert covered.min() > 0.02 and covered.max() < 0.6
    axis = torch.arange(32.0)
    mass = bright.sum((1, 2))
    x, y = ((bright.sum(dim) * axis).sum(1) / mass for dim in (1, 2))
    at_centre = bright[torch.arange(len(bright)), y.round().long(), x.round().long()]
    ring = data.labels == data.class_names.index("ring")
    assert at_centre[~ring].all() and not at_centre[ring].any()


@pytest.mark.parametrize(
    ("shape", "want"),
    [
        ((1, 3, 4, 4), "x: 1 image 3x4x4, 1 class, 0.0 MB"),
        ((2, 1, 4, 4, 4), "x: 2 images 1x4x4x4, 1 class, 0.0 MB"),
        ((1, 2), "x: 1 point, 1 class, 0.0 MB"),
    ],
)
def test_one_line_describes_a_set(shape, want):
    images = torch.zeros(shape, dtype=torch.uint8 if len(shape) > 2 else torch.float32)
    assert describe(ImageSet("x", images, torch.zeros(len(images), dtype=torch.int64), ("only",))) == want


def test_every_kind_of_data_has_readers_and_toy_data():
    assert kinds.KINDS.keys() == sources.READERS.keys() == toy.DRAW.keys()


@pytest.mark.parametrize("source", ["toy", "fashion-mnist", "nowhere"])
def test_an_unknown_kind_of_data_is_refused(source):
    with pytest.raises(
        DataError, match="kind: want one of image, patches, pairs, unpaired, voxels, points, got 'sounds'"
    ):
        load(DataConfig(source), resolution=16, channels=1, kind="sounds")
