"""The recipes of CONTRIBUTING.md, done once: what each adds to which file. A file without an anchor is new."""

from typing import NamedTuple


class Edit(NamedTuple):
    """`text` becomes the file `path`, or stands behind the line `anchor` of it."""

    path: str
    text: str
    anchor: str | None = None


DRAWER = '''
"""Drawings of one hidden layer."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from gan_engine.models.declaration import Family

FAMILY = Family(augmentation=False, measure="darkness")


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks."""

    resolution: int = 8
    """Side of the drawings."""
    z_dim: int = 4
    """Dimensions of the noise."""
    channels: int = 1
    """1: drawings are grey."""
    c_dim: ClassVar[int] = 0
    data_kind: ClassVar[str] = "drawings"


class Generator(nn.Module):
    """(z [N, z_dim], c=None) -> img [N, 1, R, R]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Linear(config.z_dim, config.resolution**2), nn.Tanh())

    def forward(self, z: Tensor, c: None = None) -> Tensor:
        return self.layers(z).unflatten(1, (1, self.config.resolution, self.config.resolution))


class Discriminator(nn.Module):
    """(img [N, 1, R, R], c=None) -> logits [N]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.logit = nn.Linear(config.resolution**2, 1)

    def forward(self, img: Tensor, c: None = None) -> Tensor:
        return self.logit(img.flatten(1)).squeeze(1)
'''
PRESET = '''
@_preset()
def drawer() -> Config:
    """Drawings, 8x8."""
    return Config(preset="drawer", model=models.drawer.Config(), batch_size=4, kimg=0.008)

'''
DRAWINGS = '''
"""Drawings in text files: a line for each row of pixels, # for ink; one drawing behind the other."""

from pathlib import Path

import torch

from gan_engine.data.image_set import ImageSet


def load_drawings(path: Path, *, resolution: int, channels: int | None) -> ImageSet:
    """uint8 [N, 1, R, R]"""
    rows = [[255 * (dot == "#") for dot in line] for line in path.read_text().splitlines()]
    return ImageSet(path.name, torch.tensor(rows, dtype=torch.uint8).view(-1, 1, resolution, resolution))
'''
DARKNESS = '''
"""How much of an image is dark."""

from gan_engine.metrics.subject import Subject


def measure(subject: Subject) -> dict[str, float]:
    """The share of pixels below 0, of generated images and of the data"""
    shares = [float((img < 0).double().mean()) for img in subject.draw()]
    return {"dark": sum(shares) / len(shares), "dark of the data": float((subject.data.images < 128).double().mean())}
'''
COMMAND = '''
"""python -m gan_engine.count RUN: print the parameters of the generator."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from gan_engine.command_line import console, flags
from gan_engine.inference import generator


@dataclass(frozen=True)
class Options:
    """Print how many parameters the generator of a run has."""

    run: tyro.conf.Positional[Path]
    """Directory of the run."""


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    options = flags.parse(Options, argv, command="count")
    print(sum(p.numel() for p in generator.load(options.run).network.parameters()))


if __name__ == "__main__":
    sys.exit(main())
'''
CHI_SQUARED = """
    "chi_squared": Adversarial(
        generator=lambda fake, real: fake.square() / 2,
        discriminator=lambda fake, real: ((fake + 1).square() + (real - 1).square()) / 2,
        paper="Mao et al. 2017, arXiv:1611.04076, equation 8",
    ),
"""
CLOSED_FORM = """
    "chi_squared": Game(
        lambda f, r: 0.5 * f**2, lambda f, r: 0.5 * (r - 1) ** 2 + 0.5 * (f + 1) ** 2, fake=-1, real=1, drawn=0
    ),
"""

ABSOLUTE = """

@rule("abs")
def absolute(function, x):
    return x * x.value.sign()
"""

# {the heading in CONTRIBUTING.md: what the recipe adds}
RECIPES: dict[str, list[Edit]] = {
    "Add a loss": [
        Edit("gan_engine/losses/adversarial.py", CHI_SQUARED, "LOSSES: dict[str, Adversarial] = {"),
        Edit("tests/losses/test_adversarial.py", CLOSED_FORM, "CLOSED_FORMS = {"),
    ],
    "Add a family": [
        Edit("gan_engine/models/drawer.py", DRAWER),
        Edit("gan_engine/models/__init__.py", '        "drawer",', "    for name in ("),
        Edit("gan_engine/presets.py", PRESET, "def parameters("),
    ],
    "Add a kind of data": [
        Edit("gan_engine/data/kinds.py", '    "drawings": Kind(contents="drawings"),', "KINDS: dict[str, Kind] = {"),
        Edit("gan_engine/data/drawings.py", DRAWINGS),
        Edit("gan_engine/data/sources.py", '    "drawings": {".txt": drawings.load_drawings},', "READERS: dict["),
        Edit("gan_engine/data/sources.py", "from gan_engine.data import drawings", "from pathlib import Path"),
    ],
    "Add a metric": [
        Edit("gan_engine/metrics/darkness.py", DARKNESS),
        Edit("gan_engine/metrics/measures.py", '    "darkness": Measure(darkness.measure),', "MEASURES: dict["),
        Edit("gan_engine/metrics/measures.py", "from gan_engine.metrics import darkness", "from typing import"),
    ],
    "Add a penalty rule": [
        Edit("gan_engine/losses/level2/activations.py", ABSOLUTE, "from gan_engine.ops.kernel_op import"),
    ],
    "Add a command": [
        Edit("gan_engine/count.py", COMMAND),
        Edit("gan_engine/__main__.py", '    "count": "count the parameters of a generator",', "COMMANDS = {"),
    ],
}
