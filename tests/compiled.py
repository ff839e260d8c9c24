"""The libraries that Inductor compiles from C++ in the tests, kept for later runs in build/inductor.

A library has a name made of its source and its flags. The compiler, PyTorch and the CPU, for which -march=native
compiles, are in the name of the folder. Only libraries are kept: Inductor traces, plans and writes its sources anew.
A run has links to them in a folder of its own. It keeps its new libraries at its end, so a killed run keeps none.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

import torch

MOST_DAYS = 30  # that a library is kept, so that those of old sources go


def folder() -> Path | None:
    """Where libraries for this machine are kept; None without a C++ compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None or platform.system() != "Linux":
        return None
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = sorted({line for line in lines if line.startswith(("model", "flags", "Features"))})
    name = hashlib.sha256("\n".join([torch.__version__, compiler, version, *cpu]).encode()).hexdigest()[:16]
    return Path(__file__).parents[1] / "build" / "inductor" / name


def link(run: Path) -> None:
    """Make links to the kept libraries in the folder of a run."""
    if (kept := folder()) is None:
        return
    for library in kept.glob("*/*.so"):
        (run / library.parent.name).mkdir(exist_ok=True)
        (run / library.parent.name / library.name).symlink_to(library)


def use_gold(run: Path) -> None:
    """Let compilers link by gold, if it is there: 0.16 s for a library of Inductor, and 0.34 s by GNU's own linker."""
    if (gold := shutil.which("ld.gold")) is not None:
        (run / "gold").mkdir()
        (run / "gold" / "ld").symlink_to(gold)
        others = os.environ.get("COMPILER_PATH", "")
        os.environ["COMPILER_PATH"] = os.pathsep.join(filter(None, (str(run / "gold"), others)))


def keep(run: Path) -> None:
    """Copy the new libraries of a run, each of which gets its name when it is whole, and remove old ones."""
    if (kept := folder()) is None:
        return
    for library in run.glob("??/*.so"):
        if not library.is_symlink():
            (kept / library.parent.name).mkdir(parents=True, exist_ok=True)
            unfinished = kept / f"{library.name}.{os.getpid()}"
            shutil.copy(library, unfinished)
            unfinished.replace(kept / library.parent.name / library.name)
    for library in kept.glob("*/*.so"):
        if library.stat().st_mtime < time.time() - MOST_DAYS * 24 * 3600:
            library.unlink(missing_ok=True)
