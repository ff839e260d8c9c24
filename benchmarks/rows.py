"""Rows of measurements: one flat row for each peer of a comparison, with all facts that explain the number.

A peer is one way to compute something: a backend of ours, eager PyTorch, torch.compile, or another library.
"""

import datetime
import json
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks import isa
from benchmarks.timing import Timing

# What a comparison was measured on. Rows of two machines, sets or numbers of threads are never compared.
MACHINE = ("device", "isa", "threads")
ROLES = ("ours", "eager", "compile", "peer", "floor")


def environment(device: str) -> dict[str, Any]:
    """The machine and the versions that a measurement depends on."""
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": commit(),
        "device": torch.cuda.get_device_name() if device == "cuda" else _cpu_name(),
        "isa": None if device == "cuda" else isa.in_use(),
        "threads": torch.get_num_threads(),
        **{package: _version(package) for package in ("gan-engine", "torch", "triton")},
        "python": platform.python_version(),
        **({"tf32 convolutions": torch.backends.cudnn.allow_tf32} if device == "cuda" else {}),
    }


def file_name(environment: Mapping[str, Any]) -> str:
    """The device, the instruction set and the threads, in a form that fits into a file name."""
    return re.sub(r"[^a-z0-9]+", "-", machine(environment).lower()).strip("-")


def machine(row: Mapping[str, Any]) -> str:
    """What a row was measured on, such as "AMD EPYC, avx2, 2 threads"."""
    threads = f"{row['threads']} thread{'s' * (row['threads'] != 1)}"
    return ", ".join(part for part in (row["device"], row["isa"], threads) if part)


def rows_of(case: Mapping[str, Any], roles: Mapping[str, str], timings: Mapping[str, Timing]) -> list[dict[str, Any]]:
    """One row for each peer of a comparison.

    ms, p20, p80                     median and quantiles of the time of a call, in milliseconds
    vs_eager, vs_compile, vs_peer    time of the fastest peer of that role / time of this peer; above 1: this is faster
    over_floor                       time of this peer / time of the highest floor, a lower bound of the time
    """
    medians = {name: t.median for name, t in timings.items() if t.ms}
    best = {role: min((ms for name, ms in medians.items() if roles[name] == role), default=None) for role in ROLES}
    floor = max((ms for name, ms in medians.items() if roles[name] == "floor"), default=None)
    rows = []
    for name, timing in timings.items():
        row = {**case, "role": roles[name], "peer": name}
        if timing.ms:
            ms = timing.median
            row |= {
                "ms": _round(ms),
                "p20": _round(timing.quantile(0.2)),
                "p80": _round(timing.quantile(0.8)),
                "rounds": len(timing.ms),
                "peak_mib": None if timing.peak_mib is None else round(timing.peak_mib, 1),
                "vs_eager": _ratio(best["eager"], ms),
                "vs_compile": _ratio(best["compile"], ms),
                "vs_peer": _ratio(best["peer"], ms),
                "over_floor": _ratio(ms, floor),
            }
        rows.append(row | {"error": timing.error})
    return rows


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows in `path`. A last line that a killed run cut short is ignored. The newest row of each peer counts.

    The instruction set of rows before 2026-11-28 is None, as they do not name it.
    """
    newest = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        row = {"isa": None, **row}
        newest[tuple(row.get(key) for key in (*MACHINE, "op", "D", "sample", "dtype", "mode", "malloc", "peer"))] = row
    return list(newest.values())


def _round(ms: float) -> float:
    return float(f"{ms:.4g}")


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else float(f"{a / b:.3g}")


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return name[1].strip() if name else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The current commit, with a + if tracked files differ from it; None outside a git repository."""

    def git(*args: str) -> str:
        return subprocess.run(
            ("git", *args), cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
