"""The configuration of a run: one frozen dataclass. tyro makes the command line of it, and the trainer makes the run.

A help text is the docstring of its field. tyro keeps its line breaks, so lines end where sentences end.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gan_engine import models
from gan_engine.augment import PIPES
from gan_engine.data import DataConfig
from gan_engine.data.kinds import MADE, Kind, kind_of
from gan_engine.losses.adversarial import LOSSES, guessing
from gan_engine.models.checks import check_types, hints
from gan_engine.system import fields, outside
from gan_engine.system.pixels import BITS, COLOURS

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
AUGMENTS = ("none", "ada", "diffaugment")
ON_COLLAPSE = ("warn", "stop", "rollback")
LOGGERS = ("tensorboard", "wandb", "mlflow")
GAMMAS = ("fixed", "auto")
# As in the paper of R1, arXiv:1801.04406. A weak penalty lets D win before its weight has risen: 32x32 garments were at
# fd_fashion32 N=5000 166 after 16 kimg from 0.0064, the rule of thumb of arXiv:2006.06676, and at 85 from 10 (one seed,
# 2026-11).
FIRST_GAMMA = 10.0
LEAST_HELD_OUT = 16  # D's logits of fewer images say nothing: chance alone moves their mean sign by more than 0.25

# Larger numbers are mistakes: such a run would never begin, or never end. A time that is never reached means never.
LARGEST = {
    **dict.fromkeys(("batch_size", "batch_gpu", "penalty_interval", "pl_interval", "pl_batch_shrink"), 2**20),
    **dict.fromkeys(("n_critic", "keep", "patience", "rollbacks"), 2**20),
    **dict.fromkeys(("eval_num", "held_out"), 1_000_000),
    "threads": 1024,
    **dict.fromkeys(("kimg", "minutes", "pretrain_kimg", "ada_kimg", "ema_kimg"), 1e9),
    **dict.fromkeys(("metrics_kimg", "grid_kimg", "checkpoint_kimg", "eval_kimg", "health_kimg"), 1e12),
    "rollback_lr": 1,
    **dict.fromkeys(("lr", "r1_gamma", "r2_gamma", "gp_weight", "pl_weight", "weight_clip", "ema_rampup"), 1e9),
}


@dataclass(frozen=True, kw_only=True)
class Basics:
    """The flags that people use first. Times are in kimg: thousands of real images shown to the discriminator."""

    data: str = DataConfig.source
    """Images: fashion-mnist (10,000, embedded), toy (procedural), a folder, or a .zip, .tar, .npz or .npy file.
    Also LMDB, .parquet and .arrow, by the extras lmdb and parquet. "shards/{000..012}.tar" names several files.
    stacked: three of the embedded images as the colours of one, 1,000 kinds.
    Images of torchvision: mnist, fashion-mnist-full, cifar10, celeba.
    Pairs: a folder that holds A and B, pictures that are two images side by side, or a .tar or .parquet of pairs.
    Two kinds of images: a folder that holds trainA and trainB.
    Volumes: a folder of meshes and .binvox files, or a .binvox, .npy or .npz file.
    Points: toy:ring and toy:grid, Gaussians in the plane."""
    conditional: bool = False
    """Give both networks the classes of the data."""
    kimg: float | None = 100
    """Length of the training. None: as long as minutes takes."""
    minutes: float | None = None
    """Length of the training in time, not counting pictures and checkpoints. None: as long as kimg takes.
    Without --kimg the time alone decides, and without --minutes the images alone.
    If the learning rate falls (--lr-decay), it then falls by the clock, so no two runs are alike."""
    batch_size: int = 64
    """Images per step."""
    augment: Literal[AUGMENTS] = "none"
    """Augmentation of all images that D sees.
    ada: random transforms; their probability follows how far D overfits.
    diffaugment: colour, translation and cutout of fixed strength."""
    seed: int = 0
    """Seed of the first weights, the noise and the order of the data.
    The random numbers of Python and NumPy begin with it too, for plug-ins."""
    device: str = "auto"
    """cpu, cuda or cuda:N. auto: the first GPU if there is one."""
    out: Path | None = None
    """Directory of the run. None: runs/PRESET-1, runs/PRESET-2, ..."""
    resume: str | None = None
    """Go on with a run: its directory, one of its checkpoints, or latest (in --out, else in runs/)."""
    plugin: fields.UseAppendAction[tuple[str, ...]] = ()
    """A Python file or module that adds losses, families or data (gan_engine.plugins). Once for each."""
    init_from: str | None = None
    """Begin with the weights of another run of this family: its directory or one of its checkpoints.
    gan_engine.convert makes such a checkpoint of weights of other programs.
    Weights are taken wherever their names and shapes agree.
    Optimisers, augmentation and time begin anew."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """How the images are read."""

    mirror: bool = DataConfig.mirror
    """Flip images left to right, each with probability 1/2 in every epoch."""
    data_root: str = DataConfig.root
    """Folder of the torchvision sets."""
    bits: Literal[BITS] = DataConfig.bits
    """Bits of a value. 16: pictures and arrays of 16 bits keep all of them. Other data are scaled.
    --precision auto is then fp32, since bf16 has fewer bits than the images."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The adversarial loss, and the penalties that are added to it."""

    loss: Literal[tuple(LOSSES)] = "nonsaturating"
    """The adversarial loss.
    wasserstein needs a D that is held to a Lipschitz constant, by a penalty or by --weight-clip."""
    gamma: Literal[GAMMAS] = "fixed"
    """fixed: R1 and R2 keep their weights.
    auto: both weights rise while D is far ahead of G, and fall while they hold D back. They begin as given.
    Where both are 0, R1 begins at 10."""
    r1_gamma: float = 0
    """Weight gamma of R1: gamma / 2 times the squared gradient of D at real images. 0: no R1."""
    r2_gamma: float = 0
    """Weight gamma of R2: the same at generated images, which D then sees in one batch with the real ones. 0: no R2."""
    gp_weight: float = 0
    """Weight lambda of the WGAN-GP penalty. 0: no such penalty."""
    penalty_interval: int = 1
    """Penalties are computed in every Nth step of D, with N times their weight."""
    pl_weight: float = 0
    """Weight of the path length penalty of stylegan2; its paper has 2. 0: no such penalty."""
    pl_interval: int = 4
    """G takes a step for path lengths in every Nth step, in addition to its other steps."""
    pl_batch_shrink: int = 2
    """The path length penalty is computed on 1/N of a batch."""
    weight_clip: float | None = None
    """Limit of the absolute value of D's weights, as in WGAN. None: no limit."""
    n_critic: int = 1
    """Steps of D for each step of G."""
    freeze_d: int = 0
    """Number of blocks of D, counted from the image, that keep their weights (FreezeD).
    Use it with --init-from, on few images."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Strength of the augmentation ada."""

    ada_target: float = 0.6
    """Mean sign of D's logits of real images. ada adjusts its probability to hold this value."""
    ada_kimg: float = 500
    """Time in which the probability of ada can rise from 0 to 1."""
    ada_groups: Literal[tuple(PIPES)] = "bgc"
    """Transforms of ada, by initials: blit, geometry, color, filter, noise, cutout."""


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """Steps of Adam, and the average of G's weights."""

    lr: float = 2e-4
    """Learning rate of Adam, for both networks."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Decay rates of Adam's two moments."""
    lr_decay: float = 0
    """Share of the run, at its end, in which the learning rate falls linearly to 0. 0.5: the second half."""
    pretrain_kimg: float = 0
    """Time at the beginning in which G learns its content loss alone, and D waits. For pix2pix and srgan.
    It ends after half of --minutes at the latest."""
    ema_kimg: float = 1
    """Half-life of the moving average of G's weights. Samples are drawn with this average."""
    ema_rampup: float | None = None
    """Limit of that half-life, as a share of the images shown so far. None: no limit.
    A limit lets the average forget the first weights sooner. The paper of ADA has 0.05."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Time and memory of a run. Results stay the same up to rounding."""

    precision: Literal[PRECISIONS] = "auto"
    """Precision of the passes. Weights and losses stay float32.
    auto: bf16 if the device computes it in hardware, else fp32."""
    batch_gpu: int | None = None
    """Images per pass. The gradients of several passes add up to the gradient of a step. None: one pass."""
    channels_last: bool = True
    """Keep the channels of a pixel next to each other in memory, which most convolutions prefer."""
    tf32: bool | None = None
    """Let convolutions and matrix products in float32 round their factors to 10 bits on GPUs, which is faster.
    None: if the precision is bf16 or fp16, which round no less. Penalties are then computed in it too."""
    cuda_graphs: bool = True
    """Record the launches of each phase on GPUs, and replay them together. This helps small networks.
    The first replays are compared with passes without a graph. A phase that differs, that cannot be recorded or that
    has too little memory runs as usual, and says why."""
    threads: int | None = None
    """Threads on the CPU. None: OMP_NUM_THREADS, else one for each core, and fewer if other programs use the cores."""
    tune_malloc: bool = True
    """Let the C allocator keep freed blocks for the next tensors, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Files that a run writes, and how often."""

    metrics_kimg: float = 1
    """Time between two reports of the losses."""
    grid_kimg: float = 10
    """Time between two grids of samples."""
    checkpoint_kimg: float = 20
    """Time between two checkpoints."""
    keep: int = 2
    """Number of checkpoints to keep."""
    tensorboard: bool = True
    """Write TensorBoard events too, if TensorBoard is installed."""
    loggers: tuple[Literal[LOGGERS], ...] = ()
    """Loggers that must be there, such as --loggers wandb mlflow. A missing package is an error at the start.
    wandb is offline unless WANDB_MODE says otherwise.
    mlflow writes to the directory of the run, or to MLFLOW_TRACKING_URI.
    --loggers without a name: none."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Measurements of the averaged generator while it trains. They change nothing about what is learnt."""

    eval_kimg: float | None = None
    """Time between two measurements. The best checkpoint so far is kept as best.pt. None: no measurements."""
    eval_metrics: str = "fid"
    """What is measured, as --metrics of gan_engine.evaluate. The first number decides what is best."""
    eval_num: int = 5000
    """Number of images to generate for a measurement."""
    eval_extractor: str = "auto"
    """As --extractor of gan_engine.evaluate."""
    eval_weights: str | None = None
    """As --weights of gan_engine.evaluate."""
    eval_data: str | None = None
    """Images to compare with, which the run does not train on. None: all images that the run trains on."""
    patience: int | None = None
    """End the run after that many measurements in a row that are no better than the best. None: do not."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """Alarms while a run trains: collapse, vanishing gradients, divergence, and a D that learns by heart."""

    health_kimg: float | None = 2
    """Time between two readings of a run's health. None: no readings, and no alarms.
    A reading is due after 32 images of training for each of its own at the earliest, so readings stay cheap."""
    on_collapse: Literal[ON_COLLAPSE] = "warn"
    """After an alarm of collapse or divergence.
    warn: go on. stop: end the run. rollback: go back to the last healthy state, with other noise and order of data;
    also from a loss or gradient that is not finite, which ends other runs."""
    rollbacks: int = 3
    """Number of rollbacks in a run, after which the next such alarm ends it."""
    rollback_lr: float = 1
    """Factor of both learning rates at each rollback."""
    held_out: int = 0
    """Images of the data that the run does not train on. D's logits of them show whether D learns images by heart.
    0: none, and that alarm is silent."""


# The boxes of `train PRESET --help`, in this order after the basics and the model. A field belongs to one box.
GROUPS = (Loss, Optimiser, Augmentation, Data, Speed, Output, Evaluation, Health)


@dataclass(frozen=True)
class Config(Health, Evaluation, Output, Speed, Data, Augmentation, Optimiser, Loss, Basics):
    """The complete configuration of a run."""

    preset: fields.Fixed[fields.Suppress[str]]
    model: models.Config
    channels_of_data: fields.Fixed[fields.Suppress[bool]] = False
    """True if `gan_engine.train` sets model.channels to the channels of the data, once it has read the data."""
    outside: fields.Fixed[fields.Suppress[tuple[str, ...]]] = ()
    """The parts of the run that plug-ins define, such as "loss pearson". The trainer fills it in."""

    def __post_init__(self) -> None:
        check_types(self, largest=LARGEST)
        for name in ("metrics_kimg", "grid_kimg", "checkpoint_kimg", "eval_kimg", "health_kimg"):
            if getattr(self, name) is not None and 0 < getattr(self, name) < 1e-6:
                raise ValueError(f"{name}: want at least 1e-06, got {getattr(self, name):.6g}")
        for name in (
            *("kimg", "batch_size", "lr", "metrics_kimg", "grid_kimg", "checkpoint_kimg", "keep"),
            *("penalty_interval", "pl_interval", "pl_batch_shrink", "n_critic", "ada_kimg"),
        ):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name}: want more than 0, got {getattr(self, name)}")
        for name in ("ema_kimg", "r1_gamma", "r2_gamma", "gp_weight", "pl_weight", "pretrain_kimg", "freeze_d"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: want at least 0, got {getattr(self, name)}")
        self._check_family()
        self._check_health()
        if self.weight_clip is not None and not self.weight_clip > 0:
            raise ValueError(f"weight_clip: want more than 0 or None, got {self.weight_clip}")
        if self.eval_num < 2:
            raise ValueError(f"eval_num: want at least 2, got {self.eval_num}")
        if self.eval_weights is not None and self.eval_extractor != "inception":
            raise ValueError(f"eval_weights: want --eval-extractor inception beside them, got {self.eval_extractor}")
        if self.patience is not None and self.eval_kimg is None:
            raise ValueError("patience: want --eval-kimg beside it, the time between two measurements")
        for name in ("minutes", "threads", "eval_kimg", "patience", "health_kimg"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name}: want more than 0 or None, got {getattr(self, name)}")
        if self.kimg is None and self.minutes is None:
            raise ValueError("kimg: want a number, or minutes, got None for both")
        if not 0 <= self.lr_decay <= 1:
            raise ValueError(f"lr_decay: want 0 to 1, got {self.lr_decay}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: want 0 to 2^63 - 1, got {self.seed}")
        if self.ema_rampup is not None and not self.ema_rampup > 0:
            raise ValueError(f"ema_rampup: want more than 0 or None, got {self.ema_rampup}")
        if not -1 <= self.ada_target <= 1:
            raise ValueError(f"ada_target: want -1 to 1, got {self.ada_target}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: want two numbers from 0 to below 1, got {self.betas}")
        if self.batch_gpu is not None and not 0 < self.batch_gpu <= self.batch_size:
            raise ValueError(f"batch_gpu: want 1 to batch_size = {self.batch_size}, got {self.batch_gpu}")
        for name in self.loggers:
            if name not in LOGGERS:
                raise ValueError(f"loggers: want some of {', '.join(LOGGERS)}, got {name!r}")
        if "tensorboard" in self.loggers and not self.tensorboard:
            raise ValueError("loggers: want no tensorboard beside --no-tensorboard, got both")
        for name, choices in (
            ("loss", tuple(LOSSES)),
            ("precision", PRECISIONS),
            ("augment", AUGMENTS),
            ("gamma", GAMMAS),
            ("on_collapse", ON_COLLAPSE),
            ("ada_groups", tuple(PIPES)),
            ("bits", BITS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: want one of {', '.join(map(str, choices))}, got {getattr(self, name)!r}")

    def _check_health(self) -> None:
        if self.held_out and not self.held_out >= LEAST_HELD_OUT:
            raise ValueError(f"held_out: want 0, or {LEAST_HELD_OUT} images or more, got {self.held_out}")
        if self.rollbacks < 1 or not self.rollback_lr > 0:
            name = "rollbacks" if self.rollbacks < 1 else "rollback_lr"
            raise ValueError(f"{name}: want more than 0, got {getattr(self, name)}")
        if self.on_collapse != "warn" and self.health_kimg is None:
            raise ValueError(f"on_collapse: want warn without --health-kimg, got {self.on_collapse}")

    def _check_family(self) -> None:
        """Raise ValueError for fields that ask for what the family of the model cannot do."""
        family, declared = models.family(self.model), models.capabilities(self.model)
        if self.pl_weight and not declared.styles:
            with_styles = ", ".join(models.names(lambda other: other.styles))
            raise ValueError(f"pl_weight: want a model with latents w ({with_styles}), got {family}")
        if self.pretrain_kimg and not declared.content_loss:
            with_content = ", ".join(models.names(lambda other: other.content_loss))
            raise ValueError(f"pretrain_kimg: want a model with a content loss ({with_content}), got {family}")
        if declared.needs_classes and not self.conditional:
            raise ValueError(f"conditional: want True for {family}, whose networks read classes, got False")
        if self.conditional and not models.reads_classes(self.model):
            raise ValueError(f"conditional: want False for {family}, whose networks read no classes, got True")
        if self.augment != "none" and not self.augmentations:
            why = f"whose {MADE[self._kind.axes]} no augmentation transforms"
            why = why if declared.augmentation else "whose objective has none"
            raise ValueError(f"augment: want none for {family}, {why}, got {self.augment}")
        if self.augment == "ada" and "ada" not in self.augmentations:
            want = f"none or diffaugment for {self.model.channels} channels, since ada transforms grey and colours"
            raise ValueError(f"augment: want {want}, got ada")
        if self.bits != 8 and self.bits not in self._kind.bits:
            raise ValueError(f"bits: want 8 for {family}, which trains on {self._kind.contents}, got {self.bits}")
        points = models.data_kind(self.model) == "points"
        if points and self.mirror:
            raise ValueError(f"mirror: want False for {family}, since points are no pictures, got True")
        if points and self.precision != "fp32":
            why = "since bf16 has steps of 0.016 near 2, and a Gaussian of toy:ring a standard deviation of 0.02"
            raise ValueError(f"precision: want fp32 for {family}, {why}, got {self.precision}")
        for name in ("r1_gamma", "r2_gamma", "gp_weight"):
            if getattr(self, name) and not declared.penalties:
                raise ValueError(f"{name}: want 0 for {family}, whose objective has none, got {getattr(self, name)}")
        if self.gamma == "auto":
            self._check_gamma(None if declared.penalties else f"{family}, whose objective has no R1 and no R2")

    def _check_gamma(self, without: str | None) -> None:
        """Raise ValueError if `gamma` cannot be auto: `without` R1 and R2, and where the loss cannot say who leads."""
        if self.loss in LOSSES and guessing(LOSSES[self.loss]) <= 0:
            without = without or f"{self.loss}, whose loss of a D that guesses is not above 0"
        if self.gp_weight and not (self.r1_gamma or self.r2_gamma):
            without = without or "gp_weight alone, as auto sets r1_gamma and r2_gamma"
        if without:
            raise ValueError(f"gamma: want fixed for {without}, got auto")

    @property
    def first_gammas(self) -> tuple[float, float]:
        """The weights of R1 and R2 in the first step."""
        if self.gamma == "fixed" or self.r1_gamma or self.r2_gamma:
            return self.r1_gamma, self.r2_gamma
        return FIRST_GAMMA, 0

    @property
    def pass_precision(self) -> str:
        """`precision`, whose auto is fp32 for images of 16 bits: bf16 would round the images that D sees to 8 bits."""
        return "fp32" if self.precision == "auto" and self.bits == 16 else self.precision

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The augmentations that the run may have. None transforms volumes or points, and ada transforms no bands."""
        if self._kind.axes != 2 or not models.capabilities(self.model).augmentation:
            return ()
        return AUGMENTS[1:] if self.model.channels in COLOURS else ("diffaugment",)

    @property
    def _kind(self) -> Kind:
        return kind_of(models.data_kind(self.model))

    @property
    def data_config(self) -> DataConfig:
        return DataConfig(source=self.data, mirror=self.mirror, root=self.data_root, bits=self.bits)


def declare() -> None:
    """Let the types of `model` and `loss`, which the command line and checks read, name all families and losses."""
    Config.__annotations__["model"] = models.config_type()
    Loss.__annotations__["loss"] = Literal[tuple(LOSSES)]
    hints.cache_clear()


def plugin_parts(config: Config) -> tuple[str, ...]:
    """The parts of a run that plug-ins define."""
    return outside.parts(models.family(config.model), config.loss, config.data)
