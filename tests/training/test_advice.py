"""Advice is given where it is due, and nowhere else."""

import dataclasses

import pytest
import torch

from gan_engine import models
from gan_engine.data import ImageSet
from gan_engine.presets import PRESETS
from gan_engine.training.advice import advice


def told(preset, num=100, classes=0, **changes):
    config = dataclasses.replace(PRESETS[preset](), **{"data": "folder", **changes})
    labels = torch.arange(num) % classes if classes else None
    names = tuple(map(str, range(classes)))
    data = ImageSet("folder", torch.zeros(num, 1, 1, 1, dtype=torch.uint8), labels, names)
    with torch.device("meta"):
        return advice(config, data, list(models.build(config.model)))


@pytest.mark.parametrize(
    ("preset", "options", "want"),
    [
        (
            "dcgan",
            {},
            ["a set of 100 images is small, and D may learn it by heart: --augment ada or --augment diffaugment helps"],
        ),
        (
            "dcgan",
            {"num": 1},
            ["a set of 1 image is small, and D may learn it by heart: --augment ada or --augment diffaugment helps"],
        ),
        (
            "dcgan",
            {"model": models.dcgan.Config(channels=5)},
            ["a set of 100 images is small, and D may learn it by heart: --augment diffaugment helps"],
        ),
        ("dcgan", {"augment": "ada"}, []),
        ("dcgan", {"num": 10_000}, []),
        ("dcgan", {"data": "toy", "classes": 5}, []),
        ("lapgan", {}, []),
        ("gan3d", {}, []),
        ("cyclegan", {}, []),
        ("srgan_light", {}, []),
        (
            "sngan",
            {"num": 10_000, "classes": 7},
            ["the data have 7 classes, and the networks do not see them: --conditional shows them"],
        ),
        ("sngan", {"num": 10_000, "classes": 1}, []),
        ("cgan", {"num": 10_000, "classes": 7}, []),
        ("pix2pix", {"classes": 7}, []),
        (
            "dcgan",
            {"num": 10_000, "batch_size": 2},
            ["batch norms over 2 images are mostly noise: want --batch-size 4 or more"],
        ),
        (
            "dcgan",
            {"num": 10_000, "batch_size": 64, "batch_gpu": 1},
            ["batch norms over 1 image are mostly noise: want --batch-gpu 4 or more"],
        ),
        ("dcgan", {"num": 10_000, "batch_size": 4}, []),
        (
            "dcgan",
            {"num": 10_000, "freeze_d": 2},
            ["--freeze-d 2 keeps random weights: --init-from RUN gives D trained weights"],
        ),
        ("dcgan", {"num": 10_000, "freeze_d": 2, "init_from": "run"}, []),
        ("pix2pix", {"batch_size": 1}, []),
        ("r3gan", {"num": 10_000, "batch_size": 1}, []),
        ("stylegan2", {"num": 10_000, "batch_size": 2}, []),
    ],
    ids=str,
)
def test_advice(preset, options, want):
    assert told(preset, **options) == want


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_needs_none_on_large_data(preset):
    assert told(preset, num=10_000) == []
