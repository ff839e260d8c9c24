"""The networks of pytorch-CycleGAN-and-pix2pix in plain PyTorch, under the names of their state_dicts."""

import torch
from torch import nn


def norms(kind):
    """The norm, and whether a convolution in front of it has a bias. old: an instance norm of PyTorch before 0.4."""
    made = {
        "instance": lambda o: nn.InstanceNorm2d(o),
        "batch": lambda o: nn.BatchNorm2d(o),
        "old": lambda o: Old(o),
        "none": lambda o: nn.Identity(),
    }
    return made[kind], kind in ("instance", "old")


class Old(nn.InstanceNorm2d):
    """Statistics are in the file, but each image is normalised by its own."""

    def __init__(self, features):
        super().__init__(features)
        self.register_buffer("running_mean", torch.randn(features))
        self.register_buffer("running_var", torch.rand(features))
        self.register_buffer("num_batches_tracked", torch.tensor(7))

    def forward(self, x):
        return nn.functional.instance_norm(x)


class ResnetBlock(nn.Module):
    def __init__(self, width, kind, *, dropout):
        super().__init__()
        norm, bias = norms(kind)
        conv = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), norm(width)]
        last = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), norm(width)]
        self.conv_block = nn.Sequential(*conv, nn.ReLU(), *([nn.Dropout(0.5)] if dropout else []), *last)

    def forward(self, x):
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    """x [N, I, H, W] -> [N, O, H, W]"""

    def __init__(self, i=3, o=3, width=4, blocks=6, kind="instance", *, dropout=False):
        super().__init__()
        norm, bias = norms(kind)
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(i, width, 7, bias=bias), norm(width), nn.ReLU()]
        for w in (width, 2 * width):
            layers += [nn.Conv2d(w, 2 * w, 3, stride=2, padding=1, bias=bias), norm(2 * w), nn.ReLU()]
        layers += [ResnetBlock(4 * width, kind, dropout=dropout) for _ in range(blocks)]
        for w in (4 * width, 2 * width):
            up = nn.ConvTranspose2d(w, w // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)
            layers += [up, norm(w // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, o, 7), nn.Tanh())

    def forward(self, x):
        return self.model(x)


class UnetBlock(nn.Module):
    """A block of the U-Net around the next, smaller one; None: this is the smallest. The largest reads a source."""

    def __init__(self, outer, width, inner, kind, *, source=None, dropout=False):
        super().__init__()
        norm, bias = norms(kind)
        self.outermost = source is not None
        down = nn.Conv2d(source or outer, width, 4, stride=2, padding=1, bias=bias)
        up = nn.ConvTranspose2d(
            width if inner is None else 2 * width, outer, 4, stride=2, padding=1, bias=bias or self.outermost
        )
        if self.outermost:
            layers = [down, inner, nn.ReLU(), up, nn.Tanh()]
        elif inner is None:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, norm(outer)]
        else:
            layers = [nn.LeakyReLU(0.2), down, norm(width), inner, nn.ReLU(), up, norm(outer)]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class UnetGenerator(nn.Module):
    """x [N, I, R, R] -> [N, O, R, R], R = 2^downs"""

    def __init__(self, i=3, o=3, width=4, downs=5, kind="batch"):
        super().__init__()
        block = UnetBlock(8 * width, 8 * width, None, kind)
        for _ in range(downs - 5):
            block = UnetBlock(8 * width, 8 * width, block, kind, dropout=True)
        for w in (4 * width, 2 * width, width):
            block = UnetBlock(w, 2 * w, block, kind)
        self.model = UnetBlock(o, width, block, kind, source=i)

    def forward(self, x):
        return self.model(x)


class NLayerDiscriminator(nn.Module):
    """x [N, I, H, W] -> [N, 1, H / 8 - 2, W / 8 - 2]"""

    def __init__(self, i=3, width=4, layers=3, kind="instance"):
        super().__init__()
        norm, bias = norms(kind)
        parts, w = [nn.Conv2d(i, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)], width
        for n in range(1, layers + 1):
            o = width * min(2**n, 8)
            parts.append(nn.Conv2d(w, o, 4, stride=2 if n < layers else 1, padding=1, bias=bias))
            parts += [norm(o), nn.LeakyReLU(0.2)]
            w = o
        self.model = nn.Sequential(*parts, nn.Conv2d(w, 1, 4, stride=1, padding=1))

    def forward(self, x):
        return self.model(x)


def one_by_one(network, *images):
    """network([N, ...]) as its program computes it: batches of one image, statistics of that image, no dropout"""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        return torch.cat([network(*(img[None] for img in of_one)) for of_one in zip(*images, strict=True)])
