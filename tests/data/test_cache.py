"""A second start with the same data decodes nothing. After any change of the data it decodes again."""

import errno
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine import train
from gan_engine.data import DataConfig, DataError, cache, decode, describe, image_set, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_ENGINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load_from(source, *, kind="image", resolution=16, channels=None):
    return load(DataConfig(str(source)), resolution=resolution, channels=channels, kind=kind)


def save(path, colour, size=(16, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def pictures(folder):
    for i, colour in enumerate(("red", "lime", "blue")):
        save(folder / ("cats" if i else "dogs") / f"{i}.png", colour)
    return folder


def zipped(folder):
    with zipfile.ZipFile(folder.parent / "set.zip", "w") as archive:
        for path in sorted(pictures(folder).rglob("*.png")):
            archive.write(path, path.relative_to(folder))
    return folder.parent / "set.zip"


def paired(folder):
    for side in "AB":
        save(folder / side / "1.png", "red" if side == "A" else "blue")
        save(folder / side / "2.png", "lime")
    return folder


def arrays(folder):
    folder.mkdir()
    np.savez(folder / "set.npz", images=np.arange(768, dtype=np.uint8).reshape(1, 16, 16, 3), labels=[7])
    return folder / "set.npz"


def volumes(folder):
    folder.mkdir()
    np.save(folder / "set.npy", np.ones((2, 4, 4, 4), bool))
    return folder / "set.npy"


def is_cached(data):
    return "from the cache" in describe(data)


def no_decoding(*_, **__):
    raise AssertionError("something was decoded")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (pictures, "image"),
        (pictures, "patches"),
        (zipped, "image"),
        (paired, "pairs"),
        (paired, "unpaired"),
        (arrays, "image"),
        (volumes, "voxels"),
    ],
)
def test_a_second_start_decodes_nothing(tmp_path, monkeypatch, make, kind):
    source = make(tmp_path / "set")
    first = load_from(source, kind=kind)
    monkeypatch.setattr(Image, "open", no_decoding)
    monkeypatch.setattr(np, "load", no_decoding)
    second = load_from(source, kind=kind)
    assert not is_cached(first) and is_cached(second)
    for a, b in ((first, second), (first.source, second.source)):
        if a is not None:
            assert torch.equal(a.images, b.images) and a.sha256 == b.sha256
            assert (a.name, a.class_names, a.skipped, a.paired) == (b.name, b.class_names, b.skipped, b.paired)
            assert a.labels is b.labels is None or torch.equal(a.labels, b.labels)
    assert second.notes == (*first.notes, "from the cache") and not second.on_disk
    assert describe(second) == describe(first) + "; from the cache"


@pytest.mark.parametrize("other", [{"resolution": 8}, {"channels": 1}, {"kind": "patches"}])
def test_other_options_are_other_sets(tmp_path, other):
    source = pictures(tmp_path / "set")
    load_from(source)
    assert not is_cached(data := load_from(source, **other)) and is_cached(load_from(source))
    assert data.images.shape == (3, other.get("channels", 3), *[other.get("resolution", 16)] * 2)


def test_a_run_that_goes_on_asks_for_the_channels_that_the_data_had(tmp_path):
    source = pictures(tmp_path / "set")
    load_from(source)
    assert is_cached(load_from(source, channels=3)) and not is_cached(load_from(source, channels=1))


def replaced(path):
    save(path.with_name("new.png"), "white")
    os.replace(path.with_name("new.png"), path)


def overwritten(path):
    size = path.stat().st_size
    save(path, "black")
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    assert path.stat().st_size == size


def turned(path):
    with Image.open(path) as image:
        image.rotate(90).save(path)


def renamed(path):
    path.rename(path.with_name("z.png"))


def gone(path):
    path.unlink()


def joined(path):
    save(path.with_name("new.png"), "white")


def moved_to_another_class(path):
    path.rename(path.parents[1] / "dogs" / path.name)


@pytest.mark.parametrize("change", [replaced, overwritten, turned, renamed, gone, joined, moved_to_another_class])
def test_any_change_is_seen(tmp_path, change):
    source = pictures(tmp_path / "set")
    load_from(source)
    path = source / "cats" / "1.png"
    before = path.stat()
    change(path)
    if path.exists():
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some programs do
    data = load_from(source)
    os.environ["GAN_ENGINE_CACHE"] = "0"
    again = load_from(source)
    assert not is_cached(data) and not is_cached(again)
    assert torch.equal(data.images, again.images) and torch.equal(data.labels, again.labels)


def test_two_changes_within_a_tick_of_the_clock_are_seen(tmp_path, monkeypatch):
    """The file keeps its size and its times when its content changes."""
    source = pictures(tmp_path / "set")
    row = cache._row
    monkeypatch.setattr(
        cache, "_row", lambda root, name: [*row(root, name)[:1], 7, time.time_ns() // 10**12 * 10**12, 0, 0]
    )
    monkeypatch.setattr(cache, "RECENT", 10**6)
    load_from(source)
    assert is_cached(load_from(source))
    save(source / "cats" / "1.png", "white")
    data = load_from(source)
    assert not is_cached(data) and data.images[0].min() == 255


def test_a_change_while_the_pictures_are_decoded_is_seen(tmp_path, monkeypatch):
    source = pictures(tmp_path / "set")
    with monkeypatch.context() as patch:

        def fit(image, resolution, fit=decode.fit):
            save(source / "dogs" / "0.png", "white")
            return fit(image, resolution)

        patch.setattr("gan_engine.data.files.fit", fit)
        load_from(source)
    assert not is_cached(data := load_from(source)) and data.images[2].min() == 255


def test_a_zip_is_known_by_the_checksums_of_its_members(tmp_path):
    source = zipped(tmp_path / "set")
    load_from(source)
    before = source.stat()
    save(tmp_path / "set" / "cats" / "1.png", "yellow")
    zipped_again = bytearray((tmp_path / "set.zip").read_bytes())
    with zipfile.ZipFile(source, "w") as archive:
        for path in sorted((tmp_path / "set").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "set"))
    assert len(zipped_again) == source.stat().st_size
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not is_cached(load_from(source))


def entries(home):
    return sorted(home.glob("*.images"))


def cut(content):
    return content[:-9]


def empty(content):
    return b""


def flipped(content):
    content = bytearray(content)
    content[-9] ^= 255
    return bytes(content)


def other_head(content):
    return content.replace(b'"images": ["torch.uint8", [3,', b'"images": ["torch.uint8", [9,')


def other_classes(content):
    return content.replace(b'"dogs"', b'"cows"').replace(b'["cats", "cows"]', b'["cats"        ]')


@pytest.mark.parametrize("damage", [cut, empty, flipped, other_head, other_classes])
def test_a_damaged_entry_is_decoded_again(tmp_path, home, damage):
    source = pictures(tmp_path / "set")
    first = load_from(source)
    (entry,) = entries(home)
    content = entry.read_bytes()
    assert damage(content) != content
    entry.write_bytes(damage(content))
    second = load_from(source)
    assert not is_cached(second) and torch.equal(first.images, second.images)
    assert is_cached(load_from(source))


def test_warnings_are_repeated(tmp_path):
    source = pictures(tmp_path / "set")
    (source / "cats" / "broken.png").write_text("words")
    save(source / "cover.png", "red")
    for cached in (False, True):
        with pytest.warns(UserWarning) as warned:
            assert is_cached(load_from(source)) == cached
        told = sorted(str(each.message) for each in warned)
        assert len(told) == 2 and told[0].endswith("want each image in the folder of its class, got cover.png outside")
        assert "skipped 1 image: cats/broken.png" in told[1]


def test_a_failure_of_the_system_is_not_kept(tmp_path, monkeypatch):
    source = pictures(tmp_path / "set")

    def failing(picture, resolution, square=decode.fit):
        raise OSError(errno.EMFILE, "Too many open files") if resolution == 16 else None

    with monkeypatch.context() as patch:
        patch.setattr("gan_engine.data.files.fit", failing)
        with pytest.raises(DataError, match="Too many open files"):
            load_from(source, channels=3)
        calls = iter([True, False, False])
        patch.setattr(
            "gan_engine.data.files.fit",
            lambda picture, resolution: failing(picture, 16) if next(calls) else decode.fit(picture, resolution),
        )
        with pytest.warns(UserWarning, match="skipped 1 image: .*Too many open files"):
            assert len(load_from(source, channels=3)) == 2
    assert len(load_from(source, channels=3)) == 3


def test_the_cache_can_be_turned_off(tmp_path, home, monkeypatch):
    monkeypatch.setenv("GAN_ENGINE_CACHE", "0")
    source = pictures(tmp_path / "set")
    assert not is_cached(load_from(source)) and not is_cached(load_from(source))
    assert not home.exists()


def test_the_cache_lies_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("GAN_ENGINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load_from(pictures(tmp_path / "set"))
    assert len(entries(tmp_path / "xdg" / "gan_engine" / "decoded")) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == tmp_path / "home" / ".cache" / "gan_engine" / "decoded"


@pytest.mark.parametrize("place", ["/proc/none", "/dev/null/none"])
def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch, recwarn, place):
    monkeypatch.setenv("GAN_ENGINE_CACHE", place)
    source = pictures(tmp_path / "set")
    assert not is_cached(load_from(source)) and not is_cached(load_from(source))
    assert not recwarn.list


def test_a_full_disk_is_a_warning(tmp_path, home, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match=r"set: not kept in the cache, because .*cache is full"):
        assert len(load_from(pictures(tmp_path / "set"))) == 3
    assert list(home.iterdir()) == []


def test_the_sets_used_longest_ago_are_removed_first(tmp_path, home, monkeypatch):
    sources = [pictures(tmp_path / name) for name in "abc"]
    load_from(sources[0])
    size = entries(home)[0].stat().st_size
    monkeypatch.setattr(cache, "LIMIT", 2.5 * size)
    (home / "killed.tmp").write_bytes(b"part")
    os.utime(home / "killed.tmp", (0, 0))
    load_from(sources[1])
    for age, source in ((20, sources[1]), (10, sources[0])):
        before = set(entries(home))
        assert is_cached(load_from(source))
        newest = max(before, key=lambda entry: entry.stat().st_mtime_ns)
        os.utime(newest, (time.time() - age,) * 2)
    load_from(sources[2])
    assert len(entries(home)) == 2 and not (home / "killed.tmp").exists()
    assert (
        is_cached(load_from(sources[2])) and is_cached(load_from(sources[0])) and not is_cached(load_from(sources[1]))
    )


def test_a_set_larger_than_memory_is_mapped(tmp_path, monkeypatch):
    source = pictures(tmp_path / "set")
    first = load_from(source)
    monkeypatch.setattr(image_set, "available_bytes", lambda: 100)
    monkeypatch.setattr(cache, "available_bytes", lambda: 100)
    second = load_from(source)
    assert is_cached(second) and second.on_disk and torch.equal(first.images, second.images)


# This process imports everything once, and its children start at the same moment.
TOGETHER = """
import os, sys
from gan_engine.data import *
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        data = load(DataConfig(sys.argv[1]), resolution=16, channels=None)
        os.write(1, f"{data.sha256} {len(data)}\\n".encode())  # a line at once
        os._exit(0)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] for child in children))
"""


def test_processes_that_start_together_all_get_the_set(tmp_path):
    source = pictures(tmp_path / "set")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TOGETHER, str(source)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{load_from(source).sha256} 3\n" * 3 and is_cached(load_from(source))


def test_the_start_line_of_a_run_says_that_data_came_from_the_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "set")
    tiny = ["vanilla", "--data", "set", "--res", "16", "--hidden", "8", "--batch-size", "2", "--kimg", "0.004"]
    for run in ("a", "b"):
        assert train.main([*tiny, "--device", "cpu", "--no-tensorboard", "--out", run]) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("data "))
    assert "from the cache" not in first and "; from the cache; colour images" in second
