"""A graph holds whole phases: with numbers frozen in it, a run has the weights, moments and averages of one without.

Learning rates fall, and the decay of the average changes in every step. A graph that repeats the first ones is found.
"""

import dataclasses
import warnings

import pytest
import torch

from gan_engine import backends
from gan_engine.training import average, graphs, numbers
from gan_engine.training.precision import Precision
from gan_engine.training.schedule import ever_due
from tests.training.graph_runs import DCGAN, STYLEGAN2, recorded, replays, trained
from tests.training.tape import taped

FALLING = {"lr_decay": 1.0, "ema_kimg": 0.05, "ema_rampup": 0.5, "kimg": 0.2}
RUNS = {
    "dcgan": dataclasses.replace(DCGAN, **FALLING),
    "two steps of D for one of G": dataclasses.replace(DCGAN, **FALLING, n_critic=2),
    "clipped weights": dataclasses.replace(DCGAN, **FALLING, weight_clip=0.01),
    "lazy penalties, path lengths": dataclasses.replace(STYLEGAN2, **FALLING),
    "gamma auto": dataclasses.replace(DCGAN, **FALLING, gamma="auto", r1_gamma=1.0, r2_gamma=1.0),
    "gamma auto, lazily": dataclasses.replace(DCGAN, **FALLING, gamma="auto", r1_gamma=1.0, penalty_interval=2),
}


@pytest.fixture
def on_a_device(monkeypatch):
    """Numbers lie in tensors, as on a GPU, and graphs are tapes."""
    monkeypatch.setattr(numbers, "on_device", lambda _: True)
    monkeypatch.setattr(graphs, "refusal", lambda *_: None)
    monkeypatch.setattr(graphs, "record", taped)


def everything(trainer):
    """The tensors of a checkpoint, by name."""
    state = trainer.state_dict()
    parts = {name: state[name] for name in ("G", "D", "G_ema")}
    for name, optimizer in state["optimizers"].items():
        parts |= {f"{name}, moments {i}": moments for i, moments in optimizer["state"].items()}
    return {f"{part}: {name}": x for part, values in parts.items() for name, x in values.items()}


def both(config, tmp_path, steps):
    with backends.use("reference"):
        plain, expected, _ = trained(dataclasses.replace(config, cuda_graphs=False), tmp_path, steps=steps)
        trainer, means, warned = trained(config, tmp_path, steps=steps)
    return plain, expected, trainer, means, warned


@pytest.mark.parametrize("config", RUNS.values(), ids=RUNS)
def test_replayed_phases_change_all_that_plain_ones_change(config, tmp_path, on_a_device):
    plain, expected, trainer, means, warned = both(config, tmp_path, 14)
    assert not warned
    assert replays(trainer) == recorded(trainer) and all(g.launch is g.replay for g in graphs_of(trainer))
    assert means == pytest.approx(expected, rel=1e-6)
    want = everything(plain)
    for name, x in everything(trainer).items():
        torch.testing.assert_close(x, want[name], rtol=0, atol=0, msg=name)


def graphs_of(trainer):
    return trainer.phase_steps.graphs.values()


def test_replayed_phases_change_the_loss_scale_as_plain_ones_do(tmp_path, on_a_device, monkeypatch):
    """The first scales overflow and are halved, so that steps are left out; others grow every third step."""

    def switch(precision, name):
        precision.name = name
        precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=3)

    monkeypatch.setattr(Precision, "switch", switch)
    plain, _, trainer, _, warned = both(RUNS["dcgan"], tmp_path, 40)
    assert not warned
    assert replays(trainer) == recorded(trainer) and all(g.launch is g.replay for g in graphs_of(trainer))
    assert trainer.precision.state_dict() == plain.precision.state_dict()
    assert {int(state["step"]) for state in trainer.optimizers["D"].state.values()} < set(range(1, 40))
    want = everything(plain)
    assert all(torch.equal(x, want[name]) for name, x in everything(trainer).items())


def test_the_average_with_its_share_in_a_tensor_is_pytorchs_lerp():
    values = [torch.nn.Parameter(torch.randn(shape)) for shape in ((5, 3), (), (4, 3, 1, 1), (0, 2))]
    values.append(torch.nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)))
    averages = [torch.randn_like(p) for p in values]
    kept = [p.detach().clone() for p in values]
    want = [mean.lerp(p.detach(), 0.3) for mean, p in zip(averages, values, strict=True)]
    with torch.no_grad():
        average._lerp_(averages, values, torch.tensor(0.3))
    torch.testing.assert_close(averages, want)
    assert all(torch.equal(p, before) for p, before in zip(values, kept, strict=True))


def test_without_a_half_life_the_average_on_a_device_is_G(tmp_path, monkeypatch):
    """A sum with a share of 1 would round."""
    monkeypatch.setattr(numbers, "on_device", lambda _: True)
    trainer, _, _ = trained(dataclasses.replace(DCGAN, ema_kimg=0, cuda_graphs=False), tmp_path, steps=1)
    with torch.no_grad():
        for p in trainer.G.parameters():
            p.mul_(1e-6)  # far from the average
    trainer.average.prepare(trainer.nimg)
    trainer.average.update()
    for mean, p in zip(trainer.G_ema.parameters(), trainer.G.parameters(), strict=True):
        assert torch.equal(mean, p)


def differs(config, tmp_path):
    plain, _, trainer, _, _ = both(config, tmp_path, 9)
    assert all(graph.launch is graph.replay for graph in graphs_of(trainer))
    want = everything(plain)
    return {name.split(":")[0] for name, x in everything(trainer).items() if not torch.equal(x, want[name])}


def test_a_learning_rate_that_is_frozen_in_a_graph_is_found(tmp_path, on_a_device, monkeypatch):
    step = torch.optim.Adam.step

    def frozen(self):
        kept = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] = float(group["lr"])
        step(self)
        for group, lr in zip(self.param_groups, kept, strict=True):
            group["lr"] = lr

    monkeypatch.setattr(torch.optim.Adam, "step", frozen)
    assert {"G", "D"} <= differs(RUNS["dcgan"], tmp_path)


def test_a_decay_that_is_frozen_in_a_graph_is_found(tmp_path, on_a_device, monkeypatch):
    monkeypatch.setattr(average, "_lerp_", lambda ema, values, share: torch._foreach_lerp_(ema, values, float(share)))
    assert differs(RUNS["dcgan"], tmp_path) == {"G_ema"}


def test_a_run_goes_on_from_a_device_to_a_cpu_and_back(tmp_path, monkeypatch):
    """Learning rates in tensors stay out of the way of a checkpoint, and the moments are the same."""
    with monkeypatch.context() as device:
        device.setattr(numbers, "on_device", lambda _: True)
        there, _, _ = trained(RUNS["dcgan"], tmp_path, steps=2)
    here, _, _ = trained(RUNS["dcgan"], tmp_path, steps=0)
    here.load_state_dict(there.state_dict())
    assert all(type(group["lr"]) is float for optimizer in here.optimizers.values() for group in optimizer.param_groups)
    here.step()
    with monkeypatch.context() as device:
        device.setattr(numbers, "on_device", lambda _: True)
        back, _, _ = trained(RUNS["dcgan"], tmp_path, steps=0)
        back.load_state_dict(here.state_dict())
        want = everything(here)
        assert all(torch.equal(x, want[name]) for name, x in everything(back).items())
        back.step()


def test_the_last_phase_of_a_step_has_the_average(tmp_path):
    trainer, _, _ = trained(STYLEGAN2, tmp_path, steps=0)
    found = {(phase.name, penalised, last) for phase, penalised, last in ever_due(trainer.phases)}
    lasts = {("G", False, True), ("G_pl", False, True)}
    assert found == {("D", True, False), ("D", False, False), ("G", False, False), *lasts}


def test_a_new_recording_follows_a_checkpoint(tmp_path, on_a_device):
    config = RUNS["dcgan"]
    with backends.use("reference"), warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer, _, _ = trained(config, tmp_path, steps=6)
        state = trainer.state_dict()
        other, _, _ = trained(dataclasses.replace(config, cuda_graphs=False), tmp_path, steps=0)
        trainer.load_state_dict(state)
        other.load_state_dict(dict(state, config={**state["config"], "cuda_graphs": False}))
        for run in (trainer, other):
            run.objective.rng_of_device = None
            for _ in range(6):
                run.step()
    want = everything(other)
    assert all(torch.equal(x, want[name]) for name, x in everything(trainer).items())
