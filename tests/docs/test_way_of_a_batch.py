"""The way of a batch in docs/architecture.md is walked: a training step calls every function that its tables name."""

import dataclasses
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from gan_engine import models
from gan_engine.data import load
from gan_engine.presets import PRESETS
from gan_engine.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
NO_PART_OF_A_STEP = {"main", "Config", "LOSSES", "cpu"}  # what came before, and tables


def functions_called_in_a_step(run_dir: Path, *, d_norm: bool = True, **options: Any) -> list[tuple[str, str]]:
    """(file, name) in the order of the first calls. 64 channels are enough for minimal filtering."""
    model = models.dcgan.Config(width=64, d_norm=d_norm)
    config = dataclasses.replace(PRESETS["dcgan"](), model=model, batch_size=16, precision="fp32", **options)
    data = load(config.data_config, resolution=32, channels=1)
    trainer = Trainer(config, data, device=torch.device("cpu"), run_dir=run_dir)
    called: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, arg: Any) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(ROOT):
            called.setdefault((str(file.relative_to(ROOT)), frame.f_code.co_qualname))

    sys.setprofile(note)
    try:
        trainer.step()
    finally:
        sys.setprofile(None)
    return list(called)


@pytest.mark.parametrize(
    ("heading", "options"),
    [("on the main path", {}), ("with a penalty at level 2", {"r1_gamma": 1.0, "d_norm": False})],
)
def test_a_step_calls_what_the_page_names(tmp_path, heading, options):
    section = (ROOT / "docs" / "architecture.md").read_text().split(f"\n## The way of a batch, {heading}\n")[1]
    section = section.split("\n## ")[0]
    named = re.findall(r"`(gan_engine/[\w/]+\.py):([\w.]+)`", section)
    called = functions_called_in_a_step(tmp_path, **options)
    missing = [
        f"{path}:{name}"
        for path, name in named
        if name not in NO_PART_OF_A_STEP
        and not any(file == path and (function + ".").startswith(f"{name}.") for file, function in called)
    ]
    assert len(named) > 8 and not missing
