"""The code in README and on the pages of docs/ runs as it stands there."""

import re
from pathlib import Path

import pytest
import torch

from benchmarks.discriminators import convolutions
from gan_engine import export, models
from gan_engine.losses.level2 import rules
from gan_engine.system import checkpoint

ROOT = Path(__file__).parents[1]


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if blocks(page)]


@pytest.fixture
def names(tmp_path, monkeypatch) -> dict[str, object]:
    """The tools that the reader of a page has: two runs, a discriminator, images and a number of steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rules, "RULES", dict(rules.RULES))  # to which a page adds
    config = models.dcgan.Config(resolution=16, width=4)
    state = {"model": models.to_dict(config), "G_ema": models.build(config)[0].state_dict()}
    for run in ("runs/garments-1", "runs/dcgan-1"):
        checkpoint.Keeper(run, keep=1).save(1000, state)
    return {"D": convolutions(4, 1)}


def write_onnx() -> None:
    """G.onnx, a generator with the inputs that docs/inference.md gives it."""
    pytest.importorskip("onnxruntime", reason="the extra export brings onnxruntime")
    config = models.dcgan.Config(resolution=16, width=4, c_dim=10)
    state = {"model": models.to_dict(config), "G_ema": models.build(config)[0].state_dict()}
    checkpoint.Keeper("runs/cgan-1", keep=1).save(1000, state)
    assert export.main(["runs/cgan-1", "G.onnx"]) == 0


def run(page: Path, names: dict[str, object]) -> None:
    for block in blocks(page):
        names |= {"img": torch.randn(2, 4, 8, 8)}
        exec(block, names)


def test_the_code_of_the_readme_runs(names):
    run(ROOT / "README.md", names)
    assert names["pixels"].shape == (4, 16, 16, 1)
    assert names["conv"].weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in names["D"].parameters())


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page, names):
    if "G.onnx" in "".join(blocks(page)):
        write_onnx()
    run(page, names)
