"""The compiled guard.cpp, which must be loaded before PyTorch: this file does not import torch."""

import ctypes
import hashlib
import importlib.util
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")
TARGETS = Path(__file__).parents[2] / "build/fake_cuda"


def compiler() -> str | None:
    return shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def built() -> Path:
    """The library for the installed PyTorch. It is compiled again only where the source or PyTorch has changed."""
    torch = Path(importlib.util.find_spec("torch").origin).parent
    version = (torch / "version.py").read_bytes()
    target = TARGETS / f"guard-{hashlib.sha256(SOURCE.read_bytes() + version).hexdigest()[:16]}.so"
    if not target.exists():
        TARGETS.mkdir(parents=True, exist_ok=True)
        new = target.with_suffix(f".{id(target)}.new")
        options = ["-std=c++20", "-O1", "-shared", "-fPIC", "-w", "-I", torch / "include", "-L", torch / "lib"]
        libraries = ["-ltorch_cpu", "-lc10", f"-Wl,-rpath,{torch / 'lib'}"]
        subprocess.run([compiler(), *options, SOURCE, "-o", new, *libraries], check=True)
        new.replace(target)
    return target


def load() -> None:
    ctypes.CDLL(str(built()))
