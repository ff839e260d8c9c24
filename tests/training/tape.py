"""A CUDA graph played on the CPU: operators are recorded once with their arguments, and replayed on the same memory.

Numbers of Python are frozen in the recording, as they are in a graph. Kernels of gan_engine are not seen; run with the
backend "reference".
"""

from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from gan_engine.losses.objective import Batch


class Tape(TorchDispatchMode):
    """Inside, operators run and are recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        """Run the operators again, and put what they return where it was."""
        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                new = func(*args, **kwargs)
                for ours, theirs in zip(pytree.tree_leaves(out), pytree.tree_leaves(new), strict=True):
                    if isinstance(ours, torch.Tensor) and ours.data_ptr() != theirs.data_ptr():
                        ours.copy_(theirs)


def taped(compute: Any, net: Any, batch: Batch, _: Any) -> Any:
    """In place of graphs.record."""
    static = Batch(*(None if values is None else values.clone() for values in batch))
    net.zero_grad(set_to_none=True)
    with Tape() as tape:
        results = compute(static)
    grads = [p.grad for p in net.parameters()]

    def replay(batch: Batch) -> Any:
        for ours, theirs in zip(static, batch, strict=True):
            if ours is not None:
                ours.copy_(theirs)
        tape.replay()
        for p, grad in zip(net.parameters(), grads, strict=True):
            p.grad = grad
        return results

    return replay
