"""Two processes under torchrun on the CPU: they do what one does, save what one saves, and end together."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import DataConfig, load
from gan_engine.evaluate import Options, evaluate
from gan_engine.models import stylegan2
from gan_engine.system import checkpoint
from gan_engine.training import distributed
from gan_engine.training.distributed import ALONE, Processes, joined
from gan_engine.training.trainer import Trainer
from tests.adversarial_steps import step_of_share

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="PyTorch is without gloo"
)

MLP = Config(
    preset="vanilla",
    model=models.vanilla.Config(resolution=16, z_dim=8, hidden=(16, 16)),
    data="toy",
    batch_size=16,
    r1_gamma=1,
    precision="fp32",
    tensorboard=False,
)
# Style mixing and noise inputs are drawn by each process for itself: here there are none.
STYLEGAN2 = dataclasses.replace(
    MLP,
    preset="stylegan2",
    model=stylegan2.Config(
        resolution=16, channels=1, z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=16, style_mixing=0
    ),
    penalty_interval=4,
)
# Batch norms and augmentation differ between processes, and must go on as they were.
DCGAN = dataclasses.replace(
    MLP, preset="dcgan", model=models.dcgan.Config(resolution=16, z_dim=8, width=4), augment="ada", ada_kimg=0.1
)
GAMMA = dataclasses.replace(MLP, gamma="auto", lr=5e-3, loss="relativistic")
MEASURED = dataclasses.replace(
    MLP,
    model=models.vanilla.Config(resolution=32, z_dim=8, hidden=(16, 16)),
    eval_kimg=0.1,
    eval_num=250,
    eval_metrics="fid,kid,is,pr",
)
FROZEN = dataclasses.replace(MLP, freeze_d=1)


def curve(config, processes, folder, steps=50):
    """The means of every step."""
    trainer = make(config, processes, folder)
    if config is STYLEGAN2:
        stylegan2._noise = lambda const, noise: const * 0
    rows = []
    for _ in range(steps):
        trainer.step()
        rows.append(trainer.means.read(processes))
    return rows


def make(config, processes, folder):
    data = load(DataConfig("toy"), resolution=config.model.resolution, channels=1)
    return Trainer(config, data, device=torch.device("cpu"), run_dir=folder, processes=processes)


def halves(processes, folder):
    """The weights of four steps, and of two and two with a checkpoint between; and the probabilities of ada."""
    whole, first, second = (make(DCGAN, processes, folder) for _ in range(3))
    for trainer in (whole, first):
        torch.manual_seed(processes.rank)
        for _ in range(2):
            trainer.step()
        state = trainer.state_dict()
        if trainer is whole:
            for _ in range(2):
                trainer.step()
    if processes.first:
        checkpoint.save(folder / "two.pt", state)
    processes.gather(None)
    torch.rand(3)
    second.load_state_dict(checkpoint.load(folder / "two.pt"))
    for _ in range(2):
        second.step()
    return whole.D.state_dict(), second.D.state_dict(), processes.gather(second.ada.p)


def joined_later(processes, folder):
    """The means of a run that one process began, which knows a name that the other one has not met."""
    trainer = make(dataclasses.replace(MLP, penalty_interval=9), processes, folder)
    if processes.first:
        trainer.means.add("loss/r1", torch.tensor([3.0]))
    trainer.means.add("loss/D", torch.tensor([1.0 + processes.rank]))
    return trainer.means.read(processes)


def path_lengths(processes, folder):
    """The running mean of path lengths in every process."""
    trainer = make(dataclasses.replace(STYLEGAN2, pl_weight=2, pl_interval=2), processes, folder)
    for _ in range(3):
        trainer.step()
    return processes.gather(trainer.objective.pl_mean.item())


def gamma_auto(processes, folder):
    """The weights of R1 after every step, in every process."""
    trainer, weights = make(GAMMA, processes, folder), []
    for _ in range(40):
        trainer.step()
        weights.append(trainer.gamma.weights["gamma/r1"])
    return processes.gather(weights)


def measured(processes, folder):
    """The features of 250 images in batches of 100, the numbers, and how many images this process has drawn."""
    trainer = make(MEASURED, processes, folder)
    trainer.step()
    evaluation, sizes = trainer.evaluation, []
    evaluation.subject.G.register_forward_hook(lambda G, inputs, img: sizes.append(len(img)))
    drawn = evaluation.draw()
    if not processes.first:
        return None, None, sizes
    return drawn.generated.kept, evaluation.numbers(drawn), sizes


def evaluated(processes, folder):
    """What the command `evaluate` finds in the networks of `measured`, with --metrics and without."""
    trainer, run = make(MEASURED, processes, folder), folder / "evaluated" / str(processes.rank)
    run.mkdir(parents=True)
    checkpoint.save(run / "kimg-000000.000.pt", trainer.state_dict())
    options = {"data": "fashion-mnist", "num": 250, "device": "cpu"}
    found = [
        evaluate(Options(run / "kimg-000000.000.pt", metrics=metrics, **options), processes=processes)
        for metrics in ("fid,pr", None)
    ]
    return [{name: value if isinstance(value, float) else str(value) for name, value in each.items()} for each in found]


def broken_once(processes, folder):
    """What a run has at its last healthy reading, right after it has gone back to it, and at its end: G's last weights
    are zero from 2,049 images on, until the run has gone back."""
    watched = {"kimg": 8.192, "health_kimg": 2.048, "metrics_kimg": 1e6, "grid_kimg": 1e6, "checkpoint_kimg": 1e6}
    watched |= {"on_collapse": "rollback", "rollback_lr": 0.5}
    config = dataclasses.replace(DCGAN, batch_size=64, augment="none", r1_gamma=0, **watched)
    trainer = make(config, processes, folder / "broken")
    step, load_state, seen = trainer.step, trainer.load_state_dict, {"went_back_at": []}

    def noted():
        nets = {"G": trainer.G, "D": trainer.D}
        return {f"{net}.{name}": p.clone() for net in nets for name, p in nets[net].state_dict().items()}

    def broken():
        step()
        if trainer.nimg == 2048:
            seen["healthy"] = noted()
        if trainer.nimg > 2048 and not seen["went_back_at"]:
            with torch.no_grad():
                for p in list(trainer.G.parameters())[-2:]:
                    p.zero_()

    def load(state, **options):
        seen["went_back_at"].append(trainer.nimg)
        seen["collapsed"] = noted()
        load_state(state, **options)
        seen["back"] = noted()

    trainer.step, trainer.load_state_dict = broken, load
    trainer.run()
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in trainer.optimizers.items()}
    seeds = trainer.batches.sampler.seed, trainer.batches.z_generator.initial_seed()
    return seen | {"end": noted(), "nimg": trainer.nimg, "rates": rates, "seeds": seeds}


def not_finite_once(processes, folder):
    """Where a run went back and what it has at its end: a weight of the second process is NaN after 3,008 images."""
    config = dataclasses.replace(MLP, batch_size=64, kimg=4.096, health_kimg=2.048, on_collapse="rollback")
    trainer = make(config, processes, folder / "not_finite")
    step, load_state, went_back_at = trainer.step, trainer.load_state_dict, []

    def broken():
        if trainer.nimg == 3008 and processes.rank == 1 and not went_back_at:
            with torch.no_grad():
                next(trainer.D.parameters()).view(-1)[0] = torch.nan
        step()

    def load(state, **options):
        went_back_at.append((trainer.nimg, state["nimg"]))
        load_state(state, **options)

    trainer.step, trainer.load_state_dict = broken, load
    trainer.run()
    return went_back_at, trainer.nimg, {name: p.clone() for name, p in trainer.D.state_dict().items()}


def in_two_processes(folder):
    """What torchrun runs."""
    with joined("cpu") as (processes, _):
        curves = {config.preset: curve(config, processes, folder) for config in (MLP, STYLEGAN2)}
        results = {"curves": curves, "halves": halves(processes, folder), "later": joined_later(processes, folder)}
        results["pl_mean"] = path_lengths(processes, folder)
        results["gamma"] = gamma_auto(processes, folder)
        results["measured"] = measured(processes, folder)
        results["evaluated"] = evaluated(processes, folder)
        results["frozen"] = curve(FROZEN, processes, folder, steps=10)
        results["broken"] = broken_once(processes, folder)
        results["not finite"] = not_finite_once(processes, folder)
        results["adversarial"] = step_of_share(processes.rank, processes.size)
        torch.save(results, folder / f"{processes.rank}.pt")


def torchrun(folder, script, *arguments):
    (folder / "script.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{script}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "script.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    imports = "from pathlib import Path\nfrom tests.training.test_distributed import *\n"
    run = torchrun(folder, f"{imports}in_two_processes(Path({str(folder)!r}))")
    assert run.returncode == 0, run.stdout + run.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_two_processes_freeze_blocks_of_d_as_one_does(two, tmp_path):
    for ours, theirs, want in zip(
        two[0]["frozen"], two[1]["frozen"], curve(FROZEN, ALONE, tmp_path, steps=10), strict=True
    ):
        assert ours == theirs and ours == pytest.approx(want, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("config", [MLP, STYLEGAN2], ids=["vanilla", "stylegan2"])
def test_two_processes_do_fifty_steps_as_one(two, tmp_path, monkeypatch, config):
    monkeypatch.setattr(stylegan2, "_noise", stylegan2._noise)
    for ours, theirs, want in zip(
        two[0]["curves"][config.preset], two[1]["curves"][config.preset], curve(config, ALONE, tmp_path), strict=True
    ):
        assert ours == theirs
        assert ours == pytest.approx(want, rel=1e-3, abs=1e-5)  # 1e-6 in the first steps; Adam magnifies


def test_a_run_of_two_processes_resumed_equals_an_uninterrupted_one(two):
    for rank in range(2):
        whole, resumed, _ = two[rank]["halves"]
        for name, want in whole.items():
            assert torch.equal(resumed[name], want), name


def test_an_adversarial_step_under_data_parallel_has_the_gradients_of_the_whole_batch(two):
    (want,) = step_of_share(0, 1)
    for process in two:
        assert len(process["adversarial"]) == 2
        for got in process["adversarial"]:
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


def test_ada_has_one_probability(two):
    *_, p = two[0]["halves"]
    assert p[0] == p[1] > 0


def test_two_processes_have_the_weights_of_r1_that_one_has(two, tmp_path):
    (want,) = gamma_auto(ALONE, tmp_path)
    first, second = two[0]["gamma"]
    assert first == second and first[-1] != 1
    assert first == pytest.approx(want, rel=1e-3)


def test_two_processes_measure_what_one_measures(two, tmp_path):
    features, found, _ = measured(ALONE, tmp_path)
    got, numbers, _ = two[0]["measured"]
    torch.testing.assert_close(got, features)  # in the order of one process
    assert numbers == pytest.approx(found, rel=1e-4) and len(found) == 5
    assert [rank["measured"][2] for rank in two] == [[100, 50], [100]]


def test_the_command_evaluate_finds_in_two_processes_what_it_finds_in_one(two, tmp_path):
    alone = evaluated(ALONE, tmp_path)
    for process in two:
        for found, wanted in zip(process["evaluated"], alone, strict=True):
            assert len(found) == 3 and found.pop("classes", None) == wanted.get("classes")
            assert found == pytest.approx({name: wanted[name] for name in found}, rel=1e-4)


def test_path_lengths_have_one_mean(two):
    first, second = two[0]["pl_mean"]
    assert first == second > 0


def test_a_process_that_joins_a_resumed_run_takes_over_its_means(two):
    assert two[0]["later"] == two[1]["later"] == {"loss/D": 1.5, "loss/r1": 3.0}


def test_two_processes_go_back_from_a_collapse_together_and_stay_equal(two):
    first, second = (process["broken"] for process in two)
    for process in (first, second):
        assert process["went_back_at"] == [6144] and process["nimg"] == 8192
        assert process["rates"] == {name: DCGAN.lr / 2 for name in process["rates"]}
        learnt = [name for name in process["healthy"] if name.endswith(("weight", "bias"))]
        for name in learnt:
            assert torch.equal(process["back"][name], process["healthy"][name]), name
        assert any(not torch.equal(process["collapsed"][name], process["healthy"][name]) for name in learnt)
    assert first["seeds"] == second["seeds"] and first["seeds"][0] != DCGAN.seed != first["seeds"][1]
    for when in ("back", "end"):  # the running statistics of batch norms too
        for name, value in first[when].items():
            assert torch.equal(value, second[when][name]), (when, name)
    assert any(not torch.equal(first["end"][name], first["back"][name]) for name in learnt)


def test_two_processes_go_back_together_from_a_value_that_is_not_finite_in_one(two):
    (back, nimg, first), (*others, second) = (process["not finite"] for process in two)
    assert [back, nimg] == others == [[(3008, 2048)], 4096]
    assert all(value.isfinite().all() and torch.equal(value, second[name]) for name, value in first.items())


TRAIN = "from gan_engine.train import main\nsys.exit(main(sys.argv[1:]))\n"
FAILS = """
from gan_engine.training.trainer import Trainer
def step(self, step=Trainer.step):
    if self.step_count == 3 and self.processes.rank == 1:
        raise ValueError("the second process has had enough")
    step(self)
Trainer.step = step
"""
TINY = ["vanilla", "--data", "toy", "--res", "16", "--hidden", "16", "--batch-size", "16", "--no-tensorboard"]


def test_the_first_process_speaks_writes_and_logs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/runs/fake_loggers"))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "calls"))
    run = torchrun(tmp_path, TRAIN, *TINY, "--kimg", "0.064", "--out", "run", "--loggers", "wandb")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("networks") == 1 and "2 processes" in run.stdout
    assert len(checkpoint.load(checkpoint.find(tmp_path / "run"))["processes"]) == 2
    assert (tmp_path / "run/losses.png").exists()
    calls = (tmp_path / "calls").read_text()
    assert calls.count('"wandb.init"') == calls.count('"wandb.finish"') == 1 and '"loss/G"' in calls


def test_what_befalls_one_process_ends_the_others_with_its_error(tmp_path):
    started = time.monotonic()
    run = torchrun(tmp_path, FAILS + TRAIN, *TINY, "--kimg", "100", "--out", "run")
    assert run.returncode != 0
    assert "error: process 1: ValueError: the second process has had enough" in run.stderr
    assert time.monotonic() - started < 120


WAITS = """
import torch.distributed
from gan_engine.training import distributed
distributed._GRACE = 1
store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True)
distributed.Processes(rank=1, size=2, store=store).announce(ValueError("no memory is left"))
with distributed.Processes(rank=0, size=2, store=store)._ended_with_peers():
    store.wait(["what nobody sets"])
"""


def test_a_process_that_ends_by_itself_is_left_alone(monkeypatch):
    ended = []
    monkeypatch.setattr(distributed, "_POLL", 0.01)
    monkeypatch.setattr(distributed, "_GRACE", 0.3)
    monkeypatch.setattr(distributed.os, "_exit", ended.append)
    store = torch.distributed.HashStore()
    processes = Processes(rank=1, size=2, store=store)
    with processes._ended_with_peers():
        Processes(rank=0, size=2, store=store).announce(ValueError("gone"))
        time.sleep(0.1)
    time.sleep(0.5)
    assert not ended
    with processes._ended_with_peers():
        time.sleep(0.6)
    assert ended[:1] == [1]


def test_a_process_that_waits_for_one_that_has_failed_is_ended():
    """A process on a GPU may wait in a communication, from which nothing gets it out."""
    started = time.monotonic()
    run = subprocess.run([sys.executable, "-c", WAITS], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.endswith("error: process 1: ValueError: no memory is left\n")
    assert time.monotonic() - started < 120


def test_a_batch_that_cannot_be_dealt_out_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size: want a multiple of the 3 processes, got 16"):
        make(MLP, Processes(size=3), tmp_path)


@pytest.mark.parametrize("rank", [0, 1])
def test_too_few_gpus_are_the_same_error_in_every_process(monkeypatch, rank):
    for name, value in {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    wanted = "device: want a GPU for each of the 2 processes on this machine, got 1"
    with pytest.raises(ValueError, match=wanted), joined("cuda"):
        pass


def test_one_process_communicates_with_nobody():
    x = torch.ones(2)
    assert ALONE.sum(x) is x and ALONE.gather(3) == [3] and ALONE.max(4) == 4 and ALONE.from_first(lambda: 5) == 5
    with pytest.raises(ValueError, match="mine"):
        ALONE.agree(ValueError("mine"))


def test_no_thread_asks_the_store_behind_the_end():
    class Store:
        def __init__(self):
            self.asked = threading.Event()

        def clone(self):
            return self

        def check(self, keys):
            self.asked.set()
            time.sleep(0.5)
            return False

    before, store = threading.active_count(), Store()
    with Processes(0, 2, 0, store)._ended_with_peers():
        assert store.asked.wait(10)
    assert threading.active_count() == before
