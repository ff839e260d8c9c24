"""The CPUs that this process may use, and those that other programs use, by what Linux says."""

import os
import time
from pathlib import Path
from typing import NamedTuple

CGROUPS = Path("/sys/fs/cgroup")


class Use(NamedTuple):
    """CPUs that other programs use: in this moment, and on average over the last minute, as the load says."""

    now: float
    minute: float

    @property
    def lasting(self) -> int:
        """The number of CPUs that are in use now and were in use before: a short burst of work is none of them."""
        return int(min(self) + 0.5)


def used_by_others(seconds: float = 0.5) -> Use | None:
    """What other programs use, from two looks at /proc/stat that are `seconds` apart. None: the system does not say."""
    before = _busy_seconds()
    time.sleep(seconds)
    after = _busy_seconds()
    if before is None or after is None:
        return None
    (busy, then), (still_busy, now) = before, after
    return Use(max(0.0, still_busy - busy) / (now - then), os.getloadavg()[0])


def _busy_seconds() -> tuple[float, float] | None:
    """The seconds that all CPUs have computed for other processes, and the time of day."""
    try:
        user, nice, system, _, _, irq, softirq = map(int, _read("/proc/stat").split()[1:8])
    except ValueError:
        return None
    own = os.times()
    computed = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return computed - own.user - own.system, own.elapsed


def quota() -> float | None:
    """The CPUs whose time a container leaves to this process, such as 1.5; None without a limit."""
    limits = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = CGROUPS, ["cpu.max"]
        elif "cpu" in controllers.split(","):  # version 1
            root, names = CGROUPS / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        own = Path(path)
        for folder in (own, *own.parents):  # a container may see its own group as the root
            words = " ".join(_read(root / folder.relative_to("/") / name) for name in names).split()
            if len(words) == 2 and words[0].isdigit() and int(words[1]):  # without a limit: "max" or "-1"
                limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
