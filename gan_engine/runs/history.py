"""The measurements of a run: the intact rows of metrics.jsonl."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

PREFIX = "eval/"  # of the numbers of --eval-kimg
ANEW = "best_begins_anew"  # in a row of metrics.jsonl, after which best and patience count
ENDED = "ended: "  # begins a sentence among the alarms of a row: the alarm of this name stands no longer
BACK_TO = "health/rolled_back_to"  # in kimg, in the rows of metrics.jsonl; no alarm stands after it
BACK = "rolled back to"  # begins the sentence of a rollback
AGAINST = "compared_with"  # in the rows of metrics.jsonl: a number for the images that were compared with


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl: `nimg`, `kimg` and numbers by name, None for a number that was not finite.

    A row may have `alarms`, a list of sentences. Damaged lines and values that are no numbers are left out.
    """
    path = Path(run_dir) / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ()
    return [row for row in map(_row, lines) if row is not None]


def measurements(rows: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The numbers of --eval-kimg by name, each with the images shown: all that compare with the newest one.

    A measurement against other images does not, nor one from before best and patience began anew.
    """
    begun = max((i for i, row in enumerate(rows) if ANEW in row), default=0)
    measured = [row for row in rows[begun:] if any(name.startswith(PREFIX) for name in row)]
    found: dict[str, list[tuple[int, float]]] = {}
    for row in measured:
        if row.get(AGAINST) != measured[-1].get(AGAINST):
            continue
        for name, value in row.items():
            if name.startswith(PREFIX) and value is not None:
                found.setdefault(name.removeprefix(PREFIX), []).append((row["nimg"], value))
    return found


class Alarm(NamedTuple):
    """An alarm of a run: its sentence, after how many images it began, and after how many it ended.

    Attributes:
        end: None if the alarm stood in the last row.
        undone: a rollback has ended it. True for the sentence of a rollback too.
    """

    nimg: int
    sentence: str
    end: int | None = None
    undone: bool = False

    @property
    def name(self) -> str:
        return self.sentence.partition(":")[0]


def alarms(rows: Sequence[dict[str, Any]]) -> list[Alarm]:
    """The alarms of a run. A rollback ends all that stand, and an alarm that begins again has ended before."""
    found: list[Alarm] = []
    for row in rows:
        nimg, back = row["nimg"], BACK_TO in row
        for sentence in row.get("alarms", ()):
            name = sentence.removeprefix(ENDED).partition(":")[0]
            for i, alarm in enumerate(found):
                if alarm.end is None and (back or alarm.name == name):
                    found[i] = alarm._replace(end=nimg, undone=back)
            if not sentence.startswith(ENDED):
                found.append(Alarm(nimg, sentence, nimg if back else None, undone=back))
    return found


def standing(rows: Sequence[dict[str, Any]]) -> list[Alarm]:
    """The alarms that stood in the last row."""
    return [alarm for alarm in alarms(rows) if alarm.end is None]


def readings(rows: Sequence[dict[str, Any]]) -> int:
    """How often the health of the run was read."""
    return sum(any(name.startswith("health/") and name != BACK_TO for name in row) for row in rows)


def few_classes(row: dict[str, Any]) -> str | None:
    """A sentence if the alarm `missing class` judges none of the classes of the data, or few; None for other rows.

    The first reading of each start of a run says how many classes there are, and how many are judged.
    """
    judged, num = row.get("health/classes_judged"), row.get("health/classes_of_data")
    if judged is None or num is None or judged >= num / 2:
        return None
    which = f"only {judged:,.0f}" if judged else "none"
    return (
        f"the alarm of a missing class judges {which} of the {num:,.0f} classes: it leaves out classes that overlap "
        "with others, and classes of which a few readings hold too few images"
    )


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("nimg")) is not int or not 0 <= row["nimg"] < 2**63:
        return None
    values = {name: value for name, value in row.items() if value is None or type(value) in (int, float)}
    finite = {name: value for name, value in values.items() if value is None or abs(value) <= sys.float_info.max}
    said = row.get("alarms")
    alarms = {"alarms": said} if isinstance(said, list) and all(isinstance(line, str) for line in said) else {}
    return finite | {"kimg": row["nimg"] / 1000} | alarms
