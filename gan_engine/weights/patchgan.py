"""What the published networks of CycleGAN and pix2pix share: names of files, norms, and the PatchGAN, their D.

The program of the authors (pytorch-CycleGAN-and-pix2pix) writes the state_dict of each network into a file of its own,
checkpoints/NAME/EPOCH_net_NETWORK.pth. A convolution in front of an instance norm has a bias there, which the norm
cancels, and the norm has neither scale nor bias. A batch norm computes with the mean and deviation of its batch, which
is one image, unless the program runs with --eval: it is an instance norm with scale and bias, as ours is.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_engine.weights.layout import LayoutError, Pair, Weights, give

NOTE = "there its norms are batch norms: each image has its own mean and deviation here, as there without --eval"
FILE = "latest_net_{}.pth"
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Normed(NamedTuple):
    """A convolution and the norm behind it: the names there and here, without .weight and .bias."""

    theirs: str
    their_norm: str
    ours: str
    our_norm: str


def files(path: Path) -> dict[str, Path]:
    """The networks of the last epoch in a folder of the program, by name: G_A, G_B, D_A, D_B, or G and D."""
    epochs: dict[str, dict[str, Path]] = {}
    for file in path.glob("*_net_*.pth"):
        epoch, _, name = file.stem.partition("_net_")
        epochs.setdefault(epoch, {})[name] = file
    if not epochs:
        return {}
    number = re.compile(r"\d*$")  # 15, or iter_5000
    last = max(epochs, key=lambda epoch: (epoch == "latest", int(number.search(epoch)[0] or -1)))
    return dict(sorted(epochs[last].items()))


def state_dict(value: Any) -> Weights:
    """The tensors of a network, by their names. {} if `value` has none."""
    if not isinstance(value, dict):
        return {}
    return {
        name.removeprefix("module."): x for name, x in value.items() if isinstance(name, str) and isinstance(x, Tensor)
    }


def whole(theirs: Weights, normed: Iterable[Normed], what: str) -> tuple[Weights, bool]:
    """`theirs` with a scale and a bias for every norm, and none in front of it; True for batch norms

    Raises LayoutError for a layer with no norm behind it.
    """
    theirs, of_batches = dict(theirs), False
    for layer in normed:
        bias, scale = theirs.pop(f"{layer.theirs}.bias", None), theirs.get(f"{layer.their_norm}.weight")
        if bias is None and scale is None and f"{layer.theirs}.weight" in theirs:
            raise LayoutError(
                f"{what}: want an instance norm or a batch norm in {layer.their_norm}, got none: {layer.theirs} has no "
                f"bias, and {layer.their_norm} no scale"
            )
        statistics = [theirs.pop(f"{layer.their_norm}.{name}", None) for name in _STATISTICS]
        of_batches |= scale is not None and statistics[0] is not None
        if scale is None and bias is not None:
            theirs[f"{layer.their_norm}.weight"] = torch.ones_like(bias)
            theirs[f"{layer.their_norm}.bias"] = torch.zeros_like(bias)
    return theirs, of_batches


def pairs(normed: Iterable[Normed]) -> list[Pair]:
    """The names of the weights of convolutions, and of the scales and biases of their norms."""
    found = []
    for layer in normed:
        found.append(Pair(f"{layer.ours}.weight", f"{layer.theirs}.weight"))
        found += [Pair(f"{layer.our_norm}.{part}", f"{layer.their_norm}.{part}") for part in ("weight", "bias")]
    return found


def one_network(theirs: Any, network: str, what: str) -> Weights:
    """The state_dict `theirs`. Raises LayoutError if it is none."""
    if not (found := state_dict(theirs)):
        raise LayoutError(f"{what}: want the tensors of {network}, got none")
    return found


def with_batch_norms(pairs: Iterable[Pair], normed: Iterable[Normed], ours: Weights) -> Weights:
    """`ours` under the names there, with batch norms that have counted no batches."""
    found = give(pairs, ours)
    for layer in normed:
        scale = found[f"{layer.their_norm}.weight"]
        values = (torch.zeros_like(scale), torch.ones_like(scale), torch.tensor(0))
        found |= {f"{layer.their_norm}.{name}": x for name, x in zip(_STATISTICS, values, strict=True)}
    return found


def discriminator(theirs: Any, what: str, ours: str = "") -> tuple[Weights, list[Pair], bool]:
    """A PatchGAN of 3 halvings, made whole, its names, and True for batch norms.

    `ours` begins our names. Raises LayoutError for a D of other layers.
    """
    found = one_network(theirs, "D", what)
    logit = found.get("model.11.weight")
    if logit is None or len(logit) != 1:
        raise LayoutError(f"{what}: want a PatchGAN of 3 halvings (--netD basic), got other layers; --slim leaves D")
    normed, named = discriminator_layers(ours)
    found, of_batches = whole(found, normed, what)
    return found, named, of_batches


def discriminator_layers(ours: str) -> tuple[list[Normed], list[Pair]]:
    """The layers of a PatchGAN with a norm, and the names of all tensors. `ours` begins our names."""
    normed = [
        Normed(f"model.{3 * k + 2}", f"model.{3 * k + 3}", f"{ours}convs.{k}", f"{ours}norms.{k}") for k in range(3)
    ]
    named = [("first.weight", "model.0.weight"), ("bias", "model.0.bias")]
    named += [(f"logit.{part}", f"model.11.{part}") for part in ("weight", "bias")]
    return normed, pairs(normed) + [Pair(ours + name, there) for name, there in named]
