"""The code in README runs as it stands there."""

import re
from pathlib import Path

import torch

from benchmarks.discriminators import plain

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


def test_the_code_of_the_readme_runs():
    names = {"D": plain(4, 1), "img": torch.randn(2, 4, 8, 8)}
    for block in BLOCKS:
        exec(block, names)
    assert names["conv"].weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in names["D"].parameters())
