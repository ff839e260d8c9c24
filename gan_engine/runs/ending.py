"""The end of a run: its report, and the commands that a person may want next, ready to be pasted."""

import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import DataConfig
from gan_engine.data.kinds import kind_of
from gan_engine.metrics.measures import measure_of
from gan_engine.runs import record, report
from gan_engine.runs.sample_grids import sample_grids
from gan_engine.system.names import legible, shell_word


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
        return f"its {config.minutes:g} minutes are over" if self.out_of_time else f"its {config.kimg:g} kimg are done"


def finish(run_dir: Path, config: Config, end: End) -> None:
    """Record the end, write the report and print the last lines. If the report fails, a warning says so."""
    reason, kimg = end.reason(config), end.nimg / 1000
    entry = {"reason": reason, "kimg": kimg, "seconds": round(end.seconds, 3)}
    record.add_to_last_start(run_dir, {"end": entry})
    try:
        page = [report.write(run_dir)]
    except Exception as error:  # plots and pictures may raise nearly any error
        print(f"warning: no report: {type(error).__name__}: {error}", file=sys.stderr)
        page = []
    print(f"end        {end.nimg:,} images in {end.seconds:,.0f} s, in {legible(str(run_dir))}: {reason}")
    grids = [path for _, path in sample_grids(run_dir)[-1:]]
    more = [path for path in (run_dir / "training.gif", run_dir / "losses.png") if path.exists()]
    for word, paths, what in (
        ("pictures", grids, "is the newest grid"),
        ("", more, "show how it came about"),
        ("report", page, "has all of it on one page, for a browser"),
    ):
        if paths:
            print(f"{word:10} {', '.join(legible(str(path)) for path in paths)} {what}")
    following = commands(run_dir, config, stopped=end.stopped_by is not None)
    folder = " (PICTURES is a folder of your own pictures)" if any("PICTURES" in each for _, each in following) else ""
    print(f"What to try next{folder}:")
    for word, command in following:
        print(f"{word:10} {python()} -m gan_engine.{command}")


def python() -> str:
    """The word that starts this Python in a shell: its path, unless "python" means this Python already.

    Links are not followed: the Python of an environment may be a link to another Python.
    """
    here, found = os.path.abspath(sys.executable), shutil.which("python")
    if found and os.path.abspath(found) == here:
        return "python"
    return shell_word(os.path.relpath(here) if Path(here).is_relative_to(Path.cwd()) else here)


def commands(run_dir: Path, config: Config, *, stopped: bool) -> list[tuple[str, str]]:
    """The commands for the next steps with a run, each with a word for what it does.

    A run that was `stopped` has the command to go on first. PICTURES stands for a picture or a folder of pictures.
    """
    run, declared = shell_word(run_dir), models.capabilities(config.model)
    plugins = "".join(f" --plugin={shell_word(name)}" for name in config.plugin)
    word, arguments = {
        "generate": ("draw", f"{run} --out={shell_word(run_dir / 'generated.png')}"),
        "translate": ("translate", f"PICTURES {shell_word(run_dir / 'translated')} --checkpoint={run}"),
        "upscale": ("enlarge", f"PICTURES {shell_word(run_dir / 'enlarged')} --checkpoint={run}"),
    }[declared.command]
    use = (word, f"{declared.command} {arguments}{plugins}")
    if stopped:
        return [("go on", f"train --resume={run}{plugins}"), use]
    if not config.lr_decay:
        longer = f"--kimg {2 * config.kimg:g}" if config.minutes is None else f"--minutes {5 * config.minutes:g}"
        return [use, ("go on", f"train --resume={run} {longer}{plugins}"), *_own_pictures(config)]
    if _is_measured_alone(config.model):
        return [use, ("measure", f"evaluate {run}{plugins}")]
    return [use, ("show", f"report {run}")]


def _own_pictures(config: Config) -> list[tuple[str, str]]:
    """The command for pictures of one's own, after a run on the embedded ones."""
    if config.data != DataConfig.source:
        return []
    return [("your own", "train dcgan --data=PICTURES --resolution=64 --minutes=20")]


def _is_measured_alone(model: models.Config) -> bool:
    """True if evaluate can measure such a generator without a flag that names data."""
    declared, kind = models.capabilities(model), kind_of(models.data_kind(model))
    return (
        declared.command != "upscale"
        and not kind.unpaired
        and measure_of(declared.measure, kind.axes).refusal(model) is None
    )
