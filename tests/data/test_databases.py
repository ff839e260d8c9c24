"""LMDB databases, as BasicSR, LSUN and rosinality write them."""

import io
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine.data import DataConfig, DataError, describe, load


def encoded(grey, size=(8, 8), kind="PNG"):
    file = io.BytesIO()
    Image.new("L", size, grey).save(file, kind)
    return file.getvalue()


def write(path, values, meta=None, **options):
    """A database of {key: bytes, or the grey value of a picture}; `meta` becomes its meta_info.txt."""
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    path.parent.mkdir(exist_ok=True)
    with lmdb.open(str(path), map_size=2**30, **options) as database, database.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value if isinstance(value, bytes) else encoded(value))
    if meta is not None:
        (path / "meta_info.txt").write_text(meta)
    return path


def read(path, resolution=8, **options):
    data = load(DataConfig(str(path)), resolution=resolution, channels=1, **options)
    return data, data.images[:, 0, 0, 0].tolist()


META = "0801_s001.png (8,8,3) 1\n0801_s002.png (8, 8) 1\nb.2.png (8,8,1) 3\n"
KEYS = {"0801_s001": 10, "0801_s002": 20, "b.2": 30}


def test_the_keys_of_meta_info_are_read(tmp_path):
    data, greys = read(write(tmp_path / "DIV2K.lmdb", {**KEYS, "not listed": 40}, META))
    assert greys == [10, 20, 30] and data.labels is None and data.name == "DIV2K"


def test_a_database_is_read_like_the_folder_of_its_pictures(tmp_path):
    rng, values = np.random.default_rng(0), {}
    for name in ("cats/1", "cats/2", "dogs/1"):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(file, "PNG")
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / f"{name}.png").write_bytes(values.setdefault(name, file.getvalue()))
    sources = (tmp_path / "set", write(tmp_path / "set.lmdb", values))
    folder, database = (load(DataConfig(str(source)), resolution=16, channels=None) for source in sources)
    assert torch.equal(folder.images, database.images) and folder.images.shape[1] == 3
    assert torch.equal(folder.labels, database.labels) and database.class_names == ("cats", "dogs")


def test_without_meta_info_every_value_that_begins_like_a_picture_is_read(tmp_path):
    values = {"a": 1, "b": encoded(2, kind="WEBP"), "length": b"2", "c": 3}
    assert read(write(tmp_path / "x", values))[1] == [1, 2, 3]
    assert read(write(tmp_path / "y.lmdb", values, subdir=False))[1] == [1, 2, 3]  # a file instead of a folder


@pytest.mark.parametrize(("resolution", "size"), [(8, 8), (12, 16), (16, 16), (64, 32)])
def test_of_several_sizes_the_one_for_the_resolution_is_read(tmp_path, resolution, size):
    values = {f"{side}-{i:05d}": side + i for side in (8, 16, 32) for i in range(2)}
    data, greys = read(write(tmp_path / "x", {**values, "length": b"2"}), resolution=resolution)
    assert greys == [size, size + 1] and f"; of 3 sizes only {size} read" in describe(data)


@pytest.mark.parametrize("keys", [("1-00001", "1-00002", "2-00001"), ("0001-00001", "0002-00001")])
def test_numbers_that_are_no_sizes_are_all_read(tmp_path, keys):
    assert read(write(tmp_path / "x", {key: i for i, key in enumerate(keys)}))[1] == [*range(len(keys))]


def test_patches_and_pairs(tmp_path):
    values = {key: encoded(grey, size=(16, 8)) for key, grey in KEYS.items()}
    assert read(write(tmp_path / "x.lmdb", values, META), kind="patches")[1] == [10, 10, 20, 20, 30, 30]
    write(tmp_path / "pairs" / "A.lmdb", {key: 2 * grey for key, grey in KEYS.items()}, META)
    write(tmp_path / "pairs" / "B.lmdb", KEYS, META)
    data, greys = read(tmp_path / "pairs", kind="pairs")
    assert greys == [10, 20, 30] and data.source.images[:, 0, 0, 0].tolist() == [20, 40, 60]
    data, _ = read(tmp_path / "pairs", kind="unpaired")
    assert len(data) == len(data.source) == 3
    write(tmp_path / "other" / "A.lmdb", {"a": 1, "b": 2})
    write(tmp_path / "other" / "B.lmdb", {"a": 1, "c": 2})
    with pytest.raises(DataError, match=r"want the same file names in A\.lmdb and B\.lmdb, got b, c in only one"):
        read(tmp_path / "other", kind="pairs")


def test_a_second_start_decodes_nothing_and_a_change_is_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_ENGINE_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "x", KEYS)
    assert "from the cache" not in read(path)[0].notes
    data, greys = read(path)
    assert "from the cache" in data.notes and greys == [10, 20, 30]
    write(path, {"a": 5})
    assert read(path)[1] == [10, 20, 5, 30]


def test_a_damaged_picture_is_skipped(tmp_path):
    with pytest.warns(UserWarning, match=r"skipped 1 image: b\.2 \("):
        assert read(write(tmp_path / "x", {**KEYS, "b.2": encoded(1)[:40]}, META))[1] == [10, 20]


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (META + "c.png (8,8,3) 1\n", r"want its 4 keys in data\.mdb, which lacks c$"),
        ("a.png\n", r"want lines 'name\.png \(height,width,channels\) level', got 'a\.png'"),
        ("\n", "want lines .*, got nothing"),
    ],
)
def test_a_meta_info_that_does_not_fit_is_refused(tmp_path, meta, message):
    with pytest.raises(DataError, match=rf"meta_info\.txt: {message}"):
        read(write(tmp_path / "x", KEYS, meta))


def test_a_truncated_database_is_refused(tmp_path):
    """LMDB itself would read beyond the end of the file, and the process would die of a bus error."""
    path = write(tmp_path / "x", {str(i): os.urandom(5000) for i in range(100)})
    os.truncate(path / "data.mdb", os.path.getsize(path / "data.mdb") // 2)
    with pytest.raises(DataError, match=r"data\.mdb: want [0-9,]+ bytes as its index says, got [0-9,]+; it is trunc"):
        read(path)
    (path / "data.mdb").write_bytes(b"words")
    with pytest.raises(DataError, match=r"data\.mdb: want a readable LMDB database, got InvalidError"):
        read(path)


def test_a_database_without_pictures_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"want encoded pictures as its values, got 2 other values, of the keys a, b$"):
        read(write(tmp_path / "x", {"a": b"1", "b": b"words"}))
    with pytest.raises(DataError, match="want encoded pictures as its values, got none"):
        read(write(tmp_path / "y", {}))


def test_a_missing_package_is_named_with_the_line_of_pip(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    (tmp_path / "data.mdb").write_bytes(b"")
    with pytest.raises(DataError, match=r'want the package lmdb to read it, got .*: pip install "gan-engine\[lmdb\]"'):
        read(tmp_path)
