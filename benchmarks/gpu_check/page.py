"""The results of the check as a Markdown page."""

from typing import Any

from benchmarks.gpu_check.stages import AT_CUDA

Row = dict[str, Any]
ENDED_BADLY = ("failed", "out of time")  # an interrupted stage ends in the traceback of the signal


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def report(results: dict[str, Any]) -> str:
    device, versions = results["device"], results["versions"]
    lines = [
        f"# {device['name']}, {results['date']}",
        "",
        ", ".join(f"{name} {value}" for name, value in versions.items() if value),
        "",
        ", ".join(f"{name}: {value}" for name, value in device.items() if name != "name" and value)
        + f"; commit {results['commit'] or 'unknown'}; {results['seconds']:.0f} s in total",
        "",
    ]
    stage_rows = [
        {
            "stage": stage["name"],
            "result": stage["status"],
            "seconds": stage["seconds"],
            "tests": ", ".join(f"{count} {outcome}" for outcome, count in stage["tests"].items()),
        }
        for stage in results["stages"]
    ]
    if stage_rows:
        lines += [table(stage_rows), ""]
    for stage in results["stages"]:
        incomplete = _by_outcome(stage.get("cases", []))
        if incomplete:
            lines += [f"{stage['name']}:", ""]
            lines += [f"* {_counted(how, names)}" for how, names in incomplete.items()] + [""]
        elif output := stage["status"] in ENDED_BADLY and (stage["failures"][:20] or stage["tail"][-10:]):
            lines += [f"{stage['name']}: {stage['status']}", "", *(f"    {line}" for line in output), ""]
    for title, of_steps in (("Training steps", True), ("Operators", False)):
        chosen = [row for row in results["rows"] if (row["op"] == "training step") == of_steps]
        if chosen:
            lines += [f"## {title}", "", table([_cells(row, chosen) for row in chosen]), ""]
    return "\n".join(lines)


def _by_outcome(cases: list[str]) -> dict[str, list[str]]:
    """{outcome: names} of the cases that are not done"""
    found: dict[str, list[str]] = {}
    for case in cases:
        name, _, how = case.partition(": ")
        if not how.startswith("done"):
            found.setdefault(how, []).append(name)
    return found


def _counted(how: str, names: list[str]) -> str:
    """The number of cases that ended so, and their names; a dry run stops all of them, and the .json names them."""
    count = f"{len(names)} case{'s' * (len(names) != 1)}"
    if how.startswith(AT_CUDA):
        return f"{count} {how.replace(' its ', ' their ') if len(names) != 1 else how}"
    return f"{count} {how}: {'; '.join(names)}"


def _cells(row: Row, rows: list[Row]) -> Row:
    """What a table of `rows` shows of one: the case, its time, its ratios to the other forms, and what was counted."""
    same = [other for other in rows if all(other[key] == row[key] for key in ("op", "sample", "dtype", "mode"))]

    def than(role: str) -> str:
        """How many times faster than the fastest form of that role."""
        times = [other["ms"] for other in same if other["role"] == role and other.get("ms")]
        return f"{min(times) / row['ms']:.2f}" if times and row.get("ms") else ""

    shown = {"op": row["op"], "sample": row["sample"], "dtype": row["dtype"], "what": row["mode"], "form": row["peer"]}
    shown |= {"ms": f"{row['ms']:g}" if row.get("ms") else row["error"] or ""}
    shown |= {"than eager": than("eager"), "than compile": than("compile")}
    names = ("peak_mib", "img_per_s", "launches", "kernels", "busy", "gb_s", "of_copy")
    counted = [name for name in names if any(other.get(name) is not None for other in rows)]
    return shown | {name: "" if row.get(name) is None else f"{row[name]:g}" for name in counted}
