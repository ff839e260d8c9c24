"""The CPUs that other programs use and a container leaves, by files as Linux writes them."""

import os
from types import SimpleNamespace

import pytest

from gan_engine.system import cpus

STAT = "cpu  {user} 100 50 9000 20 5 5 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n"


@pytest.fixture
def stat(monkeypatch):
    """Two looks at /proc/stat, half a second apart: 0.45 s of processor time, 0.05 s of them our own; a load of 0.6."""
    looks, times = [STAT.format(user=1000), STAT.format(user=1045)], [(2.0, 1.0, 10.0), (2.05, 1.0, 10.5)]
    monkeypatch.setattr(cpus, "_read", lambda path: looks.pop(0) if path == "/proc/stat" else "")
    own = iter([SimpleNamespace(user=user, system=system, elapsed=elapsed) for user, system, elapsed in times])
    monkeypatch.setattr(cpus.os, "times", lambda: next(own))
    monkeypatch.setattr(cpus.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(cpus.os, "getloadavg", lambda: (0.6, 0.2, 0.1))
    monkeypatch.setattr(cpus.time, "sleep", lambda seconds: None)
    return looks


def test_the_cpus_that_other_programs_use(stat):
    use = cpus.used_by_others()
    assert use.now == pytest.approx(0.8) and use.minute == 0.6 and use.lasting == 1


def test_none_where_the_system_does_not_say(stat):
    stat[:] = ["", ""]
    assert cpus.used_by_others() is None


@pytest.mark.parametrize(
    ("now", "minute", "lasting"), [(1.0, 0.9, 1), (2.0, 0.3, 0), (0.1, 2.0, 0), (0.4, 0.4, 0), (3.6, 3.5, 4)]
)
def test_a_short_burst_is_no_lasting_use(now, minute, lasting):
    assert cpus.Use(now, minute).lasting == lasting


@pytest.mark.parametrize(
    ("groups", "files", "want"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/a/b", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4),
        ("0::/outer/inner", {"cpu.max": "50000 100000"}, 0.5),
        ("3:cpu,cpuacct:/x", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("2:cpuset:/\n0::/", {}, None),
    ],
)
def test_the_quota_of_a_container(tmp_path, monkeypatch, groups, files, want):
    (tmp_path / "groups").write_text(groups + "\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path)
    read = cpus._read
    monkeypatch.setattr(cpus, "_read", lambda path: read(tmp_path / "groups" if path == "/proc/self/cgroup" else path))
    assert cpus.quota() == want


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="Linux alone says what its CPUs do")
def test_this_machine():
    use = cpus.used_by_others(0.02)
    assert use is None or (use.now >= 0 and use.minute >= 0)
