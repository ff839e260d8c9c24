"""A comparison of runs on one page that needs no other file."""

import html
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from gan_engine.runs.comparison import Comparison, rows
from gan_engine.runs.loss_plot import COLOURS
from gan_engine.runs.page import PAGE, embedded
from gan_engine.system.names import counted, legible
from gan_engine.system.whole_file import replacing

_AXES = {"kimg": "images shown [kimg = 1000 images]", "seconds": "time of training [s]"}
_STYLES = ("-", "--", ":")  # once the colours are used up


def write(comparison: Comparison, path: Path) -> None:
    """Write the page. Raises OSError where it cannot be written."""
    title = f"{counted(sum(len(group.runs) for group in comparison.groups), 'run')} compared"
    parts = [f"<p>Measured against {html.escape(legible(comparison.compared_with))}. {_spread_line(comparison)}</p>"]
    parts.append(_table(rows(comparison)))
    parts += [f"<p>{html.escape(legible(note))}</p>" for note in comparison.notes]
    for name in comparison.names:
        if (plot := _plot(comparison, name)) is None:
            break
        escaped = html.escape(legible(name))
        parts.append(f'<h2>{escaped}</h2><img class="plot" alt="{escaped} over images and over time" src="{plot}">')
    listed = "".join(
        f"<tr><th>{html.escape(legible(group.label))}</th><td>{html.escape(legible(_names(group.runs)))}</td></tr>"
        for group in comparison.groups
    )
    parts.append(f"<h2>Runs</h2><table>{listed}</table>")
    with replacing(path) as temporary:
        temporary.write_text(PAGE.format(title=title, body="\n".join(parts)), encoding="utf-8")


def _names(runs: Sequence) -> str:
    return ", ".join(f"{run.path} (seed {run.seed})" for run in runs)


def _spread_line(comparison: Comparison) -> str:
    if all(len(group.runs) == 1 for group in comparison.groups):
        return "No two runs differ by the seed alone, so there is no spread."
    return "Lines are means over seeds, bands reach from the least to the largest run."


def _table(found: Sequence[dict[str, str]]) -> str:
    head = "".join(f"<th>{html.escape(legible(name))}</th>" for name in found[0])
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(legible(value))}</td>' for value in row.values())}</tr>" for row in found
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _plot(comparison: Comparison, name: str) -> str | None:
    """The curves of a number against images and against time, as the address of a picture; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        warnings.warn("no curves: matplotlib is not installed (pip install matplotlib)", stacklevel=3)
        return None
    groups = comparison.groups
    figure = Figure(figsize=(11, 4.2 + 0.22 * len(groups)), dpi=120, layout="constrained")
    lines = []
    for ax, (axis, label) in zip(figure.subplots(1, 2, sharey=True), _AXES.items(), strict=True):
        lines = []
        for i, group in enumerate(groups):
            points, values = group.over(name, axis)
            look = {"color": COLOURS[i % len(COLOURS)], "linestyle": _STYLES[i // len(COLOURS) % len(_STYLES)]}
            if len(values) > 1:
                ax.fill_between(points, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0)
            lines += ax.plot(points, values.mean(0), linewidth=1.8, marker="o", markersize=3, **look)
        ax.set_xlabel(label)
        ax.grid(color="0.9", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel(legible(name), parse_math=False)
    labels = [legible(group.label, most=100) for group in groups]
    legend = figure.legend(lines, labels, loc="outside lower center", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ in a name is a $
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the font draws a box for a letter that it lacks
        figure.savefig(file, format="png")
    return embedded(file.getvalue())
