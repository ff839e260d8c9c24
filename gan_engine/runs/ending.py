"""The end of a run: its report, and what a person may want next."""

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data.kinds import MADE, kind_of
from gan_engine.runs import record, report
from gan_engine.runs.commands import commands, python
from gan_engine.runs.history import BACK, alarms, read_metrics, readings, standing
from gan_engine.runs.sample_grids import sample_grids
from gan_engine.system.names import counted, legible, shell_word


def is_over(run_dir: Path, last: Path) -> bool:
    """True if the run is complete: the report, which comes last, is not older than the checkpoint `last`.

    A checkpoint in another directory gets no report, so its run counts as complete.
    """
    page = run_dir / report.NAME
    if last.resolve().parent.parent != run_dir.resolve():
        return True
    return page.is_file() and page.stat().st_mtime_ns >= last.stat().st_mtime_ns


@dataclass(frozen=True)
class End:
    """Where a run ended.

    Attributes:
        nimg: real images shown.
        seconds: spent in steps, in all starts of the run.
        stopped_by: the signal that ended the run early.
        out_of_time: config.minutes are over.
        verdict: why measurements ended the run early.
    """

    nimg: int
    seconds: float
    stopped_by: int | None = None
    out_of_time: bool = False
    verdict: str | None = None

    def reason(self, config: Config) -> str:
        """Why the run ended, in words that follow a colon."""
        if self.stopped_by is not None:
            return f"stopped by {signal.Signals(self.stopped_by).name}"
        if self.verdict is not None:
            return self.verdict
        minutes = "minute is" if config.minutes == 1 else "minutes are"
        return f"its {config.minutes:g} {minutes} over" if self.out_of_time else f"its {config.kimg:g} kimg are done"


def finish(run_dir: Path, config: Config, end: End) -> None:
    """Record the end, write the report and print the last lines.

    If the report fails, a warning says so: the run has reached its end, and `report` can write the page later.
    """
    reason, kimg = end.reason(config), end.nimg / 1000
    early = end.verdict is not None and end.stopped_by is None
    entry = {"reason": reason, "kimg": kimg, "seconds": round(end.seconds, 3)} | ({"early": True} if early else {})
    record.add_to_last_start(run_dir, {"end": entry})
    try:
        page = [report.write(run_dir)]
    except Exception as error:  # plots and pictures may raise nearly any error
        reason = error if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        later = f"{python()} -m gan_engine.report {shell_word(run_dir)}"
        print(f"warning: no report: {reason}; this writes it later: {later}", file=sys.stderr)
        page = []
    made = MADE[kind_of(models.data_kind(config.model)).axes]
    seconds = f"{end.seconds:,.0f}" if end.seconds >= 10 else f"{end.seconds:.2g}"
    print(f"end        {end.nimg:,} {made} in {seconds} s, in {legible(str(run_dir))}: {reason}")
    grids = [path for _, path in sample_grids(run_dir)[-1:]]
    more = [path for path in (run_dir / "training.gif", run_dir / "losses.png") if path.exists()]
    for word, paths, what in (
        ("pictures", grids, "is the newest grid"),
        ("", more, "show how it came about"),
        ("report", page, "has all of it on one page, for a browser"),
    ):
        if paths:
            print(f"{word:10} {', '.join(legible(str(path)) for path in paths)} {what}")
    if health := _health(read_metrics(run_dir)):
        print(f"health     {health}")
    following = commands(run_dir, config, stopped=end.stopped_by is not None, early=early, seconds=end.seconds)
    folder = " (PICTURES is a folder of your own pictures)" if any("PICTURES" in each for _, each in following) else ""
    print(f"What to try next{folder}:")
    for word, command in following:
        print(f"{word:10} {python()} -m gan_engine.{command}")


def _health(rows: list[dict[str, Any]]) -> str | None:
    """What the readings of a run say of its health, in a line. None without a reading."""
    read = readings(rows)
    if names := [alarm.name for alarm in standing(rows)]:
        stood = f"{counted(len(names), 'alarm')} stood in the last reading: {', '.join(names)}"
        return f"{stood}; the report says what to try in a new run"
    if earlier := sum(not alarm.sentence.startswith(BACK) for alarm in alarms(rows)):
        return f"no alarm stood in the last of {counted(read, 'reading')}; the report has {earlier:,} from before"
    if read == 1:
        return "1 reading, too few for an alarm"
    return f"no alarm in {read:,} readings" if read else None
