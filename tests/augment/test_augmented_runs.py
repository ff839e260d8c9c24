"""Training with augmentations: what D sees, penalties, resuming, and the ramp of the moving average."""

import copy
import dataclasses
import math

import pytest
import torch

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import DataConfig, load
from gan_engine.runs.history import read_metrics
from gan_engine.system import checkpoint
from gan_engine.training.trainer import Trainer

CONFIG = Config(
    preset="dcgan",
    model=models.dcgan.Config(resolution=16, z_dim=8, width=4),
    data="toy",
    batch_size=16,
    kimg=0.16,
    precision="fp32",
    metrics_kimg=0.032,
    checkpoint_kimg=0.032,
    tensorboard=False,
)
# p rises at every step of the controller, by 0.64 and then to 1.
RISING = dataclasses.replace(CONFIG, augment="ada", ada_target=-1.0, ada_kimg=0.1, ada_groups="bgcfnc")


@pytest.fixture
def make(tmp_path):
    data = load(DataConfig("toy"), resolution=16, channels=1)

    def trainer(config, **changes):
        config = dataclasses.replace(config, **changes)
        return Trainer(config, data, device=torch.device("cpu"), run_dir=tmp_path / "run")

    return trainer


def test_every_image_that_D_sees_is_augmented(make, monkeypatch):
    monkeypatch.setattr("gan_engine.training.game.diff_augment", lambda img: img * 0 + 7)
    for kind in ("diffaugment", "none"):
        trainer, given = make(CONFIG, augment=kind), []
        trainer.D.register_forward_pre_hook(lambda module, args, given=given: given.append(args[0]))
        trainer.step()
        assert len(given) == 3  # generated and real in the phase of D, generated in that of G
        assert [bool((img == 7).all()) for img in given] == [kind != "none"] * 3


@pytest.mark.parametrize("kind", ["ada", "diffaugment"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_with_augmentation(make, kind, precision):
    trainer = make(RISING, augment=kind, precision=precision)
    assert trainer.run() is None
    rows = read_metrics(trainer.run_dir)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    if kind == "ada":
        assert [row["ada/p"] for row in rows] == [0, 0.64, 0.64, 1, 1]
        assert all(-1 <= row["ada/r_t"] <= 1 for row in rows)
    else:
        assert "ada/p" not in rows[-1]


def test_gradients_reach_G_through_the_augmentation(make):
    for kind in ("ada", "diffaugment"):
        trainer = make(RISING, augment=kind)
        if trainer.ada is not None:
            trainer.ada.p = 1.0
        trainer.step()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainer.G.parameters())


@pytest.mark.parametrize("kind", ["ada", "diffaugment"])
def test_penalties_through_the_augmentation_equal_those_of_autograd(make, kind):
    curves = {}
    for level in (1, "autograd"):
        trainer = make(RISING, augment=kind, r1_gamma=1.0)
        assert trainer.objective.level == 1
        assert trainer.penalties() == "r1 1; level 1, as level 2 does not hold for D: its images are augmented"
        trainer.objective.level = level
        curves[level] = []
        for _ in range(6):  # p rises from 0 on the way
            trainer.step()
            means = trainer.means.read()
            curves[level].append([means[name] for name in sorted(means) if name.startswith("loss/")])
    for ours, plain in zip(*curves.values(), strict=True):
        assert ours == pytest.approx(plain, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", ["ada", "diffaugment"])
@pytest.mark.parametrize("at", [3, 4, 6])
def test_a_resumed_run_with_augmentation_equals_an_uninterrupted_one(make, kind, at):
    whole = make(RISING, augment=kind)
    for _ in range(9):
        whole.step()
    first = make(RISING, augment=kind)
    for _ in range(at):
        first.step()
    path = checkpoint.Keeper(first.run_dir, keep=1).save(first.nimg, first.state_dict())
    second = make(RISING, augment=kind)
    torch.rand(5)
    second.load_state_dict(checkpoint.load(path))
    for _ in range(at, 9):
        second.step()
    for name in ("G", "D", "G_ema"):
        for a, b in zip(getattr(whole, name).state_dict().values(), getattr(second, name).state_dict().values()):
            assert torch.equal(a, b)
    assert whole.means.read() == second.means.read()
    if kind == "ada":
        assert second.ada.p == 1 and second.ada.state_dict() == whole.ada.state_dict()


def test_a_checkpoint_without_the_state_of_ada_is_refused(make):
    state = make(RISING).state_dict()
    del state["processes"][0]["ada"]
    with pytest.raises(checkpoint.CheckpointError, match="want a checkpoint of a training with ada"):
        make(RISING).load_state_dict(state)
    assert "ada" not in make(CONFIG).state_dict()["processes"][0]


def test_the_half_life_of_the_moving_average_ramps_up(make):
    trainer = make(CONFIG, ema_kimg=0.05, ema_rampup=0.1)
    trainer.step()
    for a, b in zip(trainer.G.parameters(), trainer.G_ema.parameters(), strict=True):
        assert torch.equal(a, b)  # no images before: a half-life of 0
    start = copy.deepcopy(trainer.G_ema)
    for nimg, half_life in ((320, 32), (5000, 50)):
        trainer.clock.nimg = nimg
        trainer.G_ema.load_state_dict(start.state_dict())
        with torch.no_grad():
            for p in trainer.G.parameters():
                p += 1
        trainer.average.prepare(trainer.nimg)
        trainer.average.update()
        beta = 0.5 ** (16 / half_life)
        for a, b, ema in zip(start.parameters(), trainer.G.parameters(), trainer.G_ema.parameters(), strict=True):
            torch.testing.assert_close(ema, beta * a + (1 - beta) * b)
