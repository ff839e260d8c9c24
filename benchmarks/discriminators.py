"""Piecewise linear discriminators of the usual shapes, for tests and benchmarks: img [N, C, H, W] -> logits [N].

They are written as users write them, with PyTorch's own layers. The last one also uses `bias_act`.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.ops import bias_act


def convolutions(width: int = 64, depth: int = 5) -> nn.Sequential:
    """`depth` 3x3 convolutions of `width` channels with leaky ReLUs, and the sum of the result over the image."""
    layers = [layer for _ in range(depth) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2))]
    return nn.Sequential(*layers, Sum())


class Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum((1, 2, 3))


def dcgan(width: int = 64, *, channels: int = 3, spectral_norm: bool = False) -> nn.Sequential:
    """The discriminator of Radford et al. 2016, arXiv:1511.06434, for 64x64 images, without its batch norms."""
    wrap = nn.utils.parametrizations.spectral_norm if spectral_norm else lambda layer: layer
    widths = [channels, width, 2 * width, 4 * width, 8 * width]
    layers = []
    for i, o in pairwise(widths):
        layers += [wrap(nn.Conv2d(i, o, 4, 2, 1)), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, wrap(nn.Conv2d(widths[-1], 1, 4)), nn.Flatten(0))


class ResNet(nn.Module):
    """Residual blocks with ReLUs and average pooling, a sum over the image, and a projection of the class.

    Miyato and Koyama 2018, arXiv:1802.05637, without spectral norms.
    """

    class Block(nn.Module):
        def __init__(self, i: int, o: int, *, first: bool = False) -> None:
            super().__init__()
            self.first = first
            self.conv1 = nn.Conv2d(i, o, 3, padding=1)
            self.conv2 = nn.Conv2d(o, o, 3, padding=1)
            self.skip = nn.Conv2d(i, o, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv1(x if self.first else F.relu(x))
            y = self.conv2(F.relu(y))
            return F.avg_pool2d(y, 2) + self.skip(F.avg_pool2d(x, 2))

    def __init__(self, width: int = 64, *, channels: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width]
        pairs = pairwise(widths)
        self.blocks = nn.Sequential(*(self.Block(i, o, first=n == 0) for n, (i, o) in enumerate(pairs)))
        self.linear = nn.Linear(widths[-1], 1)
        self.embed = nn.Embedding(num_classes, widths[-1])

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        x = F.relu(self.blocks(img)).sum([2, 3])
        logits = self.linear(x)[:, 0]
        return logits if c is None else logits + (self.embed(c) * x).sum(1)


class R3GAN(nn.Module):
    """Residual blocks 1x1, grouped 3x3, 1x1 with an inverted bottleneck, biases before leaky ReLUs and no norms.

    Written from the description in Huang et al. 2024, arXiv:2501.05441, section 3.4. A stage is a transition, which
    resamples bilinearly and widens, and two blocks. The last layer of a block begins at zero in the paper, here small.
    """

    class Block(nn.Module):
        def __init__(self, width: int, group: int, expansion: int) -> None:
            super().__init__()
            hidden = width * expansion
            self.expand = nn.Conv2d(width, hidden, 1, bias=False)
            self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden // group, bias=False)
            self.reduce = nn.Conv2d(hidden, width, 1, bias=False)
            self.bias1 = nn.Parameter(torch.zeros(hidden))
            self.bias2 = nn.Parameter(torch.zeros(hidden))
            with torch.no_grad():
                self.reduce.weight.mul_(0.25)

        def forward(self, x: Tensor) -> Tensor:
            y = bias_act(self.expand(x), self.bias1, act="lrelu")
            y = bias_act(self.conv(y), self.bias2, act="lrelu")
            return x + self.reduce(y)

    class Transition(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            self.widen = nn.Conv2d(i, o, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.widen(F.interpolate(x, scale_factor=0.5, mode="bilinear"))

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128, 256, 256),
        *,
        channels: int = 3,
        group: int = 16,
        expansion: int = 2,
    ) -> None:
        super().__init__()
        stages = [nn.Conv2d(channels, widths[0], 1)]
        for n, width in enumerate(widths):
            if n > 0:
                stages.append(self.Transition(widths[n - 1], width))
            stages += [self.Block(width, group, expansion) for _ in range(2)]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1], bias=False)
        self.linear = nn.Linear(widths[-1], 1)

    def forward(self, img: Tensor) -> Tensor:
        return self.linear(self.head(self.stages(img)).flatten(1)).squeeze(1)
