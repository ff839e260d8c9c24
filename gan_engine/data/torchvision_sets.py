"""Data sets that torchvision knows by name. They are read from `root`, or downloaded into it if there is a network."""

import socket
from functools import partial
from pathlib import Path

from gan_engine.data import cache
from gan_engine.data.arrays import labelled, pad_digits
from gan_engine.data.folders import load_folder
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.system.resolution import Resolution

# Seconds without an answer from the server. A network that drops packets would block forever without this limit.
DOWNLOAD_TIMEOUT = 30.0


def load_digits(
    name: str, torchvision_name: str, root: Path, *, resolution: Resolution, channels: int | None
) -> ImageSet:
    """The 60,000 training images, 28x28 grey, of a data set in MNIST's format."""
    files = [f"{split}-{part}-ubyte" for split in ("train", "t10k") for part in ("images-idx3", "labels-idx1")]
    by_hand = f"put the unpacked files {', '.join(files)} into {root / torchvision_name / 'raw'}"
    digits = _open(name, torchvision_name, root, by_hand)
    images = pad_digits(digits.data.numpy(), resolution)
    return labelled(name, images, digits.targets.numpy(), digits.classes, resolution=resolution, channels=channels)


def load_cifar10(root: Path, *, resolution: Resolution, channels: int | None) -> ImageSet:
    """The 50,000 training images of CIFAR-10, 32x32 RGB."""
    cifar = _open("cifar10", "CIFAR10", root, f"put the unpacked folder cifar-10-batches-py into {root}")
    return labelled("cifar10", cifar.data, cifar.targets, cifar.classes, resolution=resolution, channels=channels)


def load_celeba(root: Path, *, resolution: Resolution, channels: int | None) -> ImageSet:
    """The 202,599 aligned faces of CelebA, 178x218 RGB, cut to their centre 178x178. CelebA has no classes."""
    folder = root / "celeba" / "img_align_celeba"
    if not folder.is_dir():
        _open("celeba", "CelebA", root, f"put the unpacked folder img_align_celeba into {folder.parent}")
    sizes = {"resolution": resolution, "channels": channels}
    faces = cache.load_or_decode(folder, lambda: load_folder(folder, **sizes, labelled=False), kind="image", **sizes)
    return ImageSet("celeba", faces.images, skipped=faces.skipped, notes=faces.notes)


def _open(name: str, torchvision_name: str, root: Path, by_hand: str):
    try:
        from gan_engine.data.torchvision_shim import datasets  # not at the top: this import takes two seconds
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision was built for another PyTorch
        reason = f"want torchvision, got an import error ({str(error).splitlines()[0]})"
        raise DataError(f'{name}: {reason}: pip install "gan-engine[data]"') from error
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        return getattr(datasets, torchvision_name)(root, download=True)
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise DataError(f"{name} is not in {root} and cannot be downloaded ({reason}); {by_hand}") from error
    finally:
        socket.setdefaulttimeout(timeout)


LOADERS = {
    "fashion-mnist-full": partial(load_digits, "fashion-mnist-full", "FashionMNIST"),
    "mnist": partial(load_digits, "mnist", "MNIST"),
    "cifar10": load_cifar10,
    "celeba": load_celeba,
}
