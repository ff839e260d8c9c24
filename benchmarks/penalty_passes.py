"""python -m benchmarks.penalty_passes [--out docs/penalties.png]: a picture of the passes of a penalised step."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

LAYERS = 3
KINDS = {"forward": "#4c78a8", "by image": "#f58518", "by weight": "#54a24b"}
NAMES = {
    "forward": "each layer forward",
    "by image": "each layer backward: gradient by its input",
    "by weight": "each layer: gradient by its weight",
}


class Pass(NamedTuple):
    kind: str
    title: str
    left: str  # what enters or leaves at the image
    right: str  # and at the logits


LEVEL_2 = [
    Pass("forward", "forward", "x", "logits"),
    Pass("by image", "backward", "g", "1"),
    Pass("forward", "tangent of loss\nand penalty", "t + a x", ""),
    Pass("by weight", "gradients of\nthe weights", "", ""),
]
AUTOGRAD = [
    *LEVEL_2[:2],
    Pass("forward", "tangent of\nthe penalty", "t", ""),
    Pass("by weight", "gradients of the\nweights, penalty", "", ""),
    Pass("by image", "backward of\nthe loss", "", "a"),
    Pass("by weight", "gradients of the\nweights, loss", "", ""),
]


def draw(axes: Any, title: str, passes: list[Pass]) -> None:
    for row, (kind, name, left, right) in enumerate(passes):
        y, colour = -row, KINDS[kind]
        axes.text(-3.2, y, f"{row + 1}", ha="left", va="center", fontsize=10)
        axes.text(-3.0, y, name, ha="left", va="center", fontsize=10)
        layers = LAYERS - (name.startswith("tangent"))  # a tangent ends at the last weight
        for layer in range(layers):
            box = {"boxstyle": "round,pad=0.35", "facecolor": colour, "edgecolor": "none"}
            text = f"$\\partial W_{layer + 1}$" if kind == "by weight" else f"$W_{layer + 1}$"
            axes.text(layer, y, text, ha="center", va="center", color="white", fontsize=11, bbox=box)
        if kind != "by weight":
            ends = [(i - 0.7, i - 0.3) for i in range(layers + 1)]
            for start, end in ends if kind == "forward" else [pair[::-1] for pair in ends]:
                axes.annotate("", (end, y), (start, y), arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.6})
        axes.text(-0.75, y, left, ha="right", va="center", fontsize=10)
        axes.text(LAYERS - 0.25, y, right, ha="left", va="center", fontsize=10)
    axes.set(xlim=(-3.3, LAYERS + 0.4), ylim=(-len(AUTOGRAD) + 0.5, 0.5))
    axes.set_title(title, fontsize=12)
    axes.axis("off")


def main() -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "penalties.png")
    out = parser.parse_args().out
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    sides = figure.subplots(1, 2)
    draw(sides[0], "autograd: six passes over D", AUTOGRAD)
    draw(sides[1], "level 2: four passes over D", LEVEL_2)
    handles = [Patch(color=colour, label=NAMES[kind]) for kind, colour in KINDS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    figure.savefig(out, dpi=100)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
