"""The end of a run: its report, and the commands that a person may want next, ready to be pasted."""

import sys
from pathlib import Path

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data.kinds import kind_of
from gan_engine.metrics.measures import measure_of
from gan_engine.runs import report
from gan_engine.system.names import legible, shell_word


def is_over(run_dir: Path, last: Path) -> bool:
    """True if the run is complete: the report, which comes last, is not older than the checkpoint `last`.

    A checkpoint in another directory gets no report, so its run counts as complete.
    """
    page = run_dir / report.NAME
    if last.resolve().parent.parent != run_dir.resolve():
        return True
    return page.is_file() and page.stat().st_mtime_ns >= last.stat().st_mtime_ns


def finish(run_dir: Path, config: Config, nimg: int, seconds: float, *, stopped: bool) -> None:
    """Write the report and print the last lines of a run. If the report fails, a warning says so."""
    pictures = [run_dir / name for name in ("samples", "training.gif", "losses.png")]
    try:
        page = [report.write(run_dir)]
    except Exception as error:  # plots and pictures may raise nearly any error
        print(f"warning: no report: {type(error).__name__}: {error}", file=sys.stderr)
        page = []
    print(f"{nimg / 1000:g} kimg in {seconds:,.0f} s, in {legible(str(run_dir))}")
    for word, paths in (("report", page), ("pictures", pictures)):
        if there := [legible(str(path)) for path in paths if path.exists()]:
            print(f"{word:10} {', '.join(there)}")
    for word, command in commands(run_dir, config, stopped=stopped):
        print(f"{word:10} python -m gan_engine.{command}")


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
    longer = f"--resume={run} --kimg {2 * config.kimg:g}{plugins}"
    if stopped:
        return [("go on", f"train --resume={run}{plugins}"), use]
    if not config.lr_decay:
        return [use, ("go on", f"train {longer}")]
    if _is_measured_alone(config.model):
        return [use, ("measure", f"evaluate {run}{plugins}")]
    return [use, ("show", f"report {run}")]


def _is_measured_alone(model: models.Config) -> bool:
    """True if evaluate can measure such a generator without a flag that names data."""
    declared, kind = models.capabilities(model), kind_of(models.data_kind(model))
    return (
        declared.command != "upscale"
        and not kind.unpaired
        and measure_of(declared.measure, kind.axes).refusal(model) is None
    )
