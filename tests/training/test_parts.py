"""The small parts of a trainer, each by itself."""

import dataclasses
from itertools import chain

import pytest
import torch

from gan_engine.training.clock import Clock
from gan_engine.training.means import Means
from gan_engine.training.schedule import Phase, due, ever_due, set_learning_rates
from tests.training.runs import DCGAN


def test_means_apart_are_of_their_own_until_they_are_merged():
    means = Means()
    means.add("a", torch.tensor([1.0, 3.0]))
    with means.apart() as apart:
        means.add("a", torch.tensor([8.0]))
        means.add("b", torch.tensor([5.0]))
    assert {name: count for name, (_, count) in means.sums.items()} == {"a": 2}
    means.add_sums(apart)
    means.add_numbers(apart)
    assert means.read() == {"a": 4.0, "b": 5.0} and means.read() == {}


def test_means_apart_end_with_an_error_too():
    means = Means()
    with pytest.raises(RuntimeError), means.apart():
        means.add("a", torch.ones(1))
        raise RuntimeError
    means.add("a", torch.zeros(1))
    assert means.read() == {"a": 0.0}


@pytest.mark.parametrize(("batch_size", "total"), [(16, 112), (10, 100), (300, 300)])
def test_a_run_has_whole_batches(batch_size, total):
    clock = Clock(dataclasses.replace(DCGAN, batch_size=batch_size, kimg=0.1))
    assert clock.total == total and not clock.over
    while not clock.over:
        clock.advance()
    assert clock.nimg == total == batch_size * clock.step_count


def test_a_step_that_passes_a_multiple_says_so_once():
    clock = Clock(dataclasses.replace(DCGAN, batch_size=16))
    passed = []
    for _ in range(8):
        clock.advance()
        if clock.passed(0.04):
            passed.append(clock.nimg)
    assert passed == [48, 80, 128]


def test_learning_rates_fall_from_the_rate_of_the_beginning():
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=0.5)
    rates = []
    for done in (0, 0.75, 0.9, 1):
        set_learning_rates({"G": optimizer}, done=done, lr_decay=0.25)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5, 0.5, 0.2, 0])


@pytest.mark.parametrize("intervals", [(16, 1, 4), (4, 5, 8), (6, 10, 15), (7, 3, 9), (1, 1, 1), (2, 2, 3)])
@pytest.mark.parametrize("game", [None, False])
def test_what_is_ever_due_is_what_some_step_has(intervals, game):
    phases = phases_of(*intervals, game)
    steps = (due(phases, count, pretraining=early) for early in (True, False) for count in range(720))
    got = names(ever_due(phases))
    assert set(got) == set(names(chain(*steps))) and len(got) == len(set(got))


def test_what_is_ever_due_is_known_at_once_however_rare_it_is():
    assert len(ever_due(phases_of(1_048_573, 5, 2**20, None))) == 7


def names(found):
    return [(phase.name, penalised, last) for phase, penalised, last in found]


def phases_of(penalties, of_g, of_paths, game):
    parts = {"net": None, "optimizer": None, "terms": None}
    rest = [] if game is None else [Phase("G_content", **parts, pretraining=True)]
    return [
        Phase("D", **parts, penalised=len, penalty_interval=penalties, pretraining=game),
        Phase("G", **parts, interval=of_g, pretraining=game),
        *rest,
        Phase("G_pl", **parts, interval=of_paths, pretraining=game),
    ]
