"""Data sets of torchvision are read from existing files. The error is one sentence if there is no network or no
torchvision."""

import gzip
import importlib.util
import pickle
import struct
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine.data import DataConfig, DataError, load
from gan_engine.data.arrays import read_idx

# torchvision is looked for but not imported: a CUDA build with a CPU-only PyTorch needs torchvision_shim first.
needs_torchvision = pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="needs torchvision")


def load_from(name, *, root, resolution=16, channels=3):
    return load(DataConfig(name, root=str(root)), resolution=resolution, channels=channels)


def save_faces(root, colours):
    """A folder of CelebA with one picture of each colour."""
    folder = root / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    for i, colour in enumerate(colours, 1):
        Image.new("RGB", (178, 218), colour).save(folder / f"{i:06}.jpg")


@needs_torchvision
@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("mnist", "t10k-labels-idx1-ubyte into {root}/MNIST/raw"),
        ("fashion-mnist-full", "t10k-labels-idx1-ubyte into {root}/FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py into {root}"),
        ("celeba", "img_align_celeba into {root}/celeba"),
    ],
)
def test_without_a_network_the_error_says_where_the_files_go(tmp_path, monkeypatch, name, where):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setitem(sys.modules, "gdown", None)  # the downloader of CelebA has its own way to the network
    with pytest.raises(DataError) as error:
        load_from(name, root=tmp_path)
    message = str(error.value)
    assert message.startswith(f"{name} is not in {tmp_path} and cannot be downloaded (")
    assert message.endswith(where.format(root=tmp_path)) and "\n" not in message


def write_idx(path, values):
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.tobytes())


@needs_torchvision
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist-full", "FashionMNIST")])
def test_existing_digits_need_no_network(tmp_path, name, folder):
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    for split in ("train", "t10k"):
        write_idx(raw / f"{split}-images-idx3-ubyte", images)
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(6, dtype=np.uint8))
    data = load_from(name, root=tmp_path, resolution=32, channels=1)
    assert torch.equal(data.images[:, 0, 2:30, 2:30], torch.from_numpy(images))
    assert data.labels.tolist() == list(range(6)) and data.num_classes == 10 and data.name == name
    assert np.array_equal(read_idx(gzip.compress((raw / "train-images-idx3-ubyte").read_bytes())), images)


@needs_torchvision
def test_an_existing_cifar10_needs_no_network(tmp_path, monkeypatch):
    from gan_engine.data.torchvision_shim import datasets

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps({"data": pixels.reshape(2, -1), "labels": [i, 0]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = load_from("cifar10", root=tmp_path, resolution=32)
    assert torch.equal(data.images[:2], torch.from_numpy(pixels))
    assert data.labels.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0] and data.class_names[3] == "class 3"


def test_celeba_needs_only_its_images(tmp_path):
    save_faces(tmp_path, ["red", "lime"])
    data = load_from("celeba", root=tmp_path, resolution=64)
    assert data.name == "celeba" and data.images.shape == (2, 3, 64, 64) and data.labels is None


def test_torchvision_is_imported_only_when_needed():
    code = (
        "import sys, gan_engine.data as d; d.load(d.DataConfig('toy'), resolution=16, channels=1);"
        "print('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist-full", "cifar10", "celeba"])
def test_without_torchvision_the_error_names_the_extra_to_install(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "gan_engine.data.torchvision_shim", raising=False)
    with pytest.raises(DataError, match=rf'^{name}: want torchvision, .*: pip install "gan-engine\[data\]"$'):
        load_from(name, root=tmp_path, resolution=32)


def test_existing_faces_are_read_without_torchvision(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    save_faces(tmp_path, ["red"])
    assert len(load_from("celeba", root=tmp_path, resolution=64)) == 1
