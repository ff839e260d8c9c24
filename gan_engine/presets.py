"""Presets, which are named runs: each function returns a complete configuration, and its docstring says what it trains.

A function that takes a resolution and a device is called again with the values of the command line. It chooses other
values to fit them, and the command line may override these values too.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data.kinds import kind_of
from gan_engine.system.devices import choose_device
from gan_engine.system.resolution import Resolution, height_width


class Cost(NamedTuple):
    """The cost of a preset, for the list of presets.

    Attributes:
        G, D: numbers of parameters, with ten classes if the preset has classes. They are written down because building
            all networks takes half a minute of a slow core. A test counts them.
        minutes: minutes on one core of an AMD EPYC with AVX-512, in bfloat16 (2026-11), at the rates of runs that were
            mostly shorter. None: the preset is for a GPU.
    """

    G: int
    D: int
    minutes: int | None = None


# All presets, in the order of this file. The first preset runs if none is named. Plug-ins add theirs.
PRESETS: dict[str, Callable[..., Config]] = {}
COSTS: dict[str, Cost] = {}


def _preset(**cost: int) -> Callable[[Callable[..., Config]], Callable[..., Config]]:
    """Make a function a preset of its name. `cost` has the fields of Cost; without them the parameters are counted."""

    def register(function: Callable[..., Config]) -> Callable[..., Config]:
        PRESETS[function.__name__] = function
        if cost:
            COSTS[function.__name__] = Cost(**cost)
        return function

    return register


@_preset(G=363_553, D=167_905, minutes=3)
def garments() -> Config:
    """Three minutes of a small conditional GAN: ten kinds of embedded garments, 32x32 grey images."""
    # Chosen by fd_fashion32 N=1000 at equal time on one thread with AVX2 in float32 (one seed each, 2026-11). Classes
    # help early: 41 after 10 kimg of cgan, 128 of dcgan, equally fast. Half of cgan's width trains 390 images a second
    # instead of 133, and needs hardly more of them: 18 after 30 kimg, 16 at full width. A half-life of 0.5 kimg gives
    # 65 after 5 kimg and 17.7 after 30; of 1 kimg 101 and 18.0.
    model = models.cgan.Config(width=32)
    run = {"conditional": True, "batch_size": 32, "lr": 4e-4, "ema_kimg": 0.5, "minutes": 3, "kimg": 100}
    return Config(preset="garments", model=model, grid_kimg=5, **run)


@_preset(G=1_066_881, D=661_312, minutes=4)
def dcgan() -> Config:
    """The deep convolutional GAN, 32x32 grey images."""
    # The paper has batches of 128 at a rate of 2e-4. Small batches at twice the rate show the same shapes after less
    # than half as many images. Grids of embedded images were compared by eye (10 and 20 kimg, 2 cores, 2026-11).
    return Config(preset="dcgan", model=models.dcgan.Config(), batch_size=32, lr=4e-4, kimg=100, grid_kimg=5)


@_preset(G=1_732_352, D=1_705_985, minutes=2)
def vanilla() -> Config:
    """The fully connected GAN, 32x32 grey images."""
    return Config(preset="vanilla", model=models.vanilla.Config(), kimg=300)


@_preset(G=1_050_691, D=393_409, minutes=71)
def upsample_gan() -> Config:
    """The tutorials' GAN for CIFAR-10, 32x32 colour images: nearest neighbours and convolutions."""
    return Config(preset="upsample_gan", model=models.upsample_gan.Config(), data="cifar10", batch_size=32, kimg=1000)


@_preset(G=1_066_881, D=661_312, minutes=11)
def wgan() -> Config:
    """The Wasserstein GAN with clipped weights (Arjovsky et al. 2017), 32x32 grey images."""
    # The paper has RMSProp, which is Adam without its first moment, except in the first steps.
    return Config(
        preset="wgan",
        model=models.dcgan.Config(),
        loss="wasserstein",
        weight_clip=0.01,
        n_critic=5,
        lr=5e-5,
        betas=(0.0, 0.99),
        kimg=500,
    )


@_preset(G=1_066_881, D=660_928, minutes=18)
def wgan_gp() -> Config:
    """The Wasserstein GAN with a gradient penalty (Gulrajani et al. 2017), 32x32 grey images."""
    return Config(
        preset="wgan_gp",
        model=models.dcgan.Config(d_norm=False),
        loss="wasserstein",
        gp_weight=10,
        n_critic=5,
        lr=1e-4,
        betas=(0.0, 0.9),
        kimg=500,
    )


@_preset(G=12_173_272, D=14_037_569, minutes=360)
def stylegan2(resolution: Resolution = 64, device: str = "auto", processes: int = 1) -> Config:
    """StyleGAN2 in colour, with batch, gamma, feature maps and averages to fit --resolution and --device."""
    # A GPU gets the rules that the ADA follow-up (arXiv:2006.06676) publishes for any data set. A CPU gets an eighth of
    # the feature maps of config F, batches of at most 16 and no path lengths: 64x64 trains at a dozen images a second.
    # gamma is 25 times the rule's on a CPU. 3,486 emoji of 64x64, at the rule's 0.05: loss/D was 0.25 after 45 kimg,
    # and G drew faint spots. It is 0.5 at 25 times that, and there are shapes and edges (docs/gallery). Several
    # processes share a batch of 64, in groups of at least 4 for the minibatch statistic.
    gpu = choose_device(device).type == "cuda"
    side = math.isqrt(math.prod(height_width(resolution)))  # of a square with as many pixels
    share = min(4096 // side, 32 if gpu else 16, 64 // processes)
    config = _stylegan2(
        "stylegan2",
        resolution,
        channel_base=(32768 if side >= 512 else 16384) if gpu else 4096,
        mapping_layers=2,
        batch_size=processes * max(4, share // 4 * 4),
        kimg=25000 if gpu else 200,
        lr=2e-3 if side >= 1024 else 2.5e-3,
        ema_rampup=0.05,
    )
    return config if gpu else dataclasses.replace(config, pl_weight=0, r1_gamma=25 * config.r1_gamma)


@_preset(G=19_947_539, D=21_507_073)
def stylegan2_32() -> Config:
    """StyleGAN2, 32x32 colour images, 512 feature maps throughout; for a GPU."""
    return _stylegan2("stylegan2_32", 32, channel_base=16384, mapping_layers=2, batch_size=64)


@_preset(G=22_243_608, D=23_407_361)
def stylegan2_64() -> Config:
    """StyleGAN2, 64x64 colour images; for a GPU."""
    return _stylegan2("stylegan2_64", 64, channel_base=16384, mapping_layers=2, batch_size=32)


@_preset(G=22_949_277, D=23_882_369)
def stylegan2_128() -> Config:
    """StyleGAN2, 128x128 colour images; for a GPU."""
    return _stylegan2("stylegan2_128", 128, channel_base=16384, mapping_layers=2, batch_size=32)


@_preset(G=24_767_458, D=24_001_089)
def stylegan2_256() -> Config:
    """StyleGAN2, config E of the paper at 256x256 (batches of 64); for a GPU."""
    return _stylegan2("stylegan2_256", 256, channel_base=16384, batch_size=64, ema_kimg=20)


@_preset(G=30_276_583, D=28_982_849)
def stylegan2_512() -> Config:
    """StyleGAN2, config F of the paper at 512x512; for a GPU."""
    return _stylegan2("stylegan2_512", 512, batch_size=32, batch_gpu=8)


@_preset(G=30_370_060, D=29_012_513)
def stylegan2_1024() -> Config:
    """StyleGAN2, config F of the paper, 1024x1024; for a GPU."""
    return _stylegan2("stylegan2_1024", 1024, batch_size=32, batch_gpu=4, lr=2e-3)


def _stylegan2(preset: str, resolution: Resolution, *, batch_size: int, kimg: float = 25000, **options: Any) -> Config:
    """A run of stylegan2. `options` are fields of the model or of the run.

    Adam has no first moment (arXiv:1912.04958, appendix B). The half-life of G's moving average is 10 kimg for the
    paper's batch of 32, and proportional to the batch. R1 is lazy; the rule of thumb of arXiv:2006.06676 gives gamma.
    The path length penalty is as in the paper.
    """
    sizes = {field.name for field in dataclasses.fields(models.stylegan2.Config)} & options.keys()
    model = models.stylegan2.Config(resolution=resolution, **{name: options.pop(name) for name in sizes})
    run = {"data": "toy", "lr": 2.5e-3, "betas": (0.0, 0.99), "ema_kimg": 10 * batch_size / 32}
    run |= {
        "r1_gamma": 2e-4 * math.prod(height_width(resolution)) / batch_size,
        "penalty_interval": 16,
        "pl_weight": 2,
    } | options
    return Config(preset=preset, model=model, batch_size=batch_size, kimg=kimg, **run)


@_preset(G=506_517, D=366_945, minutes=90)
def stylegan3_t_64() -> Config:
    """StyleGAN3-T, 64x64 colour images that move as one; narrow, for a CPU."""
    return _stylegan3("stylegan3_t_64", **_NARROW)


@_preset(G=332_923, D=366_945, minutes=200)
def stylegan3_r_64() -> Config:
    """StyleGAN3-R, 64x64 colour images that turn as one too; narrow, for a CPU."""
    return _stylegan3("stylegan3_r_64", variant="r", **_NARROW)


@_preset(G=28_472_133, D=28_864_129)
def stylegan3_t_256() -> Config:
    """StyleGAN3-T, config T of the paper at 256x256; for a GPU."""
    return _stylegan3("stylegan3_t_256", resolution=256, batch_size=32, batch_gpu=16, kimg=25000, ema_kimg=10)


# The minutes are from 7.3 (t) and 3.3 (r) images a second on one thread of a Xeon with AVX-512, in bf16, over the first
# 320 and 152 images (2026-11). gamma is 25 times the rule's, as that of stylegan2 on a CPU.
_NARROW = {"channel_base": 2048, "channel_max": 64, "z_dim": 64, "w_dim": 64, "batch_size": 8, "kimg": 40}
_NARROW |= {"ema_kimg": 1, "r1_gamma": 25 * 2e-4 * 64**2 / 8}


def _stylegan3(preset: str, **options: Any) -> Config:
    """A run of stylegan3. `options` are fields of the model or of the run.

    As in arXiv:2106.12423, Adam has no first moment, R1 is lazy, and there are no path lengths and no mixing of styles.
    Our D learns at the rate of G, 0.0025. The rule of thumb of arXiv:2006.06676 gives gamma.
    """
    sizes = {field.name for field in dataclasses.fields(models.stylegan3.Config)} & options.keys()
    model = models.stylegan3.Config(**{name: options.pop(name) for name in sizes})
    run = {"data": "toy", "lr": 2.5e-3, "betas": (0.0, 0.99), "penalty_interval": 16}
    run |= {"r1_gamma": 2e-4 * model.resolution**2 / options["batch_size"]} | options
    return Config(preset=preset, model=model, **run)


@_preset(G=178_129, D=170_064, minutes=11)
def r3gan() -> Config:
    """R3GAN, small: 32x32 grey images, a relativistic loss with R1 and R2 in every step."""
    model = models.r3gan.Config(width=16, blocks=1)
    # Adam has no first moment in the paper. A first moment helps in a short run. The distance fd_fashion32 N=1000 is 71
    # without it (gamma 0.1) and 51 with it, at gamma 1 and this rate (12 to 14 kimg in bf16, one seed each, 2026-11).
    # It is 58 at twice the rate, 58 at twice the rate and gamma 0.1, and 61 at gamma 5.
    return _r3gan("r3gan", model, batch_size=16, kimg=100, lr=1e-3, gamma=1.0, betas=(0.5, 0.99))


@_preset(G=4_871_715, D=4_847_520)
def r3gan_64() -> Config:
    """R3GAN, 64x64 colour images; for a GPU."""
    model = models.r3gan.Config(resolution=64, channels=3, width=96, max_width=384)
    return _r3gan("r3gan_64", model, data="toy", batch_size=64, kimg=10000, gamma=1.0, ema_kimg=10)


@_preset(G=911_105, D=663_489, minutes=4)
def cgan() -> Config:
    """A conditional GAN, 32x32 grey images of ten classes."""
    return Config(preset="cgan", model=models.cgan.Config(), conditional=True, batch_size=32, lr=4e-4, kimg=100)


@_preset(G=725_633, D=214_849, minutes=8)
def sngan() -> Config:
    """The residual GAN with spectral norms, 32x32 grey images and a hinge loss."""
    return _sngan("sngan", models.sngan.Config())


@_preset(G=727_682, D=215_362, minutes=10)
def sagan() -> Config:
    """SAGAN: residual networks with self-attention at 16x16 and spectral norms in both, 32x32 grey images."""
    return _sngan("sagan", models.sngan.Config(attention=16, g_spectral_norm=True))


@_preset(G=403_330, D=353_539, minutes=7)
def lapgan() -> Config:
    """The Laplacian pyramid of GANs at 8x8, 16x16 and 32x32, grey images."""
    return Config(preset="lapgan", model=models.lapgan.Config(), lr=4e-4, batch_size=32, kimg=200)


def _sngan(preset: str, model: models.sngan.Config) -> Config:
    return Config(preset=preset, model=model, loss="hinge", batch_size=32, lr=4e-4, betas=(0.0, 0.9), kimg=100)


def _r3gan(preset: str, model: models.r3gan.Config, *, gamma: float, **options: Any) -> Config:
    run = {"loss": "relativistic", "r1_gamma": gamma, "r2_gamma": gamma, "betas": (0.0, 0.99)} | options
    return Config(preset=preset, model=model, **run)


@_preset(G=5_335_331, D=696_225, minutes=6)
def pix2pix() -> Config:
    """pix2pix, 64x64 colour images from silhouettes, or from the pairs of --data."""
    model = models.pix2pix.Config(resolution=64, width=32, max_width=256, d_width=32)
    return _translation("pix2pix", model, kimg=12)


@_preset(G=39_158_339, D=2_768_705)
def pix2pix_256() -> Config:
    """pix2pix in the sizes of its paper, 256x256 pairs; for a GPU."""
    return _translation("pix2pix_256", models.pix2pix.Config(), kimg=400)


@_preset(G=2_217_702, D=1_389_378, minutes=20)
def cyclegan() -> Config:
    """CycleGAN, 64x64 silhouettes and colour images, or trainA and trainB of --data."""
    model = models.cyclegan.Config(resolution=64, width=24, d_width=32)
    return _translation("cyclegan", model, loss="least_squares", kimg=12)


@_preset(G=22_766_854, D=5_531_266)
def cyclegan_256() -> Config:
    """CycleGAN in the sizes of its paper, 256x256 images of two kinds; for a GPU."""
    return _translation("cyclegan_256", models.cyclegan.Config(), loss="least_squares", kimg=400)


@_preset(G=1_547_350, D=23_563_649)
def srgan() -> Config:
    """SRGAN in the sizes of its paper, 96x96 patches of photographs from 24x24, with perceptual features; for a GPU."""
    return _srgan("srgan", models.srgan.Config(perceptual_weight=1), kimg=4000, pretrain_kimg=2000)


@_preset(G=136_105, D=589_409, minutes=9)
def srgan_light() -> Config:
    """SRGAN, small: 48x48 patches of photographs from 24x24."""
    model = models.srgan.Config(resolution=48, scale=2, width=32, blocks=4, d_width=16)
    return _srgan("srgan_light", model, kimg=100, pretrain_kimg=60, lr=2e-4)


@_preset(G=16_697_987, D=38_243_713)
def esrgan() -> Config:
    """SRGAN with the generator of ESRGAN and a relativistic loss, 128x128 patches from 32x32; for a GPU."""
    model = models.srgan.Config(resolution=128, variant="rrdb", perceptual_weight=1)
    return _srgan("esrgan", model, loss="relativistic", kimg=8000, pretrain_kimg=4000)


def _srgan(preset: str, model: models.Config, *, kimg: float, **options: Any) -> Config:
    """The batch, the rate and the moments of the papers; the rate falls in the last quarter of the run."""
    run = {"data": "toy", "batch_size": 16, "lr": 1e-4, "betas": (0.9, 0.999), "lr_decay": 0.25} | options
    return Config(
        preset=preset, model=model, mirror=True, kimg=kimg, grid_kimg=kimg / 20, checkpoint_kimg=kimg / 20, **run
    )


@_preset(G=2_296_257, D=665_824, minutes=12)
def gan3d() -> Config:
    """3D-GAN, small: volumes of 32x32x32 voxels, procedural solids or the volumes of --data."""
    return _gan3d("gan3d", models.gan3d.Config(), batch_size=16, kimg=40)


@_preset(G=17_569_665, D=11_047_872)
def gan3d_64() -> Config:
    """3D-GAN in the sizes of its paper, volumes of 64x64x64 voxels; for a GPU."""
    return _gan3d("gan3d_64", models.gan3d.Config(resolution=64, width=64), batch_size=64, kimg=1000)


def _gan3d(preset: str, model: models.gan3d.Config, **options: Any) -> Config:
    # The paper has cross-entropies, rates of 2.5e-3 for G and 1e-5 for D, and a D that waits while it is right four
    # times in five. A hinge loss needs one rate only. Toy solids at 5 kimg, by eye (one seed, 2026-11): hinge and
    # batches of 16 at 4e-4 give tori and plates; the nonsaturating loss with R1 and batches of 32 gives shreds, at 4e-4
    # and 1e-3. R1 makes samples less alike: the share of occupied voxels varies by 0.043 with R1, by 0.028 without R1,
    # and by 0.112 in the data.
    run = {"loss": "hinge", "lr": 4e-4, "r1_gamma": 1.0, "penalty_interval": 4} | options
    return Config(preset=preset, model=model, data="toy", **run)


@_preset(G=17_154, D=17_025, minutes=1)
def ring() -> Config:
    """Fully connected GAN of points: 8 Gaussians on a circle, which shows mode collapse within a minute."""
    return _points("ring", "toy:ring")


@_preset(G=17_154, D=17_025, minutes=1)
def grid() -> Config:
    """Fully connected GAN of points: 25 Gaussians in a square."""
    return _points("grid", "toy:grid")


def _points(preset: str, data: str) -> Config:
    run = {"batch_size": 256, "lr": 1e-3, "ema_kimg": 10, "kimg": 1500, "precision": "fp32"}
    often = {"metrics_kimg": 20, "grid_kimg": 50, "checkpoint_kimg": 500, "health_kimg": 20}
    measured = {"eval_kimg": 50, "eval_metrics": "gaussians", "eval_num": 2500}
    return Config(preset=preset, model=models.points.Config(), data=data, **run, **often, **measured)


def _translation(preset: str, model: models.Config, *, kimg: float, **options: Any) -> Config:
    """The rate and the moments of the papers, in batches of four instead of one; the rate falls in the second half."""
    run = {"data": "toy", "batch_size": 4, "lr_decay": 0.5, "ema_kimg": 0.5} | options
    return Config(preset=preset, model=model, kimg=kimg, grid_kimg=kimg / 20, checkpoint_kimg=kimg / 10, **run)


def parameters(config: Config) -> tuple[int, int]:
    """The parameters of G and D of a preset."""
    if config.preset not in COSTS:
        with torch.device("meta"):  # where tensors take no time and no memory
            G, D = models.build(config.model)
        return sum(p.numel() for p in G.parameters()), sum(p.numel() for p in D.parameters())
    # stylegan2 has the networks of stylegan2_64 on a GPU.
    gpu = config.preset == "stylegan2" and config.model == stylegan2_64().model
    cost = COSTS["stylegan2_64" if gpu else config.preset]
    return cost.G, cost.D


def _minutes(name: str) -> str:
    cost = COSTS.get(name)
    return "" if cost is None or cost.minutes is None else str(cost.minutes)


def table() -> str:
    """A line for every preset: data, image size, parameters of G and D, length, minutes of a core, its docstring."""
    lines = [("preset", "data", "images", "G", "D", "kimg", "minutes", "")]
    for name, preset in PRESETS.items():
        config = preset()
        model = config.model
        sides = kind_of(models.data_kind(model)).sides(model.resolution)  # [] for points
        lines.append(
            (
                *(name, config.data, "x".join(map(str, [model.channels, *sides]))),
                *(f"{size / 1e6:.1f} M" if size >= 1e6 else f"{size / 1e3:.0f} k" for size in parameters(config)),
                *(f"{config.kimg:g}", _minutes(name), preset.__doc__.strip().rstrip(".")),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = ["  ".join(f"{cell:{width}}" for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([*rows, "", "minutes: of one core of an AMD EPYC with AVX-512; other presets are for GPUs"])
