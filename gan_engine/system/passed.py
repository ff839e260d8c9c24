"""Which self-checks have passed on this machine: a small file in the user's cache folder.

The file is gan_engine/passed.json in XDG_CACHE_HOME or ~/.cache: {machine: [names of checks]}. A machine is everything
that a result may depend on, in a sentence. Only what has passed is kept: a failure is checked again by each process.

Processes may write at the same time. The file is always whole; a name that gets lost is checked once more.
"""

import functools
import json
import os
import sys
import warnings
import zlib
from pathlib import Path

import torch

import gan_engine
from gan_engine.system import cpu, native
from gan_engine.system.whole_file import replacing

MOST = 50  # machines in the file; the oldest go first

_PACKAGE = Path(gan_engine.__file__).parent


def names(machine: str) -> set[str]:
    """The checks that have passed on `machine`. A file that is missing or damaged says none."""
    return set(_read().get(machine, ()))


def keep(machine: str, name: str) -> None:
    """Add a check to those that have passed on `machine`. A file that cannot be written is one warning a process."""
    found = _read()
    found[machine] = sorted({*found.pop(machine, ()), name})
    try:
        path = file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(dict(list(found.items())[-MOST:]), indent=1))
    except (OSError, RuntimeError) as error:
        _say_once(f"each process will check its kernels again, as this cannot be kept: {error}")


def file() -> Path:
    """Raises RuntimeError for a user who has no home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gan_engine" / "passed.json"


def _read() -> dict[str, list[str]]:
    try:
        found = json.loads(file().read_text())
        lists = {str(machine): [str(name) for name in passed] for machine, passed in found.items()}
    except (OSError, RuntimeError, ValueError, AttributeError, TypeError):
        return {}
    return lists


@functools.cache
def _say_once(message: str) -> None:
    warnings.warn(message, stacklevel=4)


def machine(backend: str, device: torch.device) -> str:
    """Device, driver, versions and build, for the kernels of `backend` on tensors of `device`."""
    about = [backend, *(_gpu(device) if device.type == "cuda" else [cpu.model(), cpu.kind()])]
    if backend == "cpu":
        about.append(native.cpu.module.isa())
    if backend == "triton":
        how = "interpreted" if os.environ.get("TRITON_INTERPRET") == "1" else "compiled"
        about.append(f"triton {sys.modules['triton'].__version__} {how}")
    about += [f"torch {torch.__version__}", f"gan_engine {gan_engine.__version__} {_build(backend)}"]
    return ", ".join(about)


def _gpu(device: torch.device) -> list[str]:
    gpu = torch.cuda.get_device_properties(device)
    try:
        driver = Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        driver = str(torch._C._cuda_getDriverVersion())  # of CUDA, where the system names no other
    return [f"{gpu.name} {gpu.major}.{gpu.minor}", f"driver {driver}", f"CUDA {torch.version.cuda}"]


@functools.cache
def _build(backend: str) -> str:
    """A checksum of the compiled kernels, or of their source, and of the code that calls them."""
    compiled = {"cpu": native.cpu, "cuda": native.cuda}.get(backend)
    files = sorted(_PACKAGE.joinpath("ops").rglob("*.py"))
    files += [Path(compiled.module.__file__)] if compiled else sorted(_PACKAGE.joinpath("kernels").glob("*.py"))
    checksum = 0
    try:
        for path in files:
            checksum = zlib.crc32(path.read_bytes(), checksum)  # 5 MB in 1 ms, at the first use of each process
    except OSError:  # removed since it was loaded: what passes here says nothing about other processes
        return f"of process {os.getpid()}"
    return f"{checksum:08x}"
