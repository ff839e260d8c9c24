"""Networks of other programs in plain PyTorch, and the files that those programs make of them."""

import math
import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.dialects import rosinality, stylegan
from tests.weights.pickles import container, persistent

SIZES = {"resolution": 32, "base": 256, "most": 16}


def unlike(*networks):
    """Give biases, strengths and all that begins at a constant values of its own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in (p for network in networks for p in network.parameters()):
            if p.numel() and (p == p.flatten()[0]).all():
                p += 0.3 * torch.randn(p.shape, generator=generator)


def ada(seed=0, **options):
    torch.manual_seed(seed)
    G = stylegan.Generator(z_dim=16, layers=3, conv_clamp=256, **SIZES)
    D = stylegan.Discriminator(conv_clamp=256, **SIZES)
    unlike(G, D)
    return G, D


def ada_pickle(path, G, D=None, w_avg=None, embed=None, D_mapping=None):
    """{"G": ..., "D": ..., "G_ema": ...} with the names of StyleGAN2-ADA."""
    sides = [4 << n for n in range(len(G.blocks))]
    mapping = container(
        "MappingNetwork",
        {f"fc{i}": persistent(layer) for i, layer in enumerate(G.mapping)} | (embed or {}),
        w_avg=torch.arange(16.0) if w_avg is None else w_avg,
    )
    synthesis = container("SynthesisNetwork", {f"b{r}": persistent(b) for r, b in zip(sides, G.blocks, strict=True)})
    of_G = container("Generator", {"synthesis": synthesis, "mapping": mapping})
    tree = {"G": of_G, "D": None, "G_ema": of_G, "augment_pipe": None, "training_set_kwargs": {"path": "a"}}
    if D is not None:
        tree["D"] = ada_discriminator(
            D, {} if D_mapping is None else {"mapping": container("MappingNetwork", D_mapping)}
        )
    Path(path).write_bytes(pickle.dumps(tree, protocol=4))


def ada_discriminator(D, more):
    """D as a tree of persistent objects with the names of StyleGAN2-ADA; `more` are more children."""
    ends = {name: persistent(getattr(D, name)) for name in ("conv", "fc", "out")}
    sides = [4 << n for n in range(len(D.blocks), 0, -1)]
    blocks = {f"b{r}": persistent(block) for r, block in zip(sides, D.blocks, strict=True)}
    return container("Discriminator", blocks | more | {"b4": container("DiscriminatorEpilogue", ends)})


def rosinality_networks(seed=0):
    torch.manual_seed(seed)
    G, D = rosinality.Generator(style_dim=16, layers=3, **SIZES), rosinality.Discriminator(**SIZES)
    unlike(G, D)
    return G, D


def rosinality_keys(G):
    """The state_dict of G under the published names, with the fixed noise that the program keeps beside it."""
    found = {}
    for name, x in G.state_dict().items():
        head, _, rest = name.partition(".")
        if head == "style":
            number, _, part = rest.partition(".")
            name = f"style.{int(number) + 1}.{part}"
        found["input.input" if name == "input" else name] = x
    torch.manual_seed(5)
    for i in range(G.num_ws - 1):
        found[f"noises.noise_{i}"] = torch.randn(1, 1, *[4 << (i + 1) // 2] * 2)
    return found


def with_noise(G, weights, ws):
    """synthesis(ws) of rosinality's G with the fixed noise of a file"""
    noise = [weights[f"noises.noise_{i}"] for i in range(G.num_ws - 1)]
    out = G.conv1(G.input.repeat(len(ws), 1, 1, 1), ws[:, 0], noise[0])
    skip = G.to_rgb1(out, ws[:, 1])
    for n, to_rgb in enumerate(G.to_rgbs):
        out = G.convs[2 * n](out, ws[:, 2 * n + 1], noise[2 * n + 1])
        out = G.convs[2 * n + 1](out, ws[:, 2 * n + 2], noise[2 * n + 2])
        skip = to_rgb(out, ws[:, 2 * n + 3], skip)
    return skip


class Dense(nn.Module):
    def __init__(self, width, growth):
        super().__init__()
        for k in range(1, 6):
            o = width if k == 5 else growth
            setattr(self, f"conv{k}", nn.Conv2d(width + (k - 1) * growth, o, 3, 1, 1))

    def forward(self, x):
        seen = [x]
        for k in range(1, 5):
            seen.append(F.leaky_relu(getattr(self, f"conv{k}")(torch.cat(seen, 1)), 0.2))
        return self.conv5(torch.cat(seen, 1)) * 0.2 + x


class RRDB(nn.Module):
    def __init__(self, width, growth):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(width, growth) for _ in range(3))

    def forward(self, x):
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class RRDBNet(nn.Module):
    """ESRGAN's generator: x [N, C, H, W] from 0 to 1 -> [N, C, scale H, scale W]"""

    def __init__(self, scale=4, channels=3, width=8, blocks=2, growth=32):
        super().__init__()
        self.doublings = int(math.log2(scale))
        self.conv_first = nn.Conv2d(channels, width, 3, 1, 1)
        self.body = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(width, width, 3, 1, 1)
        for k in range(self.doublings):
            setattr(self, f"conv_up{k + 1}", nn.Conv2d(width, width, 3, 1, 1))
        self.conv_hr = nn.Conv2d(width, width, 3, 1, 1)
        self.conv_last = nn.Conv2d(width, channels, 3, 1, 1)

    def forward(self, x):
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for k in range(self.doublings):
            x = F.leaky_relu(getattr(self, f"conv_up{k + 1}")(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))


def esrgan_trunk_keys(weights):
    """The names of BSRGAN"""
    names = {"body": "RRDB_trunk", "rdb": "RDB", "conv_up": "upconv", "conv_hr": "HRconv"}
    found = {}
    for name, x in weights.items():
        name = name.replace("conv_body", "trunk_conv")
        for new, old in names.items():
            name = name.replace(new, old)
        found[name] = x
    return found


def esrgan_first_keys(weights, blocks=2, doublings=2):
    """The names of the first ESRGAN: places in a nn.Sequential, among those of upsamplings and activations"""
    stems = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}"}
    stems |= {f"conv_up{k + 1}": f"model.{3 * (k + 1)}" for k in range(doublings)}
    stems |= {"conv_hr": f"model.{3 * doublings + 2}", "conv_last": f"model.{3 * doublings + 4}"}
    found = {}
    for name, x in weights.items():
        stem, _, part = name.rpartition(".")
        old = stem.replace("body.", "model.1.sub.").replace("rdb", "RDB") + ".0"
        found[f"{stems.get(stem, old)}.{part}"] = x
    return found
