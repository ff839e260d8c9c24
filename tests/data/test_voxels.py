"""Volumes are read from arrays, binvox files and meshes, or drawn; everything else is refused with a reason."""

import importlib.util

import numpy as np
import pytest
import torch

from gan_engine.data import DataConfig, DataError, ImageSet, Sampler, load, voxels

SOLID = np.zeros((3, 4, 5), bool)
SOLID[0], SOLID[:, 0], SOLID[1, 2, 3] = True, True, True
TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n"


def load_from(source, *, resolution=8):
    return load(DataConfig(str(source)), resolution=resolution, channels=1, kind="voxels")


def write_binvox(path, volume):
    """Write the voxels as runs, y fastest, then z, then x."""
    x, y, z = volume.shape
    flat = volume.transpose(0, 2, 1).ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[0]))
    runs = bytearray()
    for start, end in zip(starts, [*starts[1:], len(flat)]):
        for at in range(start, end, 255):
            runs += bytes([int(flat[start]), min(255, end - at)])
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"#binvox 1\ndim {x} {z} {y}\ntranslate 0 0 0\nscale 1\ndata\n"
    path.write_bytes(head.encode() + runs)


@pytest.mark.parametrize("size", [(3, 4, 5), (16, 16, 16), (1, 1, 1)])
def test_a_binvox_file_is_what_was_written(tmp_path, size):
    volume = np.random.default_rng(0).random(size) < 0.9
    volume[..., 0] = True
    write_binvox(tmp_path / "a.binvox", volume)
    with open(tmp_path / "a.binvox", "rb") as file:
        assert np.array_equal(voxels.read_binvox(file), volume)


def test_a_small_volume_stands_in_the_middle_and_a_large_one_is_made_coarser(tmp_path):
    write_binvox(tmp_path / "a.binvox", SOLID)
    data = load_from(tmp_path / "a.binvox")
    assert data.images.shape == (1, 1, 8, 8, 8) and data.images.unique().tolist() == [0, 255]
    assert np.array_equal(data.images[0, 0, 2:5, 2:6, 1:6].numpy() > 0, SOLID)
    large = np.zeros((16, 16, 16), bool)
    large[5, 15, 0] = True
    write_binvox(tmp_path / "b.binvox", large)
    assert load_from(tmp_path / "b.binvox").images.nonzero().tolist() == [[0, 0, 2, 7, 0]]


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_arrays_and_their_labels(tmp_path, dtype):
    volumes = np.zeros((3, 8, 8, 8), dtype)
    volumes[range(3), range(3), 1, 2] = 1
    np.savez(tmp_path / "a.npz", voxels=volumes, labels=[7, 3, 7])
    np.save(tmp_path / "a.npy", volumes)
    npz, npy = load_from(tmp_path / "a.npz"), load_from(tmp_path / "a.npy")
    assert torch.equal(npz.images[:, 0] > 0, torch.from_numpy(volumes > 0))
    assert torch.equal(npz.images, npy.images)
    assert npz.class_names == ("3", "7") and npz.labels.tolist() == [1, 0, 1] and npy.labels is None


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        (np.zeros((2, 8, 8), bool), r"bool or uint8 \[N, X, Y, Z\] with N >= 1, got bool \[2, 8, 8\]"),
        (np.zeros((2, 8, 8, 8), np.float32), r"got float32 \[2, 8, 8, 8\]"),
        (np.zeros((0, 8, 8, 8), bool), r"got bool \[0, 8, 8, 8\]"),
        (np.zeros((2, 8, 8, 8), bool), "volume 0: want occupied voxels, got none"),
    ],
)
def test_arrays_say_what_they_want(tmp_path, volumes, message):
    np.save(tmp_path / "a.npy", volumes)
    with pytest.raises(DataError, match=message):
        load_from(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", voxels=volumes)
    with pytest.raises(DataError, match=message):
        load_from(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "want a file that begins with #binvox"),
        (b"#binvox 1\ndim 2 2 2\n", "want a head that ends with data"),
        (b"#binvox 1\ndim 2 2\ndata\n", r"want a line dim with 3 sizes in the head, got \(2, 2\)"),
        (b"#binvox 1\ndim 2 2 2\ndata\n\1\7", "want runs of 2x2x2 voxels, got 7"),
        (b"#binvox 1\ndim 2 2 2\ndata\n\0\10", "want occupied voxels, got none"),
    ],
)
def test_broken_binvox_files_are_named(tmp_path, content, message):
    (tmp_path / "broken.binvox").write_bytes(content)
    with pytest.raises(DataError, match=rf"nothing can be read, 1 image: broken\.binvox \(ValueError: {message}"):
        load_from(tmp_path)
    write_binvox(tmp_path / "whole.binvox", SOLID)
    with pytest.warns(UserWarning, match=message):
        assert len(load_from(tmp_path)) == 1


def test_folders_are_classes(tmp_path):
    write_binvox(tmp_path / "chairs" / "1.binvox", SOLID)
    write_binvox(tmp_path / "beds" / "1.binvox", SOLID)
    data = load_from(tmp_path)
    assert data.class_names == ("beds", "chairs") and data.labels.tolist() == [0, 1]


def test_only_the_training_split_of_every_class_is_read(tmp_path):
    for path in ("chair/train/1", "chair/test/2", "bed/train/3", "bed/test/4"):
        write_binvox(tmp_path / f"{path}.binvox", SOLID)
    data = load_from(tmp_path)
    assert len(data) == 2 and data.class_names == ("bed", "chair")
    assert data.notes == ("only train read, 2 of 4 files, not test", "folders are classes: bed, chair")


def test_a_mesh_is_filled(tmp_path):
    pytest.importorskip("trimesh")
    (tmp_path / "a.obj").write_text(TETRAHEDRON)
    volume = load_from(tmp_path, resolution=16).images[0, 0] > 0
    assert volume[0, 0, 0] and volume[15, 0, 0] and volume[3, 3, 3] and not volume[9, 9, 9]
    assert volume.float().mean() == pytest.approx(1 / 6, abs=0.08)
    (tmp_path / "b.obj").write_text("nothing")
    with pytest.warns(UserWarning, match=r"b\.obj \(ValueError: want a mesh with faces, got none\)"):
        assert len(load_from(tmp_path)) == 1


def test_meshes_say_what_they_need(tmp_path, monkeypatch):
    (tmp_path / "a.obj").write_text(TETRAHEDRON)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"want trimesh and scipy to read a\.obj, got none: pip install trimesh scipy"):
        load_from(tmp_path)


def test_sources_without_volumes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"want volumes \(\.binvox \.obj .*\), got none"):
        load_from(tmp_path)
    (tmp_path / "a.zip").touch()
    with pytest.raises(DataError, match=r"want a folder of volumes, \.binvox, \.npz or \.npy, got the file a\.zip"):
        load_from(tmp_path / "a.zip")
    with pytest.raises(DataError, match="got cifar10, which holds single images"):
        load_from("cifar10")
    with pytest.raises(DataError, match="channels must be 1 for voxels, got 3"):
        load(DataConfig("toy"), resolution=16, channels=3, kind="voxels")
    with pytest.raises(DataError, match=r"or volumes \[N, 1, X, Y, Z\], .*, got torch.uint8 \[2, 3, 4, 4, 4\]"):
        ImageSet("x", torch.zeros(2, 3, 4, 4, 4, dtype=torch.uint8))


def test_toy_solids():
    data = load_from("toy", resolution=16)
    assert data.images.shape == (2048, 1, 16, 16, 16) and data.images.unique().tolist() == [0, 255]
    assert data.class_names == ("sphere", "box", "cylinder", "torus", "table", "chair")
    occupied = (data.images > 0).float().mean((1, 2, 3, 4))
    assert data.labels.bincount().min() > 250 and occupied.min() > 0.005 and occupied.max() < 0.8
    solids = {name: data.images[data.labels == i, 0] > 0 for i, name in enumerate(data.class_names)}
    assert solids["sphere"].equal(solids["sphere"].mT)
    assert not solids["torus"][:, 8, 8, 8].any() and solids["box"][:, 8, 8, 8].all()
    for name in ("table", "chair"):  # the fullest layer is a plate in the upper half or the middle
        assert (solids[name].sum((1, 3)).argmax(1) >= 7).all()


def test_a_sampler_deals_and_mirrors_volumes():
    images = torch.randint(2, (16, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0)).byte() * 255
    data = ImageSet("x", images)
    unchanged, mirrored = (next(Sampler(data, 8, seed=0, mirror=mirror))[0] for mirror in (False, True))
    assert unchanged.shape == (8, 1, 16, 16, 16) and unchanged.unique().tolist() == [-1, 1]
    same = [torch.equal(*pair) for pair in zip(unchanged, mirrored)]
    assert all(torch.equal(a if kept else a.flip(-1), b) for a, b, kept in zip(unchanged, mirrored, same))
    assert not all(same)
