"""Time whole training steps of a preset: `python -m benchmarks.gpu_check.steps stylegan2_256`.

A step is Trainer.step(): data, all phases that are due, penalties, optimisers and the moving average. The forms:

    ours            as the preset is; then with CUDA graphs and with TF32 the other way round
    eager           PyTorch's operators and autograd alone
    compile         the same, with both networks compiled; steps without penalties only, which torch.compile refuses

The modes are the phases of a step, such as "D, G" or "D with penalties, pl, G", each timed on its own, and "mean", the
time of a step over a whole period of the penalties, in which the host may run ahead of the GPU.

A row of ours and of eager also counts launches by the host, kernels, and the share of a step in which the GPU is busy.
"""

import dataclasses
import functools
import gc
import statistics
import sys
import time
from collections.abc import Callable
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
from gan_engine.training.trainer import Trainer

WARM_UP = 8  # steps of each kind: kernels are compiled and chosen in the first ones, and graphs are checked in five


def config_of(name: str) -> Config:
    """The preset `name`; "dcgan-64" is the DCGAN at 64x64 in colour."""
    config = PRESETS["dcgan" if name == "dcgan-64" else name]()
    if name == "dcgan-64":
        config = dataclasses.replace(config, model=models.dcgan.Config(resolution=64, channels=3), batch_size=64)
    return dataclasses.replace(config, data="toy", tensorboard=False)


@functools.cache
def images(data: DataConfig, resolution: int, channels: int) -> ImageSet:
    return load(data, resolution=resolution, channels=channels, kind="image")


def make(config: Config, device: torch.device) -> Trainer:
    data = images(config.data_config, config.model.resolution, config.model.channels)
    torch.zeros((), device=device)  # ends a dry run here: the networks would take minutes of a slow CPU
    torch.backends.cudnn.benchmark = True  # as a run does
    return Trainer(config, data, device=device, run_dir=Path("unused"))


def due(trainer: Trainer) -> str:
    """The phases of the next step, such as "D with penalties, pl, G"."""
    count = trainer.step_count
    names = [
        f"{phase.name} with penalties" if phase.penalties_due(count) else phase.name
        for phase in trainer.phases
        if phase.due(trainer.clock)
    ]
    return ", ".join(names)


def period(config: Config) -> int:
    """Steps from one with all phases and penalties to the next."""
    penalty = config.penalty_interval if config.r1_gamma or config.r2_gamma or config.gp_weight else 1
    return max(penalty, config.pl_interval if config.pl_weight else 1)


def times_of(trainer: Trainer, step: Callable[[], None], seconds: float) -> dict[str, list[float]]:
    """{mode: milliseconds} of about `seconds` of steps, and at least two periods.

    The first half of the time waits for each step. "mean" comes from whole periods without a wait.
    """
    wait = torch.cuda.synchronize if trainer.device.type == "cuda" else lambda: None
    steps = period(trainer.config)
    found: dict[str, list[float]] = {}
    begin = time.perf_counter()
    while not found or time.perf_counter() - begin < seconds / 2:
        for _ in range(steps):
            mode = due(trainer)
            wait()
            start = time.perf_counter()
            step()
            wait()
            found.setdefault(mode, []).append((time.perf_counter() - start) * 1e3)
    periods = max(1, round(16 / steps))
    while "mean" not in found or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        for _ in range(steps * periods):
            step()
        wait()
        found.setdefault("mean", []).append((time.perf_counter() - start) * 1e3 / (steps * periods))
    return found


def profiled(step: Callable[[], None]) -> dict[str, float]:
    """Of one step: launches by the host, kernels and copies on the GPU, and the share of time in which it is busy."""
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
        return {"launches": launches, "kernels": 0}
    busy, end = 0, on_gpu[0][0]
    for start, stop in on_gpu:
        busy += max(0, stop - max(start, end))
        end = max(end, stop)
    return {"launches": launches, "kernels": len(on_gpu), "busy": round(busy / (end - on_gpu[0][0]), 3)}


def measure(
    name: str, config: Config, form: str, *, path: Path | None, seconds: float, device: torch.device, profile: bool
) -> None:
    """Time a form of a step, and append its rows to `path`."""
    gc.collect()
    trainer = make(config, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if form != "ours":
        trainer.objective.level = "autograd"
    if form == "compile":
        torch.compiler.reset()
        trainer.G.compile(dynamic=False)
        trainer.D.compile(dynamic=False)

    def step() -> None:
        if form == "ours":
            trainer.step()
        else:
            with eager_pytorch():
                trainer.step()

    for step_count in (0, 1):  # every phase is due at 0; a step with penalties has a graph of its own
        for _ in range(WARM_UP):
            trainer.clock.step_count = step_count
            step()
    counted: dict[str, Any] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = times_of(trainer, step, seconds)
    if device.type == "cuda":
        counted["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
        counted |= profiled(step) if profile else {}
    if path is not None:
        rows.append(path, rows_of(name, trainer, form, found, counted))


def rows_of(
    name: str, trainer: Trainer, form: str, found: dict[str, list[float]], counted: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row for each mode. What was counted belongs to the mean, except the peak of memory, which all rows have."""
    config = trainer.config
    recorded = any(phase.launch == phase.replay for phase in trainer.gradients.graphs.values())
    setting = f"graphs {'on' if recorded else 'off'}, TF32 {'on' if trainer.tf32 else 'off'}"
    case = {
        **rows.environment(trainer.device.type),
        **{"op": "training step", "sample": f"{name} {config.batch_size} images", "dtype": trainer.precision.name},
        **{"malloc": "default", "role": form, "peer": f"{form}, {setting}", "error": None},
    }
    made = []
    for mode, ms in found.items():
        median = statistics.median(ms)
        row = {**case, "mode": mode, "ms": float(f"{median:.4g}"), "rounds": len(ms)}
        row |= {"img_per_s": float(f"{config.batch_size * 1e3 / median:.4g}")}
        made.append(row | (counted if mode == "mean" else {"peak_mib": counted.get("peak_mib")}))
    return made


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
        f"{name} {what}": functools.partial(
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
    return run(todo, seconds=args.seconds, cap=args.seconds / 3, dry=args.dry_run)


if __name__ == "__main__":
    sys.exit(main())
