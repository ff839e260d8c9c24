"""Tar archives: plain ones, and the shards of WebDataset."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from gan_engine.data import DataConfig, DataError, describe, load
from gan_engine.data.braces import expand, folder_of


def encoded(grey, size=(8, 8)):
    file = io.BytesIO()
    Image.new("L", size, grey).save(file, "PNG")
    return file.getvalue()


def pack(path, members):
    """An archive of {name: bytes, text, a value for JSON, or the grey value of a picture}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            content = encoded(content) if isinstance(content, int) else content
            content = json.dumps(content) if isinstance(content, dict) else content
            entry = tarfile.TarInfo(name)
            content = content.encode() if isinstance(content, str) else content
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def read(path, **options):
    """The set, {grey: class name} and the grey values."""
    data = load(DataConfig(str(path)), resolution=8, channels=1, **options)
    greys = data.images[:, 0, 0, 0].tolist()
    classes = None if data.labels is None else [data.class_names[label] for label in data.labels]
    return data, classes and dict(zip(greys, classes)), greys


# Plain archives


def test_a_plain_archive_is_read_like_a_folder(tmp_path):
    members = {"./cats/1.png": 1, "dogs/2.png": 2, "dogs/2.txt": "words"}
    assert read(pack(tmp_path / "a.tar", members))[1] == {1: "cats", 2: "dogs"}
    table = {"labels": [["cats/1.png", 5], ["dogs/2.png", 3]]}
    assert read(pack(tmp_path / "b.tar", {**members, "dataset.json": table}))[1] == {1: "5", 2: "3"}
    rows = '{"file_name": "cats/1.png", "label": "x"}\n{"file_name": "dogs/2.png", "label": "y"}\n'
    assert read(pack(tmp_path / "c.tar", {**members, "metadata.jsonl": rows}))[1] == {1: "x", 2: "y"}


def test_folders_are_classes_in_several_plain_archives(tmp_path):
    pack(tmp_path / "set" / "0.tar", {"cats/1.png": 1, "dogs/2.png": 2})
    pack(tmp_path / "set" / "1.tar", {"cats/1.png": 3, "dogs/2.png": 4})
    assert read(tmp_path / "set")[1] == {1: "cats", 2: "dogs", 3: "cats", 4: "dogs"}


# WebDataset


def samples(first, ending="cls", *, num=3):
    """Samples with the grey values first, first + 1, ... of the classes 2, 1, 0."""
    members = {}
    for i in range(num):
        label = str(num - 1 - i) + "\n" if ending == "cls" else {"label": "cba"[i], "width": 8}
        members |= {f"{first + i:04d}.png": first + i, f"{first + i:04d}.{ending}": label}
    return members


@pytest.mark.parametrize(("ending", "names"), [("cls", "210"), ("json", "cba")])
def test_classes_are_read_from_files_beside_the_pictures(tmp_path, ending, names):
    data, classes, _ = read(pack(tmp_path / "a.tar", samples(10, ending)))
    assert classes == dict(zip((10, 11, 12), names)) and data.num_classes == 3
    assert f"; classes of .{ending} files" in describe(data)


def test_json_without_a_class_is_no_class(tmp_path):
    members = {"1.png": 1, "1.json": {"width": 8}, "2.png": 2, "2.json": "no json"}
    data, classes, _ = read(pack(tmp_path / "a.tar", members))
    want = "no labels from .json files: want label, labels, class, cls or category, got "
    assert classes is None and data.notes == (f"{want}width",)
    assert (
        read(pack(tmp_path / "b.tar", {"1.png": 1, "1.json": "no json"}))[0]
        .notes[0]
        .endswith("got no such word in 1.json")
    )


def test_a_folder_of_shards_and_braces(tmp_path):
    for shard in range(3):
        pack(tmp_path / "set" / f"{shard:06d}.tar", samples(10 * shard))
    data, classes, greys = read(tmp_path / "set")
    assert greys == [0, 1, 2, 10, 11, 12, 20, 21, 22] and classes[21] == "1"
    assert data.name == "set" and "; 3 archives; classes of .cls files" in describe(data)
    data, _, greys = read(tmp_path / "set" / "{000001..000002}.tar")
    assert greys == [10, 11, 12, 20, 21, 22] and data.name == "set"
    assert read(tmp_path / "set" / "{000002,000000}.tar")[2] == [0, 1, 2, 20, 21, 22]


def test_only_the_training_split_is_read(tmp_path):
    pack(tmp_path / "set" / "in-train-000000.tar", samples(10))
    pack(tmp_path / "set" / "in-train-000001.tar", samples(20))
    pack(tmp_path / "set" / "in-val-000000.tar", samples(30))
    data, _, greys = read(tmp_path / "set")
    assert greys == [10, 11, 12, 20, 21, 22] and "only in-train read, 6 of 9 files, not in-val" in describe(data)


def test_the_picture_of_a_key_is_the_one_without_another_word(tmp_path):
    members = {"a.jpg": encoded(1), "a.mask.png": 2, "a.cls": "0", "d.e/b.png": 3, "d.e/b.cls": "1"}
    assert read(pack(tmp_path / "a.tar", members))[1] == {1: "0", 3: "1"}
    with pytest.raises(DataError, match=r"want one picture for each key, got a\.x\.png, a\.y\.png"):
        read(pack(tmp_path / "b.tar", {"a.x.png": 1, "a.y.png": 2, "a.cls": "0"}))


def test_a_sample_without_a_class_is_named(tmp_path):
    members = samples(10)
    del members["0011.cls"]
    with pytest.warns(UserWarning, match=r"a class for each image, got one for 2 of 3 images, and none for 0011\.png"):
        assert read(pack(tmp_path / "a.tar", members))[1] is None


def test_the_cache_sees_a_changed_shard(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_ENGINE_CACHE", str(tmp_path / "cache"))
    for shard in range(2):
        pack(tmp_path / "set" / f"{shard:06d}.tar", samples(10 * shard))
    braces = tmp_path / "set" / "{000000..000001}.tar"
    assert "from the cache" not in read(braces)[0].notes
    data, _, greys = read(braces)
    assert "from the cache" in data.notes and greys == [0, 1, 2, 10, 11, 12]
    pack(tmp_path / "set" / "000001.tar", samples(50))
    assert read(braces)[2] == [0, 1, 2, 50, 51, 52]


def test_pairs(tmp_path):
    members = {f"{i}.{word}.png": grey + i for i in range(3) for word, grey in (("input", 10), ("target", 20))}
    pack(tmp_path / "set" / "0.tar", members)
    data, _, greys = read(tmp_path / "set", kind="pairs")
    assert greys == [20, 21, 22] and data.source.images[:, 0, 0, 0].tolist() == [10, 11, 12] and data.paired
    both = Image.new("L", (16, 8), 30)
    both.paste(40, (8, 0, 16, 8))
    file = io.BytesIO()
    both.save(file, "PNG")
    data, _, greys = read(pack(tmp_path / "beside.tar", {"a.png": file.getvalue(), "a.cls": "1"}), kind="pairs")
    assert greys == [40] and data.source.images[0, 0, 0, 0] == 30
    with pytest.raises(DataError, match=r"want two pictures of each pair, called a/b, .*, got mask, rgb"):
        read(pack(tmp_path / "b.tar", {"a.rgb.png": 1, "a.mask.png": 2}), kind="pairs")
    del members["1.target.png"]
    with pytest.raises(DataError, match=r"want the same file names in input and target, got 1 in only one of them"):
        read(pack(tmp_path / "c.tar", members), kind="pairs")


# Errors


def test_an_archive_that_cannot_be_used_is_refused(tmp_path):
    content = pack(tmp_path / "a.tar", samples(10)).read_bytes()
    cut = content[: 3 * 1024 + 600]
    for damaged in (cut, b"words", b"", content[:700]):
        (tmp_path / "a.tar").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.tar: want a readable tar archive, not compressed, got ReadError: "):
            read(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(content.rstrip(b"\0").ljust(-(-len(content.rstrip(b"\0")) // 512) * 512, b"\0"))
    with pytest.raises(
        DataError, match=r"truncated: want a block of zeros behind byte [\d,]+, got the end of the file"
    ):
        read(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"b: want image files .*, got 1 other file \(\.txt\)"):
        read(pack(tmp_path / "b.tar", {"a.txt": "words"}))
    with pytest.raises(DataError, match=r"c: want image files .*, got none"):
        read(pack(tmp_path / "c.tar", {}))


@pytest.mark.parametrize(
    ("pack_whole", "got"),
    [
        (gzip.compress, r"one compressed by gzip; rename it to a\.tar\.gz, and gunzip a\.tar\.gz unpacks it$"),
        (bz2.compress, r"one compressed by bzip2; rename it to a\.tar\.bz2, and bunzip2 "),
        (lzma.compress, r"one compressed by xz; rename it to a\.tar\.xz, and unxz "),
        (
            lambda content: b"\x28\xb5\x2f\xfd" + content,
            r"one compressed by zstd; rename it to a\.tar\.zst, and unzstd ",
        ),
        (lambda content: b"PK\3\4" + content, r"a zip archive; rename it to a\.zip$"),
    ],
)
def test_a_compressed_archive_without_its_ending_is_named(tmp_path, pack_whole, got):
    path = pack(tmp_path / "a.tar", samples(0))
    path.write_bytes(pack_whole(path.read_bytes()))
    with pytest.raises(DataError, match=rf"a\.tar: want a readable tar archive, not compressed, got {got}"):
        read(path)


def test_braces_that_name_no_files_are_refused(tmp_path):
    pack(tmp_path / "0.tar", samples(0))
    with pytest.raises(DataError, match=r"want 3 files, got no .*1\.tar, .*2\.tar$"):
        read(tmp_path / "{0..2}.tar")
    with pytest.raises(DataError, match=r"braces want files \.tar, \.parquet, \.arrow, got \.zip$"):
        read(tmp_path / "{0..2}.zip")
    with pytest.raises(DataError, match=r"braces want files .*, got \.gz \(gunzip\)$"):
        read(tmp_path / "{0..2}.tar.gz")
    with pytest.raises(DataError, match=r"want 1 file, got no .*1\.tar$"):
        read(tmp_path / "{1..1}.tar")
    with pytest.raises(DataError, match=r"braces want files .*, got \.parquet, \.tar$"):
        read(tmp_path / "0.{tar,parquet}")


def test_braces(tmp_path):
    assert [path.name for path in expand(tmp_path / "a{08..11}-{x,y}.tar")][:3] == [
        "a08-x.tar",
        "a08-y.tar",
        "a09-x.tar",
    ]
    assert folder_of(tmp_path / "{a,b}" / "{0..1}.tar") == tmp_path and folder_of(tmp_path / "a.tar") == tmp_path
    (tmp_path / "{0..2}.tar").touch()
    assert expand(tmp_path / "{0..2}.tar") == [tmp_path / "{0..2}.tar"]  # a file of this very name


def test_memory_does_not_grow_with_the_archive(tmp_path):
    """64 pictures of 0.75 MB lie in the archive; a few are in memory at once."""
    picture = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "BMP")
    path = pack(tmp_path / "a.tar", {f"{i}.bmp": file.getvalue() for i in range(64)})
    tracemalloc.start()
    try:
        read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 2


# What tarfile itself would pass over


@pytest.mark.parametrize("damage", ["header", "cut", "two archives"])
def test_an_archive_that_goes_on_behind_its_end_is_refused(tmp_path, damage):
    path = pack(tmp_path / "a.tar", {f"{i}.png": i for i in range(10)})
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[4 * 1024 + 5] ^= 1  # a picture of 8x8 takes one block, and its header another
    content = content[: 6 * 1024 + 100] if damage == "cut" else content
    path.write_bytes(content + content if damage == "two archives" else content)
    with pytest.raises(DataError, match=r"want a readable tar archive.*behind byte"):
        read(path)


def test_a_hard_link_is_the_file_that_it_names(tmp_path):
    path = pack(tmp_path / "a.tar", {"x/a.png": 1})
    with tarfile.open(path, "a") as archive:
        for name, kind in (("y/b.png", tarfile.LNKTYPE), ("y/c.png", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "x/a.png"
            archive.addfile(entry)
    with pytest.warns(UserWarning, match=r"not read: 1 special file \(links, devices\), such as y/c\.png"):
        assert read(path)[2] == [1, 1]


def test_one_sample_without_a_class_does_not_hide_the_classes_of_others(tmp_path):
    members = {}
    for i in range(3):
        members |= {f"{i}.png": i, f"{i}.seg.png": 9, f"{i}.json": {"label": None if i == 0 else "x"}}
    with pytest.warns(UserWarning, match="got one for 2 of 3 images"):
        data, _, greys = read(pack(tmp_path / "a.tar", members))
    assert data.labels is None and greys == [0, 1, 2]


def test_names_that_differ_by_signs_alone_are_refused(tmp_path):
    pack(tmp_path / "set" / "a-000.tar", {"1.png": 1})
    pack(tmp_path / "set" / "a_000.tar", {"1.png": 2})
    with pytest.raises(DataError, match=r"a_000\.tar: want a name that differs from a-000\.tar by letters or digits"):
        read(tmp_path / "set")


def test_two_pictures_of_one_side_are_refused(tmp_path):
    path = pack(tmp_path / "a.tar", {"k.a.png": 1, "k.a.bmp": 2, "k.b.png": 3})
    with pytest.raises(DataError, match=r"want one picture of each name, got another one in k\.a\."):
        read(path, kind="pairs")
