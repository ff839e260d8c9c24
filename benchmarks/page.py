"""Write the tables of docs/performance.md from the rows in benchmarks/results/: `python -m benchmarks.page`.

A table stands between two marks, and the first mark says which table it is:

    <!-- table: operators, fp32, 2 threads -->
    <!-- table: steps, fp32, 2 threads -->
    <!-- table: discriminators -->
    <!-- table: lost -->
    <!-- end of table -->
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import rows, summary
from benchmarks.summary import Row

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
OPERATORS, DISCRIMINATORS = "*-thread*.jsonl", "*-any-discriminator-avx*.jsonl"
MARKS = re.compile(r"(<!-- table: (\w+)(?:, (\w+), (\d+) threads?)? -->\n).*?(<!-- end of table -->)", re.DOTALL)
MODES = {
    "operators": ("forward", "forward+backward", "second order", "step"),
    "steps": ("G", "D", "D + penalties", "G path length", "whole step"),
}
WAYS = {"None": "level None", "aligned": "aligned", "random": "random"}
RATIOS = {"vs_eager": "eager", "vs_compile": "torch.compile"}


def written(page: str, measured: Sequence[Row], of_discriminators: Sequence[Row]) -> str:
    """The page with its tables made anew, from rows of `make bench` and of benchmarks/any_discriminator.py."""
    measured = [*measured, *summary.whole_steps(list(measured))]

    def table_between(marks: re.Match[str]) -> str:
        begin, kind, dtype, threads, end = marks.groups()
        if kind == "lost":
            lines = lost(measured)
        elif kind == "discriminators":
            lines = discriminators(of_discriminators)
        else:
            lines = compared(measured, MODES[kind], dtype, int(threads))
        return begin + "".join(f"| {' | '.join(line)} |\n" for line in lines) + end

    return MARKS.sub(table_between, page)


def compared(measured: Iterable[Row], modes: Iterable[str], dtype: str, threads: int) -> list[list[str]]:
    """Tuned malloc: a line for each sample of an operator, and two columns for each CPU and instruction set."""
    wanted = {"role": "ours", "malloc": "tuned", "dtype": dtype, "threads": threads}
    chosen = [row for row in measured if "ms" in row and all(row[name] == value for name, value in wanted.items())]
    chosen = [row for row in chosen if row["mode"] in modes]
    machines = sorted({(row["isa"], row["device"]) for row in chosen})
    heads = [f"{isa}, {device}: than {peer}" for isa, device in machines for peer in RATIOS.values()]
    lines = [["sample", "modes", *heads], ["---"] * (2 + len(heads))]
    for op, sample in dict.fromkeys((row["op"], row["sample"]) for row in chosen):
        case = [row for row in chosen if (row["op"], row["sample"]) == (op, sample)]
        found = [mode for mode in modes if any(row["mode"] == mode for row in case)]
        of_machine = [[row for row in case if (row["isa"], row["device"]) == machine] for machine in machines]
        cells = [_ratios(of_one, found, ratio) for of_one in of_machine for ratio in RATIOS]
        name = f"`{sample}`" if op == "family step" else f"`{op}`, {sample}"
        lines.append([name, " / ".join(found), *cells])
    return lines


def lost(measured: Iterable[Row]) -> list[list[str]]:
    """A line for each comparison that one of our ways loses, by what the summaries show."""
    lines = [["CPU, set, threads", "what", "sample", "dtype", "mode", "malloc", "ratio"], ["---"] * 7]
    for case in summary.grouped(list(measured), *rows.MACHINE, "op", "sample", "dtype", "mode", "malloc").values():
        for row in summary.shown(case):
            ratios = [f"{row[ratio]:.2f} ({ratio[3:]})" for ratio in summary.RATIOS if (row.get(ratio) or 1) < 1]
            if ratios:
                mode = summary.MODES.get(row["mode"], row["mode"])
                what = [row["op"], row["sample"], row["dtype"], mode, row["malloc"]]
                lines.append([rows.machine(row), *what, ", ".join(ratios)])
    return lines


def discriminators(measured: Sequence[Row]) -> list[list[str]]:
    """A line for each D: the speed over plain autograd on each CPU and set, the errors and the peak memory."""
    machines = sorted({(row["isa"], row["device"]) for row in measured})
    heads = [f"{isa}, {device}: {' / '.join(WAYS)}" for isa, device in machines]
    heads += [f"error: {' / '.join(WAYS)}", "MiB: autograd / None"]
    lines = [["D", "level None is", *heads], ["---"] * (2 + len(heads))]
    for name in dict.fromkeys(row["D"] for row in measured):
        rows_of_D = {(row["isa"], row["device"]): row for row in measured if row["D"] == name}
        cells = []
        for machine in machines:
            row = rows_of_D.get(machine, {})
            times = [row.get(f"{way} ms") for way in WAYS.values()]
            cells.append(" / ".join(f"{row['autograd ms'] / ms:.2f}" if ms else "-" for ms in times))
        last = rows_of_D[max(rows_of_D)]
        errors = [last.get(f"{way} error") for way in WAYS.values()]
        cells.append(" / ".join("-" if error is None else f"{error:.0e}" for error in errors))
        cells.append(" / ".join(f"{last[f'{way} MiB']:.0f}" for way in ("autograd", "level None")))
        lines.append([name, str(last["level"]), *cells])
    return lines


def _ratios(found: Iterable[Row], modes: Iterable[str], ratio: str) -> str:
    """For each mode how many times as fast the fastest of our ways is; - where there is no other to compare with."""
    best = {}
    for row in sorted(found, key=lambda row: -row["ms"]):
        best[row["mode"]] = row[ratio]
    return " / ".join(f"{best[mode]:.{2 if best[mode] < 10 else 0}f}" if best.get(mode) else "-" for mode in modes)


def results(names: str) -> list[Row]:
    """The rows of the committed files that `names`, a pattern, names."""
    return [row for path in sorted((ROOT / "benchmarks" / "results").glob(names)) for row in rows.read(path)]


def page() -> str:
    """The page with its tables made from the committed rows."""
    return written(PAGE.read_text(), results(OPERATORS), results(DISCRIMINATORS))


if __name__ == "__main__":
    PAGE.write_text(page())
