"""A pytest plugin: the "cuda" backend runs the kernels of csrc/cuda, compiled for the CPU, on CPU tensors."""

import importlib.util
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pybind11

from gan_engine import backends
from gan_engine.system import native

ROOT = Path(__file__).parents[2]
EMULATION = Path(__file__).parent


def build() -> ModuleType:
    """_C_cuda for the CPU, compiled again only if a source changed."""
    sources = [ROOT / "csrc/bindings.cpp", *sorted(ROOT.glob("csrc/cuda/*.cu"))]
    target = ROOT / "build/cuda_emulation" / f"_C_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    newest = max(path.stat().st_mtime for folder in (ROOT / "csrc", EMULATION) for path in folder.rglob("*.*"))
    if not target.exists() or target.stat().st_mtime < newest:
        target.parent.mkdir(parents=True, exist_ok=True)
        includes = [EMULATION, ROOT / "csrc", pybind11.get_include(), sysconfig.get_path("include")]
        subprocess.run(
            [
                shutil.which("c++") or "g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden",
                "-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", "-DGE_CUDA", "-DGE_MODULE=_C_cuda",
                *(f"-I{folder}" for folder in includes), "-x", "c++", *sources, "-o", target,
            ],
            check=True,
        )  # fmt: skip
    spec = importlib.util.spec_from_file_location("_C_cuda", target)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


native.cuda.module = build()
native.cuda._where = lambda: 0
backends.MISSING["cuda"] = None
backends.DEVICES["cuda"] = ("cpu",)
