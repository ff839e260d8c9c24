"""The comparison of --gamma auto with fixed weights: its cells are runs, and the page has the table of the rows."""

import pytest

from benchmarks import gamma
from benchmarks.scorecard import PAGE, read
from gan_engine.training.run_flags import parse


@pytest.mark.parametrize("setting", gamma.SETTINGS)
@pytest.mark.parametrize("weight", gamma.GAMMAS)
def test_every_cell_is_a_run_that_differs_by_its_weights_alone(setting, weight):
    config, plain = (parse(gamma.words(setting, each, 16.0)) for each in (weight, "1"))
    free = {"gamma", "r1_gamma", "r2_gamma"}
    assert {key for key in vars(config) if getattr(config, key) != getattr(plain, key)} <= free
    assert config.gamma == ("auto" if weight == "auto" else "fixed")
    assert config.r1_gamma == (10 if weight == "auto" else float(weight))
    assert config.r2_gamma == (config.r1_gamma if setting == "RpGAN + R1 + R2" else 0)


def test_the_table_has_the_mean_and_the_spread_of_each_setting():
    rows = [{"setting": s, "gamma": "10", "distance": d} for s in gamma.SETTINGS for d in (80.0, 90.0)]
    rows += [{"setting": "GAN + R1", "gamma": "auto", "distance": 1.0}]  # not in both settings
    assert gamma.table(rows).splitlines()[2:] == ["| 10 | 85.0 (80.0 to 90.0) | 85.0 (80.0 to 90.0) | 2 |"]


def test_the_page_has_the_table_of_the_committed_rows():
    rows, (begin, end) = read(gamma.OUT), gamma.MARKS
    assert PAGE.read_text().split(begin)[1].split(end)[0].strip() == gamma.table(rows)
    assert {row["kimg"] for row in rows} == {16.0}
