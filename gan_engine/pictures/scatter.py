"""Pictures of points in the plane: a scatter plot, as an image like those of other generators. Files of coordinates."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gan_engine.system.whole_file import buffered

ENDINGS = (".npy", ".csv")  # of files of coordinates
SHOWN = 2500  # points, at most, of G and of the data each
_SIDE, _DPI = 4.0, 110  # inches, and pixels of an inch
_DATA, _DRAWN = "0.6", "#D55E00"


def render(points: Tensor, data: Tensor | None = None) -> Tensor:
    """points [N, 2], data [M, 2] -> one picture [1, 3, 440, 440] in [-1, 1]: the data in grey, the points in orange

    At most SHOWN of each are drawn. The data decide what is visible: one and a half times their largest coordinate, and
    the largest one of the points where there are no data. A point outside lies on the edge, so it is not lost.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second: other families do without it
    from matplotlib.figure import Figure

    visible = 1.1 * points if data is None else 1.5 * data
    edge = max(1e-3, float(visible.detach().nan_to_num(0, 0, 0).abs().max()))
    figure = Figure(figsize=(_SIDE, _SIDE), dpi=_DPI, layout="constrained")
    canvas, ax = FigureCanvasAgg(figure), figure.subplots()
    sets = [(data, _DATA, "data"), (points, _DRAWN, "G")]
    for values, colour, label in sets:
        if values is not None:
            x, y = values[:SHOWN].detach().float().cpu().clamp(-edge, edge).unbind(1)
            ax.scatter(x, y, s=4, color=colour, alpha=0.6, linewidths=0, label=label)
    ax.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
    ax.spines[["top", "right"]].set_visible(False)
    if data is not None:
        figure.legend(loc="outside upper right", ncols=2, frameon=False, markerscale=3)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def write_points(path: Path, points: np.ndarray) -> None:
    """Write points float32 [N, 2] as they are to a .npy, or to a .csv with the columns x and y, without rounding."""
    with buffered(path) as file:
        if path.suffix.lower() == ".npy":
            np.save(file, points)
        else:
            np.savetxt(file, points, fmt="%.9g", delimiter=",", header="x,y", comments="")
