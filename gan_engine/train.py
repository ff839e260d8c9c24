"""python -m gan_engine.train [PRESET] [--flags]: train a GAN into a run directory."""

import dataclasses
import datetime
import json
import platform
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy
import torch
import tyro

import gan_engine
from gan_engine import backends, checkpoint, info
from gan_engine.config import Config, to_dict
from gan_engine.data import ImageSet, describe, load
from gan_engine.nonfinite import NonFiniteError
from gan_engine.precision import resolve
from gan_engine.presets import PRESETS
from gan_engine.trainer import Trainer

RUNS = Path("runs")


def parse(argv: list[str]) -> Config:
    """The configuration that the command line asks for; exits with 2, saying what was wanted, where it asks wrongly."""
    default = next(iter(PRESETS))
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv = [default, *argv]
    return tyro.extras.overridable_config_cli(
        {name: (preset.__doc__ + " The default." * (name == default), preset()) for name, preset in PRESETS.items()},
        args=argv,
        prog="python -m gan_engine.train",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands),
    )


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device: want auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: want auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: {name} was asked for, and PyTorch sees {torch.cuda.device_count()} CUDA GPUs")
    return device


def with_classes(config: Config, data: ImageSet) -> Config:
    """`config` with the number of classes of `data`, where it asks for classes."""
    if not config.conditional:
        return config
    if not data.num_classes:
        raise ValueError(f"conditional: want data with classes (a folder for each), got {data.name} without labels")
    return dataclasses.replace(config, model=dataclasses.replace(config.model, c_dim=data.num_classes))


def place(config: Config) -> tuple[Path, Path | None]:
    """The run directory and, for a run to go on with, its checkpoint. Makes nothing.

    Raises ValueError for a directory that holds a run already, CheckpointError where there is nothing to go on with.
    """
    if config.resume is None:
        run_dir = config.out or _next_run(config.preset)
        start = None
    elif config.resume == "latest":
        run_dir = config.out or _last_run(config.preset)
        start = checkpoint.find(run_dir)
    else:
        start = checkpoint.find(config.resume)
        home = start.parent.parent if start.parent.name == "checkpoints" else start.parent
        run_dir = config.out or home
        if run_dir.resolve() == home.resolve():
            return run_dir, start
    if (start is None or config.resume != "latest") and _holds_run(run_dir):
        raise ValueError(f"out: {run_dir} holds a run already; go on with it by --resume {run_dir}, or name another")
    return run_dir, start


def _holds_run(run_dir: Path) -> bool:
    return (run_dir / "run.json").exists() or (run_dir / "checkpoints").exists()


def _numbered_runs(preset: str) -> dict[int, Path]:
    runs = {path.name.removeprefix(f"{preset}-"): path for path in RUNS.glob(f"{preset}-*")}
    return {int(number): path for number, path in runs.items() if number.isdecimal()}


def _next_run(preset: str) -> Path:
    return RUNS / f"{preset}-{max(_numbered_runs(preset), default=0) + 1}"


def _last_run(preset: str) -> Path:
    runs = _numbered_runs(preset)
    if not runs:
        raise ValueError(f"resume: no run of the preset {preset} in {RUNS}/; name its directory")
    return runs[max(runs)]


def record(run_dir: Path, config: Config, entry: dict[str, Any]) -> None:
    """Write run.json: the resolved configuration, and an entry for this start beside those of earlier ones."""
    path = run_dir / "run.json"
    starts = json.loads(path.read_text())["starts"] if path.exists() else []
    text = json.dumps({"config": to_dict(config), "starts": [*starts, entry]}, indent=2)
    path.write_text(text + "\n")


def main(argv: list[str] | None = None) -> int:
    """Train. The exit status is 0 at the end, 128 + N after signal N (saved), 1 after a failure, 2 for a wrong call."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        config = parse(argv)
        device = choose_device(config.device)
        precision = resolve(config.precision, device)
        run_dir, start = place(config)
        data = load(
            config.data_config, resolution=config.model.resolution, channels=config.model.channels, seed=config.seed
        )
        config = with_classes(config, data)
        torch.backends.cudnn.benchmark = True  # batches have one shape all through a run
        x = torch.empty(1, device=device)
        ops = {op: backends.choose(op, x) for op in backends.ops()}
        trainer = Trainer(config, data, device=device, run_dir=run_dir)
        if start is not None:
            trainer.load_state_dict(checkpoint.load(start))
            if trainer.nimg >= trainer.total:
                raise ValueError(
                    f"kimg: {start} is at {trainer.nimg / 1000:g} kimg; want more to go on, got {config.kimg}"
                )
    except (ValueError, RuntimeError) as error:  # CheckpointError and a backend that refuses are RuntimeErrors
        print(f"error: {error}", file=sys.stderr)
        return 2

    versions = {
        "gan_engine": gan_engine.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    run_dir.mkdir(parents=True, exist_ok=True)
    entry = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "arguments": argv,
        "kimg": trainer.nimg / 1000,
        "resumed_from": str(start) if start else None,
        "device": f"{device} ({hardware})",
        "precision": precision,
        "versions": versions,
        "data": describe(data),
        "ops": ops,
    }
    record(run_dir, config, entry)
    parameters = {name: sum(p.numel() for p in net.parameters()) for name, net in (("G", trainer.G), ("D", trainer.D))}
    print(f"run        {run_dir}" + (f", from {start.name}" if start else ""))
    print(f"data       {describe(data)}")
    print(f"networks   {config.preset}, " + ", ".join(f"{name} {num:,}" for name, num in parameters.items()))
    print(f"device     {device} ({hardware}), {precision}")
    print(f"\n{info.table()}\n", flush=True)

    try:
        stopped_by = trainer.run()
    except (NonFiniteError, checkpoint.CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"aborted; --resume {run_dir} goes on from the last checkpoint, if there is one", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"{trainer.nimg / 1000:g} kimg in {trainer.seconds:,.0f} s, in {run_dir}")
    if stopped_by is not None:
        print(f"go on with the same flags and --resume {run_dir}")
        return 128 + stopped_by
    return 0


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    sys.exit(main())
