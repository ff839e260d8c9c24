"""Build, test and measure on the GPU of this machine within a time budget: `make gpu-check`.

The check uses the current Python, installs nothing and needs no network. It writes to the folder `--out`, under a name
made of the date and the device:

    NAME.json                        device, versions, stages, benchmark rows
    NAME.md                          the same for people
    NAME.log                         the full output; git ignores this file
    NAME.jsonl, NAME.txt, NAME.png   the files of the benchmark

NAME.json and NAME.md are written again after every stage, so that a run that is cut short keeps its measurements.

Exit status: 0 if every stage passed, 1 if a stage failed or ran out of time, 2 without a GPU.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GRACE = 10.0  # seconds between SIGINT and SIGKILL for a stage, so that pytest can still print its summary
PYTEST = ("-m", "pytest", "-v", "-rs", "--color=no", "-p", "no:cacheprovider", "--continue-on-collection-errors")

# torch.compile needs most of the time of a comparison, so measuring gets only two seconds.
BENCHMARK = ("--benchmark", "benchmarks", "--benchmark-seconds", "2")


@dataclass(frozen=True)
class Stage:
    """One command, and its time limit in seconds."""

    name: str
    command: tuple[str, ...]
    seconds: float
    env: Mapping[str, str] = field(default_factory=dict)


def stages(rows: Path) -> list[Stage]:
    """The stages of the check, the most important first. The last stage gets the time that is left."""
    python = sys.executable
    return [
        Stage(
            "build",
            (python, "setup.py", "-q", "build_ext", "--inplace"),
            110,
            {"GAN_ENGINE_NATIVE": "1", "GAN_ENGINE_CUDA": "1"},
        ),
        Stage("info", (python, "-m", "gan_engine.info"), 20),
        Stage("op tests", (python, *PYTEST, "tests/ops"), 110),
        Stage("benchmarks", (python, "-m", "pytest", *BENCHMARK, "--benchmark-rows", str(rows)), 170),
        Stage("other tests", (python, *PYTEST, "tests", "--ignore=tests/ops"), 300),
    ]


def find_device() -> dict[str, Any] | str:
    """The properties of the GPU, or a sentence that says why there is none."""
    try:
        import torch
    except ImportError as error:
        return f"gpu-check: want PyTorch, got an import error in {sys.executable}: {error}"
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

    versions = {"python": platform.python_version()}
    versions |= {package: version(package) for package in ("torch", "triton", "torchvision", "numpy", "pytest")}
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


def run_stage(stage: Stage, limit: float, log: Path) -> dict[str, Any]:
    """Run one stage for at most `limit` seconds, append its output to `log`, and return its result."""
    # These variables force a backend, and would hide the choice of this machine.
    env = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "GAN_ENGINE_BACKEND")}
    # Check this source tree and not an installed package.
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    env |= {"PYTHONUNBUFFERED": "1", **stage.env}
    begin = time.monotonic()
    with log.open("ab+") as output:
        output.write(f"\n==> {stage.name}: {' '.join(stage.command)}\n".encode())
        output.flush()
        start = output.tell()
        process = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            process.wait(limit)
            status = "passed" if process.returncode == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "out of time"
        finally:
            _end(process)
        output.seek(start)
        text = output.read().decode(errors="replace")
    return {
        "name": stage.name,
        "status": status,
        "seconds": round(time.monotonic() - begin, 1),
        "limit": round(limit, 1),
        "command": " ".join(stage.command),
        "exit_code": process.returncode,
        "tests": count_tests(text),
        "failures": re.findall(r"^(?:FAILED|ERROR) .*$", text, re.MULTILINE),
        "tail": text.splitlines()[-40:],
    }


def _end(process: subprocess.Popen) -> None:
    """End the process of a stage, and all processes that it started."""
    for number, wait in ((signal.SIGINT, GRACE), (signal.SIGKILL, None)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def count_tests(text: str) -> dict[str, int]:
    """{outcome: tests}, from the lines that `pytest -v` prints during the run, so that a run cut short counts too."""
    counts: dict[str, int] = {}
    for outcome in re.findall(r"^\S+::.* (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", text, re.MULTILINE):
        counts[outcome.lower()] = counts.get(outcome.lower(), 0) + 1
    return counts


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def report(results: dict[str, Any]) -> str:
    """The results of the check as a Markdown page."""
    from benchmarks import summary  # not at the top: it needs PyTorch, and `find_device` reports a missing PyTorch

    device, versions = results["device"], results["versions"]
    lines = [
        f"# {device['name']}, {results['date']}",
        "",
        ", ".join(f"{name} {value}" for name, value in versions.items() if value),
        "",
        ", ".join(f"{name} {value}" for name, value in device.items() if name != "name" and value)
        + f"; commit {results['commit'] or 'unknown'}; {results['seconds']:.0f} s in total",
        "",
    ]
    stage_rows = [
        {
            "stage": stage["name"],
            "result": stage["status"],
            "seconds": stage["seconds"],
            "tests": ", ".join(f"{count} {outcome}" for outcome, count in stage["tests"].items()),
        }
        for stage in results["stages"]
    ]
    if stage_rows:
        lines += [table(stage_rows), ""]
    for stage in results["stages"]:
        if stage["status"] != "passed":
            output = stage["failures"][:20] or stage["tail"][-10:]
            lines += [f"{stage['name']}: {stage['status']}", "", *(f"    {line}" for line in output), ""]
    if results["rows"]:
        lines += ["## Benchmarks", "", "```", summary.table(results["rows"]).rstrip(), "```", ""]
    return "\n".join(lines)


def check(
    device: dict[str, Any],
    versions: Mapping[str, str | None],
    todo: Iterable[Stage],
    rows: Path,
    name: Path,
    budget: float,
) -> int:
    """Run the stages within `budget` seconds. Write the results to NAME.json and NAME.md after each stage."""
    from benchmarks.rows import commit, read

    begin = time.monotonic()
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
        for stage in todo:
            limit = min(stage.seconds, budget - GRACE - (time.monotonic() - begin))
            print(f"{stage.name}: ", end="", flush=True)
            if limit <= 0:
                done = {
                    "name": stage.name,
                    "status": "out of time",
                    "seconds": 0.0,
                    "tests": {},
                    "failures": [],
                    "tail": [],
                }
            else:
                done = run_stage(stage, limit, log)
            print(f"{done['status']}, {done['seconds']} s", flush=True)
            results["stages"].append(done)
            write()
    finally:  # also if SIGTERM or Ctrl-C ends this process during a stage
        write()
    print(f"\n{report(results)}\nwritten: {name.with_suffix('.json')} and {name.with_suffix('.md')}")
    return 0 if all(stage["status"] == "passed" for stage in results["stages"]) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Build, test and measure on the GPU of this machine.")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "benchmarks" / "results",
        help="folder of the results (default: benchmarks/results)",
    )
    parser.add_argument("--budget", type=float, default=465, help="seconds for all stages together (default: 465)")
    args = parser.parse_args()
    device = find_device()
    if isinstance(device, str):
        print(device, file=sys.stderr)
        return 2
    slug = re.sub(r"[^a-z0-9]+", "-", device["name"].lower()).strip("-")
    name = args.out.resolve() / f"{datetime.date.today()}-{slug}"
    rows = name.with_suffix(".jsonl")
    # SIGTERM raises SystemExit, so that the current stage is ended and the results are written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return check(device, find_versions(), stages(rows), rows, name, args.budget)


if __name__ == "__main__":
    sys.exit(main())
