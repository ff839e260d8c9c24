"""Every source gives an ImageSet, or an error of one sentence."""

import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine.data import DataConfig, DataError, ImageSet, Sampler, describe, image_set, load, sources
from gan_engine.data.arrays import pad_digits


def load_from(source, *, resolution=16, channels=3):
    return load(DataConfig(str(source)), resolution=resolution, channels=channels)


def save_pictures(folder, colours, size=(16, 16)):
    """Save a picture of one colour for each entry of {path below folder: colour}."""
    for path, colour in colours.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(folder / path)


def zip_folder(folder, archive, prefix=""):
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(folder.rglob("*")):
            out.write(path, prefix + path.relative_to(folder).as_posix())


# The embedded images


def test_fashion_mnist_is_whole():
    data = load(DataConfig(), resolution=32, channels=1)
    assert data.images.shape == (10_000, 1, 32, 32)
    assert data.labels.bincount().tolist() == [1000] * 10
    assert data.class_names[0] == "T-shirt/top" and data.class_names[9] == "Ankle boot"
    assert data.class_names[data.labels[0]] == "Ankle boot"  # the split's first image
    inner = data.images[:, :, 2:30, 2:30]
    assert inner.sum(dtype=torch.int64) == data.images.sum(dtype=torch.int64)  # the padding is black
    assert 72 < inner.float().mean() < 74


def test_digits_are_padded_only_to_resize():
    images = np.full((1, 28, 28), 9, np.uint8)
    assert pad_digits(images, 28).shape == (1, 28, 28)
    assert pad_digits(images, 64).shape == (1, 32, 32)


def test_describe_is_one_line():
    data = load(DataConfig(), resolution=32, channels=1)
    assert describe(data) == "fashion-mnist: 10,000 images 1x32x32, 10 classes, 10.2 MB"


# Folders and archives


def test_flat_folder_has_no_labels(tmp_path):
    save_pictures(tmp_path, {"b.png": "lime", "a.jpg": "red", "c.webp": "blue"})
    data = load_from(tmp_path)
    assert data.labels is None and data.num_classes == 0 and data.name == tmp_path.name
    channel_means = data.images.float().mean((2, 3))
    assert channel_means.argmax(1).tolist() == [0, 1, 2]  # in the order of the file names


def test_class_folders_become_labels(tmp_path):
    save_pictures(
        tmp_path, {"dogs/1.png": "red", "cats/2.png": "lime", "cats/old/3.PNG": "blue", "dogs/4.bmp": "white"}
    )
    (tmp_path / "README.txt").write_text("not an image, and not one to complain about")
    (tmp_path / ".thumbnails").mkdir()
    save_pictures(tmp_path / ".thumbnails", {"1.png": "black"})
    data = load_from(tmp_path)
    assert data.class_names == ("cats", "dogs") and data.num_classes == 2
    assert data.labels.tolist() == [0, 0, 1, 1] and data.skipped == []


def test_there_are_no_labels_if_images_lie_outside_the_class_folders(tmp_path):
    save_pictures(tmp_path, {"cats/1.png": "red", "cover.png": "red", "dogs/2.png": "red"})
    with pytest.warns(UserWarning, match=r"no labels from folders: want each image .*, got cover\.png outside"):
        data = load_from(tmp_path)
    assert len(data) == 3 and data.labels is None


@pytest.mark.parametrize("prefix", ["", "animals/"])
def test_zip_is_read_like_the_folder(tmp_path, prefix):
    folder = tmp_path / "animals"
    save_pictures(folder, {"dogs/1.png": "red", "cats/2.png": "lime"})
    zip_folder(folder, tmp_path / "animals.zip", prefix)
    from_folder, from_zip = load_from(folder), load_from(tmp_path / "animals.zip")
    assert torch.equal(from_folder.images, from_zip.images) and torch.equal(from_folder.labels, from_zip.labels)
    assert from_zip.class_names == ("cats", "dogs") and from_zip.name == "animals"


def test_links_are_followed_once(tmp_path):
    save_pictures(tmp_path / "elsewhere", {"1.png": "red", "2.png": "red"})
    root = tmp_path / "root"
    save_pictures(root, {"cats/1.png": "red"})
    (root / "dogs").symlink_to(tmp_path / "elsewhere")
    (root / "cats" / "loop").symlink_to(root)
    data = load_from(root)
    assert len(data) == 3 and data.class_names == ("cats", "dogs")


def break_pictures(folder):
    """Five image files that cannot be read, and a folder that is called like an image."""
    Image.effect_noise((64, 64), 50).save(folder / "truncated.png")
    (folder / "truncated.png").write_bytes((folder / "truncated.png").read_bytes()[:1000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("this is no picture")
    (folder / "link.png").symlink_to(folder / "nowhere")
    Image.new("F", (4, 4)).save(folder / "float.tif")
    (folder / "folder.png").mkdir()


def test_broken_files_are_named_and_counted(tmp_path):
    save_pictures(tmp_path, {"good1.png": "red", "good2.png": "lime"})
    break_pictures(tmp_path)
    with pytest.warns(UserWarning) as warned:
        data = load_from(tmp_path)
    assert len(data) == 2
    assert [path for path, _ in data.skipped] == ["empty.png", "float.tif", "link.png", "text.png", "truncated.png"]
    reasons = dict(data.skipped)
    assert reasons["text.png"] == "not an image that Pillow can read"
    assert "truncated" in reasons["truncated.png"] and "floating point" in reasons["float.tif"]
    assert len(warned) == 1  # one line, not one per file
    told = "skipped 5 images: empty.png, text.png (not an image that Pillow can read); float.tif ("
    assert told in str(warned[0].message)
    assert "5 skipped" in describe(data)


def test_broken_files_in_a_zip(tmp_path):
    folder = tmp_path / "set"
    save_pictures(folder, {"cats/1.png": "red", "dogs/2.png": "lime"})
    (folder / "birds").mkdir()
    (folder / "birds" / "3.png").write_bytes(b"")
    zip_folder(folder, tmp_path / "set.zip")
    with pytest.warns(UserWarning, match="skipped 1 image: birds/3.png"):
        data = load_from(tmp_path / "set.zip")
    assert data.class_names == ("cats", "dogs")  # birds has no image that can be read


def test_a_decompression_bomb_is_skipped_as_a_broken_file(tmp_path, monkeypatch):
    save_pictures(tmp_path, {"small.png": "red"})
    save_pictures(tmp_path, {"large.png": "red"}, size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.warns(UserWarning, match=r"large\.png \(DecompressionBombError"):
        assert len(load_from(tmp_path)) == 1


def test_nothing_to_train_on_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"want image files \(.*\.png.*\), got none"):
        load_from(tmp_path)
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(DataError, match=r"got 1 other file \(\.txt\)"):
        load_from(tmp_path)
    (tmp_path / "a.png").write_text("words")
    with pytest.raises(DataError, match=r"nothing can be read, 1 image: a\.png \(not an image"):
        load_from(tmp_path)


def test_a_set_larger_than_memory_is_on_disk(tmp_path, monkeypatch):
    in_memory = load(DataConfig("toy"), resolution=16, channels=3)
    monkeypatch.setattr(image_set, "available_bytes", lambda: 1_000_000)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    on_disk = load(DataConfig("toy"), resolution=16, channels=3)
    assert on_disk.on_disk and not in_memory.on_disk
    assert "3.1 MB on disk" in describe(on_disk)
    assert not list(tmp_path.iterdir())  # no file stays behind
    samplers = [Sampler(data, 24, seed=1, mirror=True) for data in (in_memory, on_disk)]
    for _ in range(5):
        (img, c), (other, other_c) = map(next, samplers)
        assert torch.equal(img, other) and torch.equal(c, other_c)
    again = Sampler(on_disk, 24, seed=1, mirror=True)
    next(again)
    again.load_state_dict(samplers[0].state_dict())
    assert torch.equal(next(again)[0], next(samplers[0])[0])


def test_a_set_larger_than_memory_and_disk_is_refused(tmp_path, monkeypatch):
    save_pictures(tmp_path, {"a.png": "red", "b.png": "red"})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(2_000_000, 0, 2_000_000))
    assert image_set.available_bytes() > 0
    monkeypatch.setattr(image_set, "available_bytes", lambda: 1_000_000)
    with pytest.raises(
        DataError, match=r"2 images of 3x1024x1024 uint8 need 0\.01 GB, 0\.00 GB of memory and 0\.00 GB in"
    ):
        load_from(tmp_path, resolution=1024)


# Arrays


def test_npz_layouts_hold_the_same_images(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "last.npz", images=images, labels=np.array([7, 3, 7, 7, 3], np.uint16))
    np.savez_compressed(tmp_path / "first.npz", images=images.transpose(0, 3, 1, 2))
    last, first = load_from(tmp_path / "last.npz"), load_from(tmp_path / "first.npz")
    assert torch.equal(last.images, torch.from_numpy(images).permute(0, 3, 1, 2))
    assert torch.equal(first.images, last.images)
    assert last.labels.tolist() == [1, 0, 1, 1, 0] and last.class_names == ("3", "7") and first.labels is None


def test_npz_grey(tmp_path):
    images = np.arange(2 * 16 * 16).reshape(2, 16, 16).astype(np.uint8)
    np.savez(tmp_path / "grey.npz", images=images)
    np.savez(tmp_path / "channel.npz", images=images[..., None])
    grey, rgb = load_from(tmp_path / "grey.npz", channels=1), load_from(tmp_path / "channel.npz", channels=3)
    assert torch.equal(grey.images, torch.from_numpy(images)[:, None])
    assert torch.equal(rgb.images, grey.images.expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((4, 4), np.uint8)}, r"got uint8 \[4, 4\]"),
        ({"images": np.zeros((2, 4, 4, 2), np.uint8)}, r"got uint8 \[2, 4, 4, 2\]"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, r"N >= 1 .*, got uint8 \[0, 4, 4\]"),
        (
            {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(3, int)},
            r"integers \[N\] = \[2\], got int64 \[3\]",
        ),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.ones((2, 2))}, r"one-hot.*got float64 \[2, 2\]"),
        ({"images": np.array([{}, {}])}, "want numbers in images, got Python objects"),
    ],
)
def test_npz_says_what_it_wants(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_from(tmp_path / "set.npz")


@pytest.mark.parametrize("ending", ["npz", "zip"])
def test_a_broken_archive_gives_an_error_of_one_sentence(tmp_path, ending):
    (tmp_path / f"set.{ending}").write_bytes(b"PK but not really")
    with pytest.raises(DataError, match=r"want a readable .* got .*"):
        load_from(tmp_path / f"set.{ending}")


# Names and tables


def noise(path, *, resolution, channels):
    return ImageSet(path.stem, torch.full((3, channels or 1, resolution, resolution), 7, dtype=torch.uint8))


def test_a_new_format_is_one_entry_in_a_table(tmp_path, monkeypatch):
    monkeypatch.setitem(sources.READERS["image"], ".noise", noise)
    (tmp_path / "a.noise").write_bytes(b"content")
    first, second = (load_from(tmp_path / "a.noise") for _ in range(2))
    assert describe(first) == "a: 3 images 3x16x16, no labels, 0.0 MB" and second.notes == ("from the cache",)
    with pytest.raises(DataError, match=r"want a folder, \.zip, .*\.npz, \.npy or \.noise, got the file a\.other"):
        (tmp_path / "a.other").write_bytes(b"content")
        load_from(tmp_path / "a.other")


def test_a_new_name_is_one_entry_in_a_table(monkeypatch):
    monkeypatch.setitem(sources.NAMED, "noise", noise)
    assert len(load_from("noise")) == 3
    with pytest.raises(DataError, match=r"did you mean noise\?"):
        load_from("noize")


def test_an_empty_source_is_refused():
    with pytest.raises(
        DataError, match=r"want one of toy, fashion-mnist, .*, a folder, \.zip, .*\.npz or \.npy, got ''"
    ):
        load_from("")


def test_an_unknown_source_gets_a_suggestion(tmp_path):
    with pytest.raises(DataError, match=r"no such file or folder.*did you mean fashion-mnist\?"):
        load_from("fashon-mnist")
    with pytest.raises(DataError, match=r"did you mean cifar10\?"):
        load_from("CIFAR-10")
    (tmp_path / "set.tar.gz").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"want a folder, \.zip, .*\.npz or \.npy, got the file set\.tar\.gz; gunzip makes set\.tar"
    ):
        load_from(tmp_path / "set.tar.gz")


def test_the_directory_of_a_run_is_no_data(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataError, match=r"got the directory of a run$"):
        load_from(tmp_path)


@pytest.mark.parametrize("wrong", [{"resolution": 0}, {"channels": 2}])
def test_wrong_size_says_what_it_wants(wrong):
    with pytest.raises(DataError, match=f"{next(iter(wrong))} must be .*, got {next(iter(wrong.values()))}"):
        load_from("toy", **wrong)
