"""The formats that are read and written: tables, and the way between files and checkpoints."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from gan_engine import models
from gan_engine.pictures import targets
from gan_engine.runs import run_state
from gan_engine.system import checkpoint, outside
from gan_engine.system.checkpoint import CheckpointError
from gan_engine.system.names import listed
from gan_engine.system.whole_file import buffered, replacing
from gan_engine.weights import (
    cyclegan,
    esrgan,
    patchgan,
    pix2pix,
    rosinality,
    safe_reader,
    stylegan2_ada,
    stylegan2_tf,
    stylegan3,
)
from gan_engine.weights.layout import LayoutError, Weights

# Modules with NAME, ABOUT, NOT_SLIM, `fits` and `convert`, in the order in which a file is tried; and those with
# `export`. NOT_SLIM are the networks that a slim conversion does not read.
READ: tuple[ModuleType, ...] = (stylegan2_ada, stylegan2_tf, stylegan3, rosinality, esrgan, cyclegan, pix2pix)
WRITTEN: dict[str, ModuleType] = {"rosinality": rosinality, "esrgan": esrgan, "cyclegan": cyclegan}
FAMILIES = {"rosinality": "stylegan2", "esrgan": "srgan", "cyclegan": "cyclegan"}  # of the networks that are written
NETWORKS = ("G", "D", "G_ema")
OURS = "gan_engine"


def _holds(text: str) -> Callable[[Any], bool]:
    """True for trees with the record of a class, or a name of a tensor, that begins with `text`."""

    def holds(tree: Any) -> bool:
        names = [record.name for record in safe_reader.parts(tree, safe_reader.Record)]
        names += [key for each in safe_reader.parts(tree, dict) for key in each if isinstance(key, str)]
        return any(name.startswith(text) for name in names)

    return holds


# Known files that are not read, and why.
NOT_HELD: dict[str, tuple[Callable[[Any], bool], str]] = {
    "TensorFlow": (_holds("dnnlib.tflib"), "want a pickle of three networks, G, D and Gs, of StyleGAN2"),
    "R3GAN": (
        lambda tree: any(_holds(text)(tree) for text in ("R3GAN", "BaselineGAN", "training.networks_baseline")),
        "our r3gan has its own choice of widths, groups and filters, which was not compared with the published one",
    ),
    "a PatchGAN alone": (
        lambda tree: isinstance(tree, dict) and "model.0.weight" in tree and "model.2.weight" in tree,
        "they have no generator; want the folder of CycleGAN or pix2pix, with all networks, or the file of a generator",
    ),
}


@dataclass(frozen=True)
class Networks:
    """Networks of one family, on their way from one file to another.

    Attributes:
        format: the name of the format that they were read from.
        config: their sizes.
        weights: the state_dict of G, D and G_ema, as far as the file has them.
        notes: sentences on what is not exactly as it was there.
        class_names: of a run of ours.
        bits: of the images of a run of ours.
    """

    format: str
    config: models.Config
    weights: dict[str, Weights]
    notes: tuple[str, ...] = ()
    class_names: list[str] = field(default_factory=list)
    bits: int = 8

    def slim(self) -> "Networks":
        """G_ema alone."""
        return replace(self, weights={"G_ema": self.weights["G_ema"]})


def read(path: Path, *, slim: bool = False, best: bool = False) -> Networks:
    """The networks in a file of any format, in a checkpoint of a run, or in a folder of files of networks.

    A run gives its newest intact checkpoint, or its `best` one; nothing else has a best one.

    Raises:
        CheckpointError: the file cannot be read, or names code; there is no best checkpoint.
        ValueError: its format is unknown, or our families cannot hold its networks. The message says what was found.
    """
    if best:
        return _from_checkpoint(checkpoint.find(path, best=True))
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    files = patchgan.files(path)
    if not files and (path.is_dir() or _is_ours(path)):
        return _from_checkpoint(checkpoint.find(path))
    tree = {name: safe_reader.read(file) for name, file in files.items()} or stylegan2_tf.by_name(
        safe_reader.read(path)
    )
    for format in READ:
        if format.fits(tree):
            if slim and isinstance(tree, dict):
                tree = {name: value for name, value in tree.items() if name not in format.NOT_SLIM}
            config, weights, notes = _converted(path, format, tree)
            read_from = (f"read {listed([file.name for file in files.values()])}",) if files else ()
            return Networks(format.NAME, config, weights, read_from + notes)
    for name, (fits, why) in NOT_HELD.items():
        if fits(tree) or fits(_names(tree)):
            raise ValueError(f"{path}: networks of {name} are not converted: {why}")
    known = "; ".join(format.ABOUT for format in READ)
    raise ValueError(f"{path}: want {known}; or a checkpoint of gan_engine; got {_found(tree)}")


def _converted(path: Path, format: ModuleType, tree: Any) -> tuple[models.Config, dict[str, Weights], tuple[str, ...]]:
    """What `format` makes of a tree. Raises ValueError if our families cannot hold it, or if it is damaged."""
    try:
        return format.convert(tree)
    except LayoutError as error:
        raise ValueError(f"{path}: {error}") from error
    # Any names, shapes and types may stand in a file that begins as one of the format.
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{path}: want the networks of {format.NAME}, got others or damaged ones: {what}") from error


def write(path: Path, networks: Networks, to: str) -> tuple[str, ...]:
    """Write `networks` to `path`: .pt or .pth, or .safetensors with one network. `to` cyclegan: a folder.

    The folder of `path` is made if it is missing. Returns sentences on what is not exactly as it was here.

    Raises:
        ValueError: another ending; `to` has no place for the networks; a folder has others. Nothing is written.
        CheckpointError, OSError: the file cannot be written.
    """
    if to == "cyclegan" and path.suffix:
        raise ValueError(f"out: want a name without an ending, of a folder for the files of cyclegan, got {path.name}")
    if to != "cyclegan" and path.suffix not in (".pt", ".pth", ".safetensors"):
        raise ValueError(f"out: want a name that ends in .pt, .pth or .safetensors, got {path.name}")
    as_safetensors = path.suffix == ".safetensors"
    if as_safetensors:
        checkpoint.safetensors()
    tree, notes = (networks.weights, ()) if to == OURS else _exported(networks, to)
    if to == "cyclegan":
        _to_folder(path, tree)
        return notes
    targets.prepare([], path.parent, overwrite=True)
    if as_safetensors:
        alone = next((name for name in ("G_ema", "g_ema") if name in tree), None)
        if left := [name for name in tree if alone and name != alone]:
            notes += (f"a .safetensors has {alone} alone, without {listed(left)}",)
        about = {checkpoint.METADATA: json.dumps(_about(networks))} if to == OURS else {}
        _to_safetensors(path, tree[alone] if alone else tree, about)
    elif to == OURS:
        checkpoint.save(path, _about(networks) | {"converted_from": networks.format} | tree)
    else:
        with buffered(path) as file:
            torch.save(tree, file)
    return notes


def _exported(networks: Networks, to: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`networks` in the layout `to`, and sentences. Raises ValueError if it has no place for them."""
    family, wanted = models.family(networks.config), FAMILIES[to]
    if family != wanted:
        raise ValueError(f"to: want networks of {wanted} for {to}, got those of {family}")
    try:
        return WRITTEN[to].export(networks.config, networks.weights)
    except LayoutError as error:
        raise ValueError(f"to: {error}") from error


def _to_folder(path: Path, tree: dict[str, Weights]) -> None:
    """Write a file for each network. A failure leaves the old files as they were, and no new folder.

    No file gets its name before the last one is written: the disk may be full after the first.
    """
    names = {patchgan.FILE.format(name) for name in tree}
    if others := sorted({file.name for file in path.glob(patchgan.FILE.format("*"))} - names):
        raise ValueError(f"out: want a folder without other networks, got {path} with {listed(others)}")
    is_new = not path.exists()
    targets.prepare([], path, overwrite=True)
    try:
        with contextlib.ExitStack() as until_all_are_written:
            for name, weights in tree.items():
                torch.save(weights, in_memory := io.BytesIO())
                content = in_memory.getbuffer()
                replacement = replacing(path / patchgan.FILE.format(name), size=len(content))
                until_all_are_written.enter_context(replacement).write_bytes(content)
    except BaseException:
        if is_new:
            shutil.rmtree(path)
        raise


def _about(networks: Networks) -> dict[str, Any]:
    model = models.to_dict(networks.config)
    return {"model": model, "class_names": networks.class_names, "bits": networks.bits}


def _is_ours(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 200))
            return b"gan_engine sha256 " in file.read()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _from_checkpoint(path: Path) -> Networks:
    state = checkpoint.load(path)
    checkpoint.require(state, ("model", "G_ema"), path)
    outside.require(state.get("config"), path)
    return _checked(state, path)


def _from_safetensors(path: Path) -> Networks:
    about, weights = checkpoint.read_safetensors(path)
    if about is not None:
        checkpoint.require(about, ("model",), path)
        return _checked(about | {"G_ema": weights}, path)
    if not esrgan.fits(weights):
        raise ValueError(f"{path}: want a .safetensors of gan_engine or of ESRGAN, got {listed(list(weights))}")
    return Networks(esrgan.NAME, *_converted(path, esrgan, weights))


def _checked(state: dict[str, Any], path: Path) -> Networks:
    """The networks of a state of ours, if they are whole."""
    try:
        config = models.from_dict(state["model"])
        weights = {name: state[name] for name in NETWORKS if name in state}
        with torch.device("meta"):
            module = models.FAMILIES[models.family(config)]
            expected: dict[str, nn.Module] = {"G": module.Generator(config), "D": module.Discriminator(config)}
        for name, of in weights.items():
            run_state.check(of, expected[name[0]].state_dict(), name, path)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its networks do not fit this version of gan_engine: {error}") from error
    names, bits = run_state.class_names(state, path), run_state.bits(state)
    return Networks(OURS, config, weights, class_names=names, bits=bits)


def _to_safetensors(path: Path, weights: Weights, metadata: dict[str, str]) -> None:
    library = checkpoint.safetensors()
    weights = {name: x.detach().contiguous().clone() for name, x in weights.items()}
    content = library.torch.save(weights, {"format": "pt", **metadata})
    with replacing(path, size=len(content)) as temporary:
        temporary.write_bytes(content)


def _names(tree: Any) -> dict[str, None]:
    """The names of all tensors of records in a tree."""
    records = tree.values() if isinstance(tree, dict) else ()
    return {name: None for each in records if isinstance(each, safe_reader.Record)
            for name, _ in stylegan2_ada.tensors(each)}  # fmt: skip


def _found(tree: Any) -> str:
    if isinstance(tree, dict):
        return f"a dict with {listed([str(key) for key in tree], most=8)}" if tree else "an empty dict"
    return repr(tree) if isinstance(tree, safe_reader.Record) else type(tree).__name__
