"""The loop of a run: steps, reports, grids, checkpoints and signals."""

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from gan_engine import backends
from gan_engine.command_line import console
from gan_engine.config import Config
from gan_engine.metrics.scores import Drawn
from gan_engine.runs import record
from gan_engine.runs.history import AGAINST, ANEW, BACK_TO, ENDED, PREFIX, few_classes
from gan_engine.runs.monitors import Monitors
from gan_engine.saved_config import to_dict
from gan_engine.system import checkpoint
from gan_engine.training import chosen_ops, nonfinite, plan
from gan_engine.training.batches import Batches
from gan_engine.training.clock import Clock
from gan_engine.training.distributed import Processes
from gan_engine.training.evaluation import Evaluation
from gan_engine.training.health import Health, interval
from gan_engine.training.means import Means
from gan_engine.training.precision import Precision
from gan_engine.training.schedule import Optimizers
from gan_engine.training.watch import Rollback, Watch, count_rollbacks

if TYPE_CHECKING:
    from gan_engine.training import progress


class Trains(Protocol):
    """The parts of a trainer that the loop uses."""

    config: Config
    run_dir: Path
    processes: Processes
    clock: Clock
    G: nn.Module
    evaluation: Evaluation | None
    health: Health | None
    batches: Batches
    means: Means
    optimizers: Optimizers
    precision: Precision
    penalty_generator: torch.Generator
    verdict: str | None

    @property
    def columns(self) -> int: ...
    def step(self) -> None: ...
    def heed_stops(self) -> None: ...
    def agree_on_buffers(self) -> None: ...
    def read_means(self, *, keep: bool = False) -> dict[str, float]: ...
    def samples(self) -> Tensor: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], *, source: str | Path = ...) -> None: ...


class Run:
    """One start of a run, up to its end or to a signal.

    The first process has a `keeper` of checkpoints and `monitors`. The others have None, and take part in whatever the
    processes do together.
    """

    def __init__(self, trainer: Trains) -> None:
        self.trainer, self.config, self.clock = trainer, trainer.config, trainer.clock
        self.keeper: checkpoint.Keeper | None = None
        self.monitors: Monitors | None = None
        if trainer.processes.first:
            run_dir, nimg = trainer.run_dir, self.clock.nimg
            self.keeper = checkpoint.Keeper(run_dir, self.config.keep, nimg=nimg)
            self.monitors = Monitors(
                run_dir,
                tensorboard=self.config.tensorboard,
                log=self.config.loggers,
                config=to_dict(self.config),
                resume_nimg=nimg,
            )
            self._check_best()
        self.watch: Watch | None = None
        if trainer.health is not None:
            self.watch = Watch(trainer.health, self.config, trainer.run_dir, nimg=self.clock.nimg)
        self.rollback: Rollback | None = None
        if self.config.on_collapse == "rollback":
            nimg = self.clock.nimg
            count, clear = trainer.processes.from_first(
                lambda: (count_rollbacks(trainer.run_dir, nimg), self.watch.clear)
            )
            self.rollback = Rollback(trainer, count=count, clear=clear)
        self.ops: dict[str, Any] | None = None  # what ran the ops of the first step
        self.timing: plan.Timing | None = None  # from the first step until the plan is told
        self.between_steps = True  # when all that a checkpoint holds belongs together
        trainer.verdict = None  # of this start

    def _check_best(self) -> None:
        """Begin anew with best and patience if best.pt is not the best of this history: the run goes on from before it,
        or measures by other images or metrics, whose numbers compare with none so far; or the file is damaged."""
        evaluation = self.trainer.evaluation
        if evaluation is None:
            return
        evaluation.begin()
        ending, why = "rewound", "the run goes on from before it, or is measured otherwise"
        try:
            if self.keeper.best_nimg() == evaluation.best_nimg():
                return
        except checkpoint.CheckpointError as error:
            ending, why = "damaged", str(error)
        self._note({ANEW: 1})
        aside = self.keeper.set_best_aside(ending)
        what = "is not there" if aside is None else f"so far is {aside.name} now"
        print(f"best       the best checkpoint {what}: {why}; best and patience begin anew")

    def _note(self, values: dict[str, float], *, alarms: Sequence[str] = ()) -> None:
        """Write a row of metrics.jsonl, and let the measurements know it: they do not depend on the disk."""
        self.monitors.scalars(self.clock.nimg, values, alarms=alarms)
        if self.trainer.evaluation is not None:
            self.trainer.evaluation.note({"nimg": self.clock.nimg, **values})

    def carry_out(self) -> int | None:
        """Train; see Trainer.run."""
        try:
            return self._carried_out()
        except BaseException:
            if self.monitors is not None:
                self.monitors.close_loggers(failed=True)
            raise

    def _carried_out(self) -> int | None:
        self._require_equal_weights()
        try:
            number = self._loop()
        except nonfinite.NonFiniteError as error:
            if self.monitors is None:
                raise
            self.monitors.close(failed=True)
            newest = self.keeper.newest() or "none yet"
            message = f"{error}\nlast good checkpoint: {newest}\nto try in a new run: {self._against_infinity()}"
            raise nonfinite.NonFiniteError(message) from None
        except checkpoint.CheckpointError:
            raise
        except Exception:
            # If there are several processes, the others may be inside a step.
            if self.between_steps and self.clock.nimg and self.trainer.processes.size == 1:
                self._save()
            raise
        if self.monitors is not None:
            self.monitors.close()
        return number or None

    def _against_infinity(self) -> str:
        """Flags of a new run that may help against values that are not finite."""
        flags = ["a lower --lr"]
        if self.trainer.precision.name != "fp32":
            flags.append("--precision fp32")
        if self.config.on_collapse != "rollback":
            flags.append("--on-collapse rollback")
        return " or ".join(flags)

    def _require_equal_weights(self) -> None:
        processes, weights = self.trainer.processes, self.trainer.G.parameters()
        sums = processes.gather(sum(float(p.detach().double().sum()) for p in weights))
        if len(set(sums)) > 1:
            raise RuntimeError(f"the processes must begin with equal weights, but those of G sum up to {sums}")

    def _loop(self) -> int:
        """Steps until the end or a signal. Returns the number of the signal, or 0."""
        clock, number, last = self.clock, 0, self.clock.over
        with console.safe_streams(), console.end_signals() as caught, self._bar() as bar:
            if clock.nimg == 0 or clock.over:
                self._show()
            while not last:
                try:
                    last, number = self._turn(bar, caught)
                except nonfinite.NonFiniteError as error:
                    if self.rollback is None or not self.rollback.left:
                        raise
                    self._go_back(bar, [f"divergence: {' '.join(str(error).split())}"])
                    if last := clock.over:  # a GPU tells it of the last step where the run was about to save
                        self._save()
                        self._show()
        return number

    def _turn(self, bar: "progress.Bar | progress.Lines", caught: list[int]) -> tuple[bool, int]:
        """A step, and what is due after it. Returns whether it is the last one, and the number of a signal, or 0."""
        clock = self.clock
        self._step() if self.ops is not None else self._first_step(bar)
        bar.follow()
        self._tell_plan(bar)
        number = self._signal(bar, caught)
        if self._reading_is_due():
            self._look(bar)
        if clock.over or clock.passed(self.config.metrics_kimg):
            self._report(bar)
        if not number and self._measurement_is_due():
            self._evaluate(bar)
            number = self._signal(bar, caught)
        last = clock.over or bool(number) or self.trainer.verdict is not None
        if last or clock.passed(self.config.checkpoint_kimg):
            self._save()
        if last or clock.passed(self.config.grid_kimg):
            self._show()
        return last, number

    def _bar(self) -> "progress.Bar | progress.Lines":
        from gan_engine.training import progress  # tqdm: steps without a run do without it

        return progress.bar(self.clock, name=self.config.preset, shown=self.trainer.processes.first)

    def _step(self) -> None:
        self.between_steps, started = False, time.perf_counter()
        self.trainer.step()
        self.between_steps = True
        seconds = time.perf_counter() - started
        if self.config.minutes is not None and self.trainer.processes.size > 1:  # all of them end in the same step
            seconds = self.trainer.processes.max(round(1e6 * seconds)) / 1e6
        self.clock.seconds += seconds

    def _first_step(self, bar: "progress.Bar | progress.Lines") -> None:
        """A step, after which the run says what ran its ops, so that a slow run is not a silent one."""
        with backends.watched() as choices:
            self._step()
        self.ops = chosen_ops.summary(choices)
        if self.trainer.processes.first:
            for line in (chosen_ops.line(self.ops), *chosen_ops.refused()):
                bar.write(line, file=sys.stdout)
            record.add_to_last_start(self.trainer.run_dir, {"ops": self.ops})
            self.timing = plan.Timing(self.clock)

    def _tell_plan(self, bar: "progress.Bar | progress.Lines") -> None:
        """Say how long the run will take, once enough steps are timed."""
        if self.timing is None or self.clock.over or (rate := self.timing.rate) is None:
            return
        self.timing = None
        bar.write(plan.line(self.config, self.clock, rate), file=sys.stdout)
        record.add_to_last_start(self.trainer.run_dir, {"images_per_second": float(f"{rate:.3g}")})

    def _report(self, bar: "progress.Bar | progress.Lines") -> None:
        means = self.trainer.read_means()
        shown = {name: f"{mean:.3f}" for name, mean in means.items() if name.startswith("loss/")}
        shown |= {name: f"{weight:.3g}" for name, weight in means.items() if name.startswith("gamma/")}
        bar.set_postfix(shown, refresh=False)
        if self.monitors is not None:
            self.monitors.scalars(self.clock.nimg, means | {"seconds": self.clock.seconds})

    def _signal(self, bar: "progress.Bar | progress.Lines", caught: list[int]) -> int:
        """The number of a signal that any process has caught, or 0. It ends the run."""
        number = self.trainer.processes.max(caught[0] if caught else 0)
        if number and not self.clock.over:
            bar.write(f"{signal.Signals(number).name}: saving; once more aborts", file=sys.stderr)
        return number

    def _reading_is_due(self) -> bool:
        config, passes = self.config, self.clock.passed
        return config.health_kimg is not None and passes(interval(config, self.trainer.processes.size) / 1000)

    def _measurement_is_due(self) -> bool:
        every = self.config.eval_kimg
        return every is not None and (self.clock.over or self.clock.passed(every))

    def _look(self, bar: "progress.Bar | progress.Lines") -> None:
        """Read the run's health, say new alarms, and do what --on-collapse says."""
        trainer = self.trainer
        trainer.heed_stops()
        means = trainer.read_means(keep=True)
        serious, healthy = trainer.processes.from_first(lambda: self._looked(bar, means))
        if self.rollback is not None and healthy:
            self.rollback.keep()
        if serious is None or self.config.on_collapse == "warn":
            return
        if self.rollback is None or not self.rollback.left:
            trainer.verdict = serious if self.rollback is None else f"{serious}; {self.rollback.none_left}"
            return
        self._go_back(bar)

    def _go_back(self, bar: "progress.Bar | progress.Lines", alarms: Sequence[str] = ()) -> None:
        """Go back to the last healthy state, and say so after `alarms`."""
        self.rollback.carry_out()
        self.between_steps = True
        if self.watch is not None:
            self.watch.go_back(self.rollback.nimg)
            self._say(bar, {BACK_TO: self.rollback.nimg / 1000}, [*alarms, self.rollback.line()])

    def _looked(self, bar: "progress.Bar | progress.Lines", means: dict[str, float]) -> tuple[str | None, bool]:
        """The alarm that --on-collapse acts upon, if one begins, and whether the run is healthy."""
        look = self.watch.look(self.clock.nimg, means)
        if note := few_classes(look.values):
            bar.write(f"health     {note}", file=sys.stdout)
        self._say(bar, look.values, [*look.alarms, *(f"{ENDED}{name}" for name in look.ended)])
        return look.serious, look.healthy

    def _say(self, bar: "progress.Bar | progress.Lines", values: dict[str, float], sentences: list[str]) -> None:
        self._note(values, alarms=sentences)
        for sentence in sentences:
            bar.write(f"alarm      {self.clock.nimg / 1000:g} kimg: {sentence}", file=sys.stderr)

    def _evaluate(self, bar: "progress.Bar | progress.Lines") -> None:
        """Measure G_ema, keep the best checkpoint, and let the measurements end the run."""
        trainer = self.trainer
        trainer.heed_stops()
        trainer.agree_on_buffers()
        drawn = trainer.evaluation.draw()
        best, verdict = trainer.processes.from_first(lambda: self._measured(bar, drawn))
        trainer.verdict = trainer.verdict or verdict  # an alarm may have ended the run in this very step
        if best:
            state = trainer.state_dict()
            if self.keeper is not None:
                self.keeper.save_best(state)

    def _measured(self, bar: "progress.Bar | progress.Lines", drawn: Drawn) -> tuple[bool, str | None]:
        """Whether this is the best measurement so far, and why the run ends."""
        evaluation = self.trainer.evaluation
        found = evaluation.numbers(drawn)
        best = evaluation.is_best(found)
        self._note(found | {AGAINST: evaluation.against})
        values = ", ".join(f"{name.removeprefix(PREFIX)} {value:.4g}" for name, value in found.items())
        bar.write(f"measured   {self.clock.nimg / 1000:g} kimg: {values}{', the best so far' if best else ''}")
        return best, evaluation.verdict()

    def _save(self) -> None:
        self.trainer.heed_stops()
        state = self.trainer.state_dict()
        if self.keeper is not None:
            self.keeper.save(self.clock.nimg, state)

    def _show(self) -> None:
        self.trainer.agree_on_buffers()
        if self.monitors is not None:
            with self.monitors.watching("samples"):
                self.monitors.grid(self.clock.nimg, self.trainer.samples(), columns=self.trainer.columns)
