"""python -m benchmarks.penalty_curves [--steps 2000] [--out ...png]: the losses of one run with R1, level by level.

One small run from one seed, with the penalty by level 2, by level 1 and by autograd on PyTorch's own operators. The
last is run in both memory layouts, which differ by rounding alone. The networks are wide enough for minimal filtering.
The learning rate is low, so that the training does not magnify rounding at once.
"""

import argparse
import contextlib
import dataclasses
import tempfile
from pathlib import Path

import torch

from benchmarks.eager import eager_pytorch
from gan_engine import models
from gan_engine.data import load
from gan_engine.losses.penalties import Level
from gan_engine.presets import dcgan
from gan_engine.training.trainer import Trainer

EVERY = 20  # a point of a curve is the mean over so many steps
CURVES: dict[str, tuple[Level, torch.memory_format]] = {
    "autograd": ("autograd", torch.channels_last),
    "autograd, contiguous": ("autograd", torch.contiguous_format),
    "level 1": (1, torch.channels_last),
    "level 2": (2, torch.channels_last),
}


def curve(level: Level, layout: torch.memory_format, steps: int) -> dict[str, list[float]]:
    """The means of the losses over EVERY steps each, by name."""
    model = models.dcgan.Config(resolution=32, width=64, z_dim=32, d_norm=False)
    config = dataclasses.replace(dcgan(), model=model, batch_size=16, lr=4e-5, r1_gamma=1.0, precision="fp32")
    data = load(config.data_config, resolution=32, channels=1)
    found: dict[str, list[float]] = {}
    operators = eager_pytorch() if level == "autograd" else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, operators:
        trainer = Trainer(config, data, device=torch.device("cpu"), run_dir=Path(folder))
        trainer.objective.level, trainer.batches.layout = level, layout
        for net in (trainer.G, trainer.D):
            net.to(memory_format=layout)
        for step in range(1, steps + 1):
            trainer.step()
            if step % EVERY == 0:
                for loss, mean in trainer.means.read().items():
                    if loss.startswith("loss/"):
                        found.setdefault(loss, []).append(mean)
    return found


def main() -> None:
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "penalty-levels.png")
    options = parser.parse_args()
    curves = {name: curve(*how, options.steps) for name, how in CURVES.items()}
    losses = list(curves["autograd"])
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    for axes, loss in zip(figure.subplots(1, len(losses)), losses, strict=True):
        for (name, found), style in zip(curves.items(), ("-", "-.", "--", ":"), strict=True):
            axes.plot(range(EVERY, options.steps + 1, EVERY), found[loss], style, label=name, linewidth=1.2)
        axes.set(title=loss, xlabel="step")
    axes.legend()
    figure.savefig(options.out, dpi=110)
    for loss in losses:
        autograd = torch.tensor(curves["autograd"][loss])
        for name in list(CURVES)[1:]:
            off = (torch.tensor(curves[name][loss]) - autograd).abs() / autograd.abs().mean()
            print(f"{loss}, {name}: off by {off.mean():.1e} of the mean on average, {off[0]:.1e} at first")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
