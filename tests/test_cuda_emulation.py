"""The CUDA kernels on the CPU: csrc/cuda, compiled by the host compiler, passes the tests of the operators."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs the kernels themselves")
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler was found")
def test_cuda_kernels_pass_the_tests_of_the_ops_under_emulation():
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "tests.cuda_emulation.plugin",
            "tests/ops",
            "-k",
            "cuda and not inductor and not (nested and aot_eager)",  # as for Triton's interpreter
        ],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout.splitlines()[-1]
