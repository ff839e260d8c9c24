"""Plug-ins: a Python file registers losses, families, objectives and data, and --plugin FILE imports the file.

    from gan_engine import plugins
    from gan_engine.losses.adversarial import Adversarial

    plugins.register_loss("my_loss", Adversarial(generator=..., discriminator=..., paper="..."))

Every function raises PluginError for a part that does not fit, before any training. docs/examples/plugin.py is an
example.
"""

import argparse
import dataclasses
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from gan_engine import config as configuration
from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import sources
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.kinds import KINDS, kind_of
from gan_engine.losses.adversarial import LOSSES, Adversarial
from gan_engine.losses.families import OBJECTIVES, REPLACED
from gan_engine.losses.objective import GanObjective
from gan_engine.metrics.measures import MEASURES
from gan_engine.presets import PRESETS
from gan_engine.system.outside import REGISTERED
from gan_engine.system.resolution import Resolution

# All tables that plug-ins add to. A plug-in that fails leaves them unchanged.
TABLES = (LOSSES, models.FAMILIES, PRESETS, REPLACED, sources.NAMED, sources.KIND_OF, REGISTERED)

_loading: list[str] = []  # the name of the plug-in that is being imported
_loaded: dict[str, str] = {}  # file or module -> the name of the plug-in


class PluginError(ValueError):
    """A plug-in that cannot be used. The message is one sentence for its author, or for the person who named it."""


def register_loss(name: str, loss: Adversarial) -> None:
    """Make `loss` a choice of --loss. Both sides are tried on three logits, and must give three values."""
    _refuse_taken(f"loss {name}", name in LOSSES)
    if not isinstance(loss, Adversarial):
        raise PluginError(f"the loss {name}: want an Adversarial, got {type(loss).__name__}")
    try_loss(name, loss, (3,))
    LOSSES[name] = loss
    _note_owner(f"loss {name}", loss.generator.__module__)


def register_family(module: Any, *presets: Callable[..., Config]) -> None:
    """Make presets, and with them a family, choices of gan_engine.train. The first preset has the name of the family.

    Args:
        module: has Config, Generator and Discriminator, like the modules in gan_engine.models. It may have FAMILY, a
            gan_engine.models.Family, which declares what the family can do. A plug-in that is such a module passes
            sys.modules[__name__].
        presets: functions with a docstring. Each returns a Config, whose `preset` is the name of the function.
    """
    for name in ("Config", "Generator", "Discriminator"):
        if not hasattr(module, name):
            raise PluginError(f"a family: want {name} in {getattr(module, '__name__', module)}, and there is none")
    if not (dataclasses.is_dataclass(module.Config) and module.Config.__dataclass_params__.frozen):
        raise PluginError(f"a family: want a frozen dataclass as its Config, got {module.Config!r}")
    _check_declaration(models.declared(module))
    if not presets:
        raise PluginError("a family: want at least one preset, got none")
    family = presets[0].__name__
    _refuse_taken(f"family {family}", family in models.FAMILIES)
    for preset in presets:
        _refuse_taken(f"preset {preset.__name__}", preset.__name__ in PRESETS)
    models.FAMILIES[family] = module
    configuration.declare()
    try:
        for preset in presets:
            _check_preset(preset, module)
    except BaseException:
        del models.FAMILIES[family]
        configuration.declare()
        raise
    PRESETS.update({preset.__name__: preset for preset in presets})
    _note_owner(f"family {family}", presets[0].__module__)


def register_objective(family: str, objective: type[GanObjective]) -> None:
    """Train `family` with this subclass of GanObjective instead of GanObjective."""
    if family not in models.FAMILIES:
        raise PluginError(f"an objective: want a family, one of {', '.join(models.FAMILIES)}, got {family}")
    declared = models.declared(models.FAMILIES[family]).objective
    _refuse_taken(f"objective {family}", family in REPLACED or OBJECTIVES[declared] is not GanObjective)
    if not (isinstance(objective, type) and issubclass(objective, GanObjective)):
        raise PluginError(f"the objective of {family}: want a subclass of GanObjective, got {objective!r}")
    REPLACED[family] = objective
    _note_owner(f"objective {family}", objective.__module__)


def register_data(name: str, loader: Callable[..., ImageSet], *, kind: str = "image") -> None:
    """Make `name` a choice of --data, which loader(root, resolution=R, channels=C) reads.

    Args:
        loader: returns an ImageSet of uint8 [N, C, H, W]. R is the side of squares, or (H, W). `channels` None lets the
            data decide. `root` is --data-root. Each command that reads the data of a run calls it, and wants equal
            images. `random` and `numpy.random` begin with --seed in it; another generator needs a seed of its own.
        kind: the kind of the data, a name in gan_engine.data.kinds.KINDS.
    """
    _refuse_taken(f"data {name}", name in sources.NAMED or name == "toy")
    if kind not in sources.READERS:
        raise PluginError(f"the data {name}: want a kind, one of {', '.join(sources.READERS)}, got {kind!r}")

    def load(root: Path, *, resolution: Resolution, channels: int | None) -> ImageSet:
        try:
            data = loader(root, resolution=resolution, channels=channels)
        except Exception as error:
            raise DataError(f"data: {name}, of a plug-in, failed: {_in_one_line(error)}") from error
        if not isinstance(data, ImageSet):
            raise DataError(f"data: want an ImageSet from {name}, of a plug-in, got {type(data).__name__}")
        shape = list(data.images.shape)
        want = [len(data), channels or shape[1], *KINDS[kind].sides(resolution)]
        if shape != want:
            raise DataError(f"data: want images {want} from {name}, of a plug-in, got {shape}")
        if data.bits != 8:
            raise DataError(f"data: want images of 8 bits from {name}, of a plug-in, got {data.images.dtype}")
        return data

    sources.NAMED[name], sources.KIND_OF[name] = load, kind
    _note_owner(f"data {name}", loader.__module__)


def load(*names: str) -> None:
    """Import plug-ins: Python files, or modules that Python finds. A plug-in is imported once only."""
    for name in names:
        is_file = name.endswith(".py") or os.sep in name or Path(name).is_file()
        key = os.path.realpath(name) if is_file else name
        if key in _loaded:
            continue
        before = [dict(table) for table in TABLES]
        _loading.append(name)
        try:
            _import(name, key, is_file)
            if name not in REGISTERED.values():
                raise PluginError(f"it registers nothing; want a call of gan_engine.plugins.register_..., got {name}")
        except BaseException as error:
            for table, old in zip(TABLES, before, strict=True):
                table.clear()
                table.update(old)
            configuration.declare()
            if isinstance(error, PluginError):
                raise PluginError(f"plugin {name}: {error}") from error.__cause__
            if isinstance(error, Exception | SystemExit):
                place = _place_of(error, key if is_file else None)
                raise PluginError(
                    f"plugin {name}: it failed when it was imported: {_in_one_line(error)}{place}"
                ) from error
            raise
        finally:
            _loading.pop()
        _loaded[key] = name


def from_arguments(argv: Sequence[str]) -> list[str]:
    """Import the plug-ins that --plugin names, and return the command line without --plugin, so the preset is first."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plugin", action="append", nargs="?", const="", default=[])
    asked, rest = parser.parse_known_args(list(argv))
    if "" in asked.plugin:
        raise PluginError("plugin: want a Python file or a module, got nothing")
    load(*asked.plugin)
    return rest


def try_loss(name: str, loss: Adversarial, shape: tuple[int, ...]) -> None:
    """Raises PluginError unless both sides give a finite value with a gradient for each logit."""
    logits = torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)
    for side, reads in (("generator", loss.generator_reads_real), ("discriminator", True)):
        fake, real = (x.clone().requires_grad_() for x in (logits, logits.flip(0)))
        side_of_loss = f"the {side} of the loss {name}, on logits {list(shape)}"
        try:
            values = getattr(loss, side)(fake, real if reads else None)
        except Exception as error:
            hint = "" if reads else " (real is None, unless generator_reads_real)"
            raise PluginError(f"{side_of_loss}: {_in_one_line(error)}{hint}") from error
        got = list(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        if got != list(shape):
            raise PluginError(f"{side_of_loss}: want {list(shape)}, a value for each logit, got {got}")
        if not (values.requires_grad and values.isfinite().all()):
            raise PluginError(f"{side_of_loss}: want finite values with a gradient, got {values}")


def admitted(config: Config) -> Config:
    """`config` with the names of its plug-ins and of their parts, for checkpoints.

    A loss is tried on logits of patches, if D gives such logits.
    """
    parts = configuration.plugin_parts(config)
    if f"loss {config.loss}" in parts and not models.capabilities(config.model).from_noise:
        try_loss(config.loss, LOSSES[config.loss], (3, 2))
    return dataclasses.replace(config, outside=parts, plugin=tuple(dict.fromkeys(REGISTERED[part] for part in parts)))


@torch.no_grad()
def try_networks(config: Config, G: torch.nn.Module, D: torch.nn.Module) -> None:
    """Raises PluginError if G or D of a plug-in's family gives a wrong shape, tried in eval mode."""
    family, model = models.family(config.model), config.model
    if f"family {family}" not in REGISTERED:
        return
    if getattr(G, "config", None) != model:
        raise PluginError(f"the Generator of {family}: want the Config that it was made of as its attribute config")
    p = next(G.parameters())
    c = torch.eye(model.c_dim, device=p.device)[[0, 0]] if model.c_dim else None
    sides = kind_of(models.data_kind(model)).sides(model.resolution)
    img = torch.zeros(2, model.channels, *sides, device=p.device)
    z = torch.zeros(2, model.z_dim, device=p.device)
    tried = ("Generator", G, z, list(img.shape)), ("Discriminator", D, img, [2])
    for name, network, x, want in tried:
        training = network.training
        try:
            with torch.random.fork_rng():  # so that a run is the same with and without the trial
                y = network.eval()(x, c)
        except Exception as error:
            raise PluginError(f"the {name} of {family} failed on {list(x.shape)}: {_in_one_line(error)}") from error
        finally:
            network.train(training)
        got = list(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
        if got != want:
            raise PluginError(f"the {name} of {family}: want {want} of {list(x.shape)}, got {got}")


def _refuse_taken(part: str, taken: bool) -> None:
    if taken:
        owner = REGISTERED.get(part, "gan_engine")
        raise PluginError(f"the {part} is there already, of {owner}; want another name")


def _note_owner(part: str, module: str) -> None:
    """Note the owner of `part`: the plug-in that is being imported, else the module."""
    file = getattr(sys.modules.get(module), "__file__", None) if module == "__main__" else None
    REGISTERED[part] = _loading[-1] if _loading else file or module
    configuration.declare()


def _check_declaration(declared: Any) -> None:
    if not isinstance(declared, models.Family):
        raise PluginError(f"a family: want a gan_engine.models.Family as its FAMILY, got {declared!r}")
    if not declared.from_noise:
        raise PluginError(
            f"a family: want command='generate' in its FAMILY, which gives G noise, got {declared.command!r}"
        )
    if declared.objective not in OBJECTIVES:
        names = ", ".join(OBJECTIVES)
        raise PluginError(f"a family: want an objective in its FAMILY, one of {names}, got {declared.objective!r}")
    if declared.measure is not None and declared.measure not in MEASURES:
        names = ", ".join(MEASURES)
        raise PluginError(f"a family: want a measure in its FAMILY, one of {names} or None, got {declared.measure!r}")


def _check_preset(preset: Callable[..., Config], module: Any) -> None:
    name = f"the preset {preset.__name__}"
    if not (preset.__doc__ or "").strip():
        raise PluginError(f"{name}: want a docstring, which --list and --help show, and there is none")
    config = preset()
    if not isinstance(config, Config) or not isinstance(config.model, module.Config):
        raise PluginError(f"{name}: want a gan_engine.config.Config with a model of its family, got {config!r}")
    if config.preset != preset.__name__:
        raise PluginError(f"{name}: want preset={preset.__name__!r} in its Config, got {config.preset!r}")
    missing = [field for field in ("resolution", "channels", "z_dim", "c_dim") if not hasattr(config.model, field)]
    if missing:
        raise PluginError(f"{name}: want {', '.join(missing)} in the Config of its family, and there is none")
    kinds = [kind for kind, row in KINDS.items() if not row.has_source]
    if (kind := models.data_kind(config.model)) not in kinds:
        raise PluginError(f"{name}: want a family of {', '.join(kinds)}, which have no source, got data_kind {kind!r}")


def _import(name: str, key: str, is_file: bool) -> None:
    if not is_file:
        if not _is_module(name):
            raise PluginError("want a Python file, which ends in .py, or a module that Python finds; there is none")
        importlib.import_module(name)
        return
    if not Path(key).is_file():
        raise PluginError("want a Python file or a module, and there is no such file")
    # The module gets a name that no other module has: a file called random.py must not replace Python's module.
    module_name = f"gan_engine_plugin_{len(_loaded)}_{Path(key).stem}"
    spec = importlib.util.spec_from_file_location(module_name, key)
    if spec is None or spec.loader is None:
        raise PluginError("want a Python file, which ends in .py, or a module that Python finds")
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # there is not even a package of the name before its last point
        return False


def _in_one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _place_of(error: BaseException, file: str | None) -> str:
    """The place that raised the error, if possible in the plug-in's file."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    frames = [f for f in frames if f.filename == file] or frames
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames and not isinstance(error, SyntaxError) else ""
