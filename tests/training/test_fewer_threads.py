"""A run takes fewer threads where other programs use the CPUs, unless somebody has chosen the number."""

import pytest
import torch

from gan_engine.system import cpus
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
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: now.__setitem__(0, number))
    monkeypatch.setattr(threads.cpus, "quota", lambda: None)
    busy(monkeypatch, 2, 1.9)
    return now


def busy(monkeypatch, now: float, minute: float) -> None:
    monkeypatch.setattr(threads.cpus, "used_by_others", lambda: cpus.Use(now, minute))


def test_a_run_takes_fewer_threads_and_says_so(machine):
    why = "other programs use 2.0 of 4 CPUs (a load of 1.9 in the last minute)"
    assert choose(None) == f"2 threads, because {why}; --threads 4 takes more" and machine == [2]


def test_a_busy_machine_leaves_one_thread(machine, monkeypatch):
    busy(monkeypatch, 4, 9)
    assert choose(None).startswith("1 thread, because other programs use 4.0 of 4 CPUs") and machine == [1]


@pytest.mark.parametrize("use", [0, 2])
def test_no_thread_is_taken_away_where_they_fit(machine, monkeypatch, use):
    machine[0] = 2
    busy(monkeypatch, use, use)
    assert choose(None) is None and machine == [2]


def test_a_short_burst_takes_no_thread_away_and_is_said(machine, monkeypatch):
    busy(monkeypatch, 2, 0.3)
    said = "4 threads, though other programs use 2.0 of 4 CPUs: the load of the last minute is only 0.3"
    assert choose(None) == f"{said}; --threads 2 is faster if they go on" and machine == [4]


def test_work_that_is_over_takes_no_thread_away(machine, monkeypatch):
    busy(monkeypatch, 0.1, 4)
    assert choose(None) is None and machine == [4]


def test_one_thread_is_not_measured(machine, monkeypatch):
    machine[0] = 1
    monkeypatch.setattr(threads.cpus, "used_by_others", lambda: pytest.fail("waits for nothing"))
    assert choose(None) is None and machine == [1]


@pytest.mark.parametrize(("quota", "left", "count"), [(2.0, "2", "2 threads"), (0.5, "0.5", "1 thread")])
def test_a_container_leaves_fewer_threads(machine, monkeypatch, quota, left, count):
    monkeypatch.setattr(threads.cpus, "quota", lambda: quota)
    why = f"{count}, because this container has the time of {left} of 4 CPUs; --threads 4 takes more"
    assert choose(None) == why and machine == [int(count[0])]


def test_a_number_that_was_chosen_stays(machine, monkeypatch):
    assert choose(3) is None and machine == [3]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    why = "other programs use 2.0 of 4 CPUs (a load of 1.9 in the last minute)"
    assert choose(None) == f"3 threads, as OMP_NUM_THREADS says, but {why}: 2 may be faster" and machine == [3]


def test_a_run_that_has_cpus_of_its_own_keeps_its_threads(machine, monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: range(3))
    assert choose(None) is None and machine == [4]


def test_several_processes_keep_their_threads_unless_a_number_is_named(machine):
    assert choose(None, alone_on_cpu=False) is None and machine == [4]
    assert choose(2, alone_on_cpu=False) is None and machine == [2]
