"""Folders that hold other things than good pictures, and sources that are no folders."""

import inspect
import io
import os
import socket
import sys
import tempfile
import types
import warnings
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from gan_engine.data import DataConfig, DataError, ImageSet, describe, endings, load
from gan_engine.data.files import walk


def save(path, grey=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), grey).save(path, **options)


def read(source, **options):
    """The set and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load(DataConfig(str(source)), resolution=4, channels=1, **options)
    return data, [str(each.message) for each in caught]


# Endings


@pytest.mark.parametrize(
    ("name", "format"),
    [
        *(("a.avif", "AVIF"), ("a.AVIF", "AVIF"), ("a.jpe", "JPEG"), ("a.JPG", "JPEG"), ("a.jfif", "JPEG")),
        *(("a.jp2", "JPEG2000"), ("a.j2k", "JPEG2000"), ("a.tga", "TGA"), ("a.ppm", "PPM"), ("a.pnm", "PPM")),
        *(("a.webp", "WEBP"), ("a.apng", "PNG"), ("a.dib", "DIB"), ("a.qoi", "QOI"), ("a.mpo", "MPO")),
    ],
)
def test_endings_that_are_read(tmp_path, name, format):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "white").save(file, format)
    (tmp_path / name).write_bytes(file.getvalue())
    data, warned = read(tmp_path)
    assert len(data) == 1 and data.images.min() > 250 and not warned


def test_the_content_decides_if_the_ending_is_missing_or_wrong(tmp_path):
    for name, format in (("0a1b2c", "JPEG"), ("frame.0001", "PNG"), ("b.jpg?width=300", "PNG"), ("c.png", "JPEG")):
        save(tmp_path / name, format=format)
    (tmp_path / "README").write_text("This is no picture.")
    data, warned = read(tmp_path)
    assert len(data) == 4 and not warned


def test_files_that_are_not_read_are_counted_by_ending(tmp_path):
    save(tmp_path / "a.png")
    for name in ("1.HEIC", "2.heic", "3.psd", "4.CR2", "5.svg", "6.mp4", "7", "8.zip", "9.foo"):
        (tmp_path / name).write_bytes(b"\0" * 20)
    data, warned = read(tmp_path)
    assert len(data) == 1 and len(warned) == 1
    assert "not read: 2 .heic (pip install pillow-heif), 1 " in warned[0] and "and 2 others" in warned[0]
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"got 9 other files \(.*\.heic \(pip install pillow-heif\)"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["notes.TXT", "labels.csv", "a.json", "Thumbs.db", "desktop.ini", ".DS_Store", "._a.png", "LICENSE", "a.xmp"],
)
def test_no_warning_for_common_files_that_are_no_pictures(tmp_path, name):
    save(tmp_path / "a.png")
    (tmp_path / name).write_text("words")
    assert read(tmp_path)[1] == []


def test_hidden_pictures_are_counted(tmp_path):
    save(tmp_path / "cats" / "a.png")
    save(tmp_path / ".dogs" / "b.png")
    save(tmp_path / ".c.png")
    save(tmp_path / ".thumbnails" / "a.png")
    data, warned = read(tmp_path)
    assert len(data) == 1 and warned == [f"{tmp_path.name}: not read: 2 hidden"]
    (tmp_path / "cats" / "a.png").rename(tmp_path / "cats" / ".a.png")
    with pytest.raises(DataError, match="got none, 1 hidden"):
        read(tmp_path / "cats")


@pytest.fixture
def stand_in_for_pillow_heif(monkeypatch):
    """A false pillow_heif, which reads every HEIC file as one pixel of the grey value 200."""

    class Heif(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._mode, self._size = "L", (1, 1)

        def load(self):
            self.im = Image.core.fill("L", self.size, 200)

    def register():
        Image.register_open("HEIF", Heif, lambda start: start[4:12] == b"ftypheic")
        Image.register_extensions("HEIF", [".heic", ".heif"])

    Image.init()
    for name, table in (("OPEN", Image.OPEN), ("EXTENSION", Image.EXTENSION), ("ID", Image.ID)):
        monkeypatch.setattr(Image, name, table.copy())
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    for function in (endings.formats, endings.endings):
        function.cache_clear()
    yield
    for function in (endings.formats, endings.endings):
        function.cache_clear()


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path, stand_in_for_pillow_heif):
    for name in ("a.HEIC", "b"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    data, warned = read(tmp_path)
    assert len(data) == 2 and (data.images == 200).all() and not warned


# Files that are not regular or cannot be read


def test_only_regular_files_are_read(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "folder.png" / "b.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    (tmp_path / "system").symlink_to("/proc")
    (tmp_path / "all").symlink_to("/")
    (tmp_path / "loop").symlink_to(tmp_path)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(tmp_path / "socket.png"))
        found, skipped = walk(tmp_path)
    assert found == ["a.png", "folder.png/b.png"]
    assert dict(skipped) == {
        "pipe.png": "a pipe",
        "socket.png": "a socket",
        "null.png": "a device",
        "nowhere.png": "a link to nothing",
        "self.png": os.strerror(40),
        "system/": "a folder of the system",
        "all/": "a folder of the system",
    }
    data, warned = read(tmp_path)
    assert len(data) == 2 and "skipped 7 images: all/, system/ (a folder of the system); " in warned[-1]


def test_files_and_folders_without_permission_are_named(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    save(tmp_path / "closed" / "b.png")
    (tmp_path / "closed.png").write_bytes((tmp_path / "a.png").read_bytes())
    scandir, opened = os.scandir, open

    def refuse(function):
        def call(path, *args, **kwargs):
            if "closed" in os.path.basename(path):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return call

    monkeypatch.setattr("os.scandir", refuse(scandir))
    monkeypatch.setattr("builtins.open", refuse(opened))
    data, _ = read(tmp_path)
    assert len(data) == 1 and [path for path, _ in data.skipped] == ["closed.png", "closed/"]
    assert all("Permission denied" in reason for _, reason in data.skipped)


def test_a_folder_is_listed_by_its_own_name_and_not_that_of_a_link(tmp_path):
    save(tmp_path / "dogs" / "1.png")
    (tmp_path / "all").symlink_to(tmp_path / "dogs")
    save(tmp_path / "cats" / "1.png")
    assert read(tmp_path)[0].class_names == ("cats", "dogs")


def test_folders_deeper_than_pythons_recursion_limit(tmp_path):
    save(tmp_path / Path(*"d" * 200) / "a.png")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        found, skipped = walk(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert found == ["d/" * 200 + "a.png"] and not skipped


# Names


def test_names_that_are_not_utf8_can_be_printed_and_written(tmp_path):
    root = os.fsencode(tmp_path) + b"/b\xfcro"
    for folder in (b"caf\xe9", b"tea\n"):
        os.makedirs(root + b"/" + folder)
        Image.new("L", (4, 4)).save(os.fsdecode(root + b"/" + folder + b"/\xff.png"))
    with open(root + b"/\xfe.png", "wb"), open(root + b"/\xfd.heic", "wb"):
        pass
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load(DataConfig(os.fsdecode(root)), resolution=4, channels=1)
    said = [describe(data), data.name, *data.class_names, *(str(each.message) for each in caught)]
    assert all(text.isprintable() and text.encode() for text in said)
    assert data.class_names == (r"caf\udce9", r"tea\n") and data.name == r"b\udcfcro"
    with pytest.raises(DataError) as error:
        load(DataConfig(os.fsdecode(root + b"/nothing")), resolution=4, channels=1)
    assert str(error.value).isprintable()


# Sources that are not folders of pictures


@pytest.mark.parametrize(
    ("source", "got"),
    [
        *(("/", "the root of all files"), ("/proc", "a folder of the system"), ("/sys", "a folder of the system")),
        *(("/dev", "a folder of the system"), ("/proc/self", "a folder of the system"), ("/dev/null", "")),
        ("~nobody-of-that-name/x", ""),
        ("x" * 300, "File name too long"),
    ],
)
def test_sources_that_are_refused_at_once(source, got):
    with pytest.raises(DataError, match=rf"want a folder, \.zip, .*\.npz or \.npy, got .*{got}"):
        read(source)


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no /dev/shm to write to")
def test_images_in_shared_memory_are_read():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        save(Path(folder) / "a.png")
        assert len(read(folder)[0]) == 1


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("a.png", r"the picture a\.png; put the pictures into a folder"),
        ("a.heic", r"the file a\.heic$"),
        *((f"a.{kind}", rf"the file a\.{kind}; unpack it") for kind in ("7z", "rar", "zst", "png.gz")),
        ("a.tar.gz", r"the file a\.tar\.gz; gunzip makes a\.tar of it, which is read$"),
        ("a.TGZ", r"the file a\.TGZ; gunzip makes a\.tar of it, which is read$"),
        ("a.tar.zst", r"the file a\.tar\.zst; unzstd makes a\.tar of it"),
        ("a.parquet.xz", r"the file a\.parquet\.xz; unxz makes a\.parquet of it"),
        ("a.bin", r"the file a\.bin$"),
        ("a", r"the file a$"),
    ],
)
def test_files_that_are_refused_as_a_source(tmp_path, name, got):
    (tmp_path / name).write_bytes(b"words")
    with pytest.raises(DataError, match=rf"want a folder, \.zip, .*\.npz or \.npy, got {got}"):
        read(tmp_path / name)


def test_an_archive_that_this_kind_of_data_cannot_have_is_to_be_unpacked(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"words")
    with pytest.raises(DataError, match=r"want a folder with trainA and trainB, got the file a\.tar\.gz; unpack it"):
        load(DataConfig(str(tmp_path / "a.tar.gz")), resolution=4, channels=1, kind="unpaired")


def test_a_folder_of_packed_archives_names_what_unpacks_them(tmp_path):
    (tmp_path / "0.tar.gz").write_bytes(b"words")
    with pytest.raises(DataError, match=r"want image files .*, got 1 other file \(\.gz \(gunzip\)\)$"):
        read(tmp_path)


def test_a_zip_with_another_ending_and_a_pipe_are_refused(tmp_path):
    (tmp_path / "set.dat").write_bytes(b"PK\5\6" + bytes(18))
    with pytest.raises(DataError, match=r"got the file set\.dat, a zip archive; rename it to set\.zip"):
        read(tmp_path / "set.dat")
    os.mkfifo(tmp_path / "set.zip")
    with pytest.raises(DataError, match="got a pipe"):
        read(tmp_path / "set.zip")


# Remarks


def test_the_start_line_says_what_was_done_to_pictures(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    for name in ("a.gif", "b.tif", "c.webp", "d.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    Image.new("RGBA", (4, 4)).save(tmp_path / "e.png")
    save(tmp_path / "f.png")
    data, warned = read(tmp_path)
    assert len(data) == 6 and not warned
    assert "; 4 with several frames or pages (the first is read); 1 fully transparent (white)" in describe(data)


def test_notes_do_not_change_the_checksum_of_a_set(tmp_path):
    save(tmp_path / "a.png")
    data, _ = read(tmp_path)
    assert data.sha256 == ImageSet("x", data.images, notes=("said",)).sha256
