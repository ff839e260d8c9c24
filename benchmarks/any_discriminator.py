"""A step of D with R1 on the discriminators of other code bases: `python -m benchmarks.any_discriminator [WORD ...]`.

A word keeps the networks whose names have it. A step is the gradients of mean(softplus(-D(x))) and of
gamma / 2 * mean(|dD/dx|^2) by the parameters. D(x) of maps and lists is the sum of their logits. The peers take turns
in one process, in float32 on one CPU thread. The time is processor time of that thread:

    autograd     autograd.grad(create_graph=True) and backward(), on PyTorch's own functions: 1.00
    level None   backward_with_penalty; the table names the level that it took
    aligned      its level "aligned": first derivatives alone
    compile      autograd, compiled as a whole: tracing through torch.autograd.grad, the form of a second gradient that
                 takes modules with buffers. It draws random numbers as eager PyTorch does, so that errors can be told
    random       the penalty as a difference in a random direction (Lin et al. 2025, arXiv:2501.08316)

An error is |gradients - truth| / |truth| over all parameters; truth is autograd in float64. Rows go to
runs/benchmarks/any-discriminator.jsonl.
"""

import argparse
import copy
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks import isa, rows
from benchmarks.foreign import DISCRIMINATORS, Sample
from benchmarks.gpu_check.page import table
from benchmarks.timing import compare, on_this_thread
from gan_engine.losses.penalties import backward_with_penalty, level_of, refusal
from gan_engine.system import malloc

GAMMA = 1.0
SIGMA = 0.01  # of the random direction
OUT = Path("runs") / "benchmarks" / "any-discriminator.jsonl"

Step = Callable[[nn.Module, Tensor, Any], object]


def flat(returned: Tensor | list[Tensor]) -> Tensor:
    """[N, P], all logits of each sample."""
    each = returned if isinstance(returned, list) else [returned]
    return torch.cat([logits.flatten(1) if logits.ndim > 1 else logits[:, None] for logits in each], 1)


def loss(logits: Tensor | list[Tensor]) -> Tensor:
    return F.softplus(-flat(logits)).mean()


def called(D: nn.Module, x: Tensor, c: Any) -> Tensor:
    return flat(D(x) if c is None else D(x, c))


def total(D: nn.Module, x: Tensor, c: Any) -> Tensor:
    x = x.detach().requires_grad_()
    logits = called(D, x, c)
    (g,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return F.softplus(-logits).mean() + GAMMA / 2 * g.square().flatten(1).sum(1).mean()


def by_autograd(D: nn.Module, x: Tensor, c: Any) -> None:
    total(D, x, c).backward()


def on_math_kernels(step: Step) -> Step:
    def call(D: nn.Module, x: Tensor, c: Any) -> None:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            step(D, x, c)

    return call


def by_level(level: Any) -> Step:
    return lambda D, x, c: backward_with_penalty(D, x, loss, gamma=GAMMA, c=c, level=level)


def in_a_random_direction(D: nn.Module, x: Tensor, c: Any) -> None:
    both = torch.cat([x, x + SIGMA * torch.randn_like(x)])
    logits, moved = called(D, both, c if c is None else torch.cat([c, c])).chunk(2)
    slope = (moved.sum(1) - logits.sum(1)) / SIGMA
    (F.softplus(-logits).mean() + GAMMA / 2 * slope.square().mean()).backward()


def compiled(D: nn.Module, x: Tensor, c: Any) -> Callable[[], None]:
    """The step of D, compiled at its first call."""
    torch.compiler.reset()
    torch._dynamo.config.trace_autograd_ops = True
    torch._inductor.config.fallback_random = True
    params = list(D.parameters())

    @functools.partial(torch.compile, fullgraph=True, dynamic=False)
    def by_parameters(x: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(total(D, x, c), params, allow_unused=True)

    def call() -> None:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            for p, grad in zip(params, by_parameters(x), strict=True):
                p.grad = grad

    return call


def gradients(D: nn.Module, x: Tensor, c: Any, step: Step) -> list[Tensor]:
    """Those of a copy of D, so that each way begins with the same buffers."""
    D = copy.deepcopy(D)
    return left_by(lambda: step(D, x, c), D)


def left_by(call: Callable[[], object], D: nn.Module) -> list[Tensor]:
    """The gradients in .grad after a call."""
    torch.manual_seed(1)
    call()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in D.parameters()]


def error(found: list[Tensor], truth: list[Tensor]) -> float:
    off = sum((a.double() - b).square().sum() for a, b in zip(found, truth, strict=True))
    return float((off / sum(b.square().sum() for b in truth)).sqrt())


def made(sample: Sample) -> tuple[nn.Module, Tensor, Any]:
    torch.manual_seed(0)
    D, x = sample.make(), torch.randn(sample.shape)
    if sample.of_images:  # the faster layout of all of them
        D, x = D.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    return D, x, torch.randint(sample.num_classes, sample.shape[:1]) if sample.num_classes else None


def measured(name: str, sample: Sample, seconds: float, *, compile: str) -> dict[str, Any]:
    D, x, c = made(sample)
    plain = on_math_kernels(by_autograd) if sample.attends else by_autograd
    truth = gradients(copy.deepcopy(D).double(), x.double(), c, plain)
    steps: dict[str, Step] = {
        "autograd": plain,
        "level None": by_level(None),
        "aligned": by_level("aligned"),
        "random": in_a_random_direction,
    }
    if compile == "alone":
        steps = {"autograd": plain}
    reason = refusal(D, x, c)
    row: dict[str, Any] = {"D": name, "level": level_of(D, x, c), "refusal": reason}
    for way, step in list(steps.items()):
        try:
            row[f"{way} error"] = error(gradients(D, x, c, step), truth)
        except RuntimeError as refused:  # level "aligned" refuses kinks that it cannot hold
            row |= {f"{way} error": None, f"{way} failure": str(refused)}
            del steps[way]
    peers = {way: _cleared(D, lambda step=step: step(D, x, c)) for way, step in steps.items()}
    if compile != "without":
        copied, start = copy.deepcopy(D), time.perf_counter()
        try:
            step = compiled(copied, x, c)
            row["compile error"] = error(left_by(step, copied), truth)
            peers["compile"], row["compile s"] = step, time.perf_counter() - start
        except Exception as refused:  # torch.compile may raise any exception
            row["compile failure"] = f"{type(refused).__name__}: {str(refused).strip().splitlines()[0]}"
    timings = compare(peers, seconds=seconds, tuned=True, clock=on_this_thread)
    for way, timing in timings.items():
        row[f"{way} ms"] = timing.median if timing.ms else None
        row[f"{way} MiB"], row[f"{way} failure"] = timing.peak_mib, timing.error
    return row


def _cleared(D: nn.Module, step: Callable[[], object]) -> Callable[[], object]:
    def call() -> None:
        D.zero_grad(set_to_none=True)
        step()

    return call


def line(row: dict[str, Any]) -> dict[str, str]:
    """A row as the table shows it: how many times as fast as autograd, errors, and peak memory."""

    def gain(way: str) -> str:
        ms = row.get(f"{way} ms")
        if way == "compile" and row.get("compile error", 0) > 1e-3 + 2 * row["autograd error"]:
            return "wrong"
        return "-" if ms is None else f"{row['autograd ms'] / ms:.2f}"

    def number(name: str, form: str) -> str:
        return "-" if row.get(name) is None else format(row[name], form)

    return {
        "D": row["D"],
        "level": str(row["level"]),
        **{way: gain(way) for way in ("level None", "aligned", "compile", "random")},
        **{f"error of {way}": number(f"{way} error", ".0e") for way in ("level None", "aligned", "compile", "random")},
        **{f"MiB of {way}": number(f"{way} MiB", ".0f") for way in ("autograd", "level None", "aligned")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="the networks whose names have one of these words")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the peers of a network take turns")
    parser.add_argument("--isa", help="hold all peers to this instruction set, such as avx2")
    parser.add_argument(
        "--compile",
        choices=["with", "without", "alone"],
        default="with",
        help="time torch.compile, which compiles for minutes: with the others, not at all, or with autograd alone",
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="where the rows go")
    asked = parser.parse_args()
    if asked.isa is not None:
        if (reason := isa.refusal(asked.isa)) is not None:
            parser.error(f"--isa {asked.isa}: {reason}")
        isa.run_again(asked.isa, [sys.executable, *sys.orig_argv[1:]])
    names = [name for name in DISCRIMINATORS if not asked.words or any(word in name for word in asked.words)]
    malloc.tune()
    torch.set_num_threads(1)
    found = []
    for name in tqdm(names, unit="network"):
        found.append(measured(name, DISCRIMINATORS[name], asked.seconds, compile=asked.compile))
        rows.append(asked.out, [{**rows.environment("cpu"), **found[-1]}])
    print(table([line(row) for row in found]))


if __name__ == "__main__":
    main()
