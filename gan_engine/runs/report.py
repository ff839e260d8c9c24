"""A run on one page: report.html in the run directory, which needs neither a network nor other files."""

import html
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_engine.metrics.scores import more_is_better
from gan_engine.runs import copies, record
from gan_engine.runs.commands import commands, look_for_copies
from gan_engine.runs.directory import holds_run
from gan_engine.runs.history import BACK, Alarm, alarms, few_classes, measurements, read_metrics, readings
from gan_engine.runs.loss_plot import losses_png
from gan_engine.runs.page import PAGE, embedded
from gan_engine.runs.sample_grids import CLASSES, sample_grids, spread
from gan_engine.saved_config import from_dict
from gan_engine.system.checkpoint import CheckpointError, newest_name
from gan_engine.system.names import counted, legible
from gan_engine.system.whole_file import replacing

NAME = "report.html"
_GRIDS = 6  # grids of samples on the page, evenly spaced from the first to the last

_SPREAD = 5  # evaluations whose spread is shown: more would mix a young G with an old one


def write(run_dir: str | Path) -> Path:
    """Write report.html into `run_dir` from the files that are there so far, and return its path.

    Raises:
        FileNotFoundError: there is no run in `run_dir`.
        ValueError: its run.json is damaged.
        OSError: the file cannot be written.
    """
    text, path = page(run_dir), Path(run_dir) / NAME
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def page(run_dir: str | Path) -> str:
    """The page of the files that are there so far. Raises as `write` does."""
    run_dir = Path(run_dir)
    run = record.read(run_dir)
    title = legible(run_dir.resolve().name)
    try:
        return PAGE.format(title=html.escape(title), body=_body(run_dir, run))
    except RecursionError:
        raise ValueError(f"{run_dir / record.NAME}: damaged: nested too deeply") from None


def _body(run_dir: Path, run: dict[str, Any]) -> str:
    parts = [f"<p>{html.escape(legible(_state(run)))}</p>", *_started(run)]
    grids = spread(sample_grids(run_dir), _GRIDS)
    if grids:
        parts.append(f"<h2>Samples</h2>{_figure(grids[-1][1], _at(grids[-1][0]), _classes(run))}")
    rows = read_metrics(run_dir)
    parts += _alarms(rows)
    parts += _evaluations(rows)
    if rows:
        last = [row for row in rows if row["nimg"] == rows[-1]["nimg"]]  # of losses, and of --eval-kimg
        numbers = {name: value for row in last for name, value in _numbers(row).items()}
        parts.append(f"<h2>Measurements at {rows[-1]['kimg']:,g} kimg</h2>{_table(numbers)}")
    parts += _plot(run_dir)
    found = copies.read(run_dir)
    is_old = found is not None and newest_name(run_dir) not in (None, found["made_of"]["checkpoint"])
    parts += _copies(run_dir, found, is_old=is_old)
    if len(grids) > 1:
        figures = "".join(_figure(path, _at(nimg)) for nimg, path in grids)
        parts.append(f'<h2>On the way</h2><div class="grids">{figures}</div>')
    parts += _following(run_dir, run, look=found is None or is_old)
    if run["starts"]:
        parts.append(f"<h2>Starts</h2>{''.join(_table(_flat(start)) for start in run['starts'])}")
    parts.append(f"<h2>Configuration</h2>{_table(_flat(run['config']))}")
    return "\n".join(parts)


def _state(run: dict[str, Any]) -> str:
    """How the run stands: its end with the reason, or that there is none."""
    if (end := record.end(run)) is None:
        return "No end of this run is recorded: the run goes on, or it was killed."
    return f"The run ended at {end['kimg']:,.1f} kimg after {end['seconds']:,.0f} s of training: {end['reason']}."


def _started(run: dict[str, Any]) -> list[str]:
    """The command, the data and the device of the last start."""
    if not run["starts"]:
        return []
    start = run["starts"][-1]
    arguments = start.get("arguments")
    shown = {name: str(start[name]) for name in ("data", "device", "precision", "date") if name in start}
    if isinstance(arguments, list):
        shown = {"command": shlex.join(["python", "-m", "gan_engine.train", *map(str, arguments)])} | shown
    return [_table(shown)] if shown else []


def _classes(run: dict[str, Any]) -> list[str]:
    """The names of the rows of a grid; [] unless the networks of the run see classes with names."""
    names = run["starts"][-1].get("classes") if run["starts"] else None
    return [legible(str(name), most=30) for name in names[:CLASSES]] if isinstance(names, list) else []


def _evaluations(rows: list[dict[str, Any]]) -> list[str]:
    """The numbers of --eval-kimg: the newest, the best, and the spread of the last ones."""
    series = measurements(rows)
    if not series:
        return []
    lines = []
    for name, measured in series.items():
        best = (max if more_is_better(name) else min)(reversed(measured), key=lambda each: each[1])  # as best.pt
        last = [value for _, value in measured[-_SPREAD:]]
        spread_of = f"{sum(last) / len(last):,.4g} ({min(last):,.4g} to {max(last):,.4g})"
        cells = (f"{measured[-1][1]:,.4g}", f"{best[1]:,.4g} at {_at(best[0])}", spread_of)
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        lines.append(f"<tr><th>{html.escape(legible(name))}</th>{numbers}</tr>")
    last_few = min(_SPREAD, max(map(len, series.values())))
    head = f"<tr><th></th><th>newest</th><th>best</th><th>mean of the last {last_few} (least to most)</th></tr>"
    return [f"<h2>Evaluation</h2><table>{head}{''.join(lines)}</table>"]


def _following(run_dir: Path, run: dict[str, Any], *, look: bool) -> list[str]:
    """How to go on: the commands that the end of a run prints. A run without a checkpoint has none.

    look: list the command that looks for copies.
    """
    if not holds_run(run_dir):
        return []
    try:
        config = from_dict(run["config"], run_dir / record.NAME)
    except CheckpointError as error:
        return [f"<h2>How to go on</h2><p>{html.escape(legible(str(error), most=500))}</p>"]
    end = record.end(run)
    stopped = end is None or end["reason"].startswith("stopped")
    early, seconds = (False, 0) if end is None else (end.get("early") is True, end.get("seconds", 0))
    found = commands(run_dir, config, stopped=stopped, early=early, seconds=seconds)
    if end is None:  # a run that still goes on keeps others out of its directory
        word, command = found[0]
        found[0] = f"{word}, if it was killed", command
    if look:
        found += look_for_copies(run_dir, config)
    width = max(10, *(len(word) for word, _ in found))
    listed = "\n".join(f"{word:{width}} python -m gan_engine.{command}" for word, command in found)
    return [f"<h2>How to go on</h2><pre>{html.escape(listed)}</pre>"]


def _alarms(rows: list[dict[str, Any]]) -> list[str]:
    """The sentences of all alarms with their times; that there were none, for a run whose health was read."""
    said = "".join(
        f"<li>{_at(alarm.nimg)}: {html.escape(legible(alarm.sentence))} <b>{_until(alarm)}</b></li>"
        for alarm in alarms(rows)
    )
    notes = [note for row in rows if (note := few_classes(row))][-1:]  # one of each start
    note = "".join(f"<p>{html.escape(note[0].upper() + note[1:])}.</p>" for note in notes)
    if said:
        return [f"<h2>Alarms</h2><ul>{said}</ul>{note}"]
    read = readings(rows)
    return [f"<h2>Alarms</h2><p>none in {counted(read, 'reading')}</p>{note}"] if read else []


def _until(alarm: Alarm) -> str:
    if alarm.end is None:
        return "This alarm stood in the last reading."
    if alarm.undone:
        return "" if alarm.sentence.startswith(BACK) else f"Undone by the rollback at {_at(alarm.end)}."
    return f"Ended at {_at(alarm.end)}."


def _plot(run_dir: Path) -> list[str]:
    try:
        plot = losses_png(run_dir)
    except Exception as error:  # the rest of the page does not depend on it
        warnings.warn(f"no plot of the losses: {type(error).__name__}: {error}", stacklevel=2)
        return []
    if plot is None:
        return []
    return [f'<h2>Losses</h2><img class="plot" alt="losses over images shown" src="{embedded(plot)}">']


def _copies(run_dir: Path, found: dict[str, Any] | None, *, is_old: bool) -> list[str]:
    """Whether samples look like copies, and the pairs that lie nearest, if `report --copies` has looked.

    is_old: the search is not of the newest checkpoint, which the caption says.
    """
    if found is None:
        return []
    said = " ".join(html.escape(legible(line, most=500)) for line in found["sentences"])
    picture = embedded((run_dir / copies.PICTURE).read_bytes())
    caption = f"{_at(found['nimg'])}: two samples in each row, and behind each its three nearest training images"
    caption += "; the samples that lie nearest come first"
    if is_old:
        of = html.escape(legible(found["made_of"]["checkpoint"]))
        caption += f"; the search is of the checkpoint {of}, which is not the newest one"
    figure = (
        f'<figure><img alt="samples and training images" src="{picture}"><figcaption>{caption}</figcaption></figure>'
    )
    return [f"<h2>Does it copy?</h2><p>{said}</p>{figure}"]


def _at(nimg: int) -> str:
    return f"{nimg / 1000:,.1f} kimg"


def _figure(path: Path, caption: str, rows: Sequence[str] = ()) -> str:
    """A grid of samples, with the names of its rows on the left."""
    picture = f'<img alt="samples at {caption}" src="{embedded(path.read_bytes())}">'
    if rows:
        listed = "".join(f"<li>{html.escape(name)}</li>" for name in rows)
        picture = f'<div class="rows"><ul>{listed}</ul><div>{picture}</div></div>'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _numbers(row: dict[str, Any]) -> dict[str, str]:
    return {
        name: "not finite" if value is None else f"{value:,.4g}"
        for name, value in row.items()
        if "/" in name or name == "seconds"
    }


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat


def _table(values: dict[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(legible(name))}</th><td{_number(value)}>{html.escape(legible(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<table>{rows}</table>"


def _number(value: str) -> str:
    return ' class="number"' if value[:1].isdigit() or value[:2].lstrip("-")[:1].isdigit() else ""
