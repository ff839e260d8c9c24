"""Operators on a GPU, at sizes that fill it: `python -m benchmarks.gpu_check.ops`.

    (nothing)     time each backend in both layouts beside PyTorch, with GB/s against a measured copy
    --compile     call every operator once in several processes, so that later stages compile nothing
    --sanitize    call the CUDA kernels on tiny tensors; compute-sanitizer runs this
    --peers PATH  time only the operators that another library has, beside ours

GB/s counts what no implementation can avoid: one read of all inputs and one write of the result for each order. A form
whose result is wrong gets its error instead of a time.
"""

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers, rows
from benchmarks.check import wrong_results
from benchmarks.gpu_check.cases import parser, run
from benchmarks.gpu_check.gpu_tests import workers
from benchmarks.gpu_check.stages import ROOT
from benchmarks.steps import MODES, compiled_steps, copy_floor, laid_out, step
from benchmarks.timing import compare
from gan_engine import backends
from gan_engine.ops.samples import OPS, Sample

ELEMENTS = 2**25  # of x: 64 MiB in bfloat16, more than the caches of any GPU so far
LAYOUTS = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}

# What takes most of a step's time outside of convolutions, by bytes moved in stylegan2_256, then dcgan and r3gan.
HOT = (
    *(("upfirdn2d", name) for name in ("blur-4x64x64x64", "down2-4x64x64x64", "up2-4x64x64x64")),
    ("upfirdn2d_act", "4x128x129x129"),
    ("scale_bias_act", "8x128x64x64"),
    ("bias_act", "8x64x256x256"),
    ("norm_act", "64x64x32x32"),
    ("sum_of_squares", "16x3x256x256"),
    ("pixel_norm", "64x512"),
    ("modulated_conv2d", "8x128x64x64"),
)


def enlarged(sample: Sample, elements: int = ELEMENTS) -> Sample:
    """The sample with as many images as make x at least `elements` large. All tensors for each image grow with it."""
    n, *others = sample.shapes["x"]
    images = max(n, -(-elements // torch.Size(others).numel()))
    shapes = {
        name: (images, *shape[1:]) if len(shape) > 1 and shape[0] == n else shape
        for name, shape in sample.shapes.items()
    }
    return dataclasses.replace(sample, name="x".join(map(str, shapes["x"])), shapes=shapes)


def bound(function: Callable[..., Tensor], names: list[str], options: dict[str, Any]) -> Callable[..., Tensor]:
    return lambda *values: function(**dict(zip(names, values)), **options)


def tensors_of(sample: Sample, dtype: torch.dtype, device: str, layout: torch.memory_format) -> dict[str, Tensor]:
    """The tensors of a sample as standard normal numbers, drawn on the device: the CPU would take seconds."""
    drawn = {name: torch.randn(shape, device=device).to(dtype) for name, shape in sample.shapes.items()}
    return {name: laid_out(t, layout).requires_grad_() for name, t in drawn.items()}


def measure(
    name: str,
    sample: Sample,
    dtype: torch.dtype,
    mode: str,
    layout: str,
    *,
    path: Path | None,
    device: str = "cuda",
    others: dict[str, Callable[..., Tensor]] | None = None,
    compiled: bool = False,
) -> None:
    """Time one call in all forms, `compiled` with torch.compile, and append a row for each to `path`."""
    op, tensors = OPS[name], tensors_of(sample, dtype, device, LAYOUTS[layout])
    names, inputs = list(tensors), list(tensors.values())
    kernels = [b for b in ("cuda", "triton") if backends.has(name, b)] if device == "cuda" else ["cpu"]
    refused = {b: reason for b in kernels if (reason := backends.refusal(name, b, inputs[0])) is not None}
    can = [b for b in kernels if b not in refused] or [b for b in ("pytorch",) if backends.has(name, b)]
    ours = {b: bound(op.function, names, sample.options | {"backend": b}) for b in can}
    eager = bound(op.eager, names, sample.options)
    peer = {library: bound(f, names, sample.options) for library, f in (others or {}).items()}
    with torch.no_grad():
        dy = torch.randn_like(eager(*inputs))
    reference = bound(op.function, names, sample.options | {"backend": "reference"})
    errors = refused | wrong_results({**ours, **peer}, mode, inputs, dy, eager=eager, reference=reference)
    torch.compiler.reset()
    calls = {form: step(f, mode, inputs, dy) for form, f in {**ours, "eager": eager, **peer}.items()}
    calls |= compiled_steps(eager, mode, inputs, dy) if compiled else {}
    calls["copy"] = copy_floor(mode, inputs, dy)
    roles = {form: "ours" if form in ours else "peer" if form in peer else form.partition(" ")[0] for form in calls}
    roles["copy"] = "floor"
    timed = {form: call for form, call in calls.items() if form not in errors}
    timings = compare(timed, seconds=0.5, device=device)
    case = {"op": name, "sample": f"{sample.name} {layout}", "dtype": str(dtype)[6:], "mode": mode, "malloc": "default"}
    case = {**rows.environment(device), **case}
    made = rows.rows_of(case, roles, timings)
    moved = (sum(t.nbytes for t in inputs) + dy.nbytes) * (1 + MODES.index(mode))
    copy = timings["copy"].median
    for row in made:
        if row.get("ms"):
            row |= {"gb_s": float(f"{moved / row['ms'] / 1e6:.4g}"), "of_copy": float(f"{copy / row['ms']:.3g}")}
    made += [
        {**case, "role": roles.get(form, "ours"), "peer": form, "ms": None, "error": error}
        for form, error in errors.items()
    ]
    if path is not None:
        rows.append(path, made)
    if wrong := {form: errors[form] for form in (*kernels, *ours) if form in errors}:
        raise RuntimeError(str(wrong))


def timed_cases(path: Path | None, library: Path | None, device: str = "cuda") -> dict[str, Callable[[], None]]:
    """The operators, the hottest first, in both layouts and two modes; torch.compile, which takes long, comes last."""
    found = peers.load(library, OPS) if library else {}
    todo: dict[str, Callable[[], None]] = {}
    for compiled, mode, (name, wanted) in itertools.product((False,) if library else (False, True), MODES[1:], HOT):
        if library is not None and name not in found:
            continue
        sample = next(s for s in OPS[name].real if s.name == wanted)
        for layout in LAYOUTS if len(sample.shapes["x"]) == 4 else ("NCHW",):
            options = {"path": path, "device": device, "compiled": compiled}
            if library is not None:
                options["others"] = {library.stem: found[name]}
            case = f"{name} {wanted} {layout} {mode}" + " beside torch.compile" * compiled
            todo[case] = partial(measure, name, enlarged(sample), torch.bfloat16, mode, layout, **options)
    return todo


def call_once(
    name: str, samples: tuple[Sample, ...], chosen: tuple[str, ...], dtypes: tuple[torch.dtype, ...], device: str
) -> None:
    """Call an op to the second order on these backends, in both layouts. Raises RuntimeError if one cannot run it."""
    refused = {}
    for sample, dtype, layout in itertools.product(samples, dtypes, LAYOUTS.values()):
        tensors = tensors_of(sample, dtype, device, layout)
        inputs = list(tensors.values())
        for backend in chosen:
            if (reason := backends.refusal(name, backend, inputs[0])) is not None:
                refused[backend] = reason
                continue
            f = bound(OPS[name].function, list(tensors), sample.options | {"backend": backend})
            with torch.no_grad():
                dy = torch.randn_like(f(*inputs))
            step(f, MODES[2], inputs, dy)()
    if device == "cuda":
        torch.cuda.synchronize()
    if refused:
        raise RuntimeError("; ".join(f"not called on {backend}: {reason}" for backend, reason in refused.items()))


def called_cases(kind: str, device: str = "cuda") -> dict[str, Callable[[], None]]:
    """For `kind` "compile" the real samples on all kernels, for "sanitize" one tiny sample on the CUDA kernels."""
    compiling = kind == "compile"
    kinds = ("cuda", "triton") if compiling else ("cuda",)
    dtypes = (torch.bfloat16, torch.float32) if compiling else (torch.float32,)
    return {
        f"{kind} {name}": partial(call_once, name, op.real if compiling else op.tiny[:1], chosen, dtypes, device)
        for name, op in OPS.items()
        if (chosen := tuple(backend for backend in kinds if backends.has(name, backend)))
    }


def main(argv: list[str] | None = None) -> int:
    made = parser("Operators on a GPU, at sizes that fill it.")
    made.add_argument("--compile", action="store_true", help="call every operator once, in several processes")
    made.add_argument("--share", help="with --compile: I/N, this process compiles every N-th operator")
    made.add_argument("--sanitize", action="store_true", help="call the CUDA kernels on tiny tensors")
    made.add_argument("--peers", type=Path, help="a Python file or folder with another library's ops")
    args = made.parse_args(argv)
    limits = {"seconds": args.seconds, "dry": args.dry_run}
    if args.sanitize:
        return run(called_cases("sanitize"), **limits)
    if not args.compile:
        return run(timed_cases(args.rows, args.peers), cap=12, **limits)
    if args.share:
        index, _, shares = args.share.partition("/")
        cases = list(called_cases("compile").items())[int(index) - 1 :: int(shares)]
        return run(dict(cases), **limits)
    command = [sys.executable, "-m", __spec__.name, "--compile", "--seconds", str(args.seconds)]
    command += ["--dry-run"] * args.dry_run
    shares = 1 if args.dry_run else workers()
    started = [subprocess.Popen([*command, "--share", f"{i + 1}/{shares}"], cwd=ROOT) for i in range(shares)]
    return int(any([process.wait() for process in started]))


if __name__ == "__main__":
    sys.exit(main())
