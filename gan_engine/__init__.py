"""gan_engine: train, run and measure generative adversarial networks on fused kernels."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `import gan_engine` alone does not import PyTorch
    from pathlib import Path

    from gan_engine.inference.generator import TrainedGenerator

__version__ = "0.1.0"

# sys.argv[0] is "-m" while Python looks for the module to run: a command begins, and no program imports a library.
if sys.argv[:1] == ["-m"] and "gan_engine" in {word.removeprefix("-m").partition(".")[0] for word in sys.orig_argv}:
    from gan_engine.command_line import console

    console.short_interrupts()


def load(path: str | Path, device: str = "auto", *, best: bool = False) -> TrainedGenerator:
    """Load the trained generator of a run directory or of a checkpoint. Its method `sample` draws pictures.

        G = gan_engine.load("runs/dcgan-1")
        img = G.sample(16, seed=0)                   # [16, C, H, W] in [-1, 1]

    See `gan_engine.inference.generator.load`.
    """
    from gan_engine.inference import generator

    return generator.load(path, device, best=best)
