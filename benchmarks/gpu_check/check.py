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

from benchmarks.gpu_check.stages import GRACE, ROOT, Stage, not_run, run_stage

PACKAGES = ("torch", "triton", "torchvision", "numpy", "pytest", "pytest-benchmark", "pytest-xdist", "tyro")


def find_device() -> dict[str, Any] | str:
    """The properties of the GPU, or a sentence that says why there is none."""
    try:
        import torch
    except ImportError as error:
        return f"gpu-check: want PyTorch, got an import error: {error}"
    if not torch.cuda.is_available():
        return f"gpu-check: want a CUDA GPU, got none that PyTorch {torch.__version__} sees"
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
) -> int:
    """Run the stages within `budget` seconds. Write the results to NAME.json and NAME.md after each stage.

    Time that a stage leaves goes to the stage behind it.
    """
    from benchmarks.gpu_check.page import report
    from benchmarks.rows import commit, read

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
        "stages": [],
        "rows": [],
    }

    def write() -> None:
        results["rows"] = read(rows) if rows.exists() else []
        results["seconds"] = round(time.monotonic() - begin, 1)
        name.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        name.with_suffix(".md").write_text(report(results))

    try:
        for i, stage in enumerate(todo):
            spent = time.monotonic() - begin
            left = budget - GRACE - spent
            earlier = sum(other.seconds for other in todo[:i] if other.left_out is None)
            print(f"{stage.name}: ", end="", flush=True)
            if stage.left_out is not None:
                done = not_run(stage, f"left out: {stage.left_out}")
            elif left <= 0:
                done = not_run(stage, "out of time")
            else:
                done = run_stage(stage, min(left, stage.seconds + max(0.0, earlier - spent)), log)
            print(f"{done['status']}, {done['seconds']} s", flush=True)
            results["stages"].append(done)
            write()
    finally:  # also if SIGTERM or Ctrl-C ends this process during a stage
        write()
    print(f"\n{report(results)}\nwritten: {name.with_suffix('.json')} and {name.with_suffix('.md')}")
    return 0 if all(stage["status"].startswith(("passed", "left out")) for stage in results["stages"]) else 1
