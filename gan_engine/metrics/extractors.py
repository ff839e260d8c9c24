"""The networks in whose features images are compared, by name. An extractor is built for one shape of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from gan_engine.data import to_float
from gan_engine.metrics import classifier
from gan_engine.metrics.imagenet import Photographs
from gan_engine.metrics.inception import Inception
from gan_engine.metrics.perceptual import on_white
from gan_engine.system.names import nearest

Shape = tuple[int, int, int]
AUTO = "auto"


class Extractor(Protocol):
    """A network that turns images into features.

    Attributes:
        name: as the names of numbers have it.
        about: one line: the network, its weights, the size of features, how images are resized and rounded. Features
            of one set are kept on the disk under this line and the weights, so two extractors that do other things with
            the same weights must differ in it.
    """

    name: str
    about: str

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N, C, H, W] -> features [N, d], logits [N, K] of classes, on the device of `images`"""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All weights by name, as of an nn.Module."""
        ...


class Garments(nn.Module):
    """The classifier of the embedded garments: images uint8 [N, 1, 32, 32] -> features [N, 64], logits [N, 10]"""

    name = classifier.NAME
    about = "the classifier of garments that ships, 64 features of grey 32x32 images of 8 bits, not resized"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if tuple(shape) != (1, 32, 32):
            channels, height, width = shape
            raise ValueError(f"{self.name}: want 32x32 grey images, got {height}x{width} with {channels} channels")
        self.network = classifier.load_classifier()

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(to_float(images))


class OnWhite(nn.Module):
    """An extractor of RGB images that takes RGBA: uint8 [N, 4, H, W] are blended with white, and rounded."""

    def __init__(self, network: Extractor) -> None:
        super().__init__()
        self.network, self.name = network, network.name
        self.about = f"{network.about}, transparency blended with white"

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(((on_white(to_float(images)) + 1) * 127.5).round().byte())


# Each is built of the shape [C, H, W] of an image and of the file that --weights names, or None.
EXTRACTORS: dict[str, Callable[[Shape, Path | None], nn.Module]] = {
    "fashion32": lambda shape, weights: Garments(shape),
    "imagenet": lambda shape, weights: Photographs(shape),
    "inception": Inception,
}
_READS_WEIGHTS = ("inception",)


def build(name: str, shape: Shape, *, weights: Path | None, device: torch.device) -> Extractor:
    """The extractor of that name, on `device`. "auto" is fashion32 for grey images of 32x32, else imagenet.

    Raises ValueError for an unknown name, for images that the extractor does not take, and for missing weights.
    """
    if name == AUTO:
        name = "fashion32" if tuple(shape) == (1, 32, 32) else "imagenet"
    if name not in EXTRACTORS:
        raise ValueError(f"extractor: want {AUTO} or {', '.join(EXTRACTORS)}, got {name!r}{nearest(name, EXTRACTORS)}")
    if weights is not None and name not in _READS_WEIGHTS:
        raise ValueError(f"weights: want them for --extractor {' or '.join(_READS_WEIGHTS)} alone, got {name}")
    channels, *sides = shape
    network = EXTRACTORS[name]((3 if channels == 4 else channels, *sides), weights)
    return (OnWhite(network) if channels == 4 else network).to(device).eval()
