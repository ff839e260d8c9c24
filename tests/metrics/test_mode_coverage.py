"""Modes of stacked garments: what is counted, the KL, and what evaluate and training make of them."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from gan_engine.data import DataConfig, ImageSet, load, stacked
from gan_engine.evaluate import Options, evaluate
from gan_engine.metrics import perceptual, scores
from gan_engine.metrics.modes import Modes
from gan_engine.metrics.subject import Subject
from gan_engine.presets import PRESETS
from gan_engine.runs.history import read_metrics
from gan_engine.system import checkpoint
from gan_engine.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """One image of each mode"""
    monkeypatch.setenv("GAN_ENGINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stacked, "PER_MODE", 1)


@pytest.fixture
def data(small):
    return load(DataConfig("stacked"), resolution=32, channels=3)


def counted(*parts):
    modes = Modes()
    for images in parts:
        modes.add(images)
    return modes


def test_modes_are_those_of_the_classifier_on_each_channel(data):
    modes = counted(*data.images.split(300))
    network = modes.classifier
    found = [network(data.images[:, i : i + 1].float() / 127.5 - 1)[1].argmax(1) for i in range(3)]
    want = (100 * found[0] + 10 * found[1] + found[2]).bincount(minlength=1000)
    assert modes.counts.equal(want) and modes.counts.sum() == 1000
    right = sum(int(100 * r + 10 * g + b == label) for r, g, b, label in zip(*found, data.labels, strict=True))
    assert right > 700  # the classifier knows 93 % of the garments: 0.93^3 = 0.8


def test_one_mode_is_one_mode_and_kl_is_its_formula(data):
    one = counted(data.images[:1].expand(50, -1, -1, -1))
    assert one.covered == 1 and one.kl == pytest.approx(math.log(1000))
    modes = Modes()
    modes.counts[:500] = 3
    assert modes.covered == 500 and modes.kl == pytest.approx(math.log(2))
    modes.counts[:] = 7
    assert modes.covered == 1000 and modes.kl == pytest.approx(0, abs=1e-12)
    modes.counts[0] = 14
    p = modes.counts.double() / modes.counts.sum()
    assert modes.kl == pytest.approx(float((p * (p / 0.001).log()).sum()), rel=1e-9)


class Repeats(nn.Module):
    """A generator whose images are `images`, in turn."""

    def __init__(self, images):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.images = images

    def subject(self, data, num):
        def draw():
            for i in range(0, num, 50):
                yield self.images[torch.arange(i, min(i + 50, num)) % len(self.images)].float() / 127.5 - 1

        return Subject(G=self, data=data, batch=50, num=num, draw=draw)


def test_scores_count_modes_of_a_collapsed_generator_without_any_other_network(data, monkeypatch):
    monkeypatch.setattr(perceptual, "PACKAGE", "no_such_package")
    scored = scores.build(("modes",), "auto", (3, 32, 32), weights=None, device=CPU)
    found = scored.measure(Repeats(data.images[:1]).subject(data, 120))
    assert str(found["modes_fashion32 N=120"]) == "1 of 1000"
    assert found == {"modes_fashion32 N=120": 1, "modes_kl_fashion32 N=120": pytest.approx(math.log(1000))}
    whole = scored.measure(Repeats(data.images).subject(data, 1000))
    assert whole["modes_fashion32 N=1000"] > 500 and whole["modes_kl_fashion32 N=1000"] < 1
    assert scored.more_is_better and "reads each channel" in scored.about(Repeats(data.images).subject(data, 10))


def test_modes_are_refused_for_other_data_and_a_useless_extractor_too(data):
    scored = scores.build(("modes",), "auto", (3, 32, 32), weights=None, device=CPU)
    other = ImageSet("photos", data.images[:9])
    with pytest.raises(ValueError, match="modes wants the data stacked at 32x32, got photos of 3x32x32"):
        scored.check(Repeats(other.images).subject(other, 10))
    larger = load(DataConfig("stacked"), resolution=64, channels=3)
    with pytest.raises(ValueError, match="got stacked of 3x64x64"):
        scored.check(Repeats(larger.images).subject(larger, 10))
    with pytest.raises(ValueError, match=r"extractor: want a metric that reads its features \(fid, .*\), got modes"):
        scores.build(("modes",), "imagenet", (3, 32, 32), weights=None, device=CPU)


SIZES = {
    "dcgan": {"width": 4},
    "stylegan2_32": {"z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8},
    "r3gan": {"width": 16, "max_width": 16, "blocks": 1},
}


@pytest.mark.parametrize("preset", SIZES)
def test_any_family_in_colour_is_measured_by_evaluate_and_while_it_trains(data, preset, tmp_path):
    config = PRESETS[preset]()
    model = dataclasses.replace(config.model, channels=3, **SIZES[preset])
    config = dataclasses.replace(
        config, model=model, data="stacked", batch_size=8, kimg=0.008, precision="fp32", eval_kimg=0.008
    )
    config = dataclasses.replace(config, eval_metrics="modes", eval_num=20, tensorboard=False)
    trainer = Trainer(config, data, device=CPU, run_dir=tmp_path)
    trainer.run()
    evaluated = evaluate(Options(checkpoint.find(tmp_path), num=20, metrics="modes"))
    assert list(evaluated) == ["modes_fashion32 N=20", "modes_kl_fashion32 N=20"]
    assert 1 <= evaluated["modes_fashion32 N=20"] <= 20
    (row,) = (row for row in read_metrics(tmp_path) if "eval/modes_fashion32 N=20" in row)
    assert row["eval/modes_fashion32 N=20"] == evaluated["modes_fashion32 N=20"]  # the same noise
