"""What a penalty costs on a discriminator of yours: its level, what is refused, its error, and its time.

`python -m gan_engine.penalties check package.module:Class --shape 8,3,64,64` makes the discriminator, by calling what
stands behind the colon, and compares a step of loss and R1 with plain autograd.
"""

import argparse
import contextlib
import importlib
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine import backends
from gan_engine.command_line import console
from gan_engine.losses.level2.snapshot import Snapshot
from gan_engine.losses.network import Network, modules_of, parameters_of
from gan_engine.losses.penalties import NotPiecewiseLinear, backward_with_penalty, level_of, refusal
from gan_engine.ops.thresholds import TABLE
from gan_engine.system import malloc
from gan_engine.system.devices import choose_device

ROUNDS = 5  # the least number of steps that are timed


def discriminator(name: str) -> Network:
    """What module:attribute makes: a class or a function without arguments is called, a module is taken as it is.

    It makes a module, or a function of which the modules are found.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"want MODULE:CLASS, got {name}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        made = importlib.import_module(module)
        for part in attribute.split("."):
            made = getattr(made, part)
        D: Any = made if isinstance(made, nn.Module) else made()  # type: ignore[operator]
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"{name}: {error}; want a class, or a function, that makes D without arguments") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not callable(D) or isinstance(D, type):
        raise ValueError(f"{name}: want a torch.nn.Module, got a {type(D).__name__}")
    if not modules_of(D, held=True):
        raise ValueError(
            f"{name}: want a torch.nn.Module, or a function that names its modules, got a {type(D).__name__} in which "
            "no module was found"
        )
    return D


def check(D: Network, img: Tensor, c: Tensor | None, *, seconds: float) -> list[str]:
    """The lines of the answer for a step on img [N, ...]."""
    reason = refusal(D, img, c)
    refused = [] if reason is None else [f"refused    {reason}"]
    with _in_float64(D):
        truth = _gradients(D, img.double(), c, "autograd", plain=True)
    if isinstance(truth, str):
        return [*refused, f"no step    {truth}"]
    level = level_of(D, img, c)
    lines = [f"level      {level} (level=None)", *refused]
    if level == "autograd":
        why = "no function of D gains by level 1" if refused else TABLE["few products at level 2"].sentence
        lines.insert(1, f"{'no gain' if refused else 'small'}".ljust(11) + why)
    levels: tuple[Any, ...] = (1, "autograd") if reason is not None else (2, 1, "autograd")
    for level in levels:
        found = _gradients(D, img, c, level)
        named = f"error      level {level}".ljust(26)
        lines.append(named + (found if isinstance(found, str) else f"{_error(found, truth):.1e} of |gradients|"))
    times = _times(D, img, c, seconds)
    plain = times["plain autograd"]
    for name, spent in times.items():
        lines.append(f"time       {name:15}{spent * 1e3:8.1f} ms   {plain / spent:.2f} times as fast")
    return lines


@contextlib.contextmanager
def _in_float64(D: Network) -> Iterator[None]:
    """Inside, the parameters and buffers of D are float64. A function cannot be copied with the modules it names."""
    buffers = [b for module in modules_of(D, held=True) for b in module.buffers(recurse=False)]
    kept = [(t, t.data) for t in (*parameters_of(D, held=True), *buffers) if t.is_floating_point()]
    try:
        for t, data in kept:
            t.grad, t.data = None, data.double()
        yield
    finally:
        for t, data in kept:
            t.grad, t.data = None, data


def _step(D: Network, img: Tensor, c: Tensor | None, level: Any, *, plain: bool = False) -> None:
    for p in parameters_of(D, held=True):
        p.grad = None
    with backends.use("reference") if plain else contextlib.nullcontext():
        backward_with_penalty(D, img, _loss, gamma=1.0, c=c, level=level)


def _loss(logits: Tensor | list[Tensor]) -> Tensor:
    each = [logits] if isinstance(logits, Tensor) else logits
    return torch.cat([F.softplus(-part).flatten() for part in each])


def _gradients(D: Network, img: Tensor, c: Tensor | None, level: Any, *, plain: bool = False) -> list[Tensor] | str:
    """The gradients of D's parameters in float64, or the error of the step in one line. D is put back."""
    before = Snapshot(D, img.device)
    torch.manual_seed(0)
    try:
        _step(D, img, c, level, plain=plain)
    except (RuntimeError, ValueError, NotPiecewiseLinear) as error:
        return _in_one_line(error)
    finally:
        before.restore()
    return [torch.zeros_like(p).double() if p.grad is None else p.grad.double() for p in parameters_of(D, held=True)]


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _error(found: list[Tensor], truth: list[Tensor]) -> float:
    off = sum(float((a - b).square().sum()) for a, b in zip(found, truth, strict=True))
    return (off / max(sum(float(b.square().sum()) for b in truth), 1e-300)) ** 0.5


def _times(D: Network, img: Tensor, c: Tensor | None, seconds: float) -> dict[str, float]:
    """The median seconds of a step of each peer. The peers take turns, so that all see the same machine."""
    peers: dict[str, Callable[[], None]] = {
        "plain autograd": lambda: _step(D, img, c, "autograd", plain=True),
        "level None": lambda: _step(D, img, c, None),
    }
    spent: dict[str, list[float]] = {name: [] for name in peers}
    end = time.perf_counter() + seconds
    for turn in itertools.count():
        for name, run in peers.items():
            start = time.perf_counter()
            run()
            if img.is_cuda:
                torch.cuda.synchronize()
            if turn:  # the first step warms up
                spent[name].append(time.perf_counter() - start)
        if turn >= ROUNDS and time.perf_counter() > end:
            return {name: statistics.median(times) for name, times in spent.items()}
    raise AssertionError


def _shape(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) < 2 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"want positive numbers such as 8,3,64,64, got {text}")
    return sizes


@console.command
def main(argv: list[str]) -> int:
    """The command line. 1 if autograd has no step for D."""
    about = "Say which level of gradient penalties a discriminator gets, and why, with its error and its time."
    parser = argparse.ArgumentParser(prog=console.prog("penalties"), description=about)
    parser.add_argument("action", choices=["check"], nargs="?", help="check one discriminator")
    parser.add_argument("D", metavar="MODULE:CLASS", nargs="?", help="what makes the discriminator when it is called")
    parser.add_argument(
        "--shape", type=_shape, default=(8, 3, 64, 64), metavar="N,C,H,W", help="of the images, or [N, ...]"
    )
    parser.add_argument("--classes", type=int, default=0, metavar="K", help="D is given classes [N] below K")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seconds", type=float, default=5.0, help="for which both steps are timed")
    asked = parser.parse_args(argv)
    if asked.D is None:
        raise ValueError("want: check MODULE:CLASS")
    device = choose_device(asked.device)
    malloc.tune()
    torch.manual_seed(0)
    D = discriminator(asked.D)
    for module in modules_of(D, held=True):
        module.to(device)
    img = torch.randn(asked.shape, device=device)
    c = torch.randint(asked.classes, (len(img),), device=device) if asked.classes else None
    try:
        with torch.no_grad():
            D(img) if c is None else D(img, c)  # lazy layers take their sizes
    except Exception as error:
        given = f"images {list(img.shape)}" + (f" and classes {list(c.shape)}" if c is not None else "")
        raise ValueError(
            f"{asked.D} raised {_in_one_line(error)}. It was given {given}: --shape sets their shape, and --classes K "
            "gives classes"
        ) from error
    lines = check(D, img, c, seconds=asked.seconds)
    print("\n".join(lines))
    return 1 if any(line.startswith("no step") for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
