"""The stages of the check, and how one of them runs: as a process of its own, whose output is kept."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GRACE = 10.0  # seconds between SIGINT and SIGKILL for a stage, so that pytest can still print its summary
STEPS = {
    "dcgan-64": 35,
    "stylegan2_256": 70,
    "r3gan_64": 40,
}  # seconds; a step of stylegan2_256 takes longest to prepare
AT_CUDA = "stopped at its first CUDA call: "  # how a case of a dry run ended
SECONDS = "{seconds}"  # in a command: the time that the stage has, less what it takes to end


@dataclass(frozen=True)
class Stage:
    """One command with its time limit in seconds, or the reason why it is left out.

    A stage that `may_be_cut` may run out of time without making the exit status 1.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    env: Mapping[str, str] = field(default_factory=dict)
    left_out: str | None = None
    may_be_cut: bool = False


class Stop:
    """Notes the first SIGTERM or SIGINT (Ctrl-C) in its context. It raises nothing, so no write is cut short."""

    number: int | None = None

    def __enter__(self) -> "Stop":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number


def stages(rows: Path, *, peers: Path | None = None, dry: bool = False) -> list[Stage]:
    """The stages of the check, the most important first: a later stage needs nothing but the build."""
    python = (sys.executable, "-m")
    dry_run = ("--dry-run",) if dry else ()

    def part(module: str, *arguments: str) -> tuple[str, ...]:
        return (*python, f"benchmarks.gpu_check.{module}", "--seconds", SECONDS, *arguments, *dry_run)

    sanitizer = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    memcheck = (sanitizer or "compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9")
    return [
        Stage(
            "build",
            (sys.executable, "setup.py", "-q", "build_ext", "--inplace"),
            90,
            {"GAN_ENGINE_NATIVE": "1", "GAN_ENGINE_CUDA": "1", "GAN_ENGINE_ISAS": "native"},
            may_be_cut=dry,  # nvcc has not met an error then; the later stages of a dry run call none of the kernels
        ),
        Stage("info", (*python, "gan_engine.info"), 20),
        Stage("compile kernels", part("ops", "--compile"), 40),
        Stage("GPU tests", part("gpu_tests"), 80),
        *(
            Stage(f"steps of {name}", part("steps", "--rows", str(rows), name), seconds)
            for name, seconds in STEPS.items()
        ),
        Stage("operators", part("ops", "--rows", str(rows)), 40),
        Stage(
            "compute-sanitizer",
            (*memcheck, *part("ops", "--sanitize")),
            30,
            {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},  # a block of the cache hides what is written behind a tensor
            left_out=None if sanitizer else "compute-sanitizer is not installed",
        ),
        Stage(
            "another library",
            part("ops", "--rows", str(rows), *(() if peers is None else ("--peers", str(peers)))),
            20,
            left_out=None if peers else "none was given (--peers)",
        ),
    ]


def run_stage(stage: Stage, limit: float, log: Path, stop: Stop) -> dict[str, Any]:
    """Run one stage for at most `limit` seconds or until `stop`, append its output to `log`, and return its result."""
    # These variables force a backend, and would hide the choice of this machine.
    env = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "GAN_ENGINE_BACKEND")}
    # Check this source tree and not an installed package.
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    # All stages share what Triton has compiled, and a second check finds it there.
    env.setdefault("TRITON_CACHE_DIR", str(ROOT / "build" / "gpu-check-triton"))
    env |= {"PYTHONUNBUFFERED": "1", **stage.env}
    command = [part.format(seconds=f"{max(1.0, limit - 5):.0f}") if part == SECONDS else part for part in stage.command]
    begin = time.monotonic()
    with log.open("ab+") as output:
        output.write(f"\n==> {stage.name}: {' '.join(command)}\n".encode())
        output.flush()
        start = output.tell()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            while process.poll() is None and not stop.number and time.monotonic() - begin < limit:
                time.sleep(0.05)
            code = process.returncode
        finally:
            _end(process)
        output.seek(start)
        text = output.read().decode(errors="replace")
    tests, cases = count_tests(text), re.findall(r"^case (.*)$", text, re.MULTILINE)
    if code is None:
        status = "interrupted" if stop.number else "out of time"
    else:
        status = "failed" if code else dry_status(tests, cases) or "passed"
    return {
        "name": stage.name,
        "status": status,
        "seconds": round(time.monotonic() - begin, 1),
        "limit": round(limit, 1),
        "command": " ".join(command),
        "exit_code": process.returncode,
        "tests": tests,
        "cases": cases,
        "failures": re.findall(r"^(?:FAILED|ERROR) .*$", text, re.MULTILINE),
        "tail": text.splitlines()[-40:],
    }


def not_run(stage: Stage, status: str) -> dict[str, Any]:
    """The result of a stage that did not run."""
    return {"name": stage.name, "status": status, "seconds": 0.0, "tests": {}, "cases": [], "failures": [], "tail": []}


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


def dry_status(tests: Mapping[str, int], cases: list[str]) -> str | None:
    """What a stage says instead of "passed" if a missing GPU ended its cases, or if its tests were only collected."""
    collected = tests.get("collected", 0)
    skipped = collected + sum(AT_CUDA in case for case in cases)
    return f"dry: {skipped} of {collected + len(cases)} skipped" if skipped else None


def count_tests(text: str) -> dict[str, int]:
    """{outcome: tests}, from the lines that `pytest -v` prints during the run, so that a run cut short counts too."""
    collected = re.search(r"^(\d+) tests collected", text, re.MULTILINE)
    counts = {"collected": int(collected[1])} if collected else {}
    for outcome in re.findall(r"^\S+::.* (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", text, re.MULTILINE):
        counts[outcome.lower()] = counts.get(outcome.lower(), 0) + 1
    return counts
