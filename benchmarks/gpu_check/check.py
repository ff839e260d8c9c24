"""The check as a whole: it runs the stages within a budget, and writes what they measured after each of them."""

import contextlib
import datetime
import json
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.stages import GRACE, ROOT, Stage, Stop, not_run, run_stage

PACKAGES = ("torch", "triton", "torchvision", "numpy", "pytest", "pytest-benchmark", "pytest-xdist", "tyro")


def find_device() -> dict[str, Any] | str:
    """The properties of the GPU, or a sentence that says why there is none."""
    try:
        import torch
    except ImportError as error:
        return f"want PyTorch, got an import error: {error}"
    if not torch.cuda.is_available():
        return f"want a CUDA GPU, got none that PyTorch {torch.__version__} sees"
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "driver": _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    }


def find_versions() -> dict[str, str | None]:
    def version(package: str) -> str | None:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
        return None

    versions = {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}
    with contextlib.suppress(ImportError):
        import torch

        versions["cuda of torch"] = torch.version.cuda
    versions["nvcc"] = _first_line("nvcc", "--version", word="release")
    versions["c++"] = _first_line("c++", "--version")
    return versions


def _first_line(*command: str, word: str = "") -> str | None:
    """The first line of the command's output that contains `word`; None if the command is missing."""
    with contextlib.suppress(OSError):
        text = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
        return next((line.strip() for line in text.splitlines() if line.strip() and word in line), None)
    return None


def check(
    device: dict[str, Any],
    versions: Mapping[str, str | None],
    todo: Iterable[Stage],
    rows: Path,
    name: Path,
    budget: float,
    stop: Stop,
) -> int:
    """Run the stages within `budget` seconds. Write the results to NAME.json and NAME.md before and after each stage.

    Time that a stage leaves goes to the stage behind it. A signal in `stop` ends the stage under way, and is the last.
    """
    from benchmarks.gpu_check.page import report
    from benchmarks.rows import commit, read
    from gan_engine.system.whole_file import replacing

    begin, todo = time.monotonic(), list(todo)
    log = name.with_suffix(".log")
    name.parent.mkdir(parents=True, exist_ok=True)
    for stale in (rows, log):
        stale.unlink(missing_ok=True)
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": device,
        "versions": dict(versions),
        "budget": budget,
        "seconds": 0.0,
        "stages": [not_run(stage, f"left out: {stage.left_out}" if stage.left_out else "not run") for stage in todo],
        "rows": [],
    }
    done = results["stages"]

    def write() -> None:
        results["rows"] = read(rows) if rows.exists() else []
        results["seconds"] = round(time.monotonic() - begin, 1)
        for suffix, text in ((".json", json.dumps(results, indent=1) + "\n"), (".md", report(results))):
            with replacing(name.with_suffix(suffix)) as file:
                file.write_text(text)

    write()
    for i, stage in enumerate(todo):
        if stop.number:
            break
        spent = time.monotonic() - begin
        left = budget - GRACE - spent
        earlier = sum(other.seconds for other in todo[:i] if other.left_out is None)
        print(f"{stage.name}: ", end="", flush=True)
        if stage.left_out is None and left <= 0:
            done[i] = not_run(stage, "out of time")
        elif stage.left_out is None:
            done[i] = not_run(stage, "under way")
            write()  # what is on disk if SIGKILL or the machine ends this process
            done[i] = run_stage(stage, min(left, stage.seconds + max(0.0, earlier - spent)), log, stop)
        print(f"{done[i]['status']}, {done[i]['seconds']} s", flush=True)
        write()
    files = (name.with_suffix(suffix) for suffix in (".md", ".json", ".log", ".jsonl"))
    print(f"\n{report(results)}\nwritten: {', '.join(str(file) for file in files if file.exists())}")
    if stop.number:
        return 128 + stop.number
    return int(any(failed(stage, result["status"]) for stage, result in zip(todo, done, strict=True)))


def failed(stage: Stage, status: str) -> bool:
    """True if this result makes the exit status 1."""
    return not status.startswith(("passed", "dry: ", "left out")) and not (stage.may_be_cut and status == "out of time")
