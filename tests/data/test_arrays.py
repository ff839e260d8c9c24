"""Arrays written by other programs are read with any key, layout, range and byte order, or refused with a reason."""

import re
import zipfile

import numpy as np
import pytest
import torch

from gan_engine.data import DataConfig, DataError, arrays, describe, image_set, load

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 16, 12, 3), dtype=np.uint8)
PIXELS[0, 0, 0], PIXELS[0, 0, 1] = 0, 255  # black and white, so that every range reaches both ends
GREY = PIXELS[..., 0]
WIDE = PIXELS[:, :12]  # squares: no pixel is cut off or resized
DIGITS = np.array([3, 9, 3, 4, 9, 3])


def load_from(path, channels=None, kind="image", resolution=12):
    return load(DataConfig(str(path)), resolution=resolution, channels=channels, kind=kind)


def saved(path, **named):
    np.savez(path / "set.npz", **named)
    return path / "set.npz"


def same(data, images=WIDE):
    return torch.equal(data.images, torch.from_numpy(images.copy()).permute(0, 3, 1, 2))


KEYS = [
    ({"images": WIDE}, "images", None),
    ({"imgs": WIDE, "name": np.array("set")}, "imgs", None),
    ({"whatever": WIDE}, "whatever", None),
    ({"arr_0": WIDE, "arr_1": DIGITS}, "arr_0", "arr_1"),
    ({"x": WIDE, "y": DIGITS}, "x", "y"),
    ({"data": WIDE, "target": DIGITS, "mean": np.zeros(3)}, "data", "target"),
    ({"X_train": WIDE, "y_train": DIGITS, "X_test": WIDE[:2], "y_test": DIGITS[:2]}, "X_train", "y_train"),
    ({"train_images": WIDE, "train_labels": DIGITS[:, None], "val_images": WIDE}, "train_images", "train_labels"),
    ({"trainImages": WIDE, "trainLabels": DIGITS, "testImages": WIDE}, "trainImages", "trainLabels"),
    ({"x_test": WIDE, "y_test": DIGITS}, "x_test", "y_test"),
    ({"images": WIDE, "labels": DIGITS, "label": DIGITS[::-1], "masks": GREY}, "images", "labels"),
    ({"latest_x": WIDE, "latest_y": DIGITS.astype(np.float32)}, "latest_x", None),
]


@pytest.mark.parametrize(("named", "images", "labels"), KEYS)
def test_keys(tmp_path, named, images, labels):
    data = load_from(saved(tmp_path, **named))
    assert same(data) and data.notes[0] == f"images from {images} (uint8 NHWC)"
    assert (f"labels from {labels}" in data.notes) == (labels is not None)
    if labels:
        assert data.class_names == ("3", "4", "9") and data.labels.tolist() == [0, 2, 0, 1, 2, 0]
    unused = [name for name in named if name not in (images, labels)]
    assert (f"{', '.join(unused)} not used" in describe(data)) == bool(unused)


FLOATS = WIDE.astype(np.float64) / 255
VALUES = {
    "uint8": (WIDE, "uint8 NHWC"),
    "NCHW": (WIDE.transpose(0, 3, 1, 2), "uint8 NCHW"),
    "Fortran": (np.asfortranarray(WIDE), "uint8 NHWC"),
    "[0, 1]": (FLOATS.astype(np.float32), "float32 NHWC in [0, 1]"),
    "rounded [0, 1]": (FLOATS * 1.0004 - 0.0002, "float64 NHWC in [0, 1]"),
    "[-1, 1]": ((2 * FLOATS - 1).astype(np.float32).transpose(0, 3, 1, 2), "float32 NCHW in [-1, 1]"),
    "[0, 255]": (WIDE.astype(np.float32), "float32 NHWC in [0, 255]"),
    "half": (FLOATS.astype(np.float16), "float16 NHWC in [0, 1]"),
    "big-endian floats": (FLOATS.astype(">f4"), "float32 NHWC in [0, 1]"),
    "int64": (WIDE.astype(np.int64), "int64 NHWC in [0, 255]"),
    "16 bits": (WIDE.astype(np.uint16) * 257, "uint16 NHWC in [0, 65535]"),
    "big-endian 16 bits": ((WIDE.astype(np.uint16) * 257).astype(">u2"), "uint16 NHWC in [0, 65535]"),
    "strided": (np.repeat(WIDE, 2, 1)[:, ::2], "uint8 NHWC"),
    "RGBA": (np.concatenate([WIDE, np.full_like(WIDE[..., :1], 255)], 3), "uint8 NHWC"),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_and_layouts(tmp_path, case):
    images, words = VALUES[case]
    np.save(tmp_path / "set.npy", images)
    alone, named = load_from(tmp_path / "set.npy"), load_from(saved(tmp_path, images=images))
    assert same(alone) and same(named) and alone.labels is None
    assert alone.notes[0] == f"images from set ({words})" and named.notes[0] == f"images from images ({words})"


def test_black_and_white(tmp_path):
    masks = GREY[:, :12] > 99
    data = load_from(saved(tmp_path, masks=masks))
    assert data.images.shape[1] == 1 and torch.equal(data.images[:, 0] == 255, torch.from_numpy(masks))
    assert data.images.unique().tolist() == [0, 255]


REFUSED = [
    ({"a": WIDE, "b": WIDE}, "want one array of images, or an array called images, got a uint8 .*, b uint8"),
    ({"images": WIDE[0]}, r"images must be \[N, H, W\], .*, got uint8 \[12, 12, 3\]"),  # one picture
    ({"x": WIDE.reshape(6, -1), "y": DIGITS}, r"want an array of numbers .*, got x uint8 \[6, 432\], y int64 \[6\]"),
    ({"images": RNG.integers(0, 256, (6, 3, 12, 3), np.uint8)}, "channels either second or last, got .* may be both"),
    (
        {"images": FLOATS * 3 - 1.5},
        r"want one|must be floats in \[0, 1\], \[-1, 1\] or \[0, 255\], got float64 in \[-1.5",
    ),
    ({"images": FLOATS - 0.02}, r"got float64 in \[-0.02, 0.98\]"),  # not taken for [-1, 1]
    ({"images": FLOATS * 1.02}, r"got float64 in \[0, 1.02\]"),  # not taken for [0, 255]
    ({"images": np.where(FLOATS > 0.5, np.nan, 1)}, "got float64 with values that are not finite"),
    ({"images": np.where(FLOATS > 0.5, np.inf, 1)}, "got float64 with values that are not finite"),
    (
        {"images": WIDE.astype(np.int16) - 9},
        r"must be integers in \[0, 255\] or \[0, 65535\], got int16 in \[-9, 246\]",
    ),
    ({"images": WIDE.astype(np.uint16) * 16}, r"got uint16 in \[0, 4080\]"),  # 12 bits
    ({"images": (WIDE > 99).astype(np.uint8)}, r"got uint8 in \[0, 1\]"),  # black and white must be bool
    ({"images": WIDE.astype(np.complex64)}, "images must be numbers, got complex64"),
    ({"images": np.array([{}, WIDE], dtype=object)}, "want numbers in images, got Python objects"),
    ({"images": WIDE[:0]}, r"got uint8 \[0, 12, 12, 3\]"),
    ({"images": WIDE, "labels": DIGITS[:5]}, r"labels must be integers \[N\] = \[6\], got int64 \[5\]"),
    ({"images": WIDE, "labels": DIGITS + 0.5}, "got float64 .* with fractions"),
    ({"images": WIDE, "labels": np.where(DIGITS > 3, np.nan, 3)}, "got float64 .* with fractions"),
    ({"images": WIDE, "labels": np.full((6, 4), 0.25)}, "labels .* must be one-hot"),
    ({"images": WIDE, "labels": np.ones((6, 4), int)}, "labels .* must be one-hot"),
    (
        {"x": WIDE, "y": DIGITS, "labels_b": DIGITS, "targets": DIGITS},
        "want one array of labels, or an array called labels",
    ),
]


@pytest.mark.parametrize(("named", "message"), REFUSED)
def test_arrays_that_are_refused(tmp_path, named, message):
    with pytest.raises(DataError, match=message):
        load_from(saved(tmp_path, **named))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
def test_one_hot_labels(tmp_path, dtype):
    data = load_from(saved(tmp_path, x=WIDE, y=np.eye(10, dtype=dtype)[DIGITS]))
    assert data.class_names == ("3", "4", "9") and data.labels.tolist() == [0, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("labels", [DIGITS.astype(np.float32), DIGITS.astype(">i4"), DIGITS.astype("U1")])
def test_labels_of_other_types(tmp_path, labels):
    assert load_from(saved(tmp_path, x=WIDE, y=labels)).class_names == ("3", "4", "9")


def wrong_byte(path):
    """Change a byte of the pixels, so that the checksum is wrong."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def without_array(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "words")


def no_array(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", "words")


def short_array(path):
    with zipfile.ZipFile(path) as archive:
        content = archive.read("images.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", content[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (wrong_byte, "want a readable .npz file of arrays of numbers"),
        (without_array, "want arrays in it, got none"),
        (no_array, "want a readable .npz file of arrays of numbers"),
        (short_array, "its images: want a readable .npz file of arrays of numbers"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "want a readable .npz file of arrays"),
        (lambda path: path.write_bytes(b""), "want a readable .npz file of arrays"),
    ],
)
def test_damaged_files_give_an_error_of_one_line(tmp_path, damage, message):
    path = saved(tmp_path, images=WIDE)
    damage(path)
    with pytest.raises(DataError, match=message) as error:
        load_from(path)
    assert "\n" not in str(error.value)


def test_damaged_npy(tmp_path):
    np.save(tmp_path / "a.npy", WIDE)
    content = (tmp_path / "a.npy").read_bytes()
    for damaged in (b"", content[:60], content[:-50], content.replace(b"|u1", b"|O8")):
        (tmp_path / "a.npy").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.npy"):
            load_from(tmp_path / "a.npy")


def test_an_array_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path, images=WIDE)
    monkeypatch.setattr(image_set, "available_bytes", lambda: 1000)
    with pytest.raises(DataError, match=r"its images need 0\.00 GB of memory, 0\.00 GB are available"):
        load_from(path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.pt", "pickles are not read: save its images by numpy.savez"),
        ("a.h5", "HDF5 is not read: save"),
        ("a.HDF5", "HDF5 is not read: save"),
        ("a.tfrecord", "TFRecords are not read: write its pictures into a folder"),
        ("a.mat", "such files are not read: save its images"),
    ],
)
def test_the_error_for_files_of_other_libraries_says_what_to_do(tmp_path, name, advice):
    (tmp_path / name).write_bytes(b"content")
    with pytest.raises(DataError, match=re.escape(f"got the file {name}; {advice}")):
        load_from(tmp_path / name)


VOLUMES = np.zeros((3, 8, 8, 8), bool)
VOLUMES[range(3), range(3), 1, 2] = True


@pytest.mark.parametrize(
    "named",
    [
        {"voxels": VOLUMES},
        {"shapes": VOLUMES[:, None], "names": np.arange(7)},
        {"arr_0": VOLUMES.astype(np.int64)},
        {"x": np.asfortranarray(VOLUMES.astype(">u2")), "y": DIGITS[:3]},
    ],
)
def test_volumes(tmp_path, named):
    data = load_from(saved(tmp_path, **named), kind="voxels", resolution=8)
    assert torch.equal(data.images[:, 0] > 0, torch.from_numpy(VOLUMES))
    assert data.class_names == (("3", "9") if "y" in named else ())


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"voxels": VOLUMES[0]}, r"bool or uint8 \[N, X, Y, Z\] with N >= 1, got bool \[8, 8, 8\]"),
        ({"voxels": VOLUMES.astype(np.float32)}, "got float32"),
        ({"voxels": np.stack([VOLUMES] * 3, 1)}, r"got bool \[3, 3, 8, 8, 8\]"),
        ({"a": VOLUMES, "b": VOLUMES}, "want one array .*, or an array called voxels, got a bool .*, b bool"),
        ({"voxels": np.array([{}])}, "want numbers in voxels, got Python objects"),
    ],
)
def test_volumes_that_are_refused(tmp_path, named, message):
    with pytest.raises(DataError, match=message):
        load_from(saved(tmp_path, **named), kind="voxels", resolution=8)


def test_names_of_arrays():
    names = ("x_train", "trainImages", "y-test", "arr_1", "latest", "VAL_LABELS")
    parts = (("x", "train"), ("images", "train"), ("y", "rest"), ("arr_1", ""), ("latest", ""), ("labels", "rest"))
    assert tuple(map(arrays._name_and_part, names)) == parts
