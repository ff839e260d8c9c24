"""Discriminators of other fields and code bases, in plain PyTorch, written from their papers.

`DISCRIMINATORS` names them, with the shape of a batch and the number of classes. Some return one logit for each sample.
Others return maps of logits, or a list of outputs.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from benchmarks.discriminators import ResNet


def spectrally_normalised(net: nn.Module) -> nn.Module:
    """`net` with every weight of a convolution, linear layer and embedding divided by its spectral norm."""
    for module in list(net.modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
            spectral_norm(module)
    return net


def dcgan(width: int = 32) -> nn.Sequential:
    """Radford et al. 2016, arXiv:1511.06434: 4x4 convolutions with a stride of 2, batch norms, 64x64 images."""
    widths = (width, 2 * width, 4 * width, 8 * width)
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for i, o in pairwise(widths):
        layers += [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, bias=False), nn.Flatten(0))


def sngan() -> nn.Module:
    """Miyato and Koyama 2018, arXiv:1802.05637: residual blocks, spectral norms, a projection of the class."""
    return spectrally_normalised(ResNet(32))


class BigGANDeep(nn.Module):
    """Brock et al. 2019, arXiv:1809.11096, appendix B: bottlenecks, self-attention, spectral norms, a projection."""

    class Block(nn.Module):
        def __init__(self, i: int, o: int, *, down: bool) -> None:
            super().__init__()
            hidden, self.down, self.more = o // 4, down, o > i
            self.enter, self.leave = nn.Conv2d(i, hidden, 1), nn.Conv2d(hidden, o, 1)
            self.conv1, self.conv2 = (nn.Conv2d(hidden, hidden, 3, padding=1) for _ in range(2))
            if self.more:
                self.skip = nn.Conv2d(i, o - i, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.enter(F.relu(x))
            y = F.relu(self.conv2(F.relu(self.conv1(F.relu(y)))))
            if self.down:
                x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
            return self.leave(y) + (torch.cat([x, self.skip(x)], 1) if self.more else x)

    class Attention(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.query, self.key = (nn.Conv2d(width, width // 8, 1, bias=False) for _ in range(2))
            self.value, self.out = (
                nn.Conv2d(width, width // 2, 1, bias=False),
                nn.Conv2d(width // 2, width, 1, bias=False),
            )
            self.gain = nn.Parameter(torch.full((), 0.5))

        def forward(self, x: Tensor) -> Tensor:
            query = self.query(x).flatten(2)
            key, value = (F.max_pool2d(conv(x), 2).flatten(2) for conv in (self.key, self.value))
            weights = torch.softmax(query.transpose(1, 2) @ key, -1)
            y = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
            return x + self.gain * self.out(y)

    def __init__(self, width: int = 32, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(
            self.Block(width, 2 * width, down=True),
            self.Block(2 * width, 2 * width, down=False),
            self.Attention(2 * width),
            self.Block(2 * width, 4 * width, down=True),
            self.Block(4 * width, 4 * width, down=False),
            self.Block(4 * width, 8 * width, down=True),
        )
        self.linear, self.embed = nn.Linear(8 * width, 1), nn.Embedding(num_classes, 8 * width)
        spectrally_normalised(self)

    def forward(self, img: Tensor, c: Tensor) -> Tensor:
        x = F.relu(self.blocks(self.stem(img))).sum([2, 3])
        return self.linear(x)[:, 0] + (self.embed(c) * x).sum(1)


def patchgan(norm: Callable[[int], nn.Module], width: int = 32) -> nn.Sequential:
    """Isola et al. 2017, arXiv:1611.07004, and CycleGAN: a map with a logit for each patch of 70x70 pixels."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for i, o, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        layers += [nn.Conv2d(i * width, o * width, 4, stride, 1), norm(o * width), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))


class UNet(nn.Module):
    """Wang et al. 2021, arXiv:2107.10833 (Real-ESRGAN): a U-Net with spectral norms, and a logit for each pixel."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        wide = (width, 2 * width, 4 * width, 8 * width)
        self.down = nn.ModuleList(nn.Conv2d(i, o, 4, 2, 1, bias=False) for i, o in pairwise(wide))
        self.up = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in pairwise(wide[::-1]))
        self.last = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.LeakyReLU(0.2, True)),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.LeakyReLU(0.2, True)),
        )
        spectrally_normalised(self)
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, img: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(img), 0.2)
        skips = []
        for conv in self.down:
            skips.append(x)
            x = F.leaky_relu(conv(x), 0.2)
        for conv in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), 0.2) + skips.pop()
        return self.head(self.last(x))


def vgg(width: int = 32) -> nn.Sequential:
    """Ledig et al. 2017, arXiv:1609.04802 (SRGAN), and ESRGAN: pairs of convolutions with batch norms, 64x64 images."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.2, True)]
    wide = [width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
    for n, (i, o) in enumerate(pairwise(wide)):
        conv = nn.Conv2d(i, o, 3, 2 if n % 2 == 0 else 1, 1, bias=False)
        layers += [conv, nn.BatchNorm2d(o), nn.LeakyReLU(0.2, True)]
    head = (nn.Flatten(), nn.Linear(8 * width * 16, 100), nn.LeakyReLU(0.2, True), nn.Linear(100, 1), nn.Flatten(0))
    return nn.Sequential(*layers, *head)


class R3GAN(nn.Module):
    """Huang et al. 2024, arXiv:2501.05441, section 3.4: inverted bottlenecks with grouped convolutions, no norms."""

    class Block(nn.Module):
        def __init__(self, width: int, group: int = 16) -> None:
            super().__init__()
            hidden = 2 * width
            self.expand = nn.Conv2d(width, hidden, 1)
            self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden // group)
            self.reduce = nn.Conv2d(hidden, width, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = F.leaky_relu(self.expand(x), 0.2)
            return x + self.reduce(F.leaky_relu(self.conv(y), 0.2))

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 128)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 1)
        self.stages = nn.ModuleList(nn.Sequential(self.Block(width), self.Block(width)) for width in widths)
        self.widen = nn.ModuleList(nn.Conv2d(i, o, 1, bias=False) for i, o in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1], bias=False)
        self.linear = nn.Linear(widths[-1], 1)

    def forward(self, img: Tensor) -> Tensor:
        x = self.stages[0](self.stem(img))
        for stage, widen in zip(self.stages[1:], self.widen, strict=True):
            x = stage(widen(F.interpolate(x, scale_factor=0.5, mode="bilinear")))
        x = F.adaptive_avg_pool2d(x, 4)
        return self.linear(self.head(x).flatten(1)).squeeze(1)


class Periods(nn.Module):
    """Kong et al. 2020, arXiv:2010.05646 (HiFi-GAN): sound [N, 1, T], folded by five periods; a map for each."""

    def __init__(self, periods: tuple[int, ...] = (2, 3, 5, 7, 11), width: int = 16) -> None:
        super().__init__()
        self.periods = periods
        self.columns = nn.ModuleList(self._column(width) for _ in periods)

    def _column(self, width: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        wide = (1, width, 4 * width, 8 * width)
        for i, o in pairwise(wide):
            layers += [weight_norm(nn.Conv2d(i, o, (5, 1), (3, 1), (2, 0))), nn.LeakyReLU(0.1)]
        return nn.Sequential(*layers, weight_norm(nn.Conv2d(wide[-1], 1, (3, 1), padding=(1, 0))))

    def forward(self, wave: Tensor) -> list[Tensor]:
        maps = []
        for period, column in zip(self.periods, self.columns, strict=True):
            padded = F.pad(wave, (0, -wave.shape[2] % period), "reflect")
            maps.append(column(padded.unflatten(2, (-1, period))).flatten(1))
        return maps


class Resolutions(nn.Module):
    """Jang et al. 2021, arXiv:2106.07889 (UnivNet): convolutions over the magnitudes of three spectrograms."""

    def __init__(self, sizes: tuple[int, ...] = (256, 512, 1024), width: int = 16) -> None:
        super().__init__()
        self.sizes = sizes
        self.columns = nn.ModuleList(self._column(width) for _ in sizes)

    def _column(self, width: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i in (1, width, width, width):
            layers += [weight_norm(nn.Conv2d(i, width, (3, 9), (1, 1 if i == 1 else 2), (1, 4))), nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers, weight_norm(nn.Conv2d(width, 1, 3, padding=1)))

    def forward(self, wave: Tensor) -> list[Tensor]:
        maps = []
        for size, column in zip(self.sizes, self.columns, strict=True):
            window = torch.hann_window(size, dtype=wave.dtype, device=wave.device)
            bins = torch.stft(wave[:, 0], size, size // 4, window=window, return_complex=True)
            magnitude = (bins.real.square() + bins.imag.square() + 1e-6).sqrt()
            maps.append(column(magnitude.transpose(1, 2)[:, None]).flatten(1))
        return maps


class ViT(nn.Module):
    """A transformer of patches, as in Lee et al. 2022, arXiv:2107.04589: attention, layer norms and GELUs."""

    def __init__(self, width: int = 128, depth: int = 4, patch: int = 4, side: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 1)

    def forward(self, img: Tensor) -> Tensor:
        x = self.patches(img).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.layers(x)[:, 0]).squeeze(1)


class CTGAN(nn.Module):
    """Xu et al. 2019, arXiv:1907.00503: packs of ten rows of a table, linear layers, leaky ReLUs and dropout."""

    def __init__(self, columns: int = 60, pack: int = 10, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(columns * pack, width), nn.LeakyReLU(0.2), nn.Dropout(0.5)),
            *(nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Dropout(0.5)),
            nn.Linear(width, 1),
        )

    def forward(self, packs: Tensor) -> Tensor:
        return self.layers(packs.flatten(1)).squeeze(1)


def amp() -> nn.Sequential:
    """Peng et al. 2021, arXiv:2104.02180: two states of a body, 1,024 and 512 units with ReLUs."""
    return nn.Sequential(nn.Linear(210, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 1))


class Sample(NamedTuple):
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of a batch
    num_classes: int = 0
    of_images: bool = True
    attends: bool = False  # by PyTorch's function, whose fused kernels have no second gradient


DISCRIMINATORS: dict[str, Sample] = {
    "dcgan with batch norm": Sample(dcgan, (16, 3, 64, 64)),
    "sngan with projection": Sample(sngan, (16, 3, 32, 32), 10),
    "biggan deep": Sample(BigGANDeep, (16, 3, 32, 32), 10),
    "patchgan with batch norm": Sample(lambda: patchgan(nn.BatchNorm2d), (4, 3, 128, 128)),
    "patchgan with instance norm": Sample(lambda: patchgan(nn.InstanceNorm2d), (4, 3, 128, 128)),
    "u-net with spectral norm": Sample(UNet, (4, 3, 64, 64)),
    "vgg": Sample(vgg, (8, 3, 64, 64)),
    "r3gan": Sample(R3GAN, (8, 3, 32, 32)),
    "periods of sound": Sample(Periods, (8, 1, 8192), of_images=False),
    "spectrograms of sound": Sample(Resolutions, (8, 1, 8192), of_images=False),
    "vit": Sample(ViT, (16, 3, 32, 32), attends=True),
    "ctgan": Sample(CTGAN, (50, 10, 60), of_images=False),
    "amp": Sample(amp, (512, 210), of_images=False),
}
