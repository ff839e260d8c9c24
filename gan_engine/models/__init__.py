"""The families. The module of a family has Config, Generator, Discriminator, and FAMILY, which declares its abilities.

G(z [N, z_dim], c=None) -> img [N, C, H, W] in [-1, 1]; stylegan2 and 3, r3gan and lapgan may go a little beyond
D(img, c=None) -> logits [N], higher is more real

A family that makes images of images has G(source [N, C', H', W']) -> img [N, C, H, W]. Its D gives logits [N, P], one
for each of P patches of an image. `models.declaration.Family` lists what a family can declare.

`Config.data_kind` names the kind of data that the family trains on, a row of gan_engine.data.kinds. A Config without it
trains on "image". The img of "voxels" is a volume [N, 1, R, R, R]. The img of "points" is [N, 2], in units of its own.
"""

import dataclasses
import functools
import importlib
import operator
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from gan_engine.models.declaration import Family

# All families, in the order of lists and messages. Plug-ins add theirs.
FAMILIES: dict[str, ModuleType] = {
    name: importlib.import_module(f"gan_engine.models.{name}")
    for name in (
        *("vanilla", "dcgan", "upsample_gan", "stylegan2", "stylegan3", "r3gan", "cgan", "sngan", "lapgan"),
        *("pix2pix", "cyclegan", "srgan", "gan3d", "points"),
    )
}


def config_type() -> Any:
    """The union of the Configs of all families."""
    return functools.reduce(operator.or_, (module.Config for module in FAMILIES.values()))


Config = config_type()


def family(config: Config) -> str:
    """The name of the family that `config` belongs to."""
    return next(name for name, module in FAMILIES.items() if isinstance(config, module.Config))


def capabilities(config: Config) -> Family:
    """The declaration of the family of `config`."""
    return declared(FAMILIES[family(config)])


def declared(module: ModuleType) -> Family:
    """The declaration in the module of a family. A plug-in may have none; its Generator and `picture` then decide."""
    found = getattr(module, "FAMILY", None)
    if found is None:
        return Family(styles=hasattr(module.Generator, "ws"), picture=getattr(module, "picture", None))
    return found


def names(which: Callable[[Family], bool]) -> list[str]:
    """The families whose declaration `which` accepts."""
    return [name for name, module in FAMILIES.items() if which(declared(module))]


def data_kind(config: Config) -> str:
    """The kind of data that `config` trains on: a name in gan_engine.data.kinds.KINDS."""
    return getattr(config, "data_kind", "image")


def reads_classes(config: Config) -> bool:
    """True if the networks of `config` can read classes: c_dim is then a field of `config`."""
    return any(field.name == "c_dim" for field in dataclasses.fields(config))


def pictures(config: Config, img: Tensor) -> Tensor:
    """Turn the results of a generator of `config` into images [N, C, H, W] in [-1, 1] for people to look at."""
    picture = capabilities(config).picture
    return img if picture is None else picture(img)


def build(config: Config) -> tuple[nn.Module, nn.Module]:
    """G and D of the sizes in `config`, freshly initialised from torch's global random state."""
    module = FAMILIES[family(config)]
    return module.Generator(config), module.Discriminator(config)


def to_dict(config: Config) -> dict[str, Any]:
    """`config` and its family as a dict of numbers and text, as a checkpoint holds it."""
    return {"family": family(config), **dataclasses.asdict(config)}


def from_dict(values: dict[str, Any]) -> Config:
    """The inverse of `to_dict`. Raises ValueError or TypeError for anything that `to_dict` does not return."""
    if not isinstance(values, dict):
        raise TypeError(f"model: want a dict, got {type(values).__name__}")
    values = dict(values)
    name = values.pop("family", None)
    if not isinstance(name, str) or name not in FAMILIES:
        raise ValueError(f"model family: want one of {', '.join(FAMILIES)}, got {textwrap.shorten(repr(name), 60)}")
    return FAMILIES[name].Config(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
