"""The families. Each module has a Config, a Generator and a Discriminator:

G(z [N, z_dim], c=None) -> img [N, C, H, W] in [-1, 1], in stylegan2, r3gan and lapgan a little beyond
D(img, c=None) -> logits [N], higher is more real

Those in TRANSLATION make images of images: G(source [N, C', H', W']) -> img [N, C, H, W], and D gives logits [N, P],
one for each of P patches of an image.

`data_kind` of a configuration is what the family trains on, as in data.load: images where there is none. For "voxels"
img is a volume [N, 1, R, R, R], and `picture` of the module makes images of it for people to look at.
"""

import dataclasses
import textwrap
from types import ModuleType
from typing import Annotated, Any

import tyro
from torch import Tensor, nn

from gan_engine.models import (
    cgan,
    cyclegan,
    dcgan,
    gan3d,
    lapgan,
    pix2pix,
    r3gan,
    sngan,
    srgan,
    stylegan2,
    upsample_gan,
    vanilla,
)

FAMILIES: dict[str, ModuleType] = {
    "vanilla": vanilla,
    "dcgan": dcgan,
    "upsample_gan": upsample_gan,
    "stylegan2": stylegan2,
    "r3gan": r3gan,
    "cgan": cgan,
    "sngan": sngan,
    "lapgan": lapgan,
    "pix2pix": pix2pix,
    "cyclegan": cyclegan,
    "srgan": srgan,
    "gan3d": gan3d,
}
TRANSLATION = (pix2pix.Config, cyclegan.Config, srgan.Config)

Config = (
    Annotated[vanilla.Config, tyro.conf.subcommand("vanilla")]
    | Annotated[dcgan.Config, tyro.conf.subcommand("dcgan")]
    | Annotated[upsample_gan.Config, tyro.conf.subcommand("upsample_gan")]
    | Annotated[stylegan2.Config, tyro.conf.subcommand("stylegan2")]
    | Annotated[r3gan.Config, tyro.conf.subcommand("r3gan")]
    | Annotated[cgan.Config, tyro.conf.subcommand("cgan")]
    | Annotated[sngan.Config, tyro.conf.subcommand("sngan")]
    | Annotated[lapgan.Config, tyro.conf.subcommand("lapgan")]
    | Annotated[pix2pix.Config, tyro.conf.subcommand("pix2pix")]
    | Annotated[cyclegan.Config, tyro.conf.subcommand("cyclegan")]
    | Annotated[srgan.Config, tyro.conf.subcommand("srgan")]
    | Annotated[gan3d.Config, tyro.conf.subcommand("gan3d")]
)


def family(config: Config) -> str:
    """The name of the family that `config` belongs to."""
    return next(name for name, module in FAMILIES.items() if isinstance(config, module.Config))


def data_kind(config: Config) -> str:
    """The kind of data that `config` trains on, as in data.load."""
    return getattr(config, "data_kind", "image")


def pictures(config: Config, img: Tensor) -> Tensor:
    """img of a generator of `config` as images [N, C, H, W] in [-1, 1]: what they are but for families of volumes."""
    picture = getattr(FAMILIES[family(config)], "picture", None)
    return img if picture is None else picture(img)


def build(config: Config) -> tuple[nn.Module, nn.Module]:
    """G and D of the sizes in `config`, freshly initialised from torch's global random state."""
    module = FAMILIES[family(config)]
    return module.Generator(config), module.Discriminator(config)


def to_dict(config: Config) -> dict[str, Any]:
    """`config` and its family in plain types, as a checkpoint holds them."""
    return {"family": family(config), **dataclasses.asdict(config)}


def from_dict(values: dict[str, Any]) -> Config:
    """The inverse of `to_dict`. Raises ValueError or TypeError for what is none."""
    if not isinstance(values, dict):
        raise TypeError(f"model: want a dict, got {type(values).__name__}")
    values = dict(values)
    name = values.pop("family", None)
    if not isinstance(name, str) or name not in FAMILIES:
        raise ValueError(f"model family: want one of {', '.join(FAMILIES)}, got {textwrap.shorten(repr(name), 60)}")
    return FAMILIES[name].Config(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
