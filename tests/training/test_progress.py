"""The bar of a run and the lines that stand in for it: images, or the time of a run that ends by the clock."""

import dataclasses
import io
import re

import pytest

from gan_engine.training import progress
from gan_engine.training.clock import Clock
from tests.training.runs import DCGAN


def shown(bar: progress.Bar, clock: Clock) -> list[str]:
    """What the bar says at its start and after a step of 20 seconds."""
    bar.refresh()
    clock.advance()
    clock.seconds = 20
    bar.follow()
    bar.set_postfix({"loss/D": "0.700"})
    return bar.fp.getvalue().split("\r")


def bar_of(clock: Clock) -> progress.Bar:
    return progress.Bar(clock, "dcgan", shown=True, file=io.StringIO(), mininterval=0, ncols=100)


@pytest.mark.parametrize(("kimg", "images"), [(None, ""), (0.16, " of 0.16")])
def test_a_bar_shows_the_time_of_a_run_by_the_clock(kimg, images):
    clock = Clock(dataclasses.replace(DCGAN, kimg=kimg, minutes=1))
    states = shown(bar_of(clock), clock)
    assert "dcgan:   0%|" in states[1] and f"| 0:00 of 1:00, 0{images} kimg, 0 img/s" in states[1]
    assert "dcgan:  33%|" in states[-1] and f"| 0:20 of 1:00, 0.016{images} kimg, 0.8 img/s, loss/D=0.700" in states[-1]


def test_a_bar_shows_the_images_of_a_run_that_counts_them():
    clock = Clock(DCGAN)
    states = shown(bar_of(clock), clock)
    assert "dcgan:   0%|" in states[1] and "| 0.00/160 [" in states[1]
    assert "dcgan:  10%|" in states[-1] and "| 16.0/160 [" in states[-1] and "loss/D=0.700" in states[-1]


@pytest.mark.parametrize(
    ("length", "want"),
    [
        ({}, r"dcgan 0\.016 of 0\.16 kimg, [\d.,]+ img/s, 00:00 left, loss/D 0\.700"),
        ({"kimg": None, "minutes": 1}, r"dcgan 0:20 of 1:00, 0\.016 kimg, [\d.,]+ img/s, loss/D 0\.700"),
        ({"kimg": None, "minutes": 0.02}, r"dcgan 20 of 1\.2 s, 0\.016 kimg, [\d.,]+ img/s, loss/D 0\.700"),
    ],
)
def test_lines_for_a_log_file(length, want, capsys):
    clock = Clock(dataclasses.replace(DCGAN, **length))
    lines = progress.bar(clock, name="dcgan", shown=True)
    clock.advance()
    clock.seconds = 20
    lines.follow()
    lines.set_postfix({"loss/D": "0.700"})
    assert re.fullmatch(want, capsys.readouterr().err.strip())


@pytest.mark.parametrize(("seconds", "want"), [(20, "0.8"), (0.1255, "127"), (0.0126, "1,270"), (1.3e-5, "1,230,000")])
def test_the_speed_is_written_in_full(seconds, want):
    clock = Clock(dataclasses.replace(DCGAN, kimg=None, minutes=1))
    bar = bar_of(clock)
    clock.advance()
    clock.seconds = seconds
    assert bar.format_dict["place"].endswith(f", {want} img/s")
