"""Write the tables of docs/performance.md that show instruction sets beside each other: `python -m benchmarks.page`.

A table stands between two marks, and its numbers come from the rows in benchmarks/results/ that name their set:

    <!-- sets: fp32, 2 threads -->
    <!-- end of sets -->
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import rows
from benchmarks.summary import Row

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
MARKS = re.compile(r"(<!-- sets: (\w+), (\d+) threads? -->\n).*?(<!-- end of sets -->)", re.DOTALL)
MODES = ("forward", "forward+backward", "second order", "whole step", "step")
RATIOS = {"vs_eager": "than eager", "vs_compile": "than torch.compile"}
NOTHING = "Not measured yet.\n"


def written(page: str, measured: Sequence[Row]) -> str:
    """The page with its tables made anew."""

    def table_between(marks: re.Match[str]) -> str:
        begin, dtype, threads, end = marks.groups()
        return begin + table(measured, dtype, int(threads)) + end

    return MARKS.sub(table_between, page)


def table(measured: Sequence[Row], dtype: str, threads: int) -> str:
    """Tuned malloc: a line for each sample of an operator, and two columns for each CPU and instruction set."""
    chosen = [row for row in measured if row["isa"] and _is_shown(row, dtype, threads)]
    if not chosen:
        return NOTHING
    machines = sorted({(row["isa"], row["device"]) for row in chosen})
    heads = [f"{isa}, {device}: {text}" for isa, device in machines for text in RATIOS.values()]
    lines = [["sample", "modes", *heads], ["---"] * (2 + len(heads))]
    for op, sample in dict.fromkeys((row["op"], row["sample"]) for row in chosen):
        case = [row for row in chosen if (row["op"], row["sample"]) == (op, sample)]
        modes = [mode for mode in MODES if any(row["mode"] == mode for row in case)]
        of_machine = [[row for row in case if (row["isa"], row["device"]) == machine] for machine in machines]
        cells = [_ratios(found, modes, ratio) for found in of_machine for ratio in RATIOS]
        lines.append([f"`{op}`, {sample}", " / ".join(modes), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _is_shown(row: Row, dtype: str, threads: int) -> bool:
    wanted = {"role": "ours", "malloc": "tuned", "dtype": dtype, "threads": threads}
    return "ms" in row and row["mode"] in MODES and all(row[name] == value for name, value in wanted.items())


def _ratios(found: Iterable[Row], modes: Iterable[str], ratio: str) -> str:
    """For each mode how many times as fast the fastest of our ways is; - where there is no other to compare with."""
    best = {}
    for row in sorted(found, key=lambda row: -row["ms"]):
        best[row["mode"]] = row[ratio]
    return " / ".join(f"{best[mode]:.2g}" if best.get(mode) else "-" for mode in modes)


def results() -> list[Row]:
    """All committed rows."""
    return [row for path in sorted((ROOT / "benchmarks" / "results").glob("*.jsonl")) for row in rows.read(path)]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), results()))
