"""The small parts of a trainer, each by itself."""

import dataclasses

import pytest
import torch

from gan_engine.training.clock import Clock
from gan_engine.training.means import Means
from gan_engine.training.schedule import set_learning_rates
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
