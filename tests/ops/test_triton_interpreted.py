"""The Triton kernels without a GPU: their tests once more, in a process that interprets them on the CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gan_engine import backends

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    backends.MISSING["triton"] is None, reason="the Triton kernels run here, and are tested as they are"
)
def test_the_triton_backend_holds_every_property_under_the_interpreter():
    pytest.importorskip("triton")
    command = [
        sys.executable,
        "-m",
        "pytest",
        os.path.dirname(__file__),
        "-q",
        "-k",
        # Compiled twice differentiated, an op is one node whatever its kernels are: those of the CPU show it.
        "triton and not inductor and not interpreter and not (nested and aot_eager)",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.triton_interpreter",
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-20000:] + run.stderr[-5000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed and int(passed[1]) > 100, run.stdout[-2000:]


def test_the_interpreter_makes_the_same_bits_as_without_the_plugin():
    """The interpreter itself is slow, so these are four operators: kernels alone and together, with sums and loops."""
    pytest.importorskip("triton")
    command = [
        sys.executable,
        "-m",
        "tests.ops.interpreter_bits",
        "bias_act",
        "upfirdn2d",
        "scale_bias_act",
        "norm_act",
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr[-5000:]
    assert run.stdout.endswith(" results, 0 differ\n") and int(run.stdout.split()[0]) > 50
