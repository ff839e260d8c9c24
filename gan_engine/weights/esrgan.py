"""RRDB, the generator of ESRGAN, in the layouts of BasicSR and of ESRGAN itself: what upscaling programs open.

    conv_first, body.0.rdb1.conv1, conv_body, conv_up1, conv_hr, conv_last        BasicSR, Real-ESRGAN
    conv_first, RRDB_trunk.0.RDB1.conv1, trunk_conv, upconv1, HRconv, conv_last   BSRGAN and the later ESRGAN
    model.0, model.1.sub.0.RDB1.conv1.0, model.3, ...                             the first ESRGAN

The networks read and give values from 0 to 1, and are the whole enlargement: our srgan with base "none".
"""

import math
from typing import Any

from torch import Tensor

from gan_engine.models import srgan
from gan_engine.weights.layout import LayoutError, Pair, Weights, give, hollow, numbered, take

NAME = "esrgan"
GROWTH = 32  # spandrel, which opens such files for ComfyUI and chaiNNer, finds all other sizes from the weights
ABOUT = "RRDB of ESRGAN, BSRGAN, BasicSR and Real-ESRGAN (.pth)"
NOT_SLIM: tuple[str, ...] = ()


def fits(tree: Any) -> bool:
    """True if the tree that was read has one of the layouts."""
    weights = _weights(tree)
    return weights is not None and ("conv_first.weight" in weights or "model.1.sub.0.RDB1.conv1.0.weight" in weights)


def convert(tree: dict[str, Any]) -> tuple[srgan.Config, dict[str, Weights], tuple[str, ...]]:
    """Our configuration, our network as G_ema, and no sentences: it is exactly as it was there.

    Raises LayoutError, which says what differs, if our srgan cannot hold the network.
    """
    theirs = {name: x for name, x in (_weights(tree) or {}).items() if isinstance(x, Tensor)}
    theirs = _renamed(theirs)
    if "body.0.rdb1.conv1.weight" not in theirs:
        raise LayoutError(
            f"{NAME}: want blocks of dense layers (body.0.rdb1), got a network without them; our srresnet cannot hold "
            "MSRResNet, which has no batch norms"
        )
    growth, width = theirs["body.0.rdb1.conv1.weight"].shape[:2]
    read, made = theirs["conv_first.weight"].shape[1], len(theirs.get("conv_last.weight", ()))
    if read != made:
        by = math.isqrt(max(read // max(made, 1), 1))
        raise LayoutError(
            f"{NAME}: want a network that reads as many channels as it makes, got {read} and {made}: its images are "
            f"folded {by}x{by} pixels into channels first"
        )
    ups = sum(f"conv_up{k}.weight" in theirs for k in (1, 2, 3))
    try:
        sizes = srgan.Config(
            variant="rrdb", base="none", scale=2**ups, channels=made, width=width, growth=growth,
            blocks=numbered(theirs, "body.{}.rdb1.conv1.weight"),
        )  # fmt: skip
    except ValueError as error:
        raise LayoutError(f"{NAME}: our srgan cannot hold it: {error}") from error
    return sizes, {"G_ema": take(_pairs(sizes), theirs, hollow(srgan.Generator, sizes), NAME)}, ()


def export(sizes: srgan.Config, networks: dict[str, Weights]) -> tuple[Weights, tuple[str, ...]]:
    """G_ema in the layout of BasicSR, which ComfyUI and chaiNNer open; nothing is otherwise there.

    Raises LayoutError if it has no place there.
    """
    if sizes.variant != "rrdb":
        raise LayoutError(f"{NAME}: want an srgan with variant rrdb, got {sizes.variant}: no other has a layout")
    if sizes.base != "none":
        raise LayoutError(
            f"{NAME}: want an srgan with base none, got {sizes.base}: the layout has no place for the enlargement that "
            "the network is added to; train with --base none"
        )
    if sizes.growth != GROWTH:
        raise LayoutError(
            f"{NAME}: want an srgan with growth {GROWTH}, got {sizes.growth}: programs that open the layout take no "
            "other"
        )
    return give(_pairs(sizes), networks["G_ema"]), ()


def _weights(tree: Any) -> Weights | None:
    """The tensors of the generator: themselves, or below a name that says which of them."""
    for name in ("params_ema", "params", "state_dict"):
        if isinstance(tree, dict) and isinstance(tree.get(name), dict):
            tree = tree[name]
    if not isinstance(tree, dict):
        return None
    return {name.removeprefix("module."): x for name, x in tree.items() if isinstance(name, str)}


def _renamed(theirs: Weights) -> Weights:
    """`theirs` under the names of BasicSR."""
    if "model.0.weight" in theirs:
        blocks = numbered(theirs, "model.1.sub.{}.RDB1.conv1.0.weight")
        ends = sorted({int(name.split(".")[1]) for name in theirs if not name.startswith("model.1.")})
        names = ["conv_first", *(f"conv_up{k + 1}" for k in range(len(ends) - 3)), "conv_hr", "conv_last"]
        stems = {f"model.{end}": name for end, name in zip(ends, names, strict=False)}
        stems[f"model.1.sub.{blocks}"] = "conv_body"
        found = {}
        for name, x in theirs.items():
            stem, _, part = name.rpartition(".")
            new = stems.get(stem, stem.replace("model.1.sub.", "body.").replace("RDB", "rdb").removesuffix(".0"))
            found[f"{new}.{part}"] = x
        return found
    names = {"RRDB_trunk": "body", "trunk_conv": "conv_body", "upconv": "conv_up", "HRconv": "conv_hr", "RDB": "rdb"}
    found = {}
    for name, x in theirs.items():
        for old, new in names.items():
            name = name.replace(old, new)
        found[name] = x
    return found


def _pairs(sizes: srgan.Config) -> list[Pair]:
    named = [("first", "conv_first"), (f"body.{sizes.num_blocks}", "conv_body")]
    named += [(f"up.{sizes.doublings + 1}", "conv_last")]
    leaky = [(f"up.{k}", f"conv_up{k + 1}") for k in range(sizes.doublings)] + [(f"up.{sizes.doublings}", "conv_hr")]
    for i in range(sizes.num_blocks):
        for j in range(3):
            ours, theirs = f"body.{i}.layers.{j}", f"body.{i}.rdb{j + 1}"
            leaky += [(f"{ours}.layers.{k}", f"{theirs}.conv{k + 1}") for k in range(4)]
            named.append((f"{ours}.last", f"{theirs}.conv5"))
    pairs = [Pair(f"{ours}.{part}", f"{theirs}.{part}") for ours, theirs in named for part in ("weight", "bias")]
    for ours, theirs in leaky:
        pairs += [Pair(f"{ours}.conv.weight", f"{theirs}.weight"), Pair(f"{ours}.bias", f"{theirs}.bias")]
    return pairs
