"""Small runs with graphs on the CPU: in place of a recording, what is recorded runs again at every replay."""

import dataclasses
import warnings

import torch

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import DataConfig, load
from gan_engine.losses.objective import Batch
from gan_engine.training.trainer import Trainer

CPU = torch.device("cpu")
DCGAN = Config(
    preset="dcgan",
    model=models.dcgan.Config(resolution=16, z_dim=8, width=4),
    data="toy",
    batch_size=8,
    kimg=0.08,
    precision="fp32",
    cuda_graphs=True,
    tensorboard=False,
)
STYLEGAN2 = dataclasses.replace(
    DCGAN,
    preset="stylegan2",
    model=models.stylegan2.Config(
        resolution=16, channels=1, z_dim=8, w_dim=8, mapping_layers=2, channel_base=128, channel_max=16
    ),
    r1_gamma=1.0,
    penalty_interval=2,
    pl_weight=2.0,
    pl_interval=2,
)
SPECTRAL = dataclasses.replace(
    DCGAN, preset="sngan", model=models.sngan.Config(resolution=16, z_dim=8, width=4, d_width=4, max_width=8)
)
PRETRAINED = dataclasses.replace(
    DCGAN,
    preset="srgan",
    model=models.srgan.Config(resolution=32, channels=1, scale=2, width=4, blocks=1, d_width=2),
    pretrain_kimg=0.04,
)
CYCLEGAN = dataclasses.replace(
    DCGAN,
    preset="cyclegan",
    model=models.cyclegan.Config(resolution=32, channels=1, width=4, blocks=1, d_width=4),
    loss="least_squares",
)


def trained(config, tmp_path, *, device=CPU, steps=9):
    """The trainer after some steps, what they measured, and what was warned of."""
    model = config.model
    data = load(
        DataConfig("toy"), resolution=model.resolution, channels=model.channels, kind=models.data_kind(model), seed=0
    )
    trainer = Trainer(config, data, device=device, run_dir=tmp_path)
    trainer.objective.rng_of_device = None  # as on a GPU, whose graphs know the default generator
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            trainer.step()
    return trainer, trainer.means.read(), [str(warning.message) for warning in caught]


def weights(trainer):
    return [tensor for net in (trainer.G, trainer.D, trainer.G_ema) for tensor in net.state_dict().values()]


def played(prepare=lambda: None, finish=lambda: None):
    """In place of graphs.record. `prepare` is called before every replay, `finish` behind it."""

    def record(gradients, net, batch, _):
        static = Batch(*(None if values is None else values.clone() for values in batch))
        kept = None

        def replay(batch):
            nonlocal kept
            for ours, theirs in zip(static, batch, strict=True):
                if ours is not None:
                    ours.copy_(theirs)
            net.zero_grad(set_to_none=True)
            prepare()
            loss, means = gradients(static)
            finish()
            new = [loss, *(total for total, _ in means.sums.values()), *(p.grad for p in net.parameters())]
            if kept is None:
                kept = new, (loss, means), [p.grad for p in net.parameters()]
            for ours, theirs in zip(kept[0], new, strict=True):
                if ours is not None:
                    ours.copy_(theirs)
            for p, grad in zip(net.parameters(), kept[2], strict=True):
                p.grad = grad
            return kept[1]

        return replay

    return record


def replays(trainer):
    """The names of the phases that have a graph."""
    return {run.name for run in trainer.phase_steps.graphs.values() if run.replay is not None}


def recorded(trainer):
    """The names of the phases that are to have one."""
    return {run.name for run in trainer.phase_steps.graphs.values()}
