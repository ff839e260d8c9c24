"""A file holds its old content or its new content, never a mixture. Temporary names never touch other files."""

import errno
import os
import pickle
import stat

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine.inference import w_files
from gan_engine.pictures import animation, scatter, volumes
from gan_engine.pictures.picture import to_uint8, write_picture, write_values
from gan_engine.system.whole_file import NotWrittenError, buffered, replacing, sweep


def test_the_new_file_replaces_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "a.tar.png"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".png" and temporary.name.startswith(".gan_engine-")
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.tar.png"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "a.png"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.png"]


def test_an_error_names_the_file_that_the_caller_asked_for(tmp_path):
    (tmp_path / "file").write_text("")
    for folder, error in (("none", FileNotFoundError), ("file", NotADirectoryError)):
        path = tmp_path / folder / "a.png"
        with pytest.raises(error) as caught, replacing(path):
            pass
        assert caught.value.filename == str(path)


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    before = os.umask(0o027)
    try:
        for make in (
            lambda path: path.write_text(""),
            lambda path: write_picture(Image.new("L", (1, 1)), path),
        ):
            make(tmp_path / "a.png")
            assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640
            (tmp_path / "a.png").unlink()
        (tmp_path / "b.png").write_text("")
        os.chmod(tmp_path / "b.png", 0o604)
        write_picture(Image.new("L", (1, 1)), tmp_path / "b.png")
        assert stat.S_IMODE((tmp_path / "b.png").stat().st_mode) == 0o604
    finally:
        os.umask(before)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "a.png").symlink_to("far/b.png")
    with replacing(tmp_path / "a.png") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.png").is_symlink() and (tmp_path / "far/b.png").read_text() == "new"


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_another_kind_of_file_is_not_replaced(tmp_path, make, linked):
    made = tmp_path / "made.png"
    make(made)
    kind, path = made.stat().st_mode, made
    if linked:
        path = tmp_path / "link.png"
        path.symlink_to(made)
    with pytest.raises(OSError, match=f"another kind: '{path}'"), replacing(path):
        raise AssertionError("the block must not run")
    assert made.stat().st_mode == kind and len(list(tmp_path.iterdir())) == 1 + linked


def test_the_longest_name_that_a_file_can_have(tmp_path):
    path = tmp_path / ("a" * 251 + ".png")
    write_picture(Image.new("L", (1, 1)), path)
    assert os.listdir(tmp_path) == [path.name]


def test_a_sweep_removes_only_temporary_files_of_this_package(tmp_path):
    mine = [".gan_engine-notes", "a.tmp.png", "run.json.tmp", ".gan_engine-0123456789abcdef.old.png"]
    for name in [*mine, ".gan_engine-0123456789abcdef", ".gan_engine-0123456789abcdef.pt"]:
        (tmp_path / name).write_text("")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(mine)
    sweep(tmp_path / "nowhere")


def test_an_animation_leaves_files_of_similar_names_alone(tmp_path):
    (tmp_path / "walk.tmp.gif").write_text("mine")
    frames = [to_uint8(torch.zeros(1, 1, 8, 8))[0]] * 3
    animation.write(tmp_path / "walk.gif", iter(frames))
    assert (tmp_path / "walk.tmp.gif").read_text() == "mine" and len(os.listdir(tmp_path)) == 2

    def broken():
        yield frames[0]
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        animation.write(tmp_path / "other.gif", broken())
    assert len(os.listdir(tmp_path)) == 2


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", lambda path: write_picture(Image.fromarray(noise(64, 64)), path)),
        ("a.jpg", lambda path: write_picture(Image.fromarray(noise(64, 64)), path)),
        ("a.npy", lambda path: write_values(noise(1, 64, 64, 1), path)),
        ("a.npz", lambda path: write_values(noise(1, 64, 64, 1), path)),
        ("a.gif", lambda path: animation.write(path, iter(noise(3, 64, 64, 1)))),
        ("a.webp", lambda path: animation.write(path, iter(noise(3, 64, 64, 1)))),
        ("points.npy", lambda path: scatter.write_points(path, noise(1000, 2).astype(np.float32))),
        ("w.npz", lambda path: w_files.write(path, torch.zeros(1, 1, 1000))),
        ("voxels.npz", lambda path: volumes.write_voxels(path, noise(1, 32, 32, 32) - 128.0)),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_full_disk_is_one_sentence_with_the_file_and_its_size(tmp_path, full_disk, name, write):
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    full_disk(1000)
    with pytest.raises(NotWrittenError) as caught:
        write(path)
    reason = f"{path}: not written: File too large; needs about {len(whole) / 1e6:.1f} MB, "
    assert str(caught.value).startswith(reason) and str(caught.value).endswith(" MB free on that disk")
    assert caught.value.errno == errno.EFBIG and caught.value.strerror == "File too large"
    assert caught.value.filename == str(path)
    assert path.read_bytes() == whole and os.listdir(tmp_path) == [name]


def test_a_size_that_is_not_known_is_at_least_what_was_written(tmp_path, full_disk):
    full_disk(200_000)
    want = r"a: not written: File too large; needs more than 0\.2 MB, "
    with pytest.raises(NotWrittenError, match=want), replacing(tmp_path / "a") as temporary:
        temporary.write_bytes(bytes(300_000))
    assert not os.listdir(tmp_path)


def test_a_disk_without_room_for_a_name_is_the_same_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    want = r"a: not written: No space left on device; needs about 3\.0 MB, "
    with pytest.raises(NotWrittenError, match=want), replacing(tmp_path / "a", size=3_000_000):
        pass


def test_the_error_passes_from_one_process_to_another(tmp_path, full_disk):
    full_disk(1000)
    with pytest.raises(NotWrittenError) as caught, buffered(tmp_path / "a") as file:
        file.write(bytes(2000))
    passed = pickle.loads(pickle.dumps(caught.value))
    assert type(passed) is NotWrittenError and str(passed) == str(caught.value)
    assert (passed.errno, passed.strerror, passed.filename) == (errno.EFBIG, "File too large", str(tmp_path / "a"))


def fail_at(path):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_a_failure_that_names_the_new_file_is_told_of_the_file_that_the_caller_asked_for(tmp_path):
    with (
        pytest.raises(NotWrittenError, match="a: not written: No space left on device"),
        replacing(tmp_path / "a") as new,
    ):
        fail_at(new)


@pytest.mark.parametrize("fail", [fail_at, lambda path: write_values(noise(1, 64, 64, 1), path)])
def test_a_failure_of_another_file_is_not_told_of_this_one(tmp_path, full_disk, fail):
    (tmp_path / "a").write_text("old")
    full_disk(1000)
    with pytest.raises(OSError, match="other") as caught, replacing(tmp_path / "a"):
        fail(tmp_path / "other.npy")
    assert caught.value.filename == str(tmp_path / "other.npy")
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_an_error_while_the_memory_is_filled_writes_nothing(tmp_path):
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(ValueError, match="half"), buffered(tmp_path / "a.png") as file:
        file.write(b"new")
        raise ValueError("half")
    assert (tmp_path / "a.png").read_text() == "old" and os.listdir(tmp_path) == ["a.png"]
