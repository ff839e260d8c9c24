"""pix2pix's U-Net and its PatchGAN, as the program of its authors writes them. A block of the U-Net holds the next one:

    latest_net_G.pth    model.model.0, model.model.1.model.1, model.model.1.model.3.model.1, ..., model.model.3
    latest_net_D.pth    model.0, model.2, model.5, model.8, model.11

Feature maps of the way down come first there, and last here. The source comes first in D there, and last here.
"""

from typing import Any

import torch
from torch import Tensor

from gan_engine.models import pix2pix
from gan_engine.weights import patchgan
from gan_engine.weights.layout import LayoutError, Pair, Weights, hollow, take
from gan_engine.weights.patchgan import Normed

NAME = "pix2pix"
ABOUT = "pix2pix of pytorch-CycleGAN-and-pix2pix (.pth of a U-Net, or a folder with latest_net_G.pth)"
NOT_SLIM = ("D",)


def fits(tree: Any) -> bool:
    """True if the tree that was read has this layout."""
    return "model.model.0.weight" in _G(tree)


def convert(tree: dict[str, Any]) -> tuple[pix2pix.Config, dict[str, Weights], tuple[str, ...]]:
    """Our configuration, our networks by name, and sentences on what is not exactly as it was there.

    Raises LayoutError, which says what differs, if our pix2pix cannot hold the networks.
    """
    D = tree["D"] if "G" in tree and "D" in tree else None
    G, what = _G(tree), f"{NAME} G"
    sizes = _sizes(G, D)
    normed = _layers(sizes)
    found, of_batches = patchgan.whole(G, normed, what)
    # Two layers have no norm. They have no bias either where others have batch norms.
    for name in ("model.model.0", f"{_stem(len(sizes.widths) - 1)}.1"):
        if f"{name}.weight" in found:
            found.setdefault(f"{name}.bias", torch.zeros(len(found[f"{name}.weight"])))
    for k in range(len(sizes.widths) - 1):
        name = "model.model.3.weight" if k == 0 else f"{_stem(k)}.5.weight"
        if name in found:
            found[name] = _swapped(found[name], 0)
    networks = {"G_ema": take(_names(sizes, normed), found, hollow(pix2pix.Generator, sizes), what)}
    if D is not None:
        found, pairs, batches = patchgan.discriminator(D, f"{NAME} D", "patches.")
        of_batches |= batches
        found["model.0.weight"] = _swapped(found["model.0.weight"], 1)
        networks["D"] = take(pairs, found, hollow(pix2pix.Discriminator, sizes), f"{NAME} D")
    return sizes, networks, (patchgan.NOTE,) * of_batches


def _G(tree: Any) -> Weights:
    return patchgan.state_dict(tree["G"] if isinstance(tree, dict) and "G" in tree else tree)


def _swapped(x: Tensor, dim: int) -> Tensor:
    """The second half of the channels before the first."""
    return x.roll(x.shape[dim] // 2, dim)


def _stem(level: int) -> str:
    """The name of the layers of a block. Level 0 halves the source, and each level lies within the last."""
    return "model.model" if level == 0 else "model.model.1.model" + ".3.model" * (level - 1)


def _sizes(G: Weights, D: Any) -> pix2pix.Config:
    what = f"{NAME} G"
    levels = 1
    while f"{_stem(levels)}.1.weight" in G:
        levels += 1
    try:
        first, last = G["model.model.0.weight"], G["model.model.3.weight"]
        widest = max(len(G[f"{_stem(k)}.1.weight"]) for k in range(1, levels))
        width, read, made = len(first), first.shape[1], last.shape[1]
        d_width = pix2pix.Config.d_width if D is None else len(patchgan.state_dict(D)["model.0.weight"])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise LayoutError(f"{what}: want the tensors of a U-Net, got none fit for {error}") from error
    if read != made:
        raise LayoutError(f"{what}: want images of as many channels as its source, got {made} and {read}")
    try:
        return pix2pix.Config(
            resolution=1 << levels, channels=made, width=width, max_width=widest, d_width=d_width, published=True
        )
    except ValueError as error:
        raise LayoutError(f"{what}: our pix2pix cannot hold it: {error}") from error


def _layers(sizes: pix2pix.Config) -> list[Normed]:
    """The layers with a norm: of the way down but its ends, and of the way up but its last."""
    levels = len(sizes.widths)
    found = [Normed(f"{_stem(k)}.1", f"{_stem(k)}.2", f"down.{k}.conv", f"down.{k}.norm") for k in range(1, levels - 1)]
    for k in range(1, levels):
        ours, there = f"up.{levels - 1 - k}", 3 if k == levels - 1 else 5
        found.append(Normed(f"{_stem(k)}.{there}", f"{_stem(k)}.{there + 1}", f"{ours}.conv", f"{ours}.norm"))
    return found


def _names(sizes: pix2pix.Config, normed: list[Normed]) -> list[Pair]:
    last = len(sizes.widths) - 1
    found = patchgan.pairs(normed)
    for ours, theirs in (("down.0", "model.model.0"), (f"down.{last}", f"{_stem(last)}.1")):
        found += [Pair(f"{ours}.conv.weight", f"{theirs}.weight"), Pair(f"{ours}.bias", f"{theirs}.bias")]
    return [*found, Pair("to_rgb.weight", "model.model.3.weight"), Pair("bias", "model.model.3.bias")]
