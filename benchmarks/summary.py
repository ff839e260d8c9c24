"""Rows as a table and a plot. `python -m benchmarks.summary ROWS.jsonl` writes both again from saved rows."""

import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.rows import MACHINE, machine, read

Row = dict[str, Any]

CASE = ("sample", "dtype", "mode", "malloc", "ours")
COLUMNS = (*CASE, "ms", "vs eager", "vs compile", "vs peer", "/ floor", "MiB", "eager MiB")
MODES = {"forward": "fwd", "forward+backward": "fwd+bwd", "second order": "2nd order"}
RATIOS = {"vs_eager": "eager PyTorch", "vs_compile": "torch.compile", "vs_peer": "the other library"}
LEGEND = """\
ms          median time of a call
vs ...      how many times faster ours is than the fastest eager / compiled / other form; "<": ours is slower
/ floor     time divided by the floor: the time to move the data once, or of the convolution alone
MiB         peak memory of a call; "eager MiB": the same for the eager form that needs least
family step gradients only, without data, optimiser and moving average, which are the same for all forms"""


def table(rows: list[Row]) -> str:
    """The comparisons of our backends with all other peers, at most 120 columns wide, and the errors.

    Each machine, instruction set and number of threads has tables of its own.
    """
    return "\n".join([*map(_table, grouped(rows, *MACHINE).values()), LEGEND]) + "\n"


def _table(rows: list[Row]) -> str:
    sections = []
    for op, rows_of_op in grouped(rows + whole_steps(rows), "op").items():
        lines = [COLUMNS]
        for case in grouped(rows_of_op, "sample", "dtype", "mode", "malloc").values():
            eager = [row["peak_mib"] for row in case if row["role"] == "eager" and row.get("peak_mib") is not None]
            lines += [_cells(row, min(eager, default=None)) for row in shown(case)]
        used = [i for i in range(len(COLUMNS)) if any(line[i] for line in lines[1:])]
        widths = {i: max(len(line[i]) for line in lines) for i in used}
        left = len(CASE)
        text = ["  ".join(f"{line[i]:{'<' if i < left else '>'}{widths[i]}}" for i in used).rstrip() for line in lines]
        sections.append("\n".join([op, *(f"  {line}" for line in text)]))
    failed = [
        f"  {' '.join(str(row[key]) for key in ('op', 'sample', 'dtype', 'mode', 'malloc', 'peer'))}: {row['error']}"
        for row in rows
        if row["error"]
    ]
    return "\n\n".join([_title(rows), *sections, *(["\n".join(["Errors", *failed])] if failed else [])]) + "\n"


def whole_steps(rows: list[Row]) -> list[Row]:
    """A row for the whole training step of each family whose phases were all measured on one commit.

    The time of a peer is the sum over the phases of its fastest form, weighted by how often a step has the phase. A
    peer that lacks a phase has no sum.
    """
    sums_of_families = []
    keys = (*MACHINE, "commit", "sample", "dtype", "malloc")
    for case in grouped([row for row in rows if row.get("per_step")], *keys).values():
        sums = {"ours": 0.0, "eager": 0.0, "compile": 0.0}
        for mode, weight in case[0]["per_step"].items():
            timed = [row for row in case if row["mode"] == mode and "ms" in row]
            for role in sums:
                best = min((row["ms"] for row in timed if row["role"] == role), default=math.nan)
                sums[role] += weight * best if weight else 0
        if not math.isnan(sums["ours"] + sums["eager"]):
            ratios = {f"vs_{role}": sums[role] / sums["ours"] for role in ("eager", "compile")}
            ratios = {name: None if math.isnan(ratio) else ratio for name, ratio in ratios.items()}
            whole = {"mode": "whole step", "ms": sums["ours"], "peak_mib": None, "vs_peer": None, "over_floor": None}
            sums_of_families.append({**case[0], **whole, **ratios, "role": "ours", "peer": "ours", "error": None})
    return sums_of_families


def plot(rows: list[Row], path: Path) -> None:
    """Draw the ratios as dots on a logarithmic axis, one panel for each machine and malloc. Below 1, ours is slower."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    cases = grouped(rows, "op", "sample", "dtype", "mode")
    panels = list(grouped(rows, *MACHINE, "malloc"))
    lines = [(key, peer) for key, case in cases.items() for peer in dict.fromkeys(r["peer"] for r in shown(case))]
    backends = {peer for _, peer in lines}
    drawn = [ratio for ratio in RATIOS if any(row.get(ratio) for row in rows if row["role"] == "ours")]
    if not lines or not drawn:
        return
    colors = {"vs_eager": "#2f6db5", "vs_compile": "#e07b2a", "vs_peer": "#3f9b57"}
    height = 1.7 + 0.27 * len(lines)
    figure, axes = plt.subplots(
        1, len(panels), sharex=True, sharey=True, squeeze=False, figsize=(4.2 + 3.4 * len(panels), height)
    )
    for ax, panel in zip(axes[0], panels):
        for y, (key, peer) in enumerate(lines):
            found = grouped(cases[key], *MACHINE, "malloc").get(panel, [])
            row = next((r for r in found if r["peer"] == peer and "ms" in r), {})
            values = {ratio: row[ratio] for ratio in drawn if row.get(ratio)}
            if values:
                ax.hlines(y, min(1, *values.values()), max(1, *values.values()), color="#d5d9de", lw=2.5, zorder=1)
            for ratio, value in values.items():
                ax.scatter(value, y, s=42, color=colors[ratio], edgecolor="white", linewidth=0.8, zorder=3)
            if y and key[:2] != lines[y - 1][0][:2]:
                ax.axhline(y - 0.5, color="#c4c9cf", lw=0.7)
        ax.axvline(1, color="#30343a", lw=1.1, zorder=2)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.grid(axis="x", color="#eceef1", zorder=0)
        ax.set_axisbelow(True)
        ax.tick_params(which="both", length=0)
        ax.spines[:].set_visible(False)
        if len(panels) > 1:
            *where, malloc = panel
            title = f"{machine(dict(zip(MACHINE, where)))}\n{malloc} malloc"
            ax.set_title(title, fontsize=10, color="#30343a", loc="left")
    names = [" ".join((*key, *([peer] if len(backends) > 1 else []))) for key, peer in lines]
    axes[0, 0].set_yticks(range(len(lines)), names, fontsize=8)
    axes[0, 0].set_ylim(len(lines) - 0.4, -0.6)
    for ratio in drawn:
        axes[0, 0].scatter([], [], s=42, color=colors[ratio], label=RATIOS[ratio])
    first = rows[0]
    figure.suptitle("How many times faster than …", x=0.01, ha="left", fontsize=13, weight="bold")
    figure.legend(loc="upper right", ncols=len(drawn), frameon=False, fontsize=9, handletextpad=0.1)
    figure.supxlabel(
        "; ".join(machine(dict(zip(MACHINE, key))) for key in grouped(rows, *MACHINE))
        + f"; PyTorch {first['torch']}, {_dates(rows)}",
        fontsize=8,
        color="#6a7078",
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.1 / height))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def grouped(rows: list[Row], *keys: str) -> dict[Any, list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys) if len(keys) > 1 else row[keys[0]]].append(row)
    return groups


def shown(case: list[Row]) -> list[Row]:
    """Our rows of a comparison. The definition, "reference", is shown only if no other backend of ours ran."""
    ours = [row for row in case if row["role"] == "ours"]
    return [row for row in ours if row["peer"] != "reference"] or ours


def _cells(row: Row, eager_mib: float | None) -> tuple[str, ...]:
    shown = [row["sample"], row["dtype"], MODES.get(row["mode"], row["mode"]), row["malloc"], row["peer"]]
    if "ms" not in row:
        return (*shown, "wrong", "", "", "", "", "", "")
    ratios = [_times(row[ratio]) + (" <" if row[ratio] < 1 else "  ") if row[ratio] else "" for ratio in RATIOS]
    mib = ["" if value is None else f"{value:.0f}" for value in (row["peak_mib"], eager_mib)]
    return (*shown, f"{row['ms']:.4g}", *ratios, _times(row["over_floor"]) if row["over_floor"] else "", *mib)


def _times(ratio: float) -> str:
    return f"{ratio:.{0 if ratio >= 100 else 1 if ratio >= 10 else 2}f}x"


def _title(rows: list[Row]) -> str:
    first = rows[0]
    versions = ", ".join(f"{name} {first[name]}" for name in ("gan-engine", "torch", "triton", "python") if first[name])
    commits = list(dict.fromkeys(str(row["commit"]) for row in rows))
    listed = f"commit{'s' * (len(commits) > 1)} {', '.join(commits)}"
    return f"{machine(first)}, {_dates(rows)}\n{versions}, {listed}"


def _dates(rows: list[Row]) -> str:
    days = sorted({row["date"][:10] for row in rows})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.summary ROWS.jsonl")
    saved = Path(sys.argv[1])
    plot(read(saved), saved.with_suffix(".png"))
    text = table(read(saved))
    saved.with_suffix(".txt").write_text(text)
    print(text)
