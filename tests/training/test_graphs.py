"""A phase that is recorded trains as it does otherwise; what cannot be recorded says why, and trains on as it is.

The recording itself, which only a GPU has, is played here on the CPU: what is recorded runs again at every replay.
"""

import dataclasses
import gc
import itertools
import warnings
import weakref

import pytest
import torch

from gan_engine import models
from gan_engine.config import Config
from gan_engine.losses.objective import Batch
from gan_engine.training import graphs
from gan_engine.training.distributed import ALONE, Processes
from gan_engine.training.means import Means
from gan_engine.training.schedule import Phase
from tests.training.graph_runs import (
    CYCLEGAN,
    DCGAN,
    PRETRAINED,
    SPECTRAL,
    STYLEGAN2,
    played,
    recorded,
    replays,
    trained,
    weights,
)

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
# Runs, and the phases that they record.
RUNS = {
    "batch norm": (DCGAN, {"D", "G"}),
    "in passes": (dataclasses.replace(DCGAN, batch_gpu=4), {"D", "G"}),
    "noise, lazy penalties": (STYLEGAN2, {"D", "D with penalties", "G", "G_pl"}),
    "spectral norm": (SPECTRAL, {"D", "G"}),
    "another phase first": (PRETRAINED, {"D", "G", "G_content"}),
    "penalties in every step": (dataclasses.replace(DCGAN, gp_weight=10.0), {"D with penalties", "G"}),
    "adaptive augmentation": (
        dataclasses.replace(DCGAN, augment="ada", ada_target=-1.0, ada_kimg=0.1),
        {"D", "G"},
    ),
}


@pytest.mark.parametrize(("config", "phases"), RUNS.values(), ids=RUNS)
def test_recorded_phases_train_as_they_do_otherwise(config, phases, tmp_path, on_the_cpu):
    plain, expected, _ = trained(dataclasses.replace(config, cuda_graphs=False), tmp_path)
    on_the_cpu(played())
    trainer, means, warned = trained(config, tmp_path)
    assert not warned
    assert replays(trainer) == recorded(trainer) == phases
    assert all(run.launch is run.replay for run in trainer.phase_steps.graphs.values())
    assert means == expected
    for ours, theirs in zip(weights(trainer), weights(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_graph_that_draws_the_same_again_is_found_out_and_given_up(tmp_path, on_the_cpu):
    plain, expected, _ = trained(dataclasses.replace(STYLEGAN2, cuda_graphs=False), tmp_path)
    drawn = []

    def always_as_first():
        drawn.append(torch.get_rng_state())
        torch.set_rng_state(drawn[0])

    on_the_cpu(played(always_as_first))
    trainer, means, warned = trained(STYLEGAN2, tmp_path)
    assert not replays(trainer)
    for line in warned:
        name = line.partition(" of ")[2].partition(" from ")[0]
        assert (
            line.startswith(f"no CUDA graph of {name} from here on, because of the graph of {name}: ")
            and " off by 0." in line
        )
    assert means == expected
    for ours, theirs in zip(weights(trainer), weights(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_graph_that_makes_one_of_many_buffers_nan_is_found_out_and_given_up(tmp_path, on_the_cpu, monkeypatch):
    models_of = models.build(DCGAN.model)
    monkeypatch.setattr(models, "build", lambda _: models_of)
    last = [buffer for buffer in models_of[0].buffers() if buffer.is_floating_point()][-1]
    on_the_cpu(played(finish=lambda: last.fill_(torch.nan)))
    trainer, _, warned = trained(DCGAN, tmp_path, steps=4)
    assert not replays(trainer) and any(line.endswith("buffers off by nan") for line in warned)


@pytest.mark.parametrize("name", ["running_mean", "num_batches_tracked", "w_mean", "_u"])
def test_a_graph_that_leaves_a_buffer_as_it_was_is_found_out_and_given_up(name, tmp_path, on_the_cpu, monkeypatch):
    config = {"w_mean": STYLEGAN2, "_u": SPECTRAL}.get(name, DCGAN)
    models_of = models.build(config.model)
    buffers = [buffer for net in models_of for k, buffer in net.named_buffers() if k.endswith(name)]
    for buffer in buffers:
        if not buffer.is_floating_point():
            buffer.fill_(100_000)  # as in a long run
    monkeypatch.setattr(models, "build", lambda _: models_of)
    kept = []
    before = lambda: kept.append([buffer.clone() for buffer in buffers])  # noqa: E731
    after = lambda: [buffer.copy_(old) for buffer, old in zip(buffers, kept.pop(), strict=True)]  # noqa: E731
    on_the_cpu(played(before, after))
    trainer, _, warned = trained(config, tmp_path, steps=6)
    assert not replays(trainer)
    assert any(line.endswith("buffers off by 1") for line in warned)


def test_after_a_recording_that_failed_no_other_graph_is_relied_on(tmp_path, on_the_cpu):
    plain, expected, _ = trained(dataclasses.replace(DCGAN, cuda_graphs=False), tmp_path)

    def fails_for_G(gradients, net, batch, recording):
        if isinstance(net, models.dcgan.Generator):
            raise torch.OutOfMemoryError("no memory is left")
        return played()(gradients, net, batch, recording)

    on_the_cpu(fails_for_G)
    trainer, means, warned = trained(DCGAN, tmp_path)
    assert warned == ["no CUDA graph of D, G from here on, because of the graph of G: no memory is left"]
    assert not replays(trainer) and means == expected
    for ours, theirs in zip(weights(trainer), weights(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_no_graph_takes_the_memory_of_graphs_that_are_gone(tmp_path, on_the_cpu, monkeypatch):
    """PyTorch frees a pool of memory with its last graph, and an error follows where it is taken again."""
    pools, numbers = [], itertools.count()
    monkeypatch.setattr("torch.cuda.graph_pool_handle", lambda: next(numbers))

    def recorded_in(gradients, net, batch, recording):
        pools.append(recording.pool())
        first = len(pools) == 1
        return played(finish=lambda: first and net.zero_grad(set_to_none=False))(gradients, net, batch, recording)

    on_the_cpu(recorded_in)
    trainer, _, warned = trained(dataclasses.replace(DCGAN, gp_weight=10.0, penalty_interval=2), tmp_path, steps=10)
    assert len(warned) == 1 and pools == [0, 1, 1] and len(replays(trainer)) == 2

    collected = weakref.ref(next(run.replay for run in trainer.phase_steps.graphs.values() if run.replay))
    gc.disable()
    try:
        trainer.load_state_dict(trainer.state_dict())
        assert collected() is None and not replays(trainer)
    finally:
        gc.enable()


def test_a_graph_without_room_is_given_up_alone(tmp_path, on_the_cpu):
    def too_large_for_G(gradients, net, batch, recording):
        if isinstance(net, models.dcgan.Generator):
            raise graphs.TooLittleMemory("it needs 9.0 GiB with a pass beside it, and 8.0 are free")
        return played()(gradients, net, batch, recording)

    on_the_cpu(too_large_for_G)
    trainer, _, warned = trained(DCGAN, tmp_path)
    (line,) = warned
    assert line.startswith("no CUDA graph of G from here on, because of the graph of G: it needs 9.0 GiB")
    assert replays(trainer) == {"D"}


def test_graphs_are_on_unless_they_are_refused(tmp_path, on_the_cpu):
    on_the_cpu(played())
    trainer, _, _ = trained(dataclasses.replace(DCGAN, cuda_graphs=Config.cuda_graphs), tmp_path, steps=0)
    assert recorded(trainer) == {"D", "G"}


def test_what_cannot_be_recorded_says_why_and_trains_on(tmp_path, on_the_cpu):
    plain, expected, _ = trained(dataclasses.replace(DCGAN, cuda_graphs=False), tmp_path)

    def fails(gradients, net, batch, _):
        gradients(batch)
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904

    on_the_cpu(fails)
    trainer, means, warned = trained(DCGAN, tmp_path)
    reason = "operation not permitted when stream is capturing"
    assert warned == [f"no CUDA graph of D, G from here on, because of the graph of D: {reason}"]
    assert not replays(trainer) and means == expected
    for ours, theirs in zip(weights(trainer), weights(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_loss_that_is_not_finite_is_no_ground_to_give_a_graph_up(on_the_cpu):
    on_the_cpu(played())
    net = torch.nn.Linear(1, 1)
    adam = torch.optim.Adam(net.parameters())

    def gradients(batch):
        loss = net(batch.real_img).mean()
        loss.backward()
        return loss.detach(), Means()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        changing = graphs.Changing([], {}, [])
        run = graphs.RecordedPhase(gradients, "D", net, adam, lambda: changing, graphs.Recording())
        for value in [1.0, 1.0, float("inf"), float("inf"), 2.0, 3.0]:
            assert run.launch is not run.replay
            net.zero_grad(set_to_none=True)
            run(Batch(torch.full((2, 1), value), None, None))
    assert run.launch is run.replay


@pytest.mark.parametrize(
    ("device", "processes", "outside", "reason"),
    [
        ("cpu", ALONE, (), "CUDA graphs take a GPU, not cpu"),
        ("cuda", Processes(size=2), (), "CUDA graphs were never tried with 2 processes"),
        (
            "cuda",
            ALONE,
            ("loss mine",),
            "a graph would freeze what the plug-in of loss mine may change from step to step",
        ),
        ("cuda", ALONE, (), None),
    ],
)
def test_a_run_that_cannot_be_recorded_is_refused_with_the_reason(device, processes, outside, reason):
    assert graphs.refusal(torch.device(device), processes, outside) == reason


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (DCGAN, "D, G"),
        (STYLEGAN2, "D, D with penalties, G, G_pl"),
        (CYCLEGAN, "D, G"),
        (dataclasses.replace(DCGAN, gp_weight=10.0), "D with penalties, G"),
    ],
    ids=["dcgan", "path lengths", "pools", "penalties"],
)
def test_a_run_says_which_phases_it_records(config, line, tmp_path, on_the_cpu):
    on_the_cpu(played())
    trainer, _, _ = trained(config, tmp_path, steps=0)
    assert trainer.graphs_line == line


def test_a_phase_that_no_graph_can_hold_says_why():
    net = torch.nn.Linear(1, 1)
    phases = [Phase("D", net, None, None, no_graph="it asks a web page"), Phase("G", net, None, None)]
    assert graphs.describe(phases) == "G; D not: it asks a web page"


def test_on_the_cpu_a_run_goes_on_without_graphs_and_says_so(tmp_path):
    trainer, _, _ = trained(DCGAN, tmp_path, steps=1)
    assert trainer.graphs_line == "none: CUDA graphs take a GPU, not cpu"


@NO_GPU
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("config", [DCGAN, STYLEGAN2], ids=["dcgan", "stylegan2"])
def test_on_a_gpu_graphs_give_the_losses_of_a_run_without_them(config, precision, tmp_path):
    config = dataclasses.replace(config, precision=precision)
    _, expected, _ = trained(dataclasses.replace(config, cuda_graphs=False), tmp_path, device=torch.device("cuda"))
    trainer, means, warned = trained(config, tmp_path, device=torch.device("cuda"))
    assert not warned and replays(trainer) == recorded(trainer)
    assert means == pytest.approx(expected, rel=1e-2 if precision == "fp32" else 0.2, abs=1e-2)
