"""The CPUs that other programs use, by what Linux says."""

import pytest

from gan_engine.system import devices


@pytest.mark.parametrize(("running", "busy"), [("1/300", 0), ("2/300", 1), ("9/300", 2), ("what is this", 0)])
def test_the_cpus_that_other_programs_use(monkeypatch, running, busy):
    monkeypatch.setattr(devices.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(devices.Path, "read_text", lambda path: f"0.5 0.4 0.3 {running} 1234\n")
    assert devices.busy_cpus() == busy


def test_none_where_the_system_does_not_say(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(devices.Path, "read_text", missing)
    assert devices.busy_cpus() == 0
