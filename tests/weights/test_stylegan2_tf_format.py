"""StyleGAN2's pickles of TensorFlow give the results of the networks in them, and what does not fit is named."""

import pickle
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_engine import convert, models
from gan_engine.system import checkpoint
from tests.weights import networks
from tests.weights.conversion import begun_and_trained, built, close, converted
from tests.weights.pickles import BOMBS, EasyDict


class Network:
    """What the pickle of a network of TensorFlow holds: options, parts, and arrays by their names."""

    def __init__(self, name, variables, components=None, **options):
        self.__dict__ |= {"version": 4, "name": name, "static_kwargs": EasyDict(options)}
        self.__dict__ |= {"components": EasyDict(components or {}), "build_module_src": "open('ran', 'w')"}
        self.__dict__ |= {"build_func_name": name, "variables": list(variables.items())}


@pytest.fixture(autouse=True)
def dnnlib(monkeypatch):
    members = {"dnnlib.tflib.network": Network, "dnnlib.util": EasyDict}
    for name in ("dnnlib", "dnnlib.tflib", *members):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for name, member in members.items():
        monkeypatch.setattr(member, "__module__", name)
        setattr(sys.modules[name], member.__name__, member)


def array(x, *axes):
    x = x.detach()
    return (x.permute(*axes) if axes else x).numpy().copy()


def convolution(name, layer):
    found = {f"{name}/weight": array(layer.weight, 2, 3, 1, 0)}
    return found | ({} if layer.bias is None else {f"{name}/bias": array(layer.bias)})


def dense(name, layer):
    return {f"{name}/weight": array(layer.weight, 1, 0), f"{name}/bias": array(layer.bias)}


def modulated(name, layer):
    found = convolution(name, layer) | {f"{name}/mod_weight": array(layer.affine.weight, 1, 0)}
    found |= {f"{name}/mod_bias": array(layer.affine.bias) - np.float32(1)}
    if hasattr(layer, "noise_strength"):
        found[f"{name}/noise_strength"] = np.float32(layer.noise_strength.item())
    if name.endswith("Conv0_up"):  # a transposed convolution there; StyleGAN2-ADA for PyTorch turned its taps
        found[f"{name}/weight"] = found[f"{name}/weight"][::-1, ::-1].copy()
    return found


def tf_G(G, **options):
    """G of StyleGAN2-ADA in the arrays of TensorFlow"""
    synthesis, n = {"4x4/Const/const": array(G.blocks[0].const[None])}, 0
    for k, block in enumerate(G.blocks):
        side = f"{4 << k}x{4 << k}"
        layers = {"Conv": block.conv1} if k == 0 else {"Conv0_up": block.conv0, "Conv1": block.conv1}
        for name, layer in layers.items():
            synthesis |= modulated(f"{side}/{name}", layer)
            synthesis[f"noise{n}"] = array(layer.noise_const[None, None])
            n += 1
        synthesis |= modulated(f"{side}/ToRGB", block.torgb)
    mapping = {}
    for i, layer in enumerate(G.mapping):
        mapping |= dense(f"Dense{i}", layer)
    parts = {"synthesis": Network("G_synthesis", synthesis), "mapping": Network("G_mapping", mapping)}
    own = {"lod": np.float32(0), "dlatent_avg": np.arange(16, dtype=np.float32)}
    return Network("G", own, parts, **options)


def tf_D(D, **options):
    found = {"lod": np.float32(0)}
    sides = [4 << k for k in range(len(D.blocks), 0, -1)]
    for side, block in zip(sides, D.blocks, strict=True):
        names = {"FromRGB": "fromrgb", "Conv0": "conv0", "Conv1_down": "conv1", "Skip": "skip"}
        for name, ours in names.items():
            if getattr(block, ours, None) is not None:
                found |= convolution(f"{side}x{side}/{name}", getattr(block, ours))
    found |= convolution("4x4/Conv", D.conv) | dense("4x4/Dense0", D.fc) | dense("Output", D.out)
    return Network("D", found, **options)


def made():
    """Networks without limits, as in the first program"""
    G, D = networks.ada()
    for module in (*G.modules(), *D.modules()):
        if hasattr(module, "conv_clamp"):
            module.conv_clamp = None
    return G, D


def save(G, D, change=lambda G, D: None, **options):
    G, D = tf_G(G, **options), tf_D(D)
    change(G, D)
    Path("a.pkl").write_bytes(pickle.dumps((G, D, G), protocol=3))


def test_stylegan2_for_tensorflow(capsys):
    G, D = made()
    save(G, D, resample_kernel=[1, 3, 3, 1], truncation_psi=0.5)
    converted("a.pkl", "a.pt")
    out = capsys.readouterr().out
    assert "found      stylegan2-tf: G, D, G_ema of stylegan2" in out and "--channel-base 256" in out
    ours, our_D = built("a.pt")
    z, img = torch.randn(4, 16), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        close(ours(z), G.eval()(z, noise_mode="const"))
        close(our_D(img)[:, None], D(img))
        close(ours(z, truncation=0.5), G.synthesis(torch.arange(16.0).lerp(G.ws(z), 0.5), noise_mode="const"))
    assert models.from_dict(checkpoint.load("a.pt")["model"]).clamp is None


def test_limits_are_read_from_the_options(capsys):
    save(*made(), conv_clamp=256, num_fp16_res=2)
    converted("a.pkl", "a.pt")
    assert "there every layer limits its values to 256, here those of the 2 highest" in capsys.readouterr().out


def arrays(network, part=None):
    return (network.components[part] if part else network).variables


def stretch_const(G, D):
    variables = arrays(G, "synthesis")
    variables[:] = [(name, x[..., :3] if name == "4x4/Const/const" else x) for name, x in variables]


def drop(variables, name):
    variables[:] = [entry for entry in variables if entry[0] != name]


@pytest.mark.parametrize(
    ("change", "want"),
    [
        (
            lambda G, D: drop(arrays(G, "synthesis"), "16x16/Conv1/mod_bias"),
            "G: want synthesis.b16.conv1.affine.bias, got no tensor of that name",
        ),
        (
            lambda G, D: arrays(G, "synthesis").append(("ToRGB_lod0/weight", np.ones(3))),
            r"G: want the arrays of config E or F, got ToRGB_lod0/weight of \[3\]",
        ),
        (
            lambda G, D: arrays(G, "mapping").append(("LabelConcat/weight", np.ones((5, 16)))),
            r"G: want the arrays of config E or F, got LabelConcat/weight of \[5, 16\]",
        ),
        (
            lambda G, D: arrays(G, "synthesis").append(("8x8/Conv1/bias", np.ones(3))),
            r"G: want synthesis.b8.conv1.bias of \[16\], got \[3\]",
        ),
        (stretch_const, "G_ema: want a network of square images, .* got one that begins with 4x3: rectangles of other"),
        (lambda G, D: arrays(G).append(("dlatent_avg", np.full(16, np.nan))), "want finite numbers in mapping.w_avg"),
        (lambda G, D: drop(arrays(D), "Output/bias"), "D: want b4.out.bias, got no tensor of that name"),
        (
            lambda G, D: drop(arrays(D), "32x32/Skip/weight"),
            "D: want the architecture skip or resnet, got orig; --slim",
        ),
        (lambda G, D: G.components.clear(), "want the arrays of a StyleGAN2 generator, got none fit for"),
        (
            lambda G, D: G.static_kwargs.update(resample_kernel=[1, 2, 1]),
            r"G: want resample_kernel \[1, 3, 3, 1\], got \[1, 2, 1\]",
        ),
        (lambda G, D: delattr(G, "static_kwargs"), "want its options in static_kwargs, got none"),
        (lambda G, D: D.static_kwargs.update(nonlinearity="relu"), "D: want nonlinearity lrelu, got relu"),
    ],
)
def test_what_our_stylegan2_cannot_hold_is_said(tmp_path, capsys, change, want):
    save(*made(), change)
    assert convert.main(["a.pkl", "a.pt"]) == 2
    error = capsys.readouterr().err
    assert re.search(want, error), error
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_slim_leaves_a_D_that_does_not_fit():
    save(*made(), lambda G, D: drop(arrays(D), "Output/bias"))
    converted("a.pkl", "a.pt", "--slim")
    assert "D" not in checkpoint.load("a.pt")


def test_another_pickle_of_tensorflow_is_named(capsys):
    Path("a.pkl").write_bytes(pickle.dumps({"Gs": tf_G(made()[0])}))
    assert convert.main(["a.pkl", "a.pt"]) == 2
    assert "networks of TensorFlow are not converted: want a pickle of three networks, G, D and Gs" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_by_its_name(capsys, bomb):
    value, name = BOMBS[bomb]
    save(*made(), lambda G, D: arrays(G, "mapping").append(("Dense9/weight", value)))
    assert convert.main(["a.pkl", "a.pt"]) == 2
    error = capsys.readouterr().err
    assert re.search(rf"want numbers and text only, got (\w+\.)?{name}; nothing was read", error), error


def test_training_goes_on():
    save(*made())
    converted("a.pkl", "a.pt")
    flags = ["--res", "32", "--z-dim", "16", "--w-dim", "16", "--channel-base", "256", "--channel-max", "16"]
    begun_and_trained("stylegan2_32", [*flags, "--mapping-layers", "3"])
