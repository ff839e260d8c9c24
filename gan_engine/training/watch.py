"""Watches over a run: takes readings of its health, says its alarms, and goes back to the last healthy state."""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from gan_engine.config import Config
from gan_engine.runs.history import BACK, BACK_TO, read_metrics
from gan_engine.system import checkpoint
from gan_engine.system.names import shell_word
from gan_engine.system.random_state import seed_all
from gan_engine.training import alarms, numbers
from gan_engine.training.batches import Batches
from gan_engine.training.clock import Clock
from gan_engine.training.distributed import Processes
from gan_engine.training.health import FIRST_SIZE, PREFIX, Health, Reading
from gan_engine.training.means import Means
from gan_engine.training.schedule import Optimizers

_KEPT = 64  # readings that rules look back on
_SEED = 7_368_787  # from the seed of one rollback to the seed of the next


class Look(NamedTuple):
    """What a reading has found.

    Attributes:
        values: the numbers, by name.
        alarms: the sentences of alarms that begin to stand.
        ended: the names of alarms that stand no longer.
        serious: the first of the alarms that begin and that --on-collapse acts upon.
        healthy: no such alarm stands or is near.
    """

    values: Reading
    alarms: list[str]
    ended: list[str]
    serious: str | None
    healthy: bool


class Watch:
    """The readings and alarms of a run, in its first process. A resumed run goes on with those of metrics.jsonl.

    Attributes:
        readings: the newest ones, each with the images shown.
        most: each rise of what the images of G differed by at most so far, with the images shown.
        judged: whether the run was healthy, at each reading of the history. A rollback leaves them as they are.
        standing: the alarms that stand.
    """

    def __init__(self, health: Health, config: Config, run_dir: Path, *, nimg: int) -> None:
        self.health, self.config, self.run_dir = health, config, run_dir
        self.readings: list[tuple[int, Reading]] = []
        self.most: list[tuple[int, Reading]] = []
        self.judged: list[tuple[int, bool]] = []
        self.standing: list[alarms.Alarm] = []
        first: Reading = {}
        for row in read_metrics(run_dir):
            if row["nimg"] > nimg:
                continue
            values = {name: value for name, value in row.items() if name.startswith(PREFIX) and value is not None}
            first = {name: value for name, value in values.items() if name.startswith(FIRST_SIZE)} | first
            if BACK_TO in values:
                self.go_back(round(1000 * values[BACK_TO]))
            elif values:
                self._add(row["nimg"], values)
        health.begin(first)

    @property
    def clear(self) -> bool:
        """No rule that --on-collapse acts upon holds in the last reading, not even once. True without a reading."""
        return not self.readings or alarms.clear(self._newest(), self.config)

    def require_healthy(self, resumed: Path) -> None:
        """Raise ValueError if an alarm that --on-collapse acts upon stands in the state of the checkpoint `resumed`.

        The run could only end, or go back to this very state.
        """
        alarm = next((alarm for alarm in self.standing if alarm.serious), None)
        if alarm is None or self.config.on_collapse == "warn":
            return
        healthy = self._healthy_checkpoint()
        way = "no healthy one is left"
        if healthy is not None:
            way = f"--resume={shell_word(healthy)} is the newest healthy one"
        seen = alarm.sentence.partition(";")[0]
        raise ValueError(
            f"on_collapse: want a healthy checkpoint for {self.config.on_collapse}, got {resumed}, in which an alarm "
            f"stands: {seen}; {way}; --on-collapse warn goes on from here"
        )

    def _healthy_checkpoint(self) -> Path | None:
        """The newest checkpoint of the run whose next reading, taken with it or after it, was healthy."""
        found = checkpoint.numbered(self.run_dir / "checkpoints")
        with contextlib.suppress(checkpoint.CheckpointError):
            best = checkpoint.find(self.run_dir, best=True)
            found.append((checkpoint.load(best).get("nimg", 0), best))
        for nimg, path in sorted(found, reverse=True):
            if next((healthy for at, healthy in self.judged if at >= nimg), False):
                return path
        return None

    def look(self, nimg: int, means: dict[str, float]) -> Look:
        """Take a reading. `means` are those of the steps since the last report."""
        values, stood = self.health.read(nimg, means), self.standing
        begun = self._add(nimg, values)
        serious = next((alarm.sentence for alarm in begun if alarm.serious), None)
        standing = {alarm.key for alarm in self.standing}
        ended = [alarm.name for alarm in stood if alarm.key not in standing]
        return Look(values, [alarm.sentence for alarm in begun], ended, serious, healthy=self.judged[-1][1])

    def go_back(self, nimg: int) -> None:
        """Forget the readings after `nimg` images, and all alarms, so that they are said again where they return."""
        self.readings = [(at, values) for at, values in self.readings if at <= nimg]
        self.most = [(at, most) for at, most in self.most if at <= nimg]
        self.standing = []
        self.health.counts.clear()

    def _add(self, nimg: int, values: Reading) -> list[alarms.Alarm]:
        """Note a reading. Returns the alarms that begin to stand."""
        before = self.most[-1][1] if self.most else {}
        if (most := alarms.most(values, before)) != before:
            self.most.append((nimg, most))
        self.readings = [*self.readings, (nimg, values | most)][-_KEPT:]
        stood = {alarm.key for alarm in self.standing}
        self.standing = alarms.standing(self._newest(), self.config, before=stood)
        self.judged.append((nimg, not self.standing and self.clear))
        return [alarm for alarm in self.standing if alarm.key not in stood]

    def _newest(self) -> list[Reading]:
        return [values for _, values in self.readings]


class Trains(Protocol):
    """The parts of a trainer that a rollback uses."""

    config: Config
    batches: Batches
    clock: Clock
    means: Means
    optimizers: Optimizers
    penalty_generator: torch.Generator
    processes: Processes

    def heed_stops(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], *, source: str | Path = ...) -> None: ...


class Rollback:
    """The last healthy state of a run, in memory, and the way back to it. All processes take part alike.

    Args:
        count: rollbacks of the run so far.
        clear: the present state may be kept as a healthy one.
    """

    def __init__(self, trainer: Trains, *, count: int, clear: bool = True) -> None:
        self.trainer, self.count = trainer, count
        self.state: dict[str, Any] | None = None
        self.rates = {name: optimizer.defaults["lr"] for name, optimizer in trainer.optimizers.items()}
        self._lower_rates()
        if clear:
            self.keep()

    def keep(self) -> None:
        """Remember the present state as the last healthy one. Raises NonFiniteError where it is not finite."""
        self.trainer.heed_stops()
        self.state = _copied(self.trainer.state_dict())

    @property
    def nimg(self) -> int:
        """Images shown when the state was kept."""
        return self.state["nimg"]

    @property
    def left(self) -> int:
        """Rollbacks that the run may still make. None without a healthy state."""
        return 0 if self.state is None else self.trainer.config.rollbacks - self.count

    @property
    def none_left(self) -> str:
        """Why the run may not go back again."""
        return "there is no healthy state to go back to" if self.state is None else "no rollback is left"

    def carry_out(self) -> None:
        """Go back to the last healthy state, with other random numbers and, if asked, lower rates.

        The clock goes on: images and time that were lost count, so a run still ends.
        """
        trainer, clock = self.trainer, self.trainer.clock
        now = clock.nimg, clock.step_count, clock.seconds
        trainer.load_state_dict(self.state, source="the last healthy state")
        clock.nimg, clock.step_count, clock.seconds = now
        trainer.means.read(trainer.processes)  # drops what was measured before
        self.count += 1
        self._change_seed()
        self._lower_rates()

    def line(self) -> str:
        """What was done, for the user."""
        rate = self.trainer.config.rollback_lr**self.count
        lower = f", at {rate:.3g} times the first learning rates" if rate < 1 else ""
        left = f"; {self.left} more at most" if self.left else "; the next such alarm ends the run"
        back = f"{BACK} the healthy state of {self.nimg / 1000:g} kimg, with other noise and order of data"
        return f"{back}{lower}{left}"

    def _change_seed(self) -> None:
        trainer, step = self.trainer, self.count * _SEED
        seed, own = trainer.config.seed + step, (trainer.processes.rank + 1) * 1_000_003
        trainer.batches.z_generator.manual_seed(seed)
        trainer.penalty_generator.manual_seed(seed + own)
        seed_all(seed + own)
        samplers = {
            name: None if state is None else state | {"seed": (state["seed"] + step) % 2**63}
            for name, state in self.state.items()
            if name in ("sampler", "source_sampler")
        }
        trainer.batches.load_samplers(samplers)

    def _lower_rates(self) -> None:
        for name, optimizer in self.trainer.optimizers.items():
            optimizer.defaults["lr"] = self.rates[name] * self.trainer.config.rollback_lr**self.count
            for group in optimizer.param_groups:
                group["lr"] = numbers.changed(group["lr"], optimizer.defaults["lr"])


def _copied(value: Any) -> Any:
    """`value` with copies of its tensors, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return type(value)(map(_copied, value)) if isinstance(value, list | tuple) else value


def count_rollbacks(run_dir: Path, nimg: int) -> int:
    """How often a run has gone back until `nimg` images were shown."""
    return sum(BACK_TO in row and row["nimg"] <= nimg for row in read_metrics(run_dir))
