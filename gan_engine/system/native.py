"""Calls into the native core: `_C` (C++) and `_C_cuda`, two pybind11 modules that know no PyTorch.

A missing module is no error here. WHY_NO_CPU and WHY_NO_CUDA say why it is missing and what to do, and
`gan_engine.backends` repeats that sentence wherever it matters.
"""

import importlib
import importlib.metadata
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

# The numbers of DType in csrc/common.h.
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


try:
    from gan_engine._build_info import NOT_BUILT
except ImportError:
    NOT_BUILT = {}  # setup.py writes the file, and has not run here


def _why_not_installed() -> str:
    here = Path(__file__).parents[1]
    try:
        installed = importlib.metadata.distribution("gan_engine").locate_file("gan_engine")
    except importlib.metadata.PackageNotFoundError:
        installed = here
    if Path(installed).exists() and Path(installed).resolve() != here.resolve():
        return f"these are the sources in {here.parent}, which hide what was installed from Python: leave that folder"
    return "gan_engine was not installed (pip install .)"


def _for_another_python(name: str) -> str | None:
    """Why a module is not found although files of it are here. A file name says for which Python the file was built."""
    wanted = f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    found = {path.name for path in Path(__file__).parents[1].glob(f"{name}.*.so")}
    if not found or wanted in found:
        return None
    return f"want {wanted} for this Python, got {', '.join(sorted(found))}: install gan_engine again, with this Python"


def _load(name: str) -> tuple[ModuleType | None, str | None]:
    try:
        return importlib.import_module(f"gan_engine.{name}"), None
    except ModuleNotFoundError:
        reason = _for_another_python(name) or NOT_BUILT.get(name) or _why_not_installed()
        return None, f"gan_engine.{name} is not built: {reason}"
    except ImportError as error:
        return None, f"gan_engine.{name} is built but does not load: {error}"


_cpu, WHY_NO_CPU = _load("_C")
_cuda, WHY_NO_CUDA = _load("_C_cuda")


def _hold(module: ModuleType, capability: str | None) -> None:
    """Hold our kernels to the set to which ATEN_CPU_CAPABILITY holds PyTorch's, where they were built for it."""
    isa = {"avx2": "avx2", "default": "portable"}.get(capability or "")
    if isa in module.isas():
        module.use_isa(isa)


if _cpu is not None:
    _hold(_cpu, os.environ.get("ATEN_CPU_CAPABILITY"))


_PASSED_ON = {int, float, bool, list, tuple}


def _arguments(values: tuple) -> list:
    found = []
    for value in values:
        if type(value) in _PASSED_ON:  # true of most arguments
            found.append(value)
        elif value is None:
            found.append(0)
        else:
            found.append(DTYPES[value] if isinstance(value, torch.dtype) else value.data_ptr())
    return found


class _Launcher:
    """Calls functions of a native module. Tensors become addresses, None becomes 0, and dtypes become their numbers.

    The last argument is added here and says where to run: the number of threads, or the current stream of the GPU.
    """

    def __init__(self, module: ModuleType | None, where: Callable[[], int]) -> None:
        self.module: Any = module
        self._where = where

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self.module, name)

        def launch(*args: Any) -> Any:
            return function(*_arguments(args), self._where())

        setattr(self, name, launch)
        return launch


cpu = _Launcher(_cpu, torch.get_num_threads)
cuda = _Launcher(_cuda, lambda: torch.cuda.current_stream().cuda_stream)
