"""StyleGAN2 in the pickles of StyleGAN2-ADA for PyTorch, {"G": ..., "D": ..., "G_ema": ...}: most public networks.

The networks are records: their source text is not read. Sizes come from the weights, and options, such as the limit of
activations, from the attributes of the layers. A convolution that doubles is a transposed one there: its taps are
reversed.
"""

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from gan_engine.models import stylegan2
from gan_engine.models.style_networks import Sizes
from gan_engine.ops import setup_filter
from gan_engine.weights.layout import LayoutError, Pair, Weights, hollow, numbered, take, without
from gan_engine.weights.safe_reader import Record
from gan_engine.weights.stylegan2_sizes import channels, config, require_squares

NAME = "stylegan2-ada"
ABOUT = "StyleGAN2 of StyleGAN2-ADA for PyTorch (.pkl with G_ema)"
NOT_SLIM = ("G", "D")
NOTE = (
    "there every layer limits its values to {clamp:g}, here those of the {half} highest resolutions: results differ "
    "where others would be larger"
)
ARCHITECTURES = {"skip": "skip", "resnet": "residual"}


def fits(tree: Any) -> bool:
    """True if the tree that was read has this layout."""
    if not isinstance(tree, dict) or not isinstance(tree.get("G_ema"), Record):
        return False
    names = dict(tensors(tree["G_ema"]))
    return "synthesis.b4.const" in names and "mapping.fc0.weight" in names


def convert(tree: dict[str, Any]) -> tuple[stylegan2.Config, dict[str, Weights], tuple[str, ...]]:
    """Our configuration, our networks by name, and sentences on what is not exactly as it was there.

    Raises LayoutError, which says what differs, if our stylegan2 cannot hold the networks.
    """
    records = {name: tree[name] for name in ("G", "D", "G_ema") if isinstance(tree.get(name), Record)}
    sizes = _sizes(records["G_ema"], records.get("D"))
    networks, f = {}, setup_filter(stylegan2.TAPS, separable=False)
    for name, record in records.items():
        what = f"{NAME} {name}"
        theirs = without(dict(tensors(record)), is_filter, lambda key: f, what)
        require_usual(record, what)
        if name == "D":
            network, pairs = hollow(stylegan2.Discriminator, sizes), discriminator(sizes)
        else:
            network, pairs = hollow(stylegan2.Generator, sizes), generator(sizes)
            mean = theirs.get("mapping.w_avg")
            if mean is not None and sizes.c_dim:  # one mean for all classes there, one for each here
                theirs["mapping.w_avg"] = mean.expand(sizes.c_dim, -1)
        networks[name] = take(pairs, theirs, network, what)
    return sizes, networks, notes(sizes)


def notes(sizes: stylegan2.Config) -> tuple[str, ...]:
    """A sentence on limits of lower resolutions, if there are any."""
    if sizes.clamp is None or sizes.half_resolutions >= len(sizes.resolutions):
        return ()
    return (NOTE.format(clamp=sizes.clamp, half=sizes.half_resolutions),)


def is_filter(name: str) -> bool:
    """True for the buffers of filters in G and D of StyleGAN2."""
    return name.endswith("resample_filter")


def tensors(record: Record, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every parameter and buffer of a module that was read as a record, as in a state_dict."""
    for _, path, state in modules(record, prefix):
        for kind in ("_parameters", "_buffers"):
            for name, value in _dict(state.get(kind)).items():
                if isinstance(value, Tensor):
                    yield f"{path}{name}", value


def modules(
    record: Record, prefix: str = "", seen: set[int] | None = None
) -> Iterator[tuple[Record, str, dict[str, Any]]]:
    """(record, its name with a dot behind it, its attributes) of a module and of all below it, each once."""
    seen = set() if seen is None else seen
    seen.add(id(record))
    state = _dict(record.state)
    yield record, prefix, state
    for name, inner in _dict(state.get("_modules")).items():
        if isinstance(inner, Record) and id(inner) not in seen:
            yield from modules(inner, f"{prefix}{name}.", seen)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def attributes(record: Record) -> dict[str, dict[str, Any]]:
    """The attributes of a module and of all below it, by their names."""
    return {path.rstrip("."): state for _, path, state in modules(record)}


def _sizes(G: Record, D: Record | None) -> stylegan2.Config:
    what, weights, of = f"{NAME} G_ema", dict(tensors(G)), attributes(G)
    found = (re.fullmatch(r"synthesis\.b(\d+)\.conv1\.weight", name) for name in weights)
    resolutions = sorted(int(match[1]) for match in found if match)
    try:
        widths = {r: len(weights[f"synthesis.b{r}.conv1.weight"]) for r in resolutions}
        last = f"synthesis.b{resolutions[-1]}"
        w_dim = weights[f"{last}.conv1.affine.weight"].shape[1]
        colours = len(weights[f"{last}.torgb.weight"])
    except (KeyError, IndexError) as error:
        raise LayoutError(f"{what}: want the tensors of a StyleGAN2 generator, got none fit for {error}") from error
    require_squares(weights["synthesis.b4.const"], what)
    clamp = of.get(f"{last}.conv1", {}).get("conv_clamp")
    half = sum(bool(of.get(f"synthesis.b{r}", {}).get("use_fp16")) for r in resolutions)
    return config(
        what, resolution=resolutions[-1], channels=colours, architecture=architecture(weights),
        clamp=None if clamp is None else float(clamp),
        half_resolutions=half or (4 if clamp is None else len(resolutions) - 1), **channels(widths, what),
        **mapping_sizes(G, w_dim), **d_sizes(D, resolutions[-1], f"{NAME} D"),
    )  # fmt: skip


def mapping_sizes(G: Record, w_dim: int) -> dict[str, Any]:
    """The sizes of the mapping network of G."""
    weights = dict(tensors(G))
    embed, first = weights.get("mapping.embed.weight"), weights["mapping.fc0.weight"]
    c_dim = 0 if embed is None else embed.shape[1]
    return {
        "z_dim": first.shape[1] - (w_dim if c_dim else 0),
        "w_dim": w_dim,
        "c_dim": c_dim,
        "mapping_layers": numbered(weights, "mapping.fc{}.weight"),
        "mapping_lr": float(attributes(G).get("mapping.fc0", {}).get("bias_gain", 0.01)),
    }


def d_sizes(D: Record | None, resolution: int, what: str) -> dict[str, Any]:
    """The sizes of D that G does not have. Raises LayoutError if our D cannot hold it."""
    if D is None:
        return {}
    group = attributes(D).get("b4.mbstd", {}).get("group_size", 4)
    if not isinstance(group, int):
        raise LayoutError(f"{what}: want groups of a fixed size for the minibatch deviation, got {group}")
    return {"d_architecture": d_architecture(dict(tensors(D)), resolution, what), "mbstd_group": group}


def architecture(weights: Weights) -> str:
    """The architecture of G by its weights. Raises LayoutError for one that ours does not have."""
    if "synthesis.b8.skip.weight" in weights:
        return "residual"
    if "synthesis.b4.torgb.weight" in weights:
        return "skip"
    raise LayoutError(f"{NAME} G_ema: want the architecture skip or resnet, got orig: colours of one resolution alone")


def d_architecture(weights: Weights, resolution: int, what: str) -> str:
    """The architecture of D by its weights. Raises LayoutError for one that ours does not have."""
    if f"b{resolution}.skip.weight" in weights:
        return "residual"
    if "b4.fromrgb.weight" in weights:
        return "skip"
    raise LayoutError(f"{what}: want the architecture skip or resnet, got orig; --slim converts G_ema alone")


def require_usual(record: Record, what: str) -> None:
    """Raises LayoutError for options of layers that ours do not have."""
    for _, path, state in modules(record):
        name = path.rstrip(".")
        act = state.get("activation", "lrelu")
        if act not in ("lrelu", "linear"):
            raise LayoutError(f"{what}: want the activation lrelu, got {act} in {name}")
        if state.get("use_noise") is False:
            raise LayoutError(f"{what}: want noise in every layer, got none in {name}")
        if name.endswith("mbstd") and state.get("num_channels", 1) != 1:
            raise LayoutError(f"{what}: want 1 channel of minibatch deviation, got {state['num_channels']}")


def both(ours: str, theirs: str, *, flip: bool = False) -> list[Pair]:
    """The weight and the bias of a layer."""
    return [Pair(f"{ours}.weight", f"{theirs}.weight", flip=flip), Pair(f"{ours}.bias", f"{theirs}.bias")]


def mapping(sizes: Sizes, layers: str) -> list[Pair]:
    """The names in a mapping network, without its mean and its embedding."""
    return [pair for i in range(sizes.mapping_layers) for pair in both(f"{layers}.{i}", f"mapping.fc{i}")]


def generator(sizes: stylegan2.Config) -> list[Pair]:
    """The names in G."""
    pairs = [Pair("mapping.w_mean", "mapping.w_avg"), *mapping(sizes, "mapping.layers")]
    pairs += both("mapping.embed", "mapping.embed") if sizes.c_dim else []
    pairs.append(Pair("synthesis.const", "synthesis.b4.const"))
    for n, r in enumerate(sizes.resolutions):
        ours, theirs = f"synthesis.blocks.{n}", f"synthesis.b{r}"
        for k in (0, 1)[n == 0 :]:
            pairs += both(f"{ours}.conv{k}", f"{theirs}.conv{k}", flip=k == 0)
            pairs += both(f"{ours}.conv{k}.affine", f"{theirs}.conv{k}.affine")
            pairs.append(Pair(f"{ours}.conv{k}.noise_strength", f"{theirs}.conv{k}.noise_strength"))
            pairs.append(Pair(f"{ours}.noise{k}", f"{theirs}.conv{k}.noise_const"))
        if sizes.architecture == "residual" and n > 0:
            pairs.append(Pair(f"{ours}.skip.weight", f"{theirs}.skip.weight"))
        if sizes.architecture == "skip" or r == sizes.resolution:
            pairs += both(f"{ours}.to_rgb", f"{theirs}.torgb")
            pairs += both(f"{ours}.to_rgb.affine", f"{theirs}.torgb.affine")
    return pairs


def discriminator(sizes: Sizes) -> list[Pair]:
    """The names in D, which StyleGAN3 has too."""
    pairs: list[Pair] = []
    for n, r in enumerate(reversed(sizes.resolutions[1:])):
        ours, theirs = f"blocks.{n}", f"b{r}"
        if n == 0 or sizes.d_architecture == "skip":
            pairs += both(f"{ours}.from_rgb", f"{theirs}.fromrgb")
        pairs += both(f"{ours}.conv0", f"{theirs}.conv0") + both(f"{ours}.conv1", f"{theirs}.conv1")
        if sizes.d_architecture == "residual":
            pairs.append(Pair(f"{ours}.skip.weight", f"{theirs}.skip.weight"))
    pairs += both("from_rgb", "b4.fromrgb") if sizes.d_architecture == "skip" else []
    pairs += both("conv", "b4.conv") + both("linear", "b4.fc") + both("logit", "b4.out")
    return pairs + ([*both("embed", "mapping.embed"), *mapping(sizes, "mapping")] if sizes.c_dim else [])
