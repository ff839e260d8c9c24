"""The commands that a person may want next with a run, ready to be pasted."""

import os
import shutil
import sys
from pathlib import Path

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import DataConfig
from gan_engine.data.kinds import kind_of
from gan_engine.metrics.measures import measure_of
from gan_engine.runs.history import read_metrics, standing
from gan_engine.system import checkpoint
from gan_engine.system.names import shell_word


def python() -> str:
    """The word that starts this Python in a shell: its path, unless "python" means this Python already.

    Links are not followed: the Python of an environment may be a link to another Python.
    """
    here, found = os.path.abspath(sys.executable), shutil.which("python")
    if found and os.path.abspath(found) == here:
        return "python"
    return shell_word(os.path.relpath(here) if Path(here).is_relative_to(Path.cwd()) else here)


def commands(
    run_dir: Path, config: Config, *, stopped: bool, early: bool = False, seconds: float = 0
) -> list[tuple[str, str]]:
    """The commands for the next steps with a run, each with a word for what it does.

    A run that was `stopped` has the command to go on first. A run has none if measurements or an alarm have ended it
    `early`, or if an alarm stood in its last reading: what alarms advise is for a new run. PICTURES stands for a
    picture or a folder of pictures. Pictures are drawn from best.pt if it is there. `seconds` were spent in steps.
    """
    run, declared = shell_word(run_dir), models.capabilities(config.model)
    plugins = "".join(f" --plugin={shell_word(name)}" for name in config.plugin)
    word, arguments = {
        "generate": ("draw", f"{run} --out={shell_word(run_dir / 'generated.png')}"),
        "translate": ("translate", f"PICTURES {shell_word(run_dir / 'translated')} --checkpoint={run}"),
        "upscale": ("enlarge", f"PICTURES {shell_word(run_dir / 'enlarged')} --checkpoint={run}"),
    }[declared.command]
    best = " --best" if (run_dir / checkpoint.BEST).is_file() else ""
    use = (word, f"{declared.command} {arguments}{best}{plugins}")
    if stopped:
        return [("go on", f"train --resume={run}{plugins}"), use]
    if early or standing(read_metrics(run_dir)):
        return [use, ("show", f"report {run}")]
    if not config.lr_decay:
        longer = f"--kimg {2 * config.kimg:g}" if config.minutes is None else f"--minutes {5 * _had(config, seconds):g}"
        return [use, ("go on", f"train --resume={run} {longer}{plugins}"), *_own_pictures(config)]
    if _is_measured_alone(config.model):
        return [use, ("measure", f"evaluate {run}{plugins}")]
    return [use, ("show", f"report {run}")]


def _had(config: Config, seconds: float) -> float:
    """The minutes of a run that has trained for `seconds`: a last step may take longer than all of --minutes."""
    return config.minutes if seconds < 2 * 60 * config.minutes else float(f"{seconds / 60:.2g}")


def look_for_copies(run_dir: Path, config: Config) -> list[tuple[str, str]]:
    """The command that looks for copies, as in `commands`; none for a G that cannot be asked."""
    declared, kind = models.capabilities(config.model), kind_of(models.data_kind(config.model))
    if not declared.from_noise or kind.axes != 2:
        return []
    plugins = "".join(f" --plugin={shell_word(name)}" for name in config.plugin)
    return [("copies?", f"report {shell_word(run_dir)} --copies{plugins}")]


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
