"""CUDA graphs: the kernels of a phase are recorded once, and launched as one graph from then on."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gan_engine.losses.objective import Batch
from gan_engine.system.random_state import rng_state, set_rng_state
from gan_engine.training.distributed import Processes
from gan_engine.training.means import Means
from gan_engine.training.schedule import Phase

WARM_UP = 2  # calls before the recording, in which kernels are compiled and chosen
CHECKS = 2  # calls computed both ways; a choice of the host shows, as it differs from call to call
TOLERANCE = 0.02  # relative difference of two passes that may still be rounding, which is largest in bfloat16

# Of weights, moments and averages, which follow from the gradients. Adam makes a whole step of a gradient that is
# rounding alone. What must be found is a step that was not taken, or was taken twice.
STEP_TOLERANCE = 0.5
_WARNED = "_warned_capturable_if_run_uncaptured"  # PyTorch's mark of an optimiser that needs no such warning

Compute = Callable[[Batch], tuple[Tensor, Means]]


class Changing(NamedTuple):
    """The tensors that a phase changes in place."""

    buffers: list[Tensor]
    steps: dict[str, list[Tensor]]  # what an optimiser and the average change, by name
    others: list[Tensor]  # not compared: what they hold follows from the rest

    def tensors(self) -> list[Tensor]:
        return [*self.buffers, *(tensor for group in self.steps.values() for tensor in group), *self.others]


class State(NamedTuple):
    """Values of the tensors that change, and the states of random generators."""

    values: Changing
    rng: dict


def refusal(device: torch.device, processes: Processes, outside: Sequence[str] = ()) -> str | None:
    """Why no phase of such a run can be recorded, or None. `outside` names what plug-ins gave the run."""
    if device.type != "cuda":
        return f"CUDA graphs take a GPU, not {device.type}"
    if processes.size > 1:
        return f"CUDA graphs were never tried with {processes.size} processes"
    if outside:
        return f"a graph would freeze what the plug-in of {', '.join(outside)} may change from step to step"
    return None


def describe(phases: Iterable[Phase]) -> str:
    """Which of `phases` are to be recorded, and why others are not."""
    recorded = ", ".join(name for phase in phases if phase.no_graph is None for name in phase.forms)
    others = (f"{phase.name} not: {phase.no_graph}" for phase in phases if phase.no_graph)
    return "; ".join([recorded or "none", *others])


class TooLittleMemory(RuntimeError):
    """A graph does not fit, and nothing was recorded."""


@dataclass
class Recording:
    """What the recorded phases of a run share.

    Attributes:
        phases: all of them.
    """

    phases: list["RecordedPhase"] = field(default_factory=list)
    _pool: Any = None

    def pool(self) -> Any:
        """The memory of all graphs, for the next one. It is new where there is no graph, as PyTorch ends it with them.

        The graphs never run at once, and the results of each stay in use, so that one graph may put its intermediate
        results where another one had its own.
        """
        if all(phase.replay is None for phase in self.phases):
            self._pool = torch.cuda.graph_pool_handle()
        return self._pool

    def end(self) -> None:
        """Free the graphs, and their memory once their results are not used any more."""
        for phase in self.phases:
            phase.end()


class RecordedPhase:
    """The work of a phase, which becomes a CUDA graph once the graph was seen to give the same.

    The first calls run without a graph. Then the graph is recorded. The next two calls compare its loss, gradients,
    buffers and new weights with those without it, and keep the latter. A phase whose graph differs goes on
    without a graph, and says why. If one recording fails, drop all graphs: PyTorch's state is unreliable.

    Args:
        compute: takes the step of a batch, and leaves the gradients in .grad of `net`; returns the loss and what was
            measured.
        name: of the phase, for messages.
        net: the network that learns.
        optimizer: takes the step.
        changing: gives what `compute` changes in place.
        recording: of the run, to which this phase adds itself.

    Attributes:
        launch: what a call does after the first calls: the check, then `replay` or `compute`.
        replay: launches the graph; None without a graph.
    """

    def __init__(
        self,
        compute: Compute,
        name: str,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        changing: Callable[[], Changing],
        recording: Recording,
    ) -> None:
        self.compute, self.name, self.net, self.optimizer = compute, name, net, optimizer
        self.changing, self.recording, self.device = changing, recording, next(net.parameters()).device
        self.launch: Compute = self._check
        self.replay: Compute | None = None
        self.calls = self.checked = 0
        recording.phases.append(self)

    def __call__(self, batch: Batch) -> tuple[Tensor, Means]:
        self.calls += 1
        return self.compute(batch) if self.calls <= WARM_UP else self.launch(batch)

    def _check(self, batch: Batch) -> tuple[Tensor, Means]:
        """Compute without the graph, compare the graph with the result, and leave everything as without the graph."""
        before = self._state()
        loss, means = self.compute(batch)
        grads, after = _grads(self.net), self._state()
        if not (loss + _flat(grads).sum()).isfinite():
            return loss, means  # nothing to compare: the first loss scales in fp16 may be too large
        reason, dropped = None, [self]
        try:
            reason = self._difference(batch, loss, grads, before, after)
        except TooLittleMemory as error:
            reason = str(error)
        except Exception as error:
            lines = str(error.__context__ or error).splitlines()
            reason, dropped = lines[0] if lines else repr(error), self.recording.phases
        self._restore(after)
        _set_grads(self.net, grads)
        self.checked += 1
        if reason is not None:
            self._drop(dropped, reason)
        elif self.checked == CHECKS:
            self.launch = self.replay
        return loss, means

    def _difference(
        self, batch: Batch, loss: Tensor, grads: list[Tensor | None], before: State, after: State
    ) -> str | None:
        """Launch the graph, which is recorded if there is none yet, and say how its results differ from these."""
        self._restore(before)
        if self.replay is None:
            self.net.zero_grad(set_to_none=True)
            with _capturable(self.optimizer):
                self.replay = record(self.compute, self.net, batch, self.recording)
            self._restore(before)
        got_loss, _ = self.replay(batch)
        want = _flat(grads)
        off = {"loss": _off(got_loss, loss, loss), "gradients": _off(_flat(_grads(self.net)), want, want)}
        # Relative to the change in this pass: most of a running mean is older.
        ours, new, old = self.changing(), after.values, before.values
        buffers = zip(ours.buffers, new.buffers, old.buffers, strict=True)
        differences = (_off(got, want, want.double() - was) for got, want, was in buffers)
        off["buffers"] = next((x for x in differences if not x <= TOLERANCE), 0.0)
        wrong = {name: x for name, x in off.items() if not x <= TOLERANCE}
        for name, got in ours.steps.items():
            x = _off_together(got, new.steps[name], old.steps[name])
            if not x <= STEP_TOLERANCE:
                wrong[name] = x
        return next((f"{name} off by {x:.1g}" for name, x in wrong.items()), None)

    def _drop(self, phases: list["RecordedPhase"], reason: str) -> None:
        """Let `phases` go on without graphs."""
        for phase in phases:
            phase.end()
        names = ", ".join(phase.name for phase in phases)
        warnings.warn(
            f"no CUDA graph of {names} from here on, because of the graph of {self.name}: {reason}", stacklevel=3
        )

    def end(self) -> None:
        """Go on without a graph."""
        self.launch, self.replay = self.compute, None

    def _state(self) -> State:
        buffers, steps, others = self.changing()
        groups = {name: _clones(group) for name, group in steps.items()}
        return State(Changing(_clones(buffers), groups, _clones(others)), rng_state(self.device))

    @torch.no_grad()
    def _restore(self, state: State) -> None:
        for tensor, values in zip(self.changing().tensors(), state.values.tensors(), strict=True):
            tensor.copy_(values)
        set_rng_state(state.rng, self.device)


def _clones(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _off(got: Tensor, want: Tensor, scale: Tensor) -> float:
    """|got - want| / |scale|, and 0 where got equals want"""
    difference = (got.double() - want.double()).norm()
    return float(difference / scale.double().norm()) if difference else 0.0


def _off_together(got: list[Tensor], want: list[Tensor], old: list[Tensor]) -> float:
    """|got - want| / |want - old| of all tensors together"""
    pairs = zip(got, want, strict=True), zip(want, old, strict=True)
    norms = [torch.stack([(x.detach() - y).norm() for x, y in pair] or [torch.zeros(())]).norm() for pair in pairs]
    return float(norms[0] / norms[1]) if norms[0] else 0.0


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, `optimizer` admits a recording. A fused one keeps all that it reads on the device in any case."""
    before = [group["capturable"] for group in optimizer.param_groups]
    warned = vars(optimizer).get(_WARNED, False)
    try:
        vars(optimizer)[_WARNED] = True  # `record` also runs it without a recording, on purpose
        for group in optimizer.param_groups:
            group["capturable"] = True
        yield
    finally:
        vars(optimizer)[_WARNED] = warned
        for group, value in zip(optimizer.param_groups, before, strict=True):
            group["capturable"] = value


def record(compute: Compute, net: nn.Module, batch: Batch, recording: Recording) -> Compute:
    """Record a CUDA graph of `compute`, which runs on any batch of the sizes of `batch`.

    The next launch overwrites the results of a launch. Raises TooLittleMemory if there is no room for the graph and a
    pass beside it, and RuntimeError if something cannot be recorded, such as waiting for the GPU.
    """
    static = Batch(*(None if values is None else values.clone() for values in batch))
    torch.cuda.reset_peak_memory_stats()
    taken = torch.cuda.memory_allocated()
    compute(static)
    needed = 2 * (torch.cuda.max_memory_allocated() - taken)
    net.zero_grad(set_to_none=True)
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if free < needed:
        gigabytes = (f"{size / 2**30:.1f}" for size in (needed, free))
        raise TooLittleMemory("it needs {} GiB with a pass beside it, and {} are free".format(*gigabytes))
    stream, generator = torch.cuda.current_stream(), torch.cuda.default_generators[torch.cuda.current_device()]
    drawn = generator.clone_state()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, pool=recording.pool(), capture_error_mode="thread_local"):
            results = compute(static)
    except BaseException:  # PyTorch leaves its stream in use, and random numbers counted for the failed graph
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(drawn)
        raise
    grads = _grads(net)

    def replay(batch: Batch) -> tuple[Tensor, Means]:
        torch._foreach_copy_(_tensors(static), _tensors(batch))
        graph.replay()
        _set_grads(net, grads)
        return results

    return replay


def _tensors(batch: Batch) -> list[Tensor]:
    return [values for values in batch if values is not None]


def _flat(grads: list[Tensor | None]) -> Tensor:
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def _grads(net: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in net.parameters()]


def _set_grads(net: nn.Module, grads: list[Tensor | None]) -> None:
    for p, grad in zip(net.parameters(), grads, strict=True):
        p.grad = grad
