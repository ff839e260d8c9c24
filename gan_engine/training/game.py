"""The game of a run: the objective of its family, and D behind the augmentation."""

import torch
from torch import Tensor, nn

from gan_engine import models
from gan_engine.augment import Ada, Augmented, diff_augment
from gan_engine.config import Config
from gan_engine.losses import penalties
from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.families import objective_of
from gan_engine.losses.objective import GanObjective
from gan_engine.ops.thresholds import TABLE
from gan_engine.training.distributed import Processes
from gan_engine.training.gamma import AutoGamma
from gan_engine.training.means import Means
from gan_engine.training.networks import Networks

R_T = "ada/r_t"  # the name of the mean of the signs of D's logits of real images


def ada_of(config: Config, processes: Processes) -> Ada | None:
    """The adaptive augmentation of a run that asks for it."""
    if config.augment != "ada":
        return None
    return Ada(config.ada_groups, target=config.ada_target, adjust_kimg=config.ada_kimg, total=processes.sum)


def gamma_of(config: Config, device: torch.device, processes: Processes) -> AutoGamma | None:
    """What sets the weights of R1 and R2 in a run that asks for it."""
    if config.gamma != "auto":
        return None
    r1, r2 = config.first_gammas
    interval = config.penalty_interval
    return AutoGamma(LOSSES[config.loss], r1, r2, penalty_interval=interval, device=device, total=processes.sum)


def build(
    config: Config,
    networks: Networks,
    means: Means,
    ada: Ada | None,
    gamma: AutoGamma | None,
    rng: torch.Generator,
) -> GanObjective:
    """The objective, which adds what it measures to `means` and draws the numbers of penalties from `rng`."""
    r1_gamma, r2_gamma = config.first_gammas
    declared = models.capabilities(config.model).objective
    objective = objective_of(models.family(config.model), declared)(
        networks.G,
        _behind_augmentation(networks.D, config, ada),
        LOSSES[config.loss],
        means.add if ada is None else _Observer(means),
        r1_gamma=r1_gamma,
        r2_gamma=r2_gamma,
        gamma_factor=1.0 if gamma is None else gamma.factor,
        gp_weight=config.gp_weight,
        penalty_interval=config.penalty_interval,
        pl_weight=config.pl_weight,
        pl_batch_shrink=config.pl_batch_shrink,
        class_weight=getattr(config.model, "class_weight", 0),
        rng=rng,
    )
    if config.augment != "none":  # the transforms change from pass to pass, so level 2 would hold for some passes only
        objective.level = 1
    return objective


def _behind_augmentation(D: nn.Module, config: Config, ada: Ada | None) -> nn.Module:
    """D with augmented images, generated and real, in every phase."""
    return D if config.augment == "none" else Augmented(D, ada or diff_augment)


class _Observer:
    """Adds what the objective measures to `means`, and the signs that an Ada counts."""

    def __init__(self, means: Means) -> None:
        self.means = means

    def __call__(self, name: str, values: Tensor) -> None:
        self.means.add(name, values)
        if name == "logits/real":
            self.means.add(R_T, values.sign())


def describe_penalties(config: Config, objective: GanObjective, D: nn.Module, image: torch.Size) -> str | None:
    """The gradient penalties of a run and the level of their computation, or None without penalties.

    Args:
        image: the shape [C, H, W] or [C, D, H, W] of an image or volume.
    """
    paths = f"path length {config.pl_weight:g} every {config.pl_interval} steps" if config.pl_weight else None
    if not objective.weights:
        return paths
    device = next(D.parameters()).device
    img = torch.zeros(2, *image, device=device)
    c = torch.eye(config.model.c_dim, device=device)[[0, 0]] if config.conditional else None
    augmented = config.augment != "none"
    reason = "its images are augmented" if augmented else penalties.refusal(D, img, c)
    pairs = max(1, (config.batch_gpu or config.batch_size) // 2)
    batches = [(torch.cat([img] * k), c if c is None else torch.cat([c] * k)) for k in (1, pairs)]
    autograd = not augmented and all(penalties.level_of(D, *batch) == "autograd" for batch in batches)
    if reason is None:
        few = TABLE["few products at level 2"].sentence
        how = f"plain autograd, as D is small: {few}" if autograd else "level 2"
    else:
        by = "plain autograd, as level 1 gains nothing and" if autograd else "level 1, as"
        how = f"{by} level 2 does not hold for D: {reason}"
    names = ", ".join(f"{name} {weight:g}" for name, weight in objective.weights.items())
    names += " at first, then by --gamma auto" if config.gamma == "auto" else ""
    interval = f" every {config.penalty_interval} steps" if config.penalty_interval > 1 else ""
    return f"{names}{interval}; {how}" + (f"; {paths}" if paths else "")
