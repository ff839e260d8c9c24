"""StyleGAN3, configs T and R, in the pickles of its program, {"G": ..., "D": ..., "G_ema": ...}.

Mapping and D are those of StyleGAN2-ADA. A layer is called after its number, size and width, as in L3_52_512. Its
filters lie in the file, so a network whose bands are not ours is found by them.
"""

import dataclasses
import re
from typing import Any

import torch
from torch import Tensor

from gan_engine.models import style_networks, stylegan3
from gan_engine.ops import setup_filter
from gan_engine.system.names import listed
from gan_engine.weights import stylegan2_ada
from gan_engine.weights.layout import LayoutError, Pair, Weights, hollow, take, without
from gan_engine.weights.safe_reader import Record
from gan_engine.weights.stylegan2_ada import attributes, both, require_usual, tensors

NAME = "stylegan3"
ABOUT = "StyleGAN3 (.pkl with G_ema)"
NOT_SLIM = ("G", "D")


def fits(tree: Any) -> bool:
    """True if the tree that was read has this layout."""
    if not isinstance(tree, dict) or not isinstance(tree.get("G_ema"), Record):
        return False
    return "synthesis.input.freqs" in dict(tensors(tree["G_ema"]))


def convert(tree: dict[str, Any]) -> tuple[stylegan3.Config, dict[str, Weights], tuple[str, ...]]:
    """Our configuration, our networks by name, and sentences on what is not exactly as it was there.

    Raises LayoutError, which says what differs, if our stylegan3 cannot hold the networks.
    """
    records = {name: tree[name] for name in ("G", "D", "G_ema") if isinstance(tree.get(name), Record)}
    sizes = _sizes(records["G_ema"], records.get("D"))
    networks = {}
    for name, record in records.items():
        what = f"{NAME} {name}"
        require_usual(record, what)
        if name == "D":
            f = setup_filter(style_networks.TAPS, separable=False)
            theirs = without(dict(tensors(record)), stylegan2_ada.is_filter, lambda key, f=f: f, what)
            D = hollow(stylegan3.Discriminator, sizes)
            networks[name] = take(stylegan2_ada.discriminator(sizes), theirs, D, what)
        else:
            networks[name] = _generator(record, sizes, what)
    rates = {band.rate for band in sizes.bands}
    half = sum(map(sizes.is_half, rates))
    clamped = sizes.clamp is not None and half < len(rates)
    return sizes, networks, (stylegan2_ada.NOTE.format(clamp=sizes.clamp, half=half),) if clamped else ()


def _generator(record: Record, sizes: stylegan3.Config, what: str) -> Weights:
    theirs = dict(tensors(record))
    transform = theirs.pop("synthesis.input.transform", torch.eye(3))
    if not torch.equal(transform, torch.eye(3)):
        raise LayoutError(f"{what}: want no transform of its Fourier features, got {transform.tolist()}")
    scale = _attribute(attributes(record), "synthesis", "output_scale", what)
    if scale != stylegan3.OUTPUT_SCALE:
        raise LayoutError(f"{what}: want colours times {stylegan3.OUTPUT_SCALE}, got {scale}")
    mean = theirs.get("mapping.w_avg")
    if mean is not None and sizes.c_dim:  # one mean for all classes there, one for each here
        theirs["mapping.w_avg"] = mean.expand(sizes.c_dim, -1)
    weights = {name: x for name, x in theirs.items() if not name.endswith("_filter")}
    taken = take(_pairs(sizes), weights, hollow(stylegan3.Generator, sizes), what)
    filters = _filters(stylegan3.Generator(sizes), sizes)
    if missing := filters.keys() - theirs.keys():
        raise LayoutError(f"{what}: want {min(missing)}, got no tensor of that name")
    named = "of our layer, whose bands are the paper's,"
    if left := without(theirs, filters.__contains__, filters.__getitem__, what, named).keys() - weights.keys():
        raise LayoutError(f"{what}: our network has no place for {listed(sorted(left))}")
    return taken


def _names(sizes: stylegan3.Config) -> list[str]:
    return [f"synthesis.L{i}_{band.size}_{band.width}" for i, band in enumerate(sizes.bands)]


def _filters(G: stylegan3.Generator, sizes: stylegan3.Config) -> dict[str, Tensor]:
    """The filters of all layers but the colours, under the names there."""
    found = {}
    for name, layer in zip(_names(sizes)[:-1], G.synthesis.layers, strict=False):
        found |= {f"{name}.up_filter": layer.fu, f"{name}.down_filter": layer.fd}
    return found


def _sizes(G: Record, D: Record | None) -> stylegan3.Config:
    what, weights, of = f"{NAME} G_ema", dict(tensors(G)), attributes(G)
    matches = (re.fullmatch(r"synthesis\.L(\d+)_(\d+)_(\d+)\.weight", name) for name in weights)
    layers = sorted(tuple(map(int, match.groups())) for match in matches if match)
    if len(layers) < 3:
        raise LayoutError(f"{what}: want layers such as synthesis.L0_36_512, got {len(layers)} of them")
    names = [f"synthesis.L{i}_{size}_{width}" for i, size, width in layers]
    resolution, colours = layers[-1][1:]
    kernel = weights[f"{names[0]}.weight"].shape[-1]
    variant = {3: "t", 1: "r"}.get(kernel)
    if variant is None:
        raise LayoutError(f"{what}: want convolutions 3x3 (T) or 1x1 (R), got {kernel}x{kernel}")
    widen = 2 if variant == "r" else 1
    clamp = _attribute(of, names[0], "conv_clamp", what)
    half = [i for i, name in enumerate(names) if _attribute(of, name, "use_fp16", what)]
    d = stylegan2_ada.d_sizes(D, resolution, f"{NAME} D")
    if (got := d.pop("d_architecture", "residual")) != "residual":
        raise LayoutError(f"{NAME} D: want the architecture resnet, got {got}; --slim converts G_ema alone")
    fields: dict[str, Any] = {
        "resolution": resolution, "channels": colours, "variant": variant, "num_layers": len(layers) - 1,
        "num_critical": int(_attribute(of, "synthesis", "num_critical", what)),
        "channel_base": layers[-2][2] * resolution // widen,
        "channel_max": max(width for _, _, width in layers[:-1]) // widen,
        "clamp": None if clamp is None else float(clamp),
    }  # fmt: skip
    try:
        fields |= stylegan2_ada.mapping_sizes(G, weights[f"{names[0]}.affine.weight"].shape[1])
        rate = stylegan3.Config(**fields, **d, margin=0).bands[0].size
        sizes = stylegan3.Config(**fields, **d, margin=(layers[0][1] - rate) // 2)
        sizes = dataclasses.replace(sizes, half_resolutions=_half(sizes, [sizes.bands[i].rate for i in half]))
    except (KeyError, IndexError) as error:
        raise LayoutError(f"{what}: want the tensors of a StyleGAN3 generator, got none fit for {error}") from error
    except ValueError as error:
        raise LayoutError(f"{what}: our stylegan3 cannot hold it: {error}") from error
    for want, name in zip(_names(sizes), names, strict=True):
        if want != name:
            raise LayoutError(f"{what}: want layers of the bands of the paper, as {want}, got {name}")
    return sizes


def _attribute(of: dict[str, dict[str, Any]], module: str, name: str, what: str) -> Any:
    """An attribute of a module. Raises LayoutError if there is none: what it may be there, no weight tells."""
    if name not in of.get(module, {}):
        raise LayoutError(f"{what}: want the attribute {name} of {module}, got none")
    return of[module][name]


def _half(sizes: stylegan3.Config, rates: list[int]) -> int:
    """The number of the highest resolutions that compute in half precision. Their lowest rate is the least of `rates`.

    All resolutions do if there are no rates and values have a limit: layers without half precision have no limit here.
    """
    if rates:
        return sizes.resolution.bit_length() - min(rates).bit_length() + 1
    return len(sizes.resolutions) - 1 if sizes.clamp is not None else sizes.half_resolutions


def _pairs(sizes: stylegan3.Config) -> list[Pair]:
    pairs = [Pair("mapping.w_mean", "mapping.w_avg"), *stylegan2_ada.mapping(sizes, "mapping.layers")]
    pairs += both("mapping.embed", "mapping.embed") if sizes.c_dim else []
    pairs += [Pair(f"synthesis.input.{name}", f"synthesis.input.{name}") for name in ("freqs", "phases", "weight")]
    pairs += both("synthesis.input.affine", "synthesis.input.affine")
    for i, theirs in enumerate(_names(sizes)):
        ours = f"synthesis.layers.{i}"
        pairs += both(ours, theirs) + both(f"{ours}.affine", f"{theirs}.affine")
        pairs.append(Pair(f"{ours}.magnitude", f"{theirs}.magnitude_ema"))
    return pairs
