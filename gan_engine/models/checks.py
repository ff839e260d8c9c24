"""Checks of configurations. Each raises ValueError that names the field, the wanted value and the value that came."""

import dataclasses
import functools
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from gan_engine.models.doublings import check_doublings
from gan_engine.system import fields
from gan_engine.system.pixels import MOST_CHANNELS
from gan_engine.system.resolution import height_width, named, written

# Types of fields that most families have. `train` takes the channels of the data, unless the command line names them.
Resolution = Annotated[int, fields.arg(aliases=["--res"]), fields.resolution_arg("INT")]
Sides = Annotated[int | tuple[int, int], fields.arg(aliases=["--res"]), fields.resolution_arg("INT|HEIGHTxWIDTH")]
Channels = Annotated[
    int,
    fields.arg(
        help="1 for grey images, 3 for colour, 4 for colour and transparency, and up to 64 for arrays of bands.",
        help_behavior_hint="(default: as the data are)",
    ),
]
NoiseSize = Annotated[int, fields.arg(help="Dimensions of the noise z.")]


def check_sizes(config: Any, low: int, high: int, *at_least_1: str) -> None:
    """Check the types, a resolution as `check_doublings` wants it, the channels, and fields from 1 on."""
    check_types(config)
    check_doublings(config.resolution, low, high)
    check_channels(config)
    check_at_least(config, 1, *at_least_1)


def check_multiples(config: Any, step: int, low: int, high: int | None = None) -> None:
    """Every side must be a multiple of `step`, at least `low` and at most `high`."""
    sides = height_width(config.resolution)
    if min(sides) < low or max(sides) > (high or max(sides)) or any(side % step for side in sides):
        limits = f" from {low} to {high}" if high else f", at least {low}"
        want = "a multiple" if isinstance(config.resolution, int) else "two multiples"
        raise ValueError(f"resolution: want {want} of {step}{limits}, got {written(config.resolution)}")


def check_channels(config: Any) -> None:
    """Images are grey, in colour, in colour with transparency, or have bands of any kind."""
    if not 1 <= config.channels <= MOST_CHANNELS:
        raise ValueError(f"channels: want 1 to {MOST_CHANNELS}, got {config.channels}")


def check_opaque(config: Any) -> None:
    """Images are grey or in colour."""
    if config.channels not in (1, 3):
        raise ValueError(f"channels: want 1 or 3, got {config.channels}")


def check_at_least(config: Any, least: float, *names: str) -> None:
    """The fields `names` must be numbers of at least `least`."""
    for name in names:
        value = getattr(config, name)
        if not value >= least:  # NaN is refused too
            raise ValueError(f"{name}: want at least {least}, got {value}")


def check_widths(config: Any, name: str) -> None:
    """The field `name` must be a tuple of at least one width, each at least 1."""
    widths = getattr(config, name)
    if not widths or min(widths) < 1:
        raise ValueError(f"{name}: want at least one width, each at least 1, got {widths}")


def check_choice(config: Any, **choices: Any) -> None:
    """Fields must be among the values of their Literal."""
    for name, literal in choices.items():
        if getattr(config, name) not in get_args(literal):
            raise ValueError(f"{name}: want one of {', '.join(get_args(literal))}, got {getattr(config, name)!r}")


LARGEST = 2**20  # limit of all sizes; no network is wider or deeper


def check_types(config: Any, *, largest: float | Mapping[str, float] = LARGEST) -> None:
    """Every field must have its declared type, and every number must be finite and at most `largest`.

    `largest` is one limit for all fields, or a limit for each field that it names.

    Values from a file or another program may be of any type. The checks that follow compute with them.
    """
    for name, hint in hints(type(config)).items():
        if name == "resolution":
            _check_shape(config.resolution, hint)
        most = largest.get(name, math.inf) if isinstance(largest, Mapping) else largest
        _check_type(name, getattr(config, name), hint, most)


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """The types of the fields of a dataclass, without their marks."""
    types = get_type_hints(cls)
    return {field.name: types[field.name] for field in dataclasses.fields(cls)}


def _check_type(name: str, value: Any, hint: Any, largest: float) -> None:
    kinds = (hint,) if get_origin(hint) not in (Union, UnionType) else get_args(hint)
    if not any(_is(value, kind) for kind in kinds):
        words = " or ".join(dict.fromkeys(map(_word, kinds)))
        raise ValueError(f"{name}: want {words}, got {textwrap.shorten(repr(value), 60)}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"{name}: want a finite number, got {number}")
        if isinstance(number, int | float) and abs(number) > largest:
            raise ValueError(f"{name}: want at most {largest:,.10g}, got {_short(number)}")


def _check_shape(resolution: Any, hint: Any) -> None:
    """Refuse sides that differ in a family of squares and cubes, and a pair of sides that do not differ."""
    if not _is(resolution, tuple[int, int]):
        return
    if hint is int:
        raise ValueError(f"resolution: want one number for this family, whose sides are equal, got {named(resolution)}")
    if resolution[0] == resolution[1]:
        raise ValueError(f"resolution: want {resolution[0]} for a square, got {resolution}")


def _short(number: float) -> str:
    try:
        return f"{number:.6g}"
    except OverflowError:
        return f"a number of {number.bit_length()} bits"


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return type(value) in set(map(type, get_args(kind)))  # another check looks at the value
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        inner = inner[:1] * len(value) if isinstance(value, tuple) and inner[-1] is ... else inner
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_is, value, inner))
    if kind in _EXACT:  # no subclasses: True is not a number, and checkpoints hold no numbers of numpy
        return type(value) in _EXACT[kind]
    return isinstance(value, kind)


_EXACT = {int: (int,), float: (int, float), bool: (bool,), str: (str,), Path: (str, *{type(Path()), Path})}
_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text", Path: "a path"}


def _word(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        what = "numbers" if inner[0] in (int, float) else "texts"
        return f"a tuple of {what}" if inner[-1] is ... else f"a tuple of {len(inner)} {what}"
    return _WORDS.get(kind) or ("None" if kind is NoneType else getattr(kind, "__name__", str(kind)))
