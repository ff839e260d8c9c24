"""The state of D before it was tried, so that a refused trial leaves no trace.

A D that is refused half way may have counted the batch, turned a spectral norm or drawn random numbers by then. It runs
once more at another level, and must begin from the state that it had.
"""

import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.traced_tensor import TracedTensor
from gan_engine.losses.network import Network, modules_of


class Snapshot(TorchFunctionMode):
    """The state of D's modules, of tensors and of random numbers, taken before each of them can change.

    The attributes and buffers of D's modules are kept at once. A module that D does not hold is kept when it first runs
    inside of the snapshot. Any other tensor is kept when a function of PyTorch is about to write to it.
    """

    def __init__(self, D: Network, device: torch.device) -> None:
        super().__init__()
        self.attributes: dict[nn.Module, dict[str, Any]] = {}
        self.containers: list[tuple[Any, Any]] = []
        self.tensors: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.generators: dict[torch.Generator, Tensor] = {}
        self.random = _random_states(device)
        self.thread = threading.get_ident()
        for module in modules_of(D, held=True):
            self._keep_module(module)

    def __enter__(self) -> "Snapshot":
        self.hook = register_module_forward_pre_hook(self._before_module)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.hook.remove()

    def restore(self) -> None:
        for container, before in self.containers:
            if not _holds(container, before):  # a frozen dict has no update()
                container.clear()
                (container.extend if isinstance(container, list | deque) else container.update)(before)
        for module, before in self.attributes.items():
            for name in vars(module).keys() - before.keys():
                del vars(module)[name]
            vars(module).update(before)
        for tensor, memory, before in reversed(self.tensors.values()):  # a view is written to after its base was kept
            tensor.data = memory  # the tensor may have been given other memory, or another size
            # PyTorch does not count a write through .data. A pass of D whose backward pass is still to come needs that.
            memory.copy_(before)
        for generator, state in self.generators.items():
            generator.set_state(state)
        for set_state, state in self.random:
            set_state(state)

    def _before_module(self, module: nn.Module, args: tuple) -> None:
        if threading.get_ident() != self.thread:
            return
        if module._backward_hooks or module._backward_pre_hooks:
            raise NotPiecewiseLinear("a backward hook, which only autograd calls, is registered")
        for part in () if module in self.attributes else module.modules():
            self._keep_module(part)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        written = _arguments_written(func)
        if written or "out" in kwargs:
            for tensor in tree_leaves((args[:written], kwargs.get("out"), [*kwargs.values()] if written > 1 else ())):
                if isinstance(tensor, Tensor) and not isinstance(tensor, TracedTensor) and tensor.grad_fn is None:
                    self._keep_tensor(tensor)
        if (generator := kwargs.get("generator")) is not None and generator not in self.generators:
            self.generators[generator] = generator.get_state()
        return func(*args, **kwargs)

    def _keep_module(self, module: nn.Module) -> None:
        if module in self.attributes or isinstance(module, LazyModuleMixin):
            return
        self.attributes[module] = dict(vars(module))
        for name, value in vars(module).items():
            if name not in _HOOKS_AND_MODES and isinstance(value, dict | list | set | deque):
                self.containers.append((value, dict(value) if isinstance(value, dict) else list(value)))
        for buffer in module._buffers.values():
            if buffer is not None:
                self._keep_tensor(buffer)

    def _keep_tensor(self, tensor: Tensor) -> None:
        # A tensor that torch.func wraps ends with its transform.
        if id(tensor) not in self.tensors and not is_functorch_wrapped_tensor(tensor):
            self.tensors[id(tensor)] = tensor, tensor.data, tensor.detach().clone()


def _holds(container: Any, before: dict | list) -> bool:
    """Whether the container still holds the very objects that it held, in their order."""
    now, then = ([*c, *c.values()] if isinstance(c, dict) else [*c] for c in (container, before))
    return len(now) == len(then) and all(a is b for a, b in zip(now, then, strict=True))


# The containers that every module has and that a forward pass leaves alone.
_HOOKS_AND_MODES = vars(nn.Module()).keys() - {"_parameters", "_buffers", "_modules"}

_IN_PLACE_OPERATORS = {
    *("__set__", "__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__"),
    *("__ipow__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__"),
}


@functools.lru_cache(maxsize=256)
def _arguments_written(func: Callable) -> int:
    """How many of its arguments, counted from the first, a function of PyTorch may write to."""
    name = getattr(func, "__name__", "")
    if name in ("batch_norm", "instance_norm"):  # the image and two running statistics
        return 3
    return int((name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE_OPERATORS)


def _random_states(device: torch.device) -> list[tuple[Callable[[Tensor], None], Tensor]]:
    """PyTorch's default generators: the function that sets the state of each, and its state."""
    found = [(torch.set_rng_state, torch.get_rng_state())]
    if device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
        found.append((lambda state: torch.cuda.set_rng_state(state, device), torch.cuda.get_rng_state(device)))
    return found
