"""A step of D by gan_engine.adversarial beside the same step by plain autograd. The other examples here import it."""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Beside(NamedTuple):
    gradients: float  # |ours - plain| / |plain|, of all gradients of D
    losses: float  # the largest relative difference of a part
    ms: float
    plain_ms: float

    def __str__(self) -> str:
        return (
            f"a step of D beside plain autograd: gradients differ by {self.gradients:.1e}, "
            f"losses by {self.losses:.1e}; "
            f"{self.ms:.2f} ms against {self.plain_ms:.2f} ms, {self.plain_ms / self.ms:.2f} times as fast "
            f"({torch.backends.cpu.get_cpu_capability()}, one thread)"
        )


def beside(D: nn.Module, ours: Callable[[], dict], plain: Callable[[], dict[str, Tensor]], rounds: int = 20) -> Beside:
    """Both steps on the same weights, images and random numbers: the error of the gradients, and the ratio of times.

    Args:
        ours: adds gradients to .grad of D, and returns the parts of the loss without a graph.
        plain: returns the same parts with a graph to D. Their sum is differentiated here.
        rounds: both steps run so often, in turn. The time is processor time of this thread, the median of all rounds.
    """

    def ours_step() -> dict[str, float]:
        return {name: float(value) for name, value in ours().items()}

    def plain_step() -> dict[str, float]:
        parts = plain()
        sum(parts.values()).backward()
        return {name: float(value.detach()) for name, value in parts.items()}

    steps, found, times = {"ours": ours_step, "plain": plain_step}, {}, {"ours": [], "plain": []}
    for _ in range(rounds):
        for name, step in steps.items():
            torch.manual_seed(0)
            D.zero_grad()
            start = time.thread_time()
            parts = step()
            times[name].append(time.thread_time() - start)
            found[name] = parts, torch.cat([p.grad.flatten() for p in D.parameters() if p.grad is not None])
    D.zero_grad()
    (our_parts, our_grads), (plain_parts, plain_grads) = found["ours"], found["plain"]
    error = float((our_grads - plain_grads).norm() / plain_grads.norm())
    parts = max(abs(our_parts[name] - value) / max(abs(value), 1e-6) for name, value in plain_parts.items())
    return Beside(error, parts, *(statistics.median(times[name]) * 1e3 for name in steps))


def options(text: str, steps: int, **others: str) -> argparse.Namespace:
    """The flags of an example: --steps, and others with their defaults. The example then runs on one thread."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=steps)
    for name, default in others.items():
        parser.add_argument(f"--{name}", default=default)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return parser.parse_args()


def wanted(module: str, install: str) -> ModuleType:
    """The module, or an exit with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        sys.exit(f"error: this example needs {module} ({error}). Install it: {install}")
