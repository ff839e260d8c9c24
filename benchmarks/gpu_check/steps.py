"""Time whole training steps of a preset: `python -m benchmarks.gpu_check.steps stylegan2_256`.

A step is Trainer.step(): data, all phases that are due, penalties, optimisers and the moving average. The forms:

    ours            as the preset is; then with CUDA graphs and with TF32 the other way round
    eager           PyTorch's operators and autograd alone
    compile         the same, with both networks compiled; steps without penalties only, which torch.compile refuses

The modes of a form, in the order in which they are timed:

    first step      compiles and chooses kernels
    mean            a step of whole periods of the penalties, in which the host may run ahead of the GPU
    D, G            a step with these phases, which ends with a wait; also "D with penalties, G, G_pl" and others

A row is written as soon as its time is known, so a form that is stopped keeps what it has measured. The rows of ours
and of eager also count launches by the host, kernels, and the share of time in which the GPU is busy. One step of each
kind is profiled for that, and the mean weighs the kinds as a period does.
"""

import dataclasses
import gc
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import rows
from benchmarks.eager import eager_pytorch
from benchmarks.gpu_check.cases import parser, run
from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import DataConfig, ImageSet, load
from gan_engine.presets import PRESETS
from gan_engine.training import graphs, schedule
from gan_engine.training.trainer import Trainer

# Of the time that is left: the first form, the most important one, also compiles and chooses kernels for the others.
SHARE = 0.6
# Steps of each kind before they are timed: kernels are compiled, and graphs are recorded, checked and launched.
WARM_UP = graphs.WARM_UP + graphs.CHECKS + 1


def config_of(name: str) -> Config:
    """The preset `name`; "dcgan-64" is the DCGAN at 64x64 in colour."""
    config = PRESETS["dcgan" if name == "dcgan-64" else name]()
    if name == "dcgan-64":
        config = dataclasses.replace(config, model=models.dcgan.Config(resolution=64, channels=3), batch_size=64)
    return dataclasses.replace(config, data="toy", tensorboard=False)


@cache
def images(data: DataConfig, resolution: int, channels: int) -> ImageSet:
    return load(data, resolution=resolution, channels=channels, kind="image")


def make(config: Config, device: torch.device) -> Trainer:
    data = images(config.data_config, config.model.resolution, config.model.channels)
    torch.zeros((), device=device)  # ends a dry run here: the networks would take minutes of a slow CPU
    torch.backends.cudnn.benchmark = True  # as a run does
    return Trainer(config, data, device=device, run_dir=Path("unused"))


def due(trainer: Trainer) -> str:
    """The phases of the next step, such as "D with penalties, G, G_pl"."""
    phases = schedule.due(trainer.phases, trainer.step_count, pretraining=trainer.clock.pretraining)
    return ", ".join(f"{phase.name} with penalties" if penalised else phase.name for phase, penalised, _ in phases)


def period(config: Config) -> int:
    """Steps from one with all phases and penalties to the next."""
    penalty = config.penalty_interval if config.r1_gamma or config.r2_gamma or config.gp_weight else 1
    return max(penalty, config.pl_interval if config.pl_weight else 1)


def kinds(trainer: Trainer) -> list[tuple[str, int]]:
    """What is due in each step of a period, and the number of the step."""
    clock, found = trainer.clock, []
    before = clock.step_count
    for clock.step_count in range(period(trainer.config)):
        found.append((due(trainer), clock.step_count))
    clock.step_count = before
    return found


def profiled(step: Callable[[], None]) -> dict[str, float]:
    """Of one step: launches by the host, kernels and copies on the GPU, and their time in ns: as a whole, and busy."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    events = list(profile.profiler.kineto_results.events())
    on_gpu = sorted(
        (event.start_ns(), event.start_ns() + event.duration_ns())
        for event in events
        if event.device_type() == torch.autograd.DeviceType.CUDA
    )
    launches = sum("Launch" in event.name() or "MemcpyAsync" in event.name() for event in events)
    if not on_gpu:
        return {"launches": launches, "kernels": 0, "span": 0, "busy": 0}
    busy, end = 0, on_gpu[0][0]
    for start, stop in on_gpu:
        busy += max(0, stop - max(start, end))
        end = max(end, stop)
    return {"launches": launches, "kernels": len(on_gpu), "span": end - on_gpu[0][0], "busy": busy}


def mean_counts(counts: list[dict[str, float]]) -> dict[str, float]:
    """The means of steps that were profiled; "busy" becomes the share of all their time."""
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    means = {name: round(total[name] / len(counts), 1) for name in ("launches", "kernels")}
    return means | ({"busy": round(total["busy"] / total["span"], 3)} if total["span"] else {})


class Form:
    """A form of the steps of a trainer, which is timed and profiled. Each row is written as soon as it is known.

    Args:
        name: of the case.
        kind: "ours", "eager" or "compile".
        path: of the rows; None writes none.
    """

    def __init__(self, name: str, kind: str, trainer: Trainer, path: Path | None) -> None:
        self.name, self.kind, self.trainer, self.path = name, kind, trainer, path
        self.on_gpu = trainer.device.type == "cuda"
        self.rows: dict[str, dict[str, Any]] = {}  # by mode

    def step(self, step_count: int | None = None) -> None:
        """A step, by default the next one."""
        if step_count is not None:
            self.trainer.clock.step_count = step_count
        if self.kind == "ours":
            self.trainer.step()
        else:
            with eager_pytorch():
                self.trainer.step()

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def warm_up(self) -> None:
        for step_count in dict(kinds(self.trainer)).values():
            for _ in range(WARM_UP):
                self.step(step_count)
        self.wait()

    def time(self, runs: list[tuple[str, list[int]]], seconds: float) -> None:
        """Time runs of steps, (mode, numbers of the steps), all in turn for about `seconds` and at least once.

        The host waits for the GPU behind a run, and not inside of it. What was timed is written, also if time is up.
        """
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        found: dict[str, list[float]] = {}
        begin = time.perf_counter()
        try:
            while not found or time.perf_counter() - begin < seconds:
                for mode, steps in runs:
                    start = time.perf_counter()
                    for step_count in steps:
                        self.step(step_count)
                    self.wait()
                    found.setdefault(mode, []).append((time.perf_counter() - start) * 1e3 / len(steps))
        finally:
            self.rows |= {mode: self.row(mode, ms) for mode, ms in found.items()}
            self.write(*found)

    def profile(self) -> None:
        """Add to the rows what one step of each kind launches. The mean of a period belongs to the mean."""
        numbers = kinds(self.trainer)
        counts = {mode: profiled(partial(self.step, number)) for mode, number in dict(numbers).items()}
        for mode, count in counts.items():
            self.rows[mode] |= mean_counts([count])
        self.rows["mean"] |= mean_counts([counts[mode] for mode, _ in numbers])
        self.write("mean", *counts)

    def write(self, *modes: str) -> None:
        if self.path is not None:
            rows.append(self.path, [self.rows[mode] for mode in modes])

    def row(self, mode: str, ms: list[float]) -> dict[str, Any]:
        trainer, median = self.trainer, statistics.median(ms)
        images = trainer.config.batch_size
        recorded = any(phase.launch != phase.compute for phase in trainer.phase_steps.graphs.values())
        setting = f"graphs {'on' if recorded else 'off'}, TF32 {'on' if trainer.tf32 else 'off'}"
        return {
            **rows.environment(trainer.device.type),
            **({"tf32 convolutions": trainer.tf32} if self.on_gpu else {}),
            **{"op": "training step", "sample": f"{self.name} {images} images", "dtype": trainer.precision.name},
            **{"malloc": "default", "role": self.kind, "peer": f"{self.kind}, {setting}", "error": None},
            **{"mode": mode, "ms": float(f"{median:.4g}"), "rounds": len(ms)},
            "img_per_s": float(f"{images * 1e3 / median:.4g}"),
            "peak_mib": round(torch.cuda.max_memory_allocated() / 2**20) if self.on_gpu else None,
        }


def measure(
    name: str, config: Config, kind: str, *, path: Path | None, seconds: float, device: torch.device, profile: bool
) -> None:
    """Time a form of a step, and append its rows to `path`."""
    gc.collect()
    trainer = make(config, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if kind != "ours":
        trainer.objective.level = "autograd"
    if kind == "compile":
        torch.compiler.reset()
        trainer.G.compile(dynamic=False)
        trainer.D.compile(dynamic=False)
    form, numbers = Form(name, kind, trainer, path), kinds(trainer)
    form.time([("first step", [0])], 0)
    form.warm_up()
    periods = max(1, round(16 / len(numbers)))
    form.time([("mean", [number for _, number in numbers] * periods)], seconds / 2)
    form.time([(mode, [number]) for mode, number in numbers], seconds / 2)
    if profile and device.type == "cuda":
        form.profile()


def cases(name: str, path: Path | None, *, device: torch.device, seconds: float) -> dict[str, Callable[[], None]]:
    """The forms of a step, the most important first."""
    config = config_of(name)
    without_penalties = {"r1_gamma": 0, "r2_gamma": 0, "gp_weight": 0, "pl_weight": 0}
    forms: dict[str, tuple[str, dict[str, Any]]] = {
        "ours": ("ours", {}),
        "eager": ("eager", {"cuda_graphs": False}),
        f"ours, graphs {'off' if config.cuda_graphs else 'on'}": ("ours", {"cuda_graphs": not config.cuda_graphs}),
        "ours, TF32 off": ("ours", {"tf32": False}),
        "ours without penalties": ("ours", without_penalties),
        "compile without penalties": ("compile", {"cuda_graphs": False, **without_penalties}),
    }
    options = {"path": path, "seconds": seconds, "device": device}
    return {
        f"{name} {what}": partial(
            measure,
            f"{name} without penalties" if "without" in what else name,
            dataclasses.replace(config, **changes),
            form,
            profile=what in ("ours", "eager"),
            **options,
        )
        for what, (form, changes) in forms.items()
    }


def main(argv: list[str] | None = None) -> int:
    made = parser("Time whole training steps.")
    made.add_argument("preset", help="a preset, or dcgan-64")
    args = made.parse_args(argv)
    todo = cases(args.preset, args.rows, device=torch.device("cuda"), seconds=args.seconds / 12)
    return run(todo, seconds=args.seconds, share=SHARE, dry=args.dry_run)


if __name__ == "__main__":
    sys.exit(main())
