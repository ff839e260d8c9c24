"""A warning appears before a training run whose threads would wait for busy CPUs."""

import pytest

from gan_engine.system import devices


@pytest.mark.parametrize(
    ("running", "threads", "reason"),
    [
        ("1/300", 2, None),
        ("2/300", 1, None),
        ("2/300", 2, "other programs use 1 of 2 CPUs; OMP_NUM_THREADS=1 may be many times faster"),
        ("9/300", 2, "other programs use 2 of 2 CPUs; OMP_NUM_THREADS=1 may be many times faster"),
        ("what is this", 2, None),
    ],
)
def test_a_warning_if_threads_would_wait_for_busy_cpus(monkeypatch, running, threads, reason):
    monkeypatch.setattr(devices.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(devices.Path, "read_text", lambda path: f"0.5 0.4 0.3 {running} 1234\n")
    assert devices.busy_cpus(threads) == reason


def test_no_warning_where_the_system_does_not_say(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(devices.Path, "read_text", missing)
    assert devices.busy_cpus(64) is None
