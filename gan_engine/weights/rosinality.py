"""StyleGAN2 in the layout of rosinality's stylegan2-pytorch, which pSp, e4e, StyleCLIP and many editing tools read.

    {"g": ..., "d": ..., "g_ema": ..., "latent_avg": [w_dim]}

The layout has no classes, a mapping of learning rate 0.01, G with skips and D with residuals. A convolution that
doubles has its taps in reverse order there: it is a transposed convolution.
"""

from typing import Any

import torch
from torch import Tensor

from gan_engine.models import stylegan2
from gan_engine.ops import setup_filter
from gan_engine.system.resolution import named
from gan_engine.weights.layout import LayoutError, Pair, Weights, give, hollow, numbered, take, without
from gan_engine.weights.stylegan2_sizes import channels, config, require_squares

NAME = "rosinality"
ABOUT = "StyleGAN2 of rosinality's stylegan2-pytorch (.pt with g_ema)"
NOT_SLIM = ("g", "d")
NOTE = "the file has no mean of w, so it was measured from 10,000 noises"
NOTE_CLAMP = (
    "the layout has no --clamp: here the {half} highest resolutions limit their values to {clamp:g}, there none does: "
    "results differ only where a value would be larger"
)


def fits(tree: Any) -> bool:
    """True if the tree that was read has this layout."""
    return isinstance(tree, dict) and isinstance(tree.get("g_ema"), dict) and "input.input" in tree["g_ema"]


def convert(tree: dict[str, Any]) -> tuple[stylegan2.Config, dict[str, Weights], tuple[str, ...]]:
    """Our configuration, our networks by name, and sentences on what is not exactly as it was there.

    Raises LayoutError, which says what differs, if our stylegan2 cannot hold the networks.
    """
    sizes = _sizes(tree["g_ema"])
    names = [name for name in ("g", "g_ema") if name in tree]
    networks, notes = {}, []
    G = hollow(stylegan2.Generator, sizes)
    mean = tree.get("latent_avg", torch.zeros(sizes.w_dim))
    for name in names:
        theirs = _without_filters(tree[name], f"{NAME} {name}")
        ours = take(_generator(sizes), theirs | {"latent_avg": mean}, G, f"{NAME} {name}")
        if "latent_avg" not in tree:
            ours["mapping.w_mean"] = _measured_mean(sizes, ours)
        networks["G" if name == "g" else "G_ema"] = ours
    if "latent_avg" not in tree:
        notes.append(NOTE)
    if "d" in tree:
        D = hollow(stylegan2.Discriminator, sizes)
        networks["D"] = take(_discriminator(sizes), _without_filters(tree["d"], f"{NAME} d"), D, f"{NAME} d")
    return sizes, networks, tuple(notes)


def export(sizes: stylegan2.Config, networks: dict[str, Weights]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`networks` in this layout, with its buffers of filters, and sentences on what is not exactly as it was here.

    Raises LayoutError if the layout has no place for the networks.
    """
    wanted = {"architecture": "skip", "d_architecture": "residual", "mapping_lr": 0.01, "c_dim": 0, "channels": 3}
    for field, want in wanted.items():
        if (got := getattr(sizes, field)) != want:
            raise LayoutError(f"{NAME}: want a stylegan2 with {field} {want}, got {got}")
    if not isinstance(sizes.resolution, int):
        raise LayoutError(f"{NAME}: want a stylegan2 of squares, got resolution {named(sizes.resolution)}")
    if sizes.z_dim != sizes.w_dim:
        raise LayoutError(f"{NAME}: want z_dim = w_dim = {sizes.w_dim}, got z_dim {sizes.z_dim}")
    tree: dict[str, Any] = {}
    for ours, theirs in (("G", "g"), ("G_ema", "g_ema")):
        if ours in networks:
            tree[theirs] = give(_generator(sizes), networks[ours])
            mean = tree[theirs].pop("latent_avg")
            tree[theirs] |= _filters(tree[theirs])
            if ours == "G_ema":
                tree["latent_avg"] = mean
    if "D" in networks:
        tree["d"] = give(_discriminator(sizes), networks["D"])
        tree["d"] |= _filters(tree["d"])
    half = sum(map(sizes.is_half, sizes.resolutions))
    limited = sizes.clamp is not None and half > 0
    return tree, (NOTE_CLAMP.format(half=half, clamp=sizes.clamp),) if limited else ()


def _sizes(g: Weights) -> stylegan2.Config:
    what = f"{NAME} g_ema"
    halves = numbered(g, "to_rgbs.{}.bias")
    resolution = 4 << halves
    try:
        widths = {4: g["conv1.conv.weight"].shape[1]}
        widths |= {8 << n: g[f"convs.{2 * n + 1}.conv.weight"].shape[1] for n in range(halves)}
        w_dim, z_dim = g["style.1.weight"].shape
        colours, const = g["to_rgb1.bias"].numel(), g["input.input"]
    except (KeyError, ValueError, IndexError) as error:
        raise LayoutError(f"{what}: want the tensors of a StyleGAN2 generator, got none fit for {error}") from error
    require_squares(const, what)
    layers = numbered(
        [f"{int(n.split('.')[1]) - 1}" for n in g if n.startswith("style.") and n.endswith("weight")], "{}"
    )
    return config(
        what, resolution=resolution, channels=colours, z_dim=z_dim, w_dim=w_dim, mapping_layers=layers, clamp=None,
        **channels(widths, what),
    )  # fmt: skip


@torch.no_grad()
def _measured_mean(sizes: stylegan2.Config, weights: Weights) -> Tensor:
    G = stylegan2.Generator(sizes)
    G.load_state_dict(weights)
    z = torch.randn(10_000, sizes.z_dim, generator=torch.Generator().manual_seed(0))
    return G.eval().mapping(z).mean(0, keepdim=True)


def _first(x: Tensor) -> Tensor:
    return x[None].clone()


def _generator(sizes: stylegan2.Config) -> list[Pair]:
    pairs = [Pair("mapping.w_mean", "latent_avg", give=lambda x: x[0].clone())]
    for i in range(sizes.mapping_layers):
        pairs += [Pair(f"mapping.layers.{i}.{part}", f"style.{i + 1}.{part}") for part in ("weight", "bias")]
    pairs.append(Pair("synthesis.const", "input.input"))
    for n in range(len(sizes.resolutions)):
        block = f"synthesis.blocks.{n}"
        if n == 0:
            pairs += _styled(f"{block}.conv1", "conv1", up=False) + _rgb(f"{block}.to_rgb", "to_rgb1")
            pairs.append(Pair(f"{block}.noise1", "noises.noise_0"))
            continue
        for k in (0, 1):
            pairs += _styled(f"{block}.conv{k}", f"convs.{2 * n - 2 + k}", up=k == 0)
            pairs.append(Pair(f"{block}.noise{k}", f"noises.noise_{2 * n - 1 + k}"))
        pairs += _rgb(f"{block}.to_rgb", f"to_rgbs.{n - 1}")
    return pairs


def _styled(ours: str, theirs: str, *, up: bool) -> list[Pair]:
    return [
        *_modulated(ours, theirs, up=up),
        Pair(f"{ours}.noise_strength", f"{theirs}.noise.weight", give=lambda x: x.reshape(1).clone()),
        Pair(f"{ours}.bias", f"{theirs}.activate.bias"),
    ]


def _rgb(ours: str, theirs: str) -> list[Pair]:
    bias = Pair(f"{ours}.bias", f"{theirs}.bias", give=lambda x: x[None, :, None, None].clone())
    return [*_modulated(ours, theirs, up=False), bias]


def _modulated(ours: str, theirs: str, *, up: bool) -> list[Pair]:
    affine = [Pair(f"{ours}.affine.{part}", f"{theirs}.conv.modulation.{part}") for part in ("weight", "bias")]
    return [Pair(f"{ours}.weight", f"{theirs}.conv.weight", flip=up, give=_first), *affine]


def _discriminator(sizes: stylegan2.Config) -> list[Pair]:
    pairs = [Pair("blocks.0.from_rgb.weight", "convs.0.0.weight"), Pair("blocks.0.from_rgb.bias", "convs.0.1.bias")]
    for n in range(len(sizes.resolutions) - 1):
        ours, theirs = f"blocks.{n}", f"convs.{n + 1}"
        pairs += [
            Pair(f"{ours}.conv0.weight", f"{theirs}.conv1.0.weight"),
            Pair(f"{ours}.conv0.bias", f"{theirs}.conv1.1.bias"),
            Pair(f"{ours}.conv1.weight", f"{theirs}.conv2.1.weight"),
            Pair(f"{ours}.conv1.bias", f"{theirs}.conv2.2.bias"),
            Pair(f"{ours}.skip.weight", f"{theirs}.skip.1.weight"),
        ]
    pairs += [Pair("conv.weight", "final_conv.0.weight"), Pair("conv.bias", "final_conv.1.bias")]
    for ours, theirs in (("linear", "final_linear.0"), ("logit", "final_linear.1")):
        pairs += [Pair(f"{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias")]
    return pairs


def _filters(weights: Weights) -> Weights:
    """The buffers of the layout: a filter behind each convolution that doubles, before each that halves, and others."""
    found = {}
    for name in weights:
        stem = name.removesuffix(".weight")
        parts = stem.split(".")
        if parts[0] == "to_rgbs" and name.endswith("conv.weight"):
            found[f"{parts[0]}.{parts[1]}.upsample.kernel"] = setup_filter(stylegan2.TAPS, separable=False) * 4
        if parts[0] == "convs" and parts[-1] == "conv" and int(parts[1]) % 2 == 0 and name.endswith("weight"):
            found[f"{stem}.blur.kernel"] = setup_filter(stylegan2.TAPS, separable=False) * 4
        if parts[-2:] in (["conv2", "1"], ["skip", "1"]) and name.endswith("weight"):
            found[f"{stem[:-2]}.0.kernel"] = setup_filter(stylegan2.TAPS, separable=False)
    return found


def _without_filters(weights: Weights, what: str) -> Weights:
    f = setup_filter(stylegan2.TAPS, separable=False)
    up = f * 4
    return without(
        weights, lambda name: name.endswith("kernel"), lambda name: f if name.endswith("0.kernel") else up, what
    )
