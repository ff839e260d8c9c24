"""The backends that run the ops of a training run: what `backends.choose` answered up to the end of the first step."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from gan_engine import backends
from gan_engine.backends import ORDER, Choice


def summary(choices: Iterable[Choice]) -> dict[str, dict[str, Any]]:
    """{op: {backend: {"calls": n, "reasons": [...]}}}, in plain types; the reasons are against earlier backends."""
    calls: Counter[tuple[str, str]] = Counter()
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for choice in choices:
        key = choice.op, choice.backend
        calls[key] += 1
        reasons.setdefault(key, {}).update(
            dict.fromkeys(f"{name}: {reason}" for name, reason in choice.reasons.items())
        )
    found: dict[str, dict[str, Any]] = {}
    for op, backend in sorted(calls, key=lambda key: (key[0], ORDER.index(key[1]))):
        what = {"calls": calls[op, backend], "reasons": [*reasons[op, backend]]}
        found.setdefault(op, {})[backend] = what
    return found


def line(ops: dict[str, dict[str, Any]]) -> str:
    """The backend of each op, with the number of calls where there are several: `conv2d 3 cpu + 2 pytorch`."""
    each = []
    for op, by_backend in ops.items():
        if len(by_backend) == 1:
            each.append(f"{op} {next(iter(by_backend))}")
        else:
            each.append(f"{op} " + " + ".join(f"{what['calls']} {name}" for name, what in by_backend.items()))
    return f"ops        {', '.join(each) or 'none'}; run.json says why"


def refused() -> list[str]:
    """The kernels that the self-check found wrong, a line each."""
    found = {f"{op} on {backend}": why for (op, backend, *_), why in backends.wrong.items()}
    return [f"refused    {kernels} {why}" for kernels, why in found.items()]
