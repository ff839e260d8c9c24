"""losses.png, the plot of a run."""

import functools
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_engine.runs.history import read_metrics
from gan_engine.system.names import legible
from gan_engine.system.whole_file import replacing

# Okabe and Ito 2008: people with any kind of colour vision can tell these colours apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plot_losses(run_dir: str | Path) -> Path | None:
    """Write losses.png, and return its path. None: there is nothing to plot."""
    picture, path = losses_png(run_dir), Path(run_dir) / "losses.png"
    if picture is None:
        return None
    with replacing(path) as temporary:
        temporary.write_bytes(picture)
    return path


def losses_png(run_dir: str | Path) -> bytes | None:
    """A picture of the loss terms, logits and adapted weights that were reported, over the images shown.

    The thin line is what was reported, and the thick line its moving average. None: there is nothing to plot.
    """
    rows = read_metrics(run_dir)
    panels = [("loss", "loss, mean over the batch"), ("logits", "logits of D, mean over the batch")]
    panels += [("gamma", "gamma of --gamma auto")]
    plotted = tuple((label, _of_bytes(_curves(rows, kind))) for kind, label in panels)
    plotted = tuple(panel for panel in plotted if panel[1])
    if not plotted:
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError:
        warnings.warn("no losses.png: matplotlib is not installed (pip install matplotlib)", stacklevel=2)
        return None
    return _picture(Figure, legible(Path(run_dir).resolve().name, most=90), plotted)


@functools.lru_cache(maxsize=1)  # the end of a run has the same plot in losses.png and in report.html
def _picture(Figure: type, title: str, panels: tuple[tuple[str, tuple[tuple[str, bytes, bytes], ...]], ...]) -> bytes:
    figure = Figure(figsize=(9, 0.6 + 3.6 * len(panels)), dpi=120, layout="constrained")
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for ax, (label, of_bytes) in zip(axes, panels, strict=True):
        curves = {name: (np.frombuffer(kimg), np.frombuffer(values)) for name, kimg, values in of_bytes}
        # Percentiles, as one early spike would flatten the rest.
        low, high = np.nanpercentile(np.concatenate([values for _, values in curves.values()]), [0.5, 99.5])
        lines = []
        for i, (kimg, values) in enumerate(curves.values()):
            colour = COLOURS[i % len(COLOURS)]
            ax.plot(kimg, values, color=colour, alpha=0.3, linewidth=0.8)
            dot = "o" if len(kimg) == 1 else None
            lines += ax.plot(kimg, _smooth(values.clip(low, high)), color=colour, linewidth=1.8, marker=dot)
        margin = 0.08 * (high - low) or 0.5
        ax.set_ylim(low - margin, high + margin)
        ax.set_ylabel(label)
        ax.grid(color="0.9", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.margins(x=0.01)
        ax.spines[["top", "right"]].set_visible(False)
        labels = [legible(name, most=40) for name in curves]
        legend = ax.legend(lines, labels, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a $ in a name is a $
    axes[-1].set_xlabel("images shown [kimg = 1000 images]")
    figure.align_ylabels()
    figure.suptitle(title, fontsize=11, parse_math=False)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the font draws a box for a letter that it lacks
        figure.savefig(picture, format="png")
    return picture.getvalue()


def _of_bytes(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[tuple[str, bytes, bytes], ...]:
    """Curves as a key of a cache, to which NaN is NaN."""
    return tuple((name, kimg.tobytes(), values.tobytes()) for name, (kimg, values) in curves.items())


def _curves(rows: Sequence[dict[str, Any]], kind: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{name: (kimg, values)} of the reports called `kind`/name. Curves without a finite value are left out."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith(f"{kind}/"):
                kimg, values = curves.setdefault(key.removeprefix(f"{kind}/"), ([], []))
                kimg.append(row["nimg"] / 1000)
                values.append(math.nan if value is None else value)
    arrays = {name: (np.array(kimg, float), np.array(values, float)) for name, (kimg, values) in curves.items()}
    return {name: curve for name, curve in arrays.items() if np.isfinite(curve[1]).any()}


def _smooth(values: np.ndarray) -> np.ndarray:
    """Exponential moving average over a fiftieth of the curve, without bias at its start; gaps keep the last mean."""
    decay = 1 - 1 / max(1.0, len(values) / 50)
    total = weight = 0.0
    smooth = np.empty(len(values))
    for i, value in enumerate(values):
        if math.isfinite(value):
            total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        smooth[i] = total / weight if weight else math.nan
    return smooth
