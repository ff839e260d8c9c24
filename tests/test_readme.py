"""The code in README runs as it stands there."""

import re
from pathlib import Path

import torch

from benchmarks.discriminators import plain
from gan_engine import models
from gan_engine.system import checkpoint

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = models.dcgan.Config(resolution=16, width=4)
    state = {"model": models.to_dict(config), "G_ema": models.build(config)[0].state_dict()}
    checkpoint.Keeper("runs/dcgan-1", keep=1).save(1000, state)
    names = {"D": plain(4, 1)}
    for block in BLOCKS:
        names |= {"img": torch.randn(2, 4, 8, 8)}
        exec(block, names)
    assert names["pixels"].shape == (4, 16, 16, 1)
    assert names["conv"].weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in names["D"].parameters())
