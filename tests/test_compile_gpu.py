"""The GPU kernels, compiled without a GPU for an A100 (sm_80) and an H100 (sm_90): they fit, and nothing spills."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = {80: 163 << 10, 90: 227 << 10}  # bytes of shared memory for a block, at most
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


@pytest.fixture(scope="module")
def triton_kernels():
    """Every Triton kernel, compiled for each architecture: registers, and what is wrong."""
    pytest.importorskip("triton")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(ROOT / "build/triton")}
    command = [sys.executable, ROOT / "tests/compile_triton.py", *map(str, SHARED)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("arch", SHARED)
def test_triton_kernels(arch, triton_kernels):
    rows = [row for row in triton_kernels if row["arch"] == arch]
    assert rows
    wrong = [row for row in rows if row["wrong"]]
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.skipif(NVCC is None, reason="nvcc was not found on PATH or in /usr/local/cuda")
@pytest.mark.parametrize("source", sorted(ROOT.glob("csrc/cuda/*.cu")), ids=lambda path: path.name)
def test_cuda_kernels(source):
    log = compile_cuda(source)
    kernels = re.findall(
        r"Compiling entry function '(\S+)' for 'sm_(\d+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?: (Used \d+ registers.*?)$",
        log,
        re.DOTALL | re.MULTILINE,
    )
    assert {int(arch) for _, arch, *_ in kernels} == set(SHARED)
    for name, arch, stack, stores, loads, used in kernels:
        shared = re.search(r"(\d+) bytes smem", used)
        assert stack == stores == loads == "0", f"{name} for sm_{arch} spills: {stack} bytes of stack, {stores} stored"
        assert not shared or int(shared[1]) <= SHARED[int(arch)], f"{name} for sm_{arch}: {used}"


def compile_cuda(source: Path) -> str:
    """The report of ptxas on the kernels of a source file. It is kept until a source or the compiler changes."""
    command = [NVCC, "-std=c++17", "-O3", "-DNDEBUG", "-fatbin", "--threads", "2", "-Xptxas", "-v", "-o", os.devnull]
    command += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in SHARED] + ["-I", str(ROOT / "csrc")]
    version = subprocess.run([NVCC, "--version"], capture_output=True, check=True).stdout
    headers = b"".join(path.read_bytes() for path in sorted(ROOT.glob("csrc/**/*.h")))
    digest = hashlib.sha256(version + repr(command).encode() + headers + source.read_bytes()).hexdigest()
    log = ROOT / "build/compile_gpu" / f"{source.stem}-{digest[:16]}.log"
    if not log.exists():
        run = subprocess.run([*command, source], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(run.stdout + run.stderr)
    return log.read_text()
