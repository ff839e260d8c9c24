"""Trainers of the small runs in a directory of their own, and recordings in place of those of a GPU."""

import dataclasses

import pytest

from gan_engine import models
from gan_engine.training import graphs
from gan_engine.training.trainer import Trainer
from tests.losses.conftest import level_2_for_small_networks as level_2_for_small_networks
from tests.training.runs import CPU, DCGAN, toy


@pytest.fixture(scope="module")
def data():
    return toy(16, 1, "image")


@pytest.fixture
def make(tmp_path):
    def trainer(config=DCGAN, **changes):
        config = dataclasses.replace(config, **changes)
        data = toy(config.model.resolution, config.model.channels, models.data_kind(config.model))
        return Trainer(config, data, device=CPU, run_dir=tmp_path / "run")

    return trainer


@pytest.fixture
def on_the_cpu(monkeypatch):
    """on_the_cpu(record): graphs are recorded by `record`, on any device."""

    def start(record):
        monkeypatch.setattr(graphs, "refusal", lambda *_: None)
        monkeypatch.setattr(graphs, "record", record)

    return start
