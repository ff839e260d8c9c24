"""A command that only says what it wants does not wait for what it does not need."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

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
import contextlib, sys
from gan_engine.__main__ import COMMANDS, main

for name in COMMANDS:
    for argv in ([name, "--help"], [name, "--no-such-flag"]):
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
            main(argv)
main(["train", "--list"])
print(*sys.modules)
"""


def test_no_command_imports_what_it_may_not_need():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", HELP], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    modules = set(run.stdout.splitlines()[-1].split())
    assert "gan_engine.train" in modules and not HEAVY & modules
