"""Several runs side by side: groups of runs that differ by the seed alone, and their measurements."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_engine.metrics import scores
from gan_engine.runs import record
from gan_engine.runs.history import measurements, read_metrics
from gan_engine.saved_config import FREE_ON_RESUME, LENGTHS
from gan_engine.system.names import legible

# Fields that do not make two runs different: they change nothing about what is learnt, or name the run.
_CHANGING = {*LENGTHS, "data", "on_collapse", "rollbacks", "rollback_lr"}
_SAME = (FREE_ON_RESUME - _CHANGING) | {"seed", "init_from", "outside", "channels_of_data"}


@dataclass(frozen=True)
class Curve:
    """One number of a run over its training. All arrays are [points], float64."""

    kimg: np.ndarray
    seconds: np.ndarray
    """Time of training, without measurements, pictures and checkpoints."""
    value: np.ndarray

    def over(self, axis: str) -> np.ndarray:
        """The axis "kimg" or "seconds"."""
        return self.kimg if axis == "kimg" else self.seconds


@dataclass(frozen=True)
class Run:
    """A run that was measured while it trained."""

    path: Path
    seed: int
    settings: dict[str, Any]
    """The configuration by name, "model.width" and so on, without the fields that make no difference."""
    compared_with: str
    """The images that the measurements compare with."""
    curves: dict[str, Curve]


@dataclass(frozen=True)
class Group:
    """Runs that differ by the seed alone."""

    label: str
    runs: list[Run]

    def over(self, name: str, axis: str) -> tuple[np.ndarray, np.ndarray]:
        """Points [P] of the axis that all runs have reached, and the number of each run there, [runs, P].

        Numbers between two measurements of a run lie on the straight line between them.
        """
        curves = [run.curves[name] for run in self.runs]
        low, high = (choose(c.over(axis)[i] for c in curves) for choose, i in ((max, 0), (min, -1)))
        points = np.unique(np.concatenate([c.over(axis) for c in curves]))
        points = points[(points >= low) & (points <= high)]
        return points, np.array([np.interp(points, c.over(axis), c.value) for c in curves])


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, the names of the numbers that all of them have, and sentences about the rest."""

    groups: list[Group]
    names: list[str]
    compared_with: str
    notes: list[str]


def compare(run_dirs: Sequence[Path]) -> Comparison:
    """Read the runs and group them. A note names each run that is left out: no run, or one without measurements.

    Raises:
        ValueError: no run is left, a run is named twice, runs are measured against different images, or runs have no
            number in common.
    """
    real = [path.resolve() for path in run_dirs]
    for path in run_dirs:
        if real.count(path.resolve()) > 1:
            raise ValueError(f"runs: want each run once, got {path} several times")
    runs, left_out = [], []
    for path in run_dirs:
        try:
            runs.append(read(path))
        except (ValueError, OSError) as error:
            left_out.append(str(error))
    if not runs:
        raise ValueError("; ".join(left_out))
    _require_same_images(runs)
    names, notes = _shared_names(runs)
    notes += [f"left out: {reason}" for reason in left_out]
    groups: list[list[Run]] = []
    for run in runs:
        alike = next((group for group in groups if group[0].settings == run.settings), None)
        groups.append([run]) if alike is None else alike.append(run)
    for group in groups:
        seeds = [run.seed for run in group]
        if len(set(seeds)) < len(seeds):
            notes.append(f"{', '.join(str(run.path) for run in group)}: some have one seed and differ in nothing")
    labels = _labels([group[0].settings for group in groups])
    made = [Group(label, group) for label, group in zip(labels, groups, strict=True)]
    return Comparison(made, names, runs[0].compared_with, notes)


def read(run_dir: Path) -> Run:
    """A run with the curves of its measurements.

    Raises:
        FileNotFoundError: `run_dir` is no run.
        ValueError: the run has no measurements, or its files are damaged.
    """
    written = record.read(run_dir)
    config, starts = written["config"], written["starts"]
    curves = _curves(run_dir)
    if not curves:
        raise ValueError(f"{run_dir}: want measurements, which train --eval-kimg makes, and there are none")
    images = (
        config.get("eval_data") or (starts and str(starts[-1].get("data", "")).split(", ")[0]) or config.get("data")
    )
    flat = {name: value for name, value in _flat(config).items() if name.split(".")[0] not in _SAME}
    return Run(run_dir, config.get("seed", 0), flat, str(images), curves)


def _curves(run_dir: Path) -> dict[str, Curve]:
    rows = read_metrics(run_dir)
    timed = [(row["kimg"], row["seconds"]) for row in rows if row.get("seconds") is not None]
    clock = np.array([(0.0, 0.0), *sorted(set(timed))])
    curves = {}
    for name, points in measurements(rows).items():
        values = {nimg / 1000: value for nimg, value in points}
        kimg = np.array(sorted(values))
        curves[name] = Curve(kimg, np.interp(kimg, clock[:, 0], clock[:, 1]), np.array([values[k] for k in kimg]))
    return curves


def _require_same_images(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.compared_with != first.compared_with:
            raise ValueError(
                f"runs: want runs that are measured against the same images, got {legible(first.compared_with)} for "
                f"{first.path} and {legible(run.compared_with)} for {run.path}"
            )


def _shared_names(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """The numbers that all runs have, and sentences about other numbers. The extractor and N are parts of a name."""
    names = [name for name in runs[0].curves if all(name in run.curves for run in runs)]
    if not names:
        other = next(run for run in runs if not runs[0].curves.keys() & run.curves.keys() or run is runs[-1])
        raise ValueError(
            f"runs: want a number that all runs have, with the same extractor and N, got {', '.join(runs[0].curves)} "
            f"in {runs[0].path} and {', '.join(other.curves)} in {other.path}"
        )
    notes = []
    for name in dict.fromkeys(name for run in runs for name in run.curves):
        if name not in names:
            having = sum(name in run.curves for run in runs)
            notes.append(f"{name}: not compared, since {having} of {len(runs)} runs have it")
    return names, notes


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _labels(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The fields in which groups differ, as text: 'loss relativistic, r1_gamma 1'.

    If families differ, the fields that only some of them have are left out.
    """
    shared = [name for name in settings[0] if all(name in each for each in settings)]
    differing = [name for name in shared if any(each[name] != settings[0][name] for each in settings)]
    if not differing:
        return [str(each.get("preset", "runs")) for each in settings]
    return [", ".join(f"{name.removeprefix('model.')} {_text(each[name])}" for name in differing) for each in settings]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def final_and_best(group: Group, name: str) -> dict[str, tuple[float, float, float]]:
    """{"final" or "best": (mean, least, largest)} of a number over the runs of a group"""
    best: Callable[..., Any] = np.max if scores.more_is_better(name) else np.min
    last = [run.curves[name].value[-1] for run in group.runs]
    bests = [best(run.curves[name].value) for run in group.runs]
    return {
        what: (float(np.mean(v)), float(np.min(v)), float(np.max(v))) for what, v in (("final", last), ("best", bests))
    }


def rows(comparison: Comparison) -> list[dict[str, str]]:
    """The table: one row for each group, the best final value of the first number first."""
    first = comparison.names[0]
    sign = -1 if scores.more_is_better(first) else 1
    ordered = sorted(comparison.groups, key=lambda group: sign * final_and_best(group, first)["final"][0])
    found = []
    for group in ordered:
        row = {"runs": group.label, "seeds": str(len(group.runs))}
        ends = [run.curves[first] for run in group.runs]
        row["kimg"] = _spread(*_ends([c.kimg[-1] for c in ends]))
        row["seconds"] = _spread(*_ends([c.seconds[-1] for c in ends]))
        for name in comparison.names:
            for what, values in final_and_best(group, name).items():
                row[f"{name}, {what}"] = _spread(*values)
        found.append(row)
    return found


def _ends(values: Sequence[float]) -> tuple[float, float, float]:
    return float(np.mean(values)), min(values), max(values)


def _spread(mean: float, low: float, high: float) -> str:
    """'12.3 (11.8 to 13)': the mean, and the least and the largest value if they differ"""
    if math.isclose(low, high, rel_tol=1e-9):
        return f"{mean:.4g}"
    return f"{mean:.4g} ({low:.4g} to {high:.4g})"
