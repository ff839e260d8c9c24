"""Gaussians that a generator of points covers: what is counted, and what evaluate, training and compare make of it."""

import copy
import dataclasses
import json
import pickle
import re

import pytest
import torch
from torch import nn

from gan_engine.data import DataConfig, load
from gan_engine.data.gaussians import MIXTURES
from gan_engine.evaluate import Options, evaluate, main
from gan_engine.metrics import gaussians, scores
from gan_engine.metrics.count import Count
from gan_engine.metrics.subject import Subject
from gan_engine.models import points
from gan_engine.presets import PRESETS
from gan_engine.runs import comparison
from gan_engine.runs.history import read_metrics
from gan_engine.runs.report import page
from gan_engine.system import checkpoint
from gan_engine.training.trainer import Trainer

CPU = torch.device("cpu")


def data_of(name="toy:ring"):
    return load(DataConfig(name), resolution=1, channels=2, kind="points")


class Repeats(nn.Module):
    """A generator whose points are `points`."""

    def __init__(self, drawn):
        super().__init__()
        self.weight, self.drawn = nn.Parameter(torch.zeros(1)), drawn

    def subject(self, data):
        parts = self.drawn.split(70)
        return Subject(G=self, data=data, batch=70, num=len(self.drawn), draw=lambda: iter(parts))


def test_a_count_is_a_number_that_knows_of_how_many():
    count = Count(12, 25)
    assert count == 12 and f"{count}" == f"{count:.4f}" == str(count) == "12 of 25" and json.dumps(count) == "12"
    assert str(pickle.loads(pickle.dumps(count))) == str(copy.copy(count)) == "12 of 25"


@pytest.mark.parametrize("name", MIXTURES)
def test_the_data_cover_all_and_have_the_quality_of_a_gaussian(name):
    data = data_of(name)
    covered, quality = gaussians.cover(Repeats(data.images[:20_000]).subject(data))
    assert covered == len(MIXTURES[name].centres) and quality == pytest.approx(0.98889, abs=0.003)


def test_three_standard_deviations_decide():
    data, centres = data_of(), MIXTURES["toy:ring"].centres
    off = torch.tensor([[0.059, 0], [0.061, 0], [0, -0.059], [0.05, 0.05], [0.0, 0.0]])
    drawn = centres[[0, 1, 2, 3, 2]] + off  # inside, outside, inside, outside, inside: 0 and 2 are covered
    assert gaussians.cover(Repeats(drawn).subject(data)) == (2, 3 / 5)
    assert gaussians.cover(Repeats(torch.full((4, 2), torch.nan)).subject(data)) == (0, 0)
    assert gaussians.cover(Repeats(centres[:1].expand(9, 2)).subject(data)) == (1, 1)


def test_the_metric_needs_no_network_and_gives_the_same_numbers_as_the_measure():
    data = data_of()
    subject = Repeats(data.images[:500]).subject(data)
    scored = scores.build(("gaussians",), "auto", (2,), weights=None, device=CPU)
    found = scored.measure(subject)
    assert found == gaussians.measure(subject) and list(found) == ["gaussians_3sd N=500", "quality_3sd N=500"]
    assert scored.more_is_better and all(map(scores.more_is_better, found))
    assert scored.about(subject).endswith("of its centre; 500 generated, 100,000 real points")


def test_other_data_and_other_generators_are_refused():
    data = data_of()
    other = dataclasses.replace(data, name="mine")
    scored = scores.build(("gaussians",), "auto", (2,), weights=None, device=CPU)
    with pytest.raises(ValueError, match="gaussians wants the data toy:ring or toy:grid, got mine"):
        scored.check(Repeats(other.images).subject(other))
    with pytest.raises(ValueError, match="gaussians wants the data toy:ring or toy:grid, got mine"):
        gaussians.measure(Repeats(other.images).subject(other))
    able = {"from_noise": True, "styles": False, "translates": False, "channels": 2}
    assert scores.refusal(["gaussians"], axes=0, **able) is None
    reason = scores.refusal(["gaussians", "fid"], axes=0, **able)
    assert reason == ("metrics: fid wants a generator of images, got one of points; want gaussians for points")
    reason = scores.refusal(["fid", "gaussians"], axes=2, **able)
    assert reason.startswith("metrics: gaussians wants a generator of points, got one of images; want fid,kid,")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of the preset, measured twice."""
    run_dir = tmp_path_factory.mktemp("ring")
    config = dataclasses.replace(PRESETS["ring"](), model=points.Config(hidden=(16,)), batch_size=64, kimg=0.256)
    config = dataclasses.replace(config, eval_kimg=0.128, eval_num=200, grid_kimg=0.128, tensorboard=False)
    trainer = Trainer(config, data_of(), device=CPU, run_dir=run_dir)
    from gan_engine.runs import record

    record.write(
        run_dir, trainer.config, {"data": "toy:ring: 100,000 points, 8 classes, 0.8 MB", "arguments": ["ring"]}
    )
    trainer.run()
    return run_dir


def test_evaluate_and_training_measure_alike(run):
    found = evaluate(Options(checkpoint.find(run), num=200))
    assert found == evaluate(Options(checkpoint.find(run), num=200, metrics="gaussians"))
    rows = [row for row in read_metrics(run) if "eval/gaussians_3sd N=200" in row]
    assert len(rows) == 2 and rows[-1]["eval/gaussians_3sd N=200"] == found["gaussians_3sd N=200"]
    assert rows[-1]["eval/quality_3sd N=200"] == found["quality_3sd N=200"]
    assert (run / "best.pt").is_file()


def test_the_command_prints_counts_alike_and_takes_as_many_points_as_the_run(run, capsys):
    for more in ([], ["--metrics", "gaussians"]):
        assert main([str(run), *more]) == 0
        covered, quality = capsys.readouterr().out.splitlines()[-2:]
        assert re.fullmatch(r"gaussians_3sd N=200 +\d of 8", covered)
        assert re.fullmatch(r"quality_3sd N=200 +\d\.\d{4}", quality)


def test_points_cannot_have_the_numbers_of_images(run, capsys):
    assert main([str(run), "--metrics", "fid"]) == 2
    want = "got one of points; want gaussians for points; without --metrics points are measured"
    assert want in capsys.readouterr().err


def test_another_mixture_may_be_named(run):
    assert evaluate(Options(checkpoint.find(run), num=200, data="toy:grid")).keys() == {
        "gaussians_3sd N=200",
        "quality_3sd N=200",
    }


def test_compare_and_the_report_show_the_numbers_and_the_scatter_plots(run):
    table = comparison.rows(comparison.compare([run]))
    assert {"gaussians_3sd N=200, final", "quality_3sd N=200, best"} <= table[0].keys()
    shown = page(run)
    assert "quality_3sd N=200" in shown and shown.count('alt="samples at') == 4  # the newest, and three on the way
