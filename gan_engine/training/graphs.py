"""CUDA graphs: what a phase launches is recorded once, and launched as one thing from then on."""

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from gan_engine.config import Config
from gan_engine.losses.objective import Batch
from gan_engine.system.checkpoint import rng_state, set_rng_state
from gan_engine.training.distributed import Processes
from gan_engine.training.schedule import Means, Phase

WARM_UP = 2  # calls before the recording, in which kernels are compiled and chosen
CHECKS = 2  # calls computed both ways; whatever the host decides differs from one to the next
TOLERANCE = 0.02  # difference of two passes, of their norm, that is still rounding, in bfloat16 at the most

Gradients = Callable[[Batch], tuple[Tensor, Means]]


def refusal(config: Config, device: torch.device, processes: Processes) -> str | None:
    """Why no phase of such a run can be recorded, or None."""
    if device.type != "cuda":
        return f"CUDA graphs take a GPU, not {device.type}"
    if config.augment != "none":
        return f"what --augment {config.augment} draws is drawn by the host, anew in every pass"
    if processes.size > 1:
        return f"they were never tried with {processes.size} processes"
    return None


def describe(phases: Iterable[Phase]) -> str:
    """Which of `phases` are to be recorded, and why others are not."""
    recorded = ", ".join(phase.name for phase in phases if phase.no_graph is None)
    return "; ".join(
        [recorded or "none", *(f"{phase.name} not: {phase.no_graph}" for phase in phases if phase.no_graph)]
    )


class Recorded:
    """`gradients`, recorded as a CUDA graph as soon as that is seen to do the same.

    The first calls run as they are. Then the graph is recorded, and in two calls its loss, gradients and buffers are
    compared with those of a pass without it, whose results are used. What comes out otherwise goes on running as it is.
    If a recording fails, all phases of the run do: PyTorch leaves no other graph a state to rely on.

    Args:
        gradients: of a batch, are left in .grad of phase.net; returns the loss and what was measured.
        phase: whose gradients they are.
        nets: all that run in it.
        of_run: every Recorded of the run, to which this one adds itself.
    """

    def __init__(self, gradients: Gradients, phase: Phase, nets: list[nn.Module], of_run: list["Recorded"]) -> None:
        self.gradients, self.name, self.net, self.of_run = gradients, phase.name, phase.net, of_run
        self.buffers = [buffer for net in nets for buffer in net.buffers()]
        self.launch: Gradients = self._check
        self.replay: Gradients | None = None
        self.calls = self.checked = 0
        of_run.append(self)

    def __call__(self, batch: Batch) -> tuple[Tensor, Means]:
        self.calls += 1
        return self.gradients(batch) if self.calls <= WARM_UP else self.launch(batch)

    def _check(self, batch: Batch) -> tuple[Tensor, Means]:
        """What `gradients` does to everything, after a look at what the graph does."""
        before = self._state()
        loss, means = self.gradients(batch)
        grads, after = _grads(self.net), self._state()
        want = torch.cat([grad.flatten() for grad in grads if grad is not None])
        if not (loss + want.sum()).isfinite():
            return loss, means  # nothing to compare with: in float16 the first losses may be scaled up too far
        reason, given_up = None, [self]
        try:
            self._restore(before)
            if self.replay is None:
                self.net.zero_grad(set_to_none=True)
                self.replay = record(self.gradients, self.net, batch)
                self._restore(before)
            got_loss, _ = self.replay(batch)
            got = torch.cat([grad.flatten() for grad in _grads(self.net) if grad is not None])
            off = {"loss": _off(got_loss, loss, loss), "gradients": _off(got, want, want)}
            # Of what changes in a pass: most of a running mean is from before.
            buffers = zip(self.buffers, after[0], before[0], strict=True)
            differences = (_off(ours, new, new.double() - old) for ours, new, old in buffers)
            off["buffers"] = next((x for x in differences if not x <= TOLERANCE), 0.0)
            reason = next((f"{name} off by {x:.1g}" for name, x in off.items() if not x <= TOLERANCE), None)
        except Exception as error:
            lines = str(error.__context__ or error).splitlines()
            reason, given_up = lines[0] if lines else repr(error), self.of_run
        self._restore(after)
        _set_grads(self.net, grads)
        self.checked += 1
        if reason is not None:
            for recorded in given_up:
                recorded.launch, recorded.replay = recorded.gradients, None
            names = ", ".join(recorded.name for recorded in given_up)
            warnings.warn(f"no CUDA graph of {names} from here on, for that of {self.name}: {reason}", stacklevel=2)
        elif self.checked == CHECKS:
            self.launch = self.replay
        return loss, means

    def _state(self) -> tuple[list[Tensor], dict]:
        return [buffer.clone() for buffer in self.buffers], rng_state()

    def _restore(self, state: tuple[list[Tensor], dict]) -> None:
        for buffer, values in zip(self.buffers, state[0], strict=True):
            buffer.copy_(values)
        set_rng_state(state[1])


def _off(got: Tensor, want: Tensor, scale: Tensor) -> float:
    """|got - want| / |scale|, and 0 where got is want"""
    difference = (got.double() - want.double()).norm()
    return float(difference / scale.double().norm()) if difference else 0.0


def record(gradients: Gradients, net: nn.Module, batch: Batch) -> Gradients:
    """A CUDA graph of `gradients`, which runs on any batch of the sizes of `batch`.

    Its results stay in place, and are overwritten the next time. Raises RuntimeError where something, such as waiting
    for the GPU, cannot be recorded, or where the memory does not suffice for the graph beside passes without it.
    """
    static = Batch(*(None if values is None else values.clone() for values in batch))
    torch.cuda.reset_peak_memory_stats()
    taken = torch.cuda.memory_allocated()
    gradients(static)
    needed = 2 * (torch.cuda.max_memory_allocated() - taken)
    net.zero_grad(set_to_none=True)
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if free < needed:
        raise RuntimeError(f"it takes {needed / 2**30:.1f} GiB with a pass beside it, and {free / 2**30:.1f} are free")
    stream, generator = torch.cuda.current_stream(), torch.cuda.default_generators[torch.cuda.current_device()]
    drawn = generator.clone_state()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = gradients(static)
    except BaseException:  # PyTorch stays on its stream, and counts random numbers for a graph that never was
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
