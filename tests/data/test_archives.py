"""Zip archives written by other systems and programs are read."""

import io
import json
import struct
import warnings
import zipfile

import pytest
from PIL import Image

from gan_engine.data import DataConfig, DataError, describe, load


def picture(grey):
    file = io.BytesIO()
    Image.new("L", (4, 4), grey).save(file, "PNG")
    return file.getvalue()


def pack(path, members, **options):
    """A zip of members (path or ZipInfo, content or the grey value of a picture)."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **options) as archive:
        warnings.simplefilter("ignore")  # zipfile warns of repeated names
        for name, content in members:
            archive.writestr(name, content if isinstance(content, bytes) else picture(content))
    return path


def read(path):
    data = load(DataConfig(str(path)), resolution=4, channels=1)
    return data, data.images[:, 0, 0, 0].tolist()


def member(name):
    """A member with exactly this name. zipfile itself would replace backslashes."""
    entry = zipfile.ZipInfo("x")
    entry.filename = name
    return entry


def test_backslashes_separate_folders(tmp_path):
    table = json.dumps({"labels": [["00000/1.png", 3], ["00001/2.png", 5]]}).encode()
    members = [(member("cats\\"), b""), (member("cats\\1.png"), 1), (member("dogs\\2.png"), 2)]
    data, greys = read(pack(tmp_path / "set.zip", members))
    assert greys == [1, 2] and data.class_names == ("cats", "dogs")
    members = [
        (member("00000\\1.png"), 1), (member("00001\\2.png"), 2), (member("dataset.json"), table)
    ]  # fmt: skip
    data, greys = read(pack(tmp_path / "stylegan.zip", members))
    assert greys == [1, 2] and data.class_names == ("3", "5")


def test_the_last_file_of_a_repeated_name_counts(tmp_path):
    members = [("a.png", 1), ("b.png", 9), ("a.png", 2), (member("./a.png"), 3)]
    data, greys = read(pack(tmp_path / "set.zip", members))
    assert greys == [3, 9] and "; repeated names: 2, the last file of each name counts" in describe(data)


def test_the_last_dataset_json_counts(tmp_path):
    tables = [json.dumps({"labels": [["a.png", c], ["b.png", 0]]}).encode() for c in (0, 7)]
    members = [("a.png", 1), ("b.png", 2), *(("dataset.json", table) for table in tables)]
    assert read(pack(tmp_path / "set.zip", members))[0].class_names == ("0", "7")


def test_files_that_macos_adds_are_ignored_without_a_warning(tmp_path):
    members = [("set/a.png", 1), ("__MACOSX/set/._a.png", b"x"), ("set/.DS_Store", b"x"), ("set/._a.png", b"x")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(pack(tmp_path / "set.zip", members))[1] == [1]


def test_names_cannot_point_outside_the_archive(tmp_path):
    members = [("../a/1.png", 1), ("/b/2.png", 2), ("./b/3.png", 3)]
    data, greys = read(pack(tmp_path / "set.zip", members))
    assert greys == [1, 2, 3] and data.class_names == ("a", "b")


def test_names_in_utf8_with_and_without_the_flag_and_in_cp437(tmp_path):
    path = pack(tmp_path / "set.zip", [("Käfer/1.png", 1), ("Ähre/2.png", 2), ("zebra/3.png", 3)])
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            flags = struct.unpack_from("<H", content, at + offset)[0]
            struct.pack_into("<H", content, at + offset, flags & ~0x800)
    path.write_bytes(content)
    assert read(path)[0].class_names == ("Käfer", "zebra", "Ähre")
    old = bytes(content).replace("Käfer".encode(), "Käfer_".encode("cp437"))  # of equal length
    path.write_bytes(old)
    assert read(path)[0].class_names == ("Käfer_", "zebra", "Ähre")


def set_in_heads(path, value, *, local, central):
    """Write a 16-bit value at these offsets of the local and the central head of the first member."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, content.index(b"PK\3\4") + local, value)
    struct.pack_into("<H", content, content.index(b"PK\1\2") + central, value)
    path.write_bytes(content)


def test_encrypted_members_are_named(tmp_path):
    path = pack(tmp_path / "set.zip", [("a.png", 1), ("b.png", 2)])
    set_in_heads(path, 1, local=6, central=8)
    with pytest.warns(UserWarning, match=r"skipped 1 image: a\.png \(encrypted\)"):
        assert read(path)[1] == [2]
    set_in_heads(pack(path, [("a.png", 1)]), 1, local=6, central=8)
    with pytest.raises(DataError, match=r"nothing can be read, 1 image: a\.png \(encrypted\)"):
        read(path)


@pytest.mark.parametrize(("method", "said"), [(9, "deflate64"), (98, "ppmd"), (1234, "1234")])
def test_members_compressed_in_unusual_ways_are_named(tmp_path, method, said):
    path = pack(tmp_path / "set.zip", [("a.png", 1), ("b.png", 2)])
    set_in_heads(path, method, local=8, central=10)
    with pytest.warns(UserWarning, match=rf"a\.png \(ValueError: compressed by the method {said}, which"):
        assert read(path)[1] == [2]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_usual_compression(tmp_path, method):
    assert read(pack(tmp_path / "set.ZIP", [("a.png", 1)], compression=method))[1] == [1]


def test_zip64(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive, archive.open("a.png", "w", force_zip64=True) as file:
        file.write(picture(1))
    assert read(tmp_path / "set.zip")[1] == [1]


def test_a_warning_counts_zips_within_a_zip(tmp_path):
    inner = pack(tmp_path / "inner.zip", [("a.png", 1)]).read_bytes()
    with pytest.warns(UserWarning, match=r"not read: 2 \.zip"):
        assert read(pack(tmp_path / "set.zip", [("a.png", 1), ("1.zip", inner), ("2.zip", inner)]))[1] == [1]
    with pytest.raises(DataError, match=r"want image files .*, got 1 other file \(\.zip\)"):
        read(pack(tmp_path / "set.zip", [("1.zip", inner)]))


def test_a_member_with_a_wrong_checksum_is_skipped(tmp_path):
    path = pack(tmp_path / "set.zip", [("a.png", 1), ("b.png", 2)])
    content = bytearray(path.read_bytes())
    content[content.index(b"a.png") + len("a.png") + 50] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"a\.png \(BadZipFile: Bad CRC-32"):
        assert read(path)[1] == [2]


def test_a_damaged_table_does_not_end_a_run(tmp_path):
    path = pack(tmp_path / "set.zip", [("dataset.json", b'{"labels": [["a.png", 0]]}'), ("a.png", 1)])
    path.write_bytes(path.read_bytes().replace(b'"a.png", 0', b'"a.png", 1'))
    with pytest.warns(UserWarning, match=r"no labels from dataset\.json: want a readable file, got Bad CRC-32"):
        assert read(path)[0].labels is None
    set_in_heads(path, 9, local=8, central=10)
    with pytest.warns(
        UserWarning, match=r"dataset\.json: want a readable file, got compressed by the method deflate64"
    ):
        assert read(path)[0].labels is None


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\5\6" + bytes(18), b"Rar!\x1a\x07\x00"])
def test_files_that_are_no_zip_and_empty_zips_are_refused(tmp_path, content):
    (tmp_path / "set.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"want a readable zip archive|got none"):
        read(tmp_path / "set.zip")
