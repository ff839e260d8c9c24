"""Time every op on every backend that accepts it, beside eager PyTorch, torch.compile, other libraries and floors.

`gan_engine.ops.samples.Op` may name more functions to time, which have the arguments of the op: `variants` are other
eager forms (the grouped form of a modulated convolution), and `floors` are work that no implementation can avoid (its
convolution alone).
"""

from collections.abc import Callable
from functools import lru_cache, partial

import pytest
import torch
from torch import Tensor

from benchmarks.check import wrong_results
from benchmarks.steps import MODES, compiled_steps, copy_floor, laid_out, step
from gan_engine import backends
from gan_engine.ops.samples import OPS, Sample

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SAMPLES = [pytest.param(name, sample, id=f"{name}-{sample.name}") for name, op in OPS.items() for sample in op.real]

# Modules that torch.compile imports give this deprecation warning about PyTorch's own code.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

_measured = 0.0


def _clock() -> float:
    """A clock for pytest-benchmark, in seconds. It advances only when a measured time is replayed."""
    return _measured


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "sample"), SAMPLES)
@pytest.mark.benchmark(timer=_clock)
def test_op(name: str, sample: Sample, dtype: str, mode: str, malloc: str, session, benchmark) -> None:
    op = OPS[name]
    tensors, dy = _inputs(name, op.real.index(sample), DTYPES[dtype], session.device)
    inputs = list(tensors.values())

    def bind(function: Callable[..., Tensor], **options) -> Callable[..., Tensor]:
        return lambda *values: function(**dict(zip(tensors, values)), **sample.options, **options)

    ours = {backend: bind(op.function, backend=backend) for backend in _backends(name, inputs[0])}
    eager = {"eager": op.eager, **{f"eager {key}": f for key, f in op.variants.items()}}
    eager = {key: bind(f) for key, f in eager.items()}
    others = {session.peer_name: bind(session.peers[name])} if name in session.peers else {}

    case = {"op": name, "sample": sample.name, "dtype": dtype, "mode": mode}
    key = tuple(case.values())
    if key not in session.errors:
        reference = bind(op.function, backend="reference")
        session.errors[key] = wrong_results(
            {**ours, **others}, mode, inputs, dy, eager=eager["eager"], reference=reference
        )
    errors = session.errors[key]

    torch.compiler.reset()  # each comparison compiles for its own shapes; the second malloc setting uses the caches
    by_role = {
        "ours": {key: step(f, mode, inputs, dy) for key, f in ours.items()},
        "eager": {key: step(f, mode, inputs, dy) for key, f in eager.items()},
        "compile": {},
        "peer": {key: step(f, mode, inputs, dy) for key, f in others.items()},
        "floor": {"copy": copy_floor(mode, inputs, dy)},
    }
    last, dy_last = [laid_out(t, torch.channels_last) for t in inputs], laid_out(dy, torch.channels_last)
    for key, f in eager.items():
        if any(a is not b for a, b in zip([*last, dy_last], [*inputs, dy])):
            by_role["eager"][f"{key} channels_last"] = step(f, mode, last, dy_last)
        for form, call in compiled_steps(f, mode, inputs, dy).items():
            by_role["compile"][form + key.removeprefix("eager")] = call
    for key, function in op.floors.items():
        bare = partial(function, **sample.options)
        by_role["floor"][key] = step(bare, mode, inputs[:2], dy)

    roles = {key: role for role, calls in by_role.items() for key in calls}
    calls = {key: call for calls in by_role.values() for key, call in calls.items()}
    timings = session.compare({**case, "malloc": malloc}, roles, calls, errors)

    # pytest-benchmark gets the times of the first backend, call by call.
    first = timings[next(iter(ours))]
    benchmark.group = f"{name} {mode}"
    benchmark.extra_info.update(case, malloc=malloc, medians_ms={key: t.median for key, t in timings.items() if t.ms})
    durations = iter(first.ms)

    def replay() -> None:
        global _measured
        _measured += next(durations, 0.0) / 1e3

    benchmark.pedantic(replay, rounds=max(1, len(first.ms)))
    failed = {key: timings[key].error for key in ours if timings[key].error}
    assert not failed, failed


def _backends(op: str, x: Tensor) -> list[str]:
    """The backends that can run here, in the order of choice.

    Interpreted kernels are left out, because their speed means nothing. "pytorch" is left out if a kernel of ours runs,
    because the eager form already measures PyTorch's own operators.
    """
    interpreted = {"triton"} if backends.INTERPRET else set()
    can_run = [b for b in backends.ORDER if b not in interpreted and backends.refusal(op, b, x) is None]
    has_kernel = any(b in backends.KERNELS for b in can_run)
    return [b for b in can_run if not (has_kernel and b == "pytorch")]


@lru_cache(maxsize=1)
def _inputs(op: str, sample: int, dtype: torch.dtype, device: str) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors of the op's real sample with this number, and dy, a gradient of a loss by its result."""
    chosen = OPS[op].real[sample]
    tensors = chosen.tensors(dtype, device)
    torch.manual_seed(1)
    with torch.no_grad():
        return tensors, torch.randn_like(OPS[op].eager(**tensors, **chosen.options))
