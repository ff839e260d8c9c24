"""GAN_ENGINE_BACKEND: nothing asks for nothing, a name asks for a backend, and a wrong name is an error in a line."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import torch
from gan_engine import backends
from gan_engine.layers import EqualizedConv2d

EqualizedConv2d(32, 32, 3, act="lrelu")(torch.ones(1, 32, 8, 8)).sum().backward()
print(backends.asked())
"""


def run(value: str, *arguments: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "GAN_ENGINE_BACKEND": value}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("value", "asked"), [("  ", "None"), (" reference ", "reference")])
def test_a_library_takes_a_name_or_nothing(value: str, asked: str):
    result = run(value, "-c", PROGRAM)
    assert (result.returncode, result.stdout.strip()) == (0, asked), result.stderr


def test_a_library_raises_for_a_wrong_name():
    result = run("refrence", "-c", PROGRAM)
    last = result.stderr.strip().splitlines()[-1]
    assert last == (
        "ValueError: GAN_ENGINE_BACKEND: want one of cuda, triton, cpu, pytorch, reference, or nothing, got 'refrence'"
    )


@pytest.mark.parametrize("arguments", [("-m", "gan_engine.generate", "nowhere"), ("-m", "gan_engine", "info")])
def test_a_command_tells_a_wrong_name_in_a_line(arguments: tuple[str, ...]):
    result = run("CPU", *arguments)
    assert result.returncode == 2
    assert result.stderr == (
        "error: GAN_ENGINE_BACKEND: want one of cuda, triton, cpu, pytorch, reference, or nothing, got 'CPU'\n"
    )
