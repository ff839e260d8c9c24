"""python -m benchmarks.penalty_curves [--steps 2000] [--out ...png]: the losses of one run with R1, level by level.

The same small run, from the same seed, with the penalty by level 2, by level 1 and by plain autograd.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import torch

from gan_engine import models
from gan_engine.data import load
from gan_engine.losses.penalties import Level
from gan_engine.presets import dcgan
from gan_engine.trainer import Trainer

EVERY = 20  # steps that a point of a curve is the mean of
LEVELS: tuple[Level, ...] = ("autograd", 1, 2)


def curve(level: Level, steps: int) -> dict[str, list[float]]:
    """The means of the losses over EVERY steps each, by name."""
    model = models.dcgan.Config(resolution=16, width=16, z_dim=32, d_norm=False)
    config = dataclasses.replace(dcgan(), model=model, batch_size=16, r1_gamma=1.0, precision="fp32")
    data = load(config.data_config, resolution=16, channels=1)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, data, device=torch.device("cpu"), run_dir=Path(folder))
        trainer.objective.level = level
        for step in range(1, steps + 1):
            trainer.step()
            if step % EVERY == 0:
                for name, mean in trainer.means.read().items():
                    if name.startswith("loss/"):
                        found.setdefault(name, []).append(mean)
    return found


def main() -> None:
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "penalty-levels.png")
    options = parser.parse_args()
    curves = {str(level): curve(level, options.steps) for level in LEVELS}
    names = list(curves["autograd"])
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        for (level, found), style in zip(curves.items(), ("-", "--", ":"), strict=True):
            label = level if level == "autograd" else f"level {level}"
            axes.plot(range(EVERY, options.steps + 1, EVERY), found[name], style, label=label, linewidth=1.2)
        axes.set(title=name, xlabel="step")
    axes.legend()
    figure.savefig(options.out, dpi=110)
    for name in names:
        plain = torch.tensor(curves["autograd"][name])
        for level in ("1", "2"):
            off = (torch.tensor(curves[level][name]) - plain).abs() / plain.abs().mean()
            print(
                f"{name}, level {level}: off by {off.mean():.1e} of the mean on average, {off[:5].max():.1e} at first"
            )
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
