"""CUDA graphs: what a phase launches is recorded once, and launched as one thing from then on."""

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from gan_engine.checkpoint import rng_state, set_rng_state
from gan_engine.config import Config
from gan_engine.distributed import Processes
from gan_engine.losses.objective import Batch
from gan_engine.phases import Means, Phase

WARM_UP = 2  # calls before the recording, in which kernels are compiled and chosen
CHECKS = 2  # calls computed both ways; whatever the host decides differs from one to the next

Gradients = Callable[[Batch], tuple[Tensor, Means]]


def refusal(config: Config, device: torch.device, processes: Processes) -> str | None:
    """Why no phase of such a run can be recorded, or None."""
    if device.type != "cuda":
        return f"CUDA graphs take a GPU, not {device.type}"
    if config.augment != "none":
        return f"what --augment {config.augment} draws is drawn by the host, anew in every pass"
    if processes.size > 1:
        return f"{processes.size} processes exchange statistics inside their passes"
    return None


def describe(phases: Iterable[Phase]) -> str:
    """Which of `phases` are to be recorded, and why others are not."""
    recorded = ", ".join(phase.name for phase in phases if phase.host is None)
    return "; ".join([recorded or "none", *(f"{phase.name} not: {phase.host}" for phase in phases if phase.host)])


class Recorded:
    """`gradients`, recorded as a CUDA graph as soon as that is seen to do the same.

    The first calls run as they are. Then the graph is recorded, and in two calls its loss, gradients and buffers are
    compared with those of a pass without it, whose results are used. What cannot be recorded, or comes out otherwise,
    goes on running as it is.

    Args:
        gradients: of a batch, are left in .grad of phase.net; returns the loss and what was measured.
        phase: whose gradients they are.
        nets: all that run in it.
        tolerance: relative difference of two passes that is rounding.
    """

    def __init__(self, gradients: Gradients, phase: Phase, nets: list[nn.Module], tolerance: float) -> None:
        self.gradients, self.name, self.net, self.tolerance = gradients, phase.name, phase.net, tolerance
        self.buffers = [buffer for net in nets for buffer in net.buffers()]
        self.launch: Gradients = self._check
        self.replay: Gradients | None = None
        self.calls = self.checked = 0

    def __call__(self, batch: Batch) -> tuple[Tensor, Means]:
        self.calls += 1
        return self.gradients(batch) if self.calls <= WARM_UP else self.launch(batch)

    def _check(self, batch: Batch) -> tuple[Tensor, Means]:
        """What `gradients` does to everything, after a look at what the graph does."""
        before = self._state()
        loss, means = self.gradients(batch)
        grads, after = _grads(self.net), self._state()
        if not torch.nn.utils.get_total_norm([loss, *_defined(grads)]).isfinite():
            return loss, means  # nothing to compare with: in float16 the first losses may be scaled up too far
        reason = None
        try:
            self._restore(before)
            if self.replay is None:
                self.net.zero_grad(set_to_none=True)
                self.replay = record(self.gradients, self.net, batch)
                self._restore(before)
            got, _ = self.replay(batch)
            pairs = {
                "loss": ([loss], [got]),
                "gradients": (_defined(grads), _defined(_grads(self.net))),
                "buffers": (after[0], self.buffers),
            }
            reason = next(filter(None, (self._differ(name, *pair) for name, pair in pairs.items())), None)
        except RuntimeError as error:
            reason = str(error.__context__ or error).splitlines()[0]
        self._restore(after)
        _set_grads(self.net, grads)
        self.checked += 1
        if reason is not None:
            self.launch, self.replay = self.gradients, None
            warnings.warn(f"phase {self.name} goes on without a CUDA graph: {reason}", stacklevel=2)
        elif self.checked == CHECKS:
            self.launch = self.replay
        return loss, means

    def _differ(self, name: str, want: list[Tensor], got: list[Tensor]) -> str | None:
        norm = torch.nn.utils.get_total_norm
        want, got = ([tensor.double() for tensor in tensors] for tensors in (want, got))
        difference = float(norm([g - w for w, g in zip(want, got, strict=True)]) / norm(want).clamp(min=1e-30))
        if difference <= self.tolerance:
            return None
        return f"the {name} of the graph are off by {difference:.1g} of their norm; want at most {self.tolerance:.1g}"

    def _state(self) -> tuple[list[Tensor], dict]:
        return [buffer.clone() for buffer in self.buffers], rng_state()

    def _restore(self, state: tuple[list[Tensor], dict]) -> None:
        for buffer, values in zip(self.buffers, state[0], strict=True):
            buffer.copy_(values)
        set_rng_state(state[1])


def record(gradients: Gradients, net: nn.Module, batch: Batch) -> Gradients:
    """A CUDA graph of `gradients`, which runs on any batch of the sizes of `batch`.

    Its results stay in place, and are overwritten the next time. Raises RuntimeError where something, such as waiting
    for the GPU, cannot be recorded.
    """
    static = Batch(*(None if values is None else values.clone() for values in batch))
    stream, generator = torch.cuda.current_stream(), torch.cuda.default_generators[torch.cuda.current_device()]
    drawn = generator.clone_state()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = gradients(static)
    except RuntimeError:  # PyTorch leaves its stream, and random numbers that count for a graph that never was
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(drawn)
        raise
    grads = _grads(net)

    def replay(batch: Batch) -> tuple[Tensor, Means]:
        for ours, theirs in zip(static, batch, strict=True):
            if ours is not None:
                ours.copy_(theirs)
        graph.replay()
        _set_grads(net, grads)
        return results

    return replay


def _grads(net: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in net.parameters()]


def _set_grads(net: nn.Module, grads: list[Tensor | None]) -> None:
    for p, grad in zip(net.parameters(), grads, strict=True):
        p.grad = grad


def _defined(grads: list[Tensor | None]) -> list[Tensor]:
    return [grad for grad in grads if grad is not None]
