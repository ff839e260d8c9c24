"""Pairs, two kinds of images, and patches are read, and everything else is refused with a reason."""

import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine.data import DataConfig, DataError, ImageSet, Sampler, describe, load


def load_from(source, kind, *, resolution=16, channels=3):
    return load(DataConfig(str(source)), resolution=resolution, channels=channels, kind=kind)


def save(path, colour, size=(16, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def means(data):
    return data.images.float().mean((2, 3)).tolist()


RED, GREEN, BLUE, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]


@pytest.mark.parametrize("folders", [("A", "B"), ("trainA", "trainB")])
def test_pairs_are_found_by_name_with_any_endings_and_sizes(tmp_path, folders):
    for folder, colours in zip(folders, (("red", "lime"), ("blue", "white")), strict=True):
        save(tmp_path / folder / "x.png", colours[0])
        save(tmp_path / folder / "sub" / ("y.png" if folder.endswith("A") else "y.bmp"), colours[1], (40, 40))
    data = load_from(tmp_path, "pairs")
    assert data.paired and means(data.source) == [GREEN, RED] and means(data) == [WHITE, BLUE]
    assert describe(data) == f"{tmp_path.name}: 2 pairs of images 3x16x16, no labels, 0.0 MB"


def test_pairs_side_by_side_in_one_picture(tmp_path):
    both = Image.new("RGB", (80, 40), "red")
    both.paste("blue", (40, 0, 80, 40))
    both.save(tmp_path / "x.png")
    data = load_from(tmp_path, "pairs")
    assert means(data.source) == [RED] and means(data) == [BLUE]


def test_transparent_pairs_become_white_and_a_note_says_so(tmp_path):
    for folder in "AB":
        (tmp_path / folder).mkdir()
        Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / folder / "x.png")
    for channels in (3, None):  # with None the pictures are read twice: once to look for colour
        data = load_from(tmp_path, "pairs", channels=channels)
        assert data.images.eq(255).all() and data.notes == ("2 fully transparent (white)",)
    unpaired = load_from(tmp_path, "unpaired", channels=None)
    assert unpaired.notes == ("A: 1 fully transparent (white)", "B: 1 fully transparent (white)")


def test_names_of_pairs_may_be_written_with_other_accents(tmp_path):
    for folder, form in (("A", "NFC"), ("B", "NFD")):
        save(tmp_path / folder / f"{unicodedata.normalize(form, 'é')}.png", "red")
    assert len(load_from(tmp_path, "pairs")) == 1


def test_unpaired_kinds_have_no_classes_and_notes_on_files_left_out(tmp_path):
    save(tmp_path / "trainA" / "train" / "x.png", "red")
    save(tmp_path / "trainA" / "test" / "x.png", "white")
    for folder in ("cats", "dogs"):
        save(tmp_path / "trainB" / folder / "x.png", "blue")
    (tmp_path / "trainB" / "broken.png").write_text("words")
    with pytest.warns(UserWarning, match=r"skipped 1 image: trainB/broken\.png"):
        data = load_from(tmp_path, "unpaired")
    assert len(data.source) == 1 and len(data) == 2 and data.labels is None
    assert data.notes == ("trainA: only train read, 1 of 2 files, not test",)


def test_unpaired_kinds_may_differ_in_number(tmp_path):
    save(tmp_path / "trainA" / "1.png", "red")
    for i in range(3):
        save(tmp_path / "trainB" / f"{i}.jpg", "blue")
    data = load_from(tmp_path, "unpaired")
    assert not data.paired and len(data.source) == 1 and len(data) == 3
    assert describe(data) == f"{tmp_path.name}: 1 and 3 images 3x16x16, no labels, 0.0 MB"


def test_pictures_that_are_no_pair_are_refused(tmp_path):
    save(tmp_path / "A" / "x.png", "red")
    save(tmp_path / "A" / "y.png", "red")
    save(tmp_path / "B" / "y.png", "red", (16, 20))
    save(tmp_path / "B" / "z.png", "red")
    with pytest.raises(DataError, match="want the same file names in A and B, got x, z in only one of them"):
        load_from(tmp_path, "pairs")
    (tmp_path / "A" / "x.png").unlink()
    (tmp_path / "B" / "z.png").unlink()
    with pytest.raises(DataError, match=r"want pairs of one shape, got 16x16 and 16x20 pixels"):
        load_from(tmp_path, "pairs")
    save(tmp_path / "photos" / "x.png", "red", (33, 16))
    with pytest.raises(DataError, match=r"want A and B side by side, of equal width, got 33x16 pixels"):
        load_from(tmp_path / "photos", "pairs")


@pytest.mark.parametrize("size", [(64, 48), (100, 40), (30, 48), (48, 48)])
def test_pairs_side_by_side_need_not_be_square(tmp_path, size):
    width, height = size
    a, b = Image.effect_noise(size, 40).convert("RGB"), Image.new("RGB", size, "blue")
    both = Image.new("RGB", (2 * width, height))
    both.paste(a, (0, 0))
    both.paste(b, (width, 0))
    (tmp_path / "together").mkdir()
    both.save(tmp_path / "together" / "1.png")
    for folder, image in (("A", a), ("B", b)):
        (tmp_path / "apart" / folder).mkdir(parents=True)
        image.save(tmp_path / "apart" / folder / "1.png")
    together, apart = (load_from(tmp_path / name, "pairs") for name in ("together", "apart"))
    assert torch.equal(together.images, apart.images) and torch.equal(together.source.images, apart.source.images)


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (40, 40)])
def test_a_single_photograph_is_no_pair(tmp_path, size):
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3)
    noisy = ramp + np.random.default_rng(0).normal(0, 10, ramp.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "photo.jpg")
    want = "twice as wide as high or with an edge in the middle, got {}x{} pixels of one picture".format(*size)
    with pytest.raises(DataError, match=want):
        load_from(tmp_path, "pairs")


def save_sides(folder, place, colours=("red", "blue")):
    """Save a picture for each side. `place` is the path of a side's folder, with {} for A or B."""
    for side, colour in zip("AB", colours, strict=True):
        save(folder / place.format(side) / "1.png", colour)


@pytest.mark.parametrize("kind", ["pairs", "unpaired"])
@pytest.mark.parametrize(
    ("train", "test", "left_out"),
    [
        ("train{}", "test{}", "testA, testB left out"),
        ("train/{}", "test/{}", "test left out"),
        ("{}/train", "{}/val", "val left out"),
        ("Train{}", "TestA/{}", "TestA left out"),
        ("TRAIN/train{}", "val{}", "valA, valB left out"),
    ],
)
def test_the_training_part_of_a_data_set_is_read(tmp_path, kind, train, test, left_out):
    save_sides(tmp_path, train)
    save_sides(tmp_path, test, ("white", "white"))
    data = load_from(tmp_path, kind)
    assert means(data.source) == [RED] and means(data) == [BLUE]
    assert describe(data).endswith(f"; {left_out}")


def test_the_training_part_of_pairs_side_by_side_is_read(tmp_path):
    for split, colour in (("train", "red"), ("val", "white"), ("test", "white")):
        save(tmp_path / split / "1.jpg", colour, (32, 16))
    save(tmp_path / "cover.png", "white", (32, 16))
    data, alone = load_from(tmp_path, "pairs"), load_from(tmp_path / "train", "pairs")
    assert len(data) == 1 and torch.equal(data.images, alone.images)
    assert data.notes == ("test, val left out",) and alone.notes == ()


def test_the_folders_of_pairs_may_have_names_in_small_letters(tmp_path):
    save(tmp_path / "a" / "1.png", "red")
    save(tmp_path / "b" / "1.png", "blue")
    assert means(load_from(tmp_path, "pairs")) == [BLUE]


def test_a_picture_that_is_no_pair_is_skipped_by_name(tmp_path):
    save(tmp_path / "odd.png", "red", (33, 16))
    save(tmp_path / "pair.png", "red", (32, 16))
    with pytest.warns(UserWarning, match=r"skipped 1 image: odd\.png \(ValueError: want A and B side by side"):
        assert len(load_from(tmp_path, "pairs")) == 1


@pytest.mark.parametrize(
    ("sides", "came"),
    [
        ((16, 16, 16, 16), "got 16x16 pixels of one picture"),
        ((16, 20, 24, 28), "got 16x16 pixels of one picture for 0.png"),
    ],
)
def test_many_pictures_that_are_no_pairs_are_one_reason(tmp_path, sides, came):
    for i, side in enumerate(sides):
        save(tmp_path / f"{i}.png", "red", (side, side))
    with pytest.raises(DataError) as caught:
        load_from(tmp_path, "pairs")
    want = "want A and B side by side, in a picture twice as wide as high or with an edge in the middle"
    skipped = f"4 images: 0.png, 1.png, 2.png and 1 more (ValueError: {want}, {came}); pix2pix --source"
    assert f"got none that can be used, {skipped}" in str(caught.value)


def test_a_source_without_two_kinds_is_refused(tmp_path):
    save(tmp_path / "trainA" / "x.png", "red")
    with pytest.raises(DataError, match=r"want folders trainA and trainB \(or A and B\) in it, got trainA"):
        load_from(tmp_path, "unpaired")
    (tmp_path / "trainB").mkdir()
    with pytest.raises(DataError, match=r"trainB: want image files .*, got none"):
        load_from(tmp_path, "unpaired")
    with pytest.raises(DataError, match=r"trainB: want image files .*, got none"):
        load_from(tmp_path, "pairs")
    with pytest.raises(DataError, match="want toy, a folder with trainA and trainB, got fashion-mnist, which holds"):
        load_from("fashion-mnist", "unpaired")
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"want a folder with A and B, \.tar, .*, got the file x\.zip"):
        load_from(tmp_path / "x.zip", "pairs")
    with pytest.raises(DataError, match="want a source of 2 images, one for each pair, got none"):
        ImageSet("x", torch.zeros(2, 3, 4, 4, dtype=torch.uint8), paired=True)


def test_patches_are_unchanged_pixels_and_cover_the_picture_from_edge_to_edge(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 33, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    save(tmp_path / "small.png", "red", (100, 15))
    (tmp_path / "broken.png").write_text("words")
    with pytest.warns(UserWarning, match=r"broken\.png \(not an.*small\.png \(ValueError: want at least 16x16 pixels"):
        data = load_from(tmp_path, "patches")
    assert data.images.shape == (9, 3, 16, 16) and data.labels is None
    whole = torch.from_numpy(pixels).permute(2, 0, 1)
    corners = [(y, x) for y in (0, 12, 24) for x in (0, 8, 17)]
    assert all(torch.equal(img, whole[:, y : y + 16, x : x + 16]) for img, (y, x) in zip(data.images, corners))


@pytest.mark.parametrize("channels", [1, 3])
def test_toy_pairs_show_one_shape_in_two_styles(channels):
    data = load_from("toy", "pairs", resolution=32, channels=channels)
    assert data.paired and len(data) == len(data.source)
    inside = (data.source.images > 200).all(1)
    brightness = data.images.float().mean(1)
    assert (brightness[inside] > 70).all() and brightness[~inside].mean() < 60
    other = load_from("toy", "unpaired", resolution=32, channels=channels)
    assert torch.equal(other.source.images, data.source.images) and not torch.equal(other.images, data.images)


def test_samplers_of_one_seed_keep_pairs_together():
    data = load_from("toy", "pairs", resolution=16)
    index = torch.arange(len(data), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4).clone()
    index[..., 0] = 255 - index[..., 0]  # shows a flip
    a, b = (Sampler(ImageSet("x", index), 64, seed=3, mirror=True) for _ in range(2))
    for _ in range(3):
        assert torch.equal(next(a)[0], next(b)[0])


def test_two_pictures_of_one_name_are_refused(tmp_path):
    for folder in "AB":
        (tmp_path / folder).mkdir()
        for name in ("c.png", "c.jpg"):
            Image.new("RGB", (16, 16)).save(tmp_path / folder / name)
    with pytest.raises(DataError, match=r"A: want one picture of each name, got c\.(png|jpg) and c\.(png|jpg)"):
        load(DataConfig(str(tmp_path)), resolution=16, channels=3, kind="pairs")
