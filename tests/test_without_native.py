"""Without compiled modules everything runs on PyTorch: a part of the tests in a process that cannot import them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Penalties of every level, all sorts of discriminators at level 1, and steps of a trainer: about 20 s of one core.
PART = (
    "tests/losses/test_penalties.py::test_every_level_is_what_is_written",
    "tests/losses/test_level1.py",
    "tests/training/test_step.py",
    "tests/training/test_passes.py",
)


def test_a_part_of_the_tests_passes_without_compiled_modules():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.without_native", "-p", "no:cacheprovider", *PART]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


def test_the_modules_are_hidden():
    code = "import tests.without_native; from gan_engine.backends import MISSING; print(MISSING['cpu'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "gan_engine._C is not built" in done.stdout, done.stderr
