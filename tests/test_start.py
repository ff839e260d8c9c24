"""A command that only says what it wants does not wait for what it does not need."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Each takes a second or more, and is imported where it is used.
HEAVY = {
    "torch._dynamo",
    "torch._inductor",
    "torchvision",
    "matplotlib",
    "tensorboard",
    "scipy",
    "trimesh",
    "triton.compiler",
}

HELP = """
import importlib, sys

for name in ("train", "generate", "evaluate", "translate", "upscale", "report", "info", "augment.__main__"):
    importlib.import_module("gan_engine." + name)
print(*sys.modules)
"""


def test_no_command_imports_what_it_may_not_need():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", HELP], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    modules = set(run.stdout.split())
    assert "gan_engine.train" in modules and not HEAVY & modules
