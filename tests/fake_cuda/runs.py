"""The runs whose steps are counted: every preset, a small run of each family, and what only flags turn on.

Import it after `tests.fake_cuda.device`, as it imports torch.
"""

import dataclasses
from collections.abc import Callable

from gan_engine import models
from gan_engine.config import Config
from gan_engine.presets import PRESETS
from tests.training.runs import DCGAN, FAMILIES, NO_NORM, PATHS

_DCGAN_64 = models.dcgan.Config(resolution=64, channels=3)
_SMALL = {
    **FAMILIES,
    "dcgan": DCGAN,
    "dcgan in fp16": dataclasses.replace(DCGAN, precision="fp16"),
    "wgan_gp": dataclasses.replace(NO_NORM, gp_weight=10.0, loss="wasserstein", n_critic=2),
    "stylegan2": dataclasses.replace(PATHS, r1_gamma=1.0, penalty_interval=4),
    "ada": dataclasses.replace(DCGAN, augment="ada"),
    "gamma auto": dataclasses.replace(NO_NORM, gamma="auto", r1_gamma=1.0, r2_gamma=1.0, penalty_interval=2),
    "diffaugment": dataclasses.replace(DCGAN, augment="diffaugment"),
}


def _small(config: Config) -> Config:
    kept = config.precision == "fp16" or models.data_kind(config.model) == "points"  # which are fp32 alone
    return config if kept else dataclasses.replace(config, precision="bf16")


def _one_pass(config: Config) -> Config:
    """The first pass of a batch: the other ones do the same."""
    return config if config.batch_gpu is None else dataclasses.replace(config, batch_size=config.batch_gpu)


RUNS: dict[str, Callable[[], Config]] = {
    **{name: lambda preset=preset: _one_pass(preset()) for name, preset in PRESETS.items()},
    "dcgan-64": lambda: dataclasses.replace(PRESETS["dcgan"](), model=_DCGAN_64, batch_size=64),
    **{f"small {name}": lambda config=config: _small(config) for name, config in _SMALL.items()},
}
