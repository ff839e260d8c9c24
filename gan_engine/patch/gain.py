"""How much faster a patched network is, on an input of its owner."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gan_engine.patch.table import Patch

SECONDS, ROUNDS = 3, (3, 30)  # of one measurement, and the least and the greatest number of rounds


def measured(patch: Patch, network: nn.Module, example: Any) -> dict[str, float]:
    """The time of the original divided by the time of the patched network, forward, and with the backward pass

    Both take turns, and the shortest time of each counts, since other work on the machine only makes a call longer.
    The network is patched at the end. `.grad` of its parameters, its buffers and PyTorch's random numbers stay as they
    were. A network whose output has no gradient has no backward pass.
    """
    given = example if isinstance(example, tuple) else (example,)
    wanted = [p for p in network.parameters() if p.requires_grad]

    def forward() -> None:
        with torch.no_grad():
            network(*given)

    def backward() -> None:
        total = sum(y.float().sum() for y in tensors(network(*given)) if y.requires_grad)
        torch.autograd.grad(total, wanted, allow_unused=True)  # type: ignore[arg-type]

    buffers = {name: b.clone() for name, b in network.named_buffers()}
    gpus = {p.device for p in network.parameters() if p.is_cuda}
    try:
        with torch.random.fork_rng(gpus):  # dropout draws in each call
            gains = {"forward": _gain(patch, forward)}
            if wanted and any(y.requires_grad for y in tensors(network(*given))):
                gains["forward and backward"] = _gain(patch, backward)
    finally:
        with torch.no_grad():
            for name, b in network.named_buffers():
                b.copy_(buffers[name])
    return gains


def _gain(patch: Patch, call: Callable[[], None]) -> float:
    times: dict[bool, list[float]] = {False: [], True: []}
    start = time.perf_counter()
    for done in range(-1, ROUNDS[1]):
        if done >= ROUNDS[0] and time.perf_counter() - start > SECONDS:
            break
        for patched in times:
            (patch.do if patched else patch.undo)()
            began = _clock()
            call()
            if done >= 0:
                times[patched].append(_clock() - began)
    return min(times[False]) / min(times[True])


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in what a network returned."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors(each)
