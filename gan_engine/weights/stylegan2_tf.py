"""StyleGAN2 in the pickles of its first program, for TensorFlow: (G, D, Gs), each a network with named arrays.

    4x4/Const/const, 8x8/Conv0_up/weight, 8x8/ToRGB/mod_bias, noise3    in the part "synthesis" of G
    Dense0/weight                                                       in the part "mapping" of G
    64x64/FromRGB/weight, 64x64/Conv1_down/bias, 4x4/Dense0/weight      in D

Convolutions have the weights [kh, kw, I, O] there, and dense layers [I, O]. A style is 1 larger than its bias says. The
other conventions are those of StyleGAN2-ADA for PyTorch, whose names the arrays get first.
"""

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gan_engine.models import stylegan2
from gan_engine.weights import stylegan2_ada
from gan_engine.weights.layout import LayoutError, Weights, hollow, numbered, take
from gan_engine.weights.safe_reader import Record, parts
from gan_engine.weights.stylegan2_sizes import channels, config, require_squares

NAME = "stylegan2-tf"
ABOUT = "StyleGAN2 for TensorFlow (.pkl of G, D and Gs)"
NOT_SLIM = ("G", "D")

_LAYERS_OF_G = {"Conv0_up": "conv0", "Conv1": "conv1", "Conv": "conv1", "ToRGB": "torgb", "Skip": "skip"}
_LAYERS_OF_D = {"FromRGB": "fromrgb", "Conv0": "conv0", "Conv1_down": "conv1", "Skip": "skip"}
_LAYERS_OF_D |= {"Conv": "conv", "Dense0": "fc"}
_PARTS = {"weight": "weight", "bias": "bias", "mod_weight": "affine.weight", "mod_bias": "affine.bias"}
_PARTS |= {"noise_strength": "noise_strength"}
_OF_G = {"4x4/Const/const": "synthesis.b4.const", "dlatent_avg": "mapping.w_avg"}
_USUAL: dict[str, Any] = {
    "resample_kernel": [1, 3, 3, 1],
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "normalize_latents": True,
    "use_noise": True,
    "mbstd_num_features": 1,
}


def by_name(tree: Any) -> Any:
    """(G, D, Gs) of three networks of TensorFlow as {"G": G, "D": D, "G_ema": Gs}; any other tree as it is"""
    if not isinstance(tree, tuple | list) or len(tree) != 3 or not all(map(_is_network, tree)):
        return tree
    return dict(zip(("G", "D", "G_ema"), tree, strict=True))


def fits(tree: Any) -> bool:
    """True if the tree that was read has this layout."""
    return isinstance(tree, dict) and _is_network(tree.get("G_ema"))


def convert(tree: dict[str, Any]) -> tuple[stylegan2.Config, dict[str, Weights], tuple[str, ...]]:
    """Our configuration, our networks by name, and sentences on what is not exactly as it was there.

    Raises LayoutError, which says what differs, if our stylegan2 cannot hold the networks.
    """
    for name, record in tree.items():
        _require_usual(_options(record, f"{NAME} {name}"), f"{NAME} {name}")
    theirs = {name: _named(record, f"{NAME} {name}") for name, record in tree.items()}
    sizes = _sizes(theirs, tree)
    networks = {}
    for name, found in theirs.items():
        if name == "D":
            network, pairs = hollow(stylegan2.Discriminator, sizes), stylegan2_ada.discriminator(sizes)
        else:
            network, pairs = hollow(stylegan2.Generator, sizes), stylegan2_ada.generator(sizes)
        networks[name] = take(pairs, found, network, f"{NAME} {name}")
    return sizes, networks, stylegan2_ada.notes(sizes)


def _is_network(value: Any) -> bool:
    return isinstance(value, Record) and value.name.startswith("dnnlib.tflib") and isinstance(value.state, dict)


def _options(record: Record, what: str) -> dict[str, Any]:
    """The options of a network. Raises LayoutError if there are none: no array tells them."""
    found = record.state.get("static_kwargs")
    if not isinstance(found, dict):
        raise LayoutError(f"{what}: want its options in static_kwargs, got none")
    return found


def _arrays(record: Record) -> dict[str, np.ndarray]:
    """The arrays of a network and of its parts, by their names within their part."""
    found = {}
    networks = filter(_is_network, parts(record.state.get("components"), Record))
    for network in (record, *networks):
        variables = network.state.get("variables")
        for entry in variables if isinstance(variables, tuple | list) else ():
            if isinstance(entry, tuple | list) and len(entry) == 2 and isinstance(entry[1], np.ndarray | float | int):
                found[re.sub("^G_(synthesis|mapping)/", "", str(entry[0]))] = np.asarray(entry[1])
    return found


def _named(record: Record, what: str) -> Weights:
    """The arrays under the names, and in the forms, of StyleGAN2-ADA for PyTorch."""
    found = {}
    for name, array in _arrays(record).items():
        x = torch.from_numpy(np.array(array, np.float32))
        if name == "lod":  # it grew the networks of the first StyleGAN
            continue
        renamed = _of_D(name, x) if what.endswith(" D") else _of_G(name, x)
        if renamed is None:
            raise LayoutError(f"{what}: want the arrays of config E or F, got {name} of {list(x.shape)}")
        found[renamed[0]] = renamed[1]
    return found


def _of_G(name: str, x: Tensor) -> tuple[str, Tensor] | None:
    """The name and the form of an array of G. None: there is no such array in StyleGAN2."""
    if name in _OF_G:
        return _OF_G[name], x
    if match := re.fullmatch(r"noise(\d\d?)", name):
        i = int(match[1])
        return f"synthesis.b{4 << (i + 1) // 2}.conv{1 if i == 0 else (i - 1) % 2}.noise_const", x
    if match := re.fullmatch(r"Dense(\d+)/(weight|bias)", name):
        return f"mapping.fc{match[1]}.{match[2]}", x.t()
    match = re.fullmatch(rf"(\d+)x\1/({'|'.join(_LAYERS_OF_G)})/({'|'.join(_PARTS)})", name)
    if match is None:
        return None
    side, layer, part = match.groups()
    if part == "weight":
        x = x.permute(3, 2, 0, 1).flip([2, 3]) if layer == "Conv0_up" else x.permute(3, 2, 0, 1)
    elif part == "mod_weight":
        x = x.t()
    elif part == "mod_bias":
        x = x + 1
    return f"synthesis.b{side}.{_LAYERS_OF_G[layer]}.{_PARTS[part]}", x


def _of_D(name: str, x: Tensor) -> tuple[str, Tensor] | None:
    """The name and the form of an array of D. None: there is no such array in StyleGAN2."""
    match = re.fullmatch(rf"(?:(\d+)x\1/({'|'.join(_LAYERS_OF_D)})|Output)/(weight|bias)", name)
    if match is None:
        return None
    side, layer, part = match.groups()
    x = x.permute(3, 2, 0, 1) if x.ndim == 4 else x.t() if x.ndim == 2 else x
    return f"b{side}.{_LAYERS_OF_D[layer]}.{part}" if layer else f"b4.out.{part}", x


def _require_usual(options: dict[str, Any], what: str) -> None:
    """Raises LayoutError for options that our networks do not have."""
    for name, usual in _USUAL.items():
        got = options.get(name, usual)
        if (list(got) if isinstance(got, tuple) else got) != usual:
            raise LayoutError(f"{what}: want {name} {usual}, got {got}")


def _sizes(theirs: dict[str, Weights], records: dict[str, Record]) -> stylegan2.Config:
    what, G, D = f"{NAME} G_ema", theirs["G_ema"], theirs.get("D")
    options = _options(records["G_ema"], what)
    found = (re.fullmatch(r"synthesis\.b(\d+)\.conv1\.weight", name) for name in G)
    resolutions = sorted(int(match[1]) for match in found if match)
    try:
        widths = {r: len(G[f"synthesis.b{r}.conv1.weight"]) for r in resolutions}
        last = f"synthesis.b{resolutions[-1]}"
        w_dim, z_dim = G[f"{last}.conv1.affine.weight"].shape[1], G["mapping.fc0.weight"].shape[1]
        colours, const = len(G[f"{last}.torgb.weight"]), G["synthesis.b4.const"]
    except (KeyError, IndexError, TypeError) as error:
        raise LayoutError(f"{what}: want the arrays of a StyleGAN2 generator, got none fit for {error}") from error
    require_squares(const, what)
    clamp, half = options.get("conv_clamp"), options.get("num_fp16_res")
    d: dict[str, Any] = {}
    if D is not None:
        group = _options(records["D"], f"{NAME} D").get("mbstd_group_size", 4)
        d = {"d_architecture": stylegan2_ada.d_architecture(D, resolutions[-1], f"{NAME} D"), "mbstd_group": group}
    return config(
        what, resolution=resolutions[-1], channels=colours, z_dim=z_dim, w_dim=w_dim,
        mapping_layers=numbered(G, "mapping.fc{}.weight"), mapping_lr=float(options.get("mapping_lrmul", 0.01)),
        architecture=stylegan2_ada.architecture(G), clamp=None if clamp is None else float(clamp),
        half_resolutions=half or (4 if clamp is None else len(resolutions) - 1), **channels(widths, what), **d,
    )  # fmt: skip
