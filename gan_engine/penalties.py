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
from gan_engine.adversarial import packed
from gan_engine.command_line import console
from gan_engine.losses.level2.snapshot import Snapshot
from gan_engine.losses.network import Network, modules_of, parameters_of
from gan_engine.losses.outputs import Picked, WrongOutput, described
from gan_engine.losses.penalties import NotPiecewiseLinear, backward_with_penalty, level_of, refusal
from gan_engine.ops.thresholds import TABLE
from gan_engine.system import malloc
from gan_engine.system.devices import choose_device

ROUNDS = 5  # the least number of steps that are timed


def discriminator(name: str) -> Network:
    """What module:attribute makes: a class or a function without arguments is called, a module is taken as it is.

    It makes a module, or a function of which the modules are found.
    """
    with _here():
        try:
            made = _named(name, "MODULE:CLASS")
            D: Any = made if isinstance(made, nn.Module) else made()
        except (ImportError, AttributeError, TypeError) as error:
            raise ValueError(f"{name}: {error}; want a class, or a function, that makes D without arguments") from error
    if not callable(D) or isinstance(D, type):
        raise ValueError(f"{name}: want a torch.nn.Module, got a {type(D).__name__}")
    if not modules_of(D, held=True):
        raise ValueError(
            f"{name}: want a torch.nn.Module, or a function that names its modules, got a {type(D).__name__} in which "
            "no module was found"
        )
    return D


def picks(name: str) -> Callable[[Any], Any]:
    """The function module:attribute, for `logits=` of penalties."""
    try:
        with _here():
            found = _named(name, "--logits MODULE:FUNCTION")
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--logits {name}: {error}") from error
    if not callable(found):
        raise ValueError(f"--logits {name}: want a function of what D returns, got a {type(found).__name__}")
    return found


@contextlib.contextmanager
def _here() -> Iterator[None]:
    """Inside, Python finds the modules of this folder."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _named(name: str, want: str) -> Any:
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"want {want}, got {name}")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def check(D: Network, img: Tensor, c: Tensor | None, *, seconds: float, logits: Picked = None) -> list[str]:
    """The lines of the answer for a step on img [N, ...]; `logits` picks the logits from what D returns."""
    reason = refusal(D, img, c, logits=logits)
    refused = [] if reason is None else [f"refused    {reason}"]
    with _in_float64(D):
        truth = _gradients(D, img.double(), c, "autograd", logits, plain=True)
    if isinstance(truth, str):
        found = _gradients(D, img, c, "aligned", logits)
        lines = [*refused, f"no step    {truth}"]
        if truth.startswith(WrongOutput.__name__):
            lines.append("way out    --logits MODULE:FUNCTION stands for logits=, and --pack M for pack=")
        elif not isinstance(found, str):
            lines.append('way out    level="aligned" has a step for this D: it needs first derivatives alone')
        return lines
    level = level_of(D, img, c, logits=logits)
    lines = [f"level      {level} (level=None)", *refused]
    if level == "autograd":
        why = "no function of D gains by level 1" if refused else TABLE["few products at level 2"].sentence
        lines.insert(1, f"{'no gain' if refused else 'small'}".ljust(11) + why)
    levels: tuple[Any, ...] = (1, "autograd") if reason is not None else (2, 1, "autograd")
    for level in levels:
        found = _gradients(D, img, c, level, logits)
        named = f"error      level {level}".ljust(26)
        lines.append(named + (found if isinstance(found, str) else f"{_error(found, truth):.1e} of |gradients|"))
    times = _times(D, img, c, seconds, logits)
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


def _step(D: Network, img: Tensor, c: Tensor | None, level: Any, logits: Picked, *, plain: bool = False) -> None:
    for p in parameters_of(D, held=True):
        p.grad = None
    with backends.use("reference") if plain else contextlib.nullcontext():
        backward_with_penalty(D, img, _loss, gamma=1.0, c=c, level=level, logits=logits)


def _loss(logits: Tensor | list[Tensor]) -> Tensor:
    each = [logits] if isinstance(logits, Tensor) else logits
    return torch.cat([F.softplus(-part).flatten() for part in each])


def _gradients(
    D: Network, img: Tensor, c: Tensor | None, level: Any, logits: Picked = None, *, plain: bool = False
) -> list[Tensor] | str:
    """The gradients of D's parameters in float64, or the error of the step in one line. D is put back."""
    before = Snapshot(D, img.device)
    torch.manual_seed(0)
    try:
        _step(D, img, c, level, logits, plain=plain)
    except (RuntimeError, ValueError, NotPiecewiseLinear) as error:
        return _in_one_line(error)
    finally:
        before.restore()
    return [torch.zeros_like(p).double() if p.grad is None else p.grad.double() for p in parameters_of(D, held=True)]


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0].rstrip('.')}"


def _error(found: list[Tensor], truth: list[Tensor]) -> float:
    off = sum(float((a - b).square().sum()) for a, b in zip(found, truth, strict=True))
    return (off / max(sum(float(b.square().sum()) for b in truth), 1e-300)) ** 0.5


def _times(D: Network, img: Tensor, c: Tensor | None, seconds: float, logits: Picked) -> dict[str, float]:
    """The median seconds of a step of each peer. The peers take turns, so that all see the same machine."""
    peers: dict[str, Callable[[], None]] = {
        "plain autograd": lambda: _step(D, img, c, "autograd", logits, plain=True),
        "level None": lambda: _step(D, img, c, None, logits),
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
    parser.add_argument("--pack", type=int, default=1, metavar="M", help="D judges M samples at once, in dimension 1")
    parser.add_argument("--logits", metavar="MODULE:FUNCTION", help="picks the logits from what D returns")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seconds", type=float, default=5.0, help="for which both steps are timed")
    asked = parser.parse_args(argv)
    if asked.D is None:
        raise ValueError("want: check MODULE:CLASS")
    if asked.pack < 1:
        raise ValueError(f"--pack: want a number, at least 1, got {asked.pack}")
    device = choose_device(asked.device)
    malloc.tune()
    torch.manual_seed(0)
    D = discriminator(asked.D)
    for module in modules_of(D, held=True):
        module.to(device)
    logits = picks(asked.logits) if asked.logits is not None else None
    img = packed(torch.randn(asked.shape, device=device), asked.pack)
    c = torch.randint(asked.classes, (len(img),), device=device) if asked.classes else None
    try:
        with torch.no_grad():
            returned = D(img) if c is None else D(img, c)  # lazy layers take their sizes
    except Exception as error:
        given = f"images {list(img.shape)}" + (f" and classes {list(c.shape)}" if c is not None else "")
        raise ValueError(
            f"{asked.D} raised {_in_one_line(error)}. It was given {given}: --shape sets their shape, and --classes K "
            "gives classes"
        ) from error
    if logits is not None:
        try:
            logits(returned)
        except Exception as error:
            came = f"{_in_one_line(error)}. It was given what D returns, {described(returned)}"
            raise ValueError(f"--logits {asked.logits} raised {came}") from error
    lines = check(D, img, c, seconds=asked.seconds, logits=logits)
    print("\n".join(lines))
    return 1 if any(line.startswith("no step") for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
