"""The scorecard: every cell is a run that train takes, and the page has the table of the committed rows."""

import json

import pytest

from benchmarks import scorecard
from gan_engine.config import Config
from gan_engine.training.run_flags import parse


@pytest.mark.parametrize("name", scorecard.CELLS)
def test_every_cell_is_a_run_that_differs_from_gan_by_loss_and_penalty_alone(name):
    config, plain = (
        parse(["dcgan", *scorecard.SHARED, *scorecard.CELLS[each], "--kimg", "1"]) for each in (name, "GAN")
    )
    assert isinstance(config, Config) and config.data == "stacked"
    free = {"loss", "r1_gamma", "r2_gamma", "gp_weight", "weight_clip", "model"}
    assert {key for key in vars(config) if getattr(config, key) != getattr(plain, key)} <= free
    sizes = {key for key in vars(config.model) if getattr(config.model, key) != getattr(plain.model, key)}
    assert sizes <= {"d_spectral_norm"} and bool(sizes) == (name == "hinge + SN")


def test_the_table_has_the_most_modes_first_and_the_spread():
    rows = [{"cell": "A", "modes": m, "kl": 2.0, "seconds": 60.0} for m in (10, 20)]
    rows += [{"cell": "B", "modes": m, "kl": 1.0, "seconds": 30.0} for m in (900, 950)]
    assert scorecard.table(rows).splitlines()[2:] == [
        "| B | 925 (900 to 950) | 1.000 (1.000 to 1.000) | 30 (30 to 30) | 2 |",
        "| A | 15 (10 to 20) | 2.000 (2.000 to 2.000) | 60 (60 to 60) | 2 |",
    ]


def test_the_page_has_the_table_of_the_committed_rows():
    rows = [json.loads(line) for line in scorecard.OUT.read_text().splitlines()]
    begin, end = scorecard.MARKS
    assert scorecard.PAGE.read_text().split(begin)[1].split(end)[0].strip() == scorecard.table(rows)
    assert len({(row["num"], round(row["kimg"])) for row in rows}) == 1
