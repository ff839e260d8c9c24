"""A configuration refuses what makes no sense, and a resumed run must have the same where it matters."""

import dataclasses
import json

import numpy as np
import pytest

from gan_engine import models
from gan_engine.config import Config
from gan_engine.presets import PRESETS
from gan_engine.saved_config import FREE_ON_RESUME, differences, from_dict, to_dict
from gan_engine.system.checkpoint import CheckpointError

CONFIG = PRESETS["dcgan"]()


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"batch_size": 0}, "batch_size: want more than 0, got 0"),
        ({"kimg": float("nan")}, "kimg: want a finite number, got nan"),
        ({"lr": -1.0}, "lr: want more than 0, got -1.0"),
        ({"ema_kimg": -1}, "ema_kimg: want at least 0, got -1"),
        ({"r1_gamma": -1}, "r1_gamma: want at least 0, got -1"),
        ({"penalty_interval": 0}, "penalty_interval: want more than 0, got 0"),
        ({"pl_weight": 2.0}, r"pl_weight: want a model with latents w \(stylegan2, stylegan3\), got dcgan"),
        ({"pl_interval": 0}, "pl_interval: want more than 0, got 0"),
        ({"model": models.cgan.Config()}, "conditional: want True for cgan, whose networks read classes, got False"),
        (
            {"model": models.lapgan.Config(), "r1_gamma": 1.0},
            "r1_gamma: want 0 for lapgan, whose objective has none, got 1",
        ),
        (
            {"model": models.lapgan.Config(), "conditional": True, "gamma": "auto"},
            "gamma: want fixed for lapgan, whose objective has no R1 and no R2, got auto",
        ),
        (
            {"gamma": "auto", "loss": "wasserstein", "r1_gamma": 1},
            "gamma: want fixed for wasserstein, whose loss of a D that guesses is not above 0, got auto",
        ),
        ({"gamma": "auto", "gp_weight": 10}, "gamma: want fixed for gp_weight alone, .*, got auto"),
        ({"gamma": "automatic"}, "gamma: want one of fixed, auto, got 'automatic'"),
        ({"pretrain_kimg": 1}, r"pretrain_kimg: want a model with a content loss \(pix2pix, srgan\), got dcgan"),
        ({"pretrain_kimg": -1}, "pretrain_kimg: want at least 0, got -1"),
        ({"lr_decay": 1.5}, "lr_decay: want 0 to 1, got 1.5"),
        (
            {"model": models.cyclegan.Config(), "augment": "ada"},
            "augment: want none for cyclegan, whose objective has none, got ada",
        ),
        (
            {"model": models.pix2pix.Config(), "conditional": True},
            "conditional: want False for pix2pix, whose networks read no classes, got True",
        ),
        ({"weight_clip": 0}, "weight_clip: want more than 0 or None, got 0"),
        ({"betas": (0.5, 1.0)}, r"betas: want two numbers from 0 to below 1, got \(0.5, 1.0\)"),
        ({"batch_gpu": 65}, "batch_gpu: want 1 to batch_size = 64, got 65"),
        ({"loss": "chi"}, "loss: want one of .*nonsaturating, .*, got 'chi'"),
        ({"augment": "flips"}, "augment: want one of none, ada, diffaugment, got 'flips'"),
        ({"ada_groups": "bcg"}, "ada_groups: want one of b, bg, bgc, .*, got 'bcg'"),
        ({"ada_target": 1.5}, "ada_target: want -1 to 1, got 1.5"),
        ({"ada_kimg": 0}, "ada_kimg: want more than 0, got 0"),
        ({"ema_rampup": 0.0}, "ema_rampup: want more than 0 or None, got 0.0"),
        ({"precision": "tf32"}, "precision: want one of auto, .*, got 'tf32'"),
        ({"seed": -1}, r"seed: want 0 to 2\^63 - 1, got -1"),
        ({"seed": 2**63}, r"seed: want 0 to 2\^63 - 1, got 9"),
        ({"kimg": float("inf")}, "kimg: want a finite number, got inf"),
        ({"ema_kimg": float("nan")}, "ema_kimg: want a finite number, got nan"),
        ({"lr": float("inf")}, "lr: want a finite number, got inf"),
        ({"batch_size": 2**70}, r"batch_size: want at most 1,048,576, got 1\.18059e\+21"),
        ({"batch_size": 2.5}, r"batch_size: want a whole number, got 2\.5"),
        ({"batch_size": True}, "batch_size: want a whole number, got True"),
        ({"batch_gpu": 2**70}, "batch_gpu: want at most 1,048,576"),
        ({"kimg": 1e300}, "kimg: want at most 1,000,000,000, got 1e"),
        ({"kimg": 10**400}, "kimg: want at most"),
        ({"lr": 1e30}, "lr: want at most 1,000,000,000, got 1e"),
        ({"lr": np.float64(1e-3)}, r"lr: want a number, got np.float64\(0.001\)"),
        ({"lr": "x"}, "lr: want a number, got 'x'"),
        ({"lr": None}, "lr: want a number, got None"),
        ({"keep": 2**40}, "keep: want at most 1,048,576"),
        ({"n_critic": 2**40}, "n_critic: want at most 1,048,576"),
        ({"metrics_kimg": 1e-320}, "metrics_kimg: want at least 1e-06, got 9.99989e-321"),
        ({"betas": (0.9,)}, r"betas: want a tuple of 2 numbers, got \(0.9,\)"),
        ({"betas": [0.9, 0.99]}, r"betas: want a tuple of 2 numbers, got \[0.9, 0.99\]"),
        ({"mirror": 1}, "mirror: want True or False, got 1"),
        ({"data": None}, "data: want text, got None"),
        ({"model": None}, "model: want Config, got None"),
        ({"betas": (float("nan"), 0.9)}, "betas: want a finite number, got nan"),
    ],
)
def test_refuses_with_want_and_got(change, want):
    with pytest.raises(ValueError, match=want):
        dataclasses.replace(CONFIG, batch_size=change.pop("batch_size", 64), **change)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_named_after_their_function_and_survive_json(name):
    config = PRESETS[name]()
    assert config.preset == name and PRESETS[name].__doc__
    assert json.loads(json.dumps(to_dict(config))) == to_dict(config)


def test_differences_are_listed_by_field():
    other = dataclasses.replace(CONFIG, lr=1e-3, kimg=1, model=dataclasses.replace(CONFIG.model, width=7))
    assert differences(to_dict(CONFIG), to_dict(other)) == [
        f"lr: the run has {CONFIG.lr}, now 0.001",
        f"model.width: the run has {CONFIG.model.width}, now 7",
    ]
    assert differences(to_dict(CONFIG), to_dict(dataclasses.replace(CONFIG, keep=9, out="x", batch_gpu=8))) == []


@pytest.mark.parametrize(
    ("before", "now", "want"),
    [
        ({"resolution": 64}, {"resolution": [24, 40]}, "the run has 64, now 24x40"),
        ({"resolution": None}, {"resolution": 16}, "the run has None, now 16"),
        ({}, {"resolution": [24, 40]}, "the run has None, now 24x40"),
        ({"resolution": 1.5}, {"resolution": 16}, "the run has 1.5, now 16"),
        ({"resolution": "16"}, {"resolution": 16}, "the run has '16', now 16"),
    ],
)
def test_a_difference_of_any_resolution_is_shown(before, now, want):
    assert differences({"model": before}, {"model": now}) == [f"model.resolution: {want}"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_saved_configuration_is_read_again(name):
    config = dataclasses.replace(PRESETS[name](), betas=(0.1, 0.2), lr=1e-3)
    assert from_dict(json.loads(json.dumps(to_dict(config))), "here") == config
    with pytest.raises(CheckpointError, match="here: its configuration does not fit this version"):
        from_dict({**to_dict(config), "warp": 9}, "here")


def test_free_fields_exist():
    assert {field.name for field in dataclasses.fields(Config)} >= FREE_ON_RESUME


def test_the_length_of_a_run_is_fixed_where_its_rate_falls():
    config = PRESETS["pix2pix"]()
    longer = to_dict(dataclasses.replace(config, kimg=2 * config.kimg))
    assert differences(to_dict(config), longer) == ["kimg: the run has 12, now 24"]
    assert differences({**to_dict(config), "lr_decay": 0}, {**longer, "lr_decay": 0}) == []
