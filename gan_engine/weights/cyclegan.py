"""CycleGAN's generators of 6 or 9 residual blocks and its PatchGANs, as the program of its authors writes them.

    latest_net_G_A.pth    A2B: model.1, model.4, model.7, model.10.conv_block.1, ..., model.26 of 9 blocks
    latest_net_D_A.pth    judges images of B: model.0, model.2, model.5, model.8, model.11

A folder has both generators and both D. A file of one generator, as the published ones, becomes a generator of one way.
"""

import re
from typing import Any

from gan_engine.models import cyclegan
from gan_engine.weights import patchgan
from gan_engine.weights.layout import LayoutError, Pair, Weights, hollow, take
from gan_engine.weights.patchgan import Normed

NAME = "cyclegan"
ABOUT = "CycleGAN of pytorch-CycleGAN-and-pix2pix (.pth of a generator, or a folder with latest_net_G_A.pth)"
NOT_SLIM = ("D", "D_A", "D_B")
NOTE_NORMS = "its norms are batch norms there: its program opens it with --norm batch --no_dropout, without --eval"
NOTE_ONE_WAY = "the file has one generator: it is A2B here, and there is no B2A"


def fits(tree: Any) -> bool:
    """True if the tree that was read has this layout."""
    return any("model.10.conv_block.1.weight" in G for G in _generators(tree).values())


def convert(tree: dict[str, Any]) -> tuple[cyclegan.Config, dict[str, Weights], tuple[str, ...]]:
    """Our configuration, our networks by name, and sentences on what is not exactly as it was there.

    Raises LayoutError, which says what differs, if our cyclegan cannot hold the networks.
    """
    generators = _generators(tree)
    one_way = len(generators) == 1
    Ds = {name: tree[name] for name in NOT_SLIM if name in tree} if "model.1.weight" not in tree else {}
    if Ds and (one_way or set(Ds) != {"D_A", "D_B"}):
        raise LayoutError(
            f"{NAME}: want G_A, G_B, D_A and D_B, got {', '.join([*generators, *Ds])}; --slim leaves D, and G alone is "
            "a generator of one way"
        )
    sizes = _sizes(generators, Ds, one_way)
    weights, pairs, of_batches = {}, [], False
    for (name, theirs), ours in zip(generators.items(), ("A2B", "B2A"), strict=False):
        found, named, batches = _generator(theirs, sizes.blocks or 0, f"{NAME} {name}", f"{ours}.")
        weights |= _prefixed(found, name)
        pairs += _within(named, name)
        of_batches |= batches
    networks = {"G_ema": take(pairs, weights, hollow(cyclegan.Generator, sizes), NAME)}
    if Ds:
        weights, pairs = {}, []
        for name, ours in (("D_A", "B"), ("D_B", "A")):  # D_A judges the results of G_A, which are images of B
            found, named, batches = patchgan.discriminator(Ds[name], f"{NAME} {name}", f"{ours}.")
            weights |= _prefixed(found, name)
            pairs += _within(named, name)
            of_batches |= batches
        networks["D"] = take(pairs, weights, hollow(cyclegan.Discriminator, sizes), NAME)
    return sizes, networks, (NOTE_ONE_WAY,) * one_way + (patchgan.NOTE,) * of_batches


def export(sizes: cyclegan.Config, networks: dict[str, Weights]) -> tuple[dict[str, Weights], tuple[str, ...]]:
    """The networks by the names of their files, and a sentence on how their program opens them.

    They have batch norms (--norm batch): instance norms have no scale there.

    Raises LayoutError if the program has no such generators.
    """
    if not sizes.published:
        raise LayoutError(
            f"{NAME}: want a cyclegan that was trained with --published, got one whose layers double by nearest "
            "neighbours; no weights of these fit there"
        )
    G = networks["G_ema"]
    blocks = sum(re.fullmatch(r"A2B\.layers\.\d+\.layers\.0\.conv\.weight", name) is not None for name in G)
    if blocks not in (6, 9):
        raise LayoutError(f"{NAME}: want a cyclegan that was trained with --blocks 6 or 9, got {blocks}")
    tree = {}
    for ours, name in {"A2B": "G"}.items() if sizes.one_way else {"A2B": "G_A", "B2A": "G_B"}.items():
        normed, pairs = _layers([5] * blocks, f"{ours}.")
        tree[name] = patchgan.with_batch_norms(pairs, normed, G)
    for ours, name in {"B": "D_A", "A": "D_B"}.items() if "D" in networks else ():
        normed, pairs = patchgan.discriminator_layers(f"{ours}.")
        tree[name] = patchgan.with_batch_norms(pairs, normed, networks["D"])
    return tree, (NOTE_NORMS,)


def _generators(tree: Any) -> dict[str, Weights]:
    """The state_dict of each generator: of G_A and G_B in a folder, or of the one in a file."""
    if not isinstance(tree, dict):
        return {}
    found = {name: patchgan.state_dict(tree[name]) for name in ("G", "G_A", "G_B") if isinstance(tree.get(name), dict)}
    return found or {"G": patchgan.state_dict(tree)}


def _prefixed(weights: Weights, network: str) -> Weights:
    return {f"{network}.{name}": x for name, x in weights.items()}


def _within(pairs: list[Pair], network: str) -> list[Pair]:
    return [pair._replace(theirs=f"{network}.{pair.theirs}") for pair in pairs]


def _sizes(generators: dict[str, Weights], Ds: dict[str, Any], one_way: bool) -> cyclegan.Config:
    name, G = next(iter(generators.items()))
    blocks = 0
    while f"model.{10 + blocks}.conv_block.1.weight" in G:
        blocks += 1
    try:
        first, last = G["model.1.weight"], G[f"model.{17 + blocks}.weight"]
        width, read, made = len(first), first.shape[1], len(last)
        d_width = len(patchgan.state_dict(Ds["D_A"])["model.0.weight"]) if Ds else cyclegan.Config.d_width
    except (KeyError, TypeError, IndexError) as error:
        raise LayoutError(f"{NAME} {name}: want the tensors of its networks, got none fit for {error}") from error
    if read != made:
        raise LayoutError(f"{NAME} {name}: want images of as many channels as its source, got {made} and {read}")
    try:
        return cyclegan.Config(
            channels=made, width=width, blocks=blocks, d_width=d_width, published=True, one_way=one_way
        )
    except ValueError as error:
        raise LayoutError(f"{NAME} {name}: our cyclegan cannot hold it: {error}") from error


def _generator(theirs: Weights, blocks: int, what: str, ours: str) -> tuple[Weights, list[Pair], bool]:
    """A generator made whole, its names with `ours` in front, and True for batch norms."""
    seconds = [5 if f"model.{10 + i}.conv_block.5.weight" in theirs else 6 for i in range(blocks)]  # 6: with dropout
    normed, named = _layers(seconds, ours)
    found, of_batches = patchgan.whole(theirs, normed, what)
    return found, named, of_batches


def _layers(seconds: list[int], ours: str) -> tuple[list[Normed], list[Pair]]:
    """The layers of a generator with a norm, and the names of all tensors. `ours` begins our names.

    `seconds` are the numbers of the second convolutions in the residual blocks.
    """
    blocks = len(seconds)
    normed = [
        Normed(f"model.{there}", f"model.{there + 1}", f"{ours}layers.{here}.conv", f"{ours}layers.{here}.norm")
        for here, there in (*enumerate((1, 4, 7)), (3 + blocks, 10 + blocks), (4 + blocks, 13 + blocks))
    ]
    for i, second in enumerate(seconds):
        block = f"model.{10 + i}.conv_block"
        for k, there in enumerate((1, second)):
            here = f"{ours}layers.{3 + i}.layers.{k}"
            normed.append(Normed(f"{block}.{there}", f"{block}.{there + 1}", f"{here}.conv", f"{here}.norm"))
    last = f"model.{17 + blocks}"
    ends = [Pair(f"{ours}to_rgb.weight", f"{last}.weight"), Pair(f"{ours}bias", f"{last}.bias")]
    return normed, patchgan.pairs(normed) + ends
