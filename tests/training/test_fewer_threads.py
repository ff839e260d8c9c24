"""A run takes fewer threads where other programs use the CPUs, unless somebody has chosen the number."""

import pytest
import torch

from gan_engine.training import threads


def choose(asked: int | None, alone_on_cpu: bool = True) -> str | None:
    return threads.choose(asked, alone_on_cpu=alone_on_cpu)


@pytest.fixture
def machine(monkeypatch):
    """A machine of four CPUs, two of them busy, on which a run would take four threads."""
    now = [4]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: range(4), raising=False)
    monkeypatch.setattr(threads, "busy_cpus", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: now.__setitem__(0, number))
    return now


def test_a_run_takes_fewer_threads_and_says_so(machine):
    why = "2 threads, because other programs use 2 of 4 CPUs; --threads 4 takes more"
    assert choose(None) == why and machine == [2]


def test_a_busy_machine_leaves_one_thread(machine, monkeypatch):
    monkeypatch.setattr(threads, "busy_cpus", lambda: 4)
    assert choose(None).startswith("1 thread, because other programs use 4 of 4 CPUs") and machine == [1]


@pytest.mark.parametrize("busy", [0, 2])
def test_no_thread_is_taken_away_where_they_fit(machine, monkeypatch, busy):
    machine[0] = 2
    monkeypatch.setattr(threads, "busy_cpus", lambda: busy)
    assert choose(None) is None and machine == [2]


def test_a_number_that_was_chosen_stays(machine, monkeypatch):
    assert choose(3) is None and machine == [3]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    said = "3 threads, as OMP_NUM_THREADS says, but other programs use 2 of 4 CPUs: 2 may be faster"
    assert choose(None) == said and machine == [3]


def test_a_run_that_has_cpus_of_its_own_keeps_its_threads(machine, monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: range(3))
    assert choose(None) is None and machine == [4]


def test_several_processes_keep_their_threads_unless_a_number_is_named(machine):
    assert choose(None, alone_on_cpu=False) is None and machine == [4]
    assert choose(2, alone_on_cpu=False) is None and machine == [2]
