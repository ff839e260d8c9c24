"""What runs here: `python -m gan_engine.info` prints versions, hardware, and op x backend with reasons.
`python -m gan_engine.info --check` compares all kernels with the reference first, and fails if one differs.
`python -m gan_engine.info --call conv2d --shape 8,64,32,32 --weight 64,64,3,3` answers for one call.
"""

import argparse
import importlib
import importlib.metadata
import os
import platform
import re
import sys
import textwrap
from typing import Any

import gan_engine
from gan_engine.command_line import console
from gan_engine.system import cpu
from gan_engine.system.names import counted

WIDTH = 100
_PACKAGES = ("torch", "torchvision", "triton", "numpy", "pillow", "tyro", "tensorboard", "matplotlib")
_MODULES = {
    "_C": "a C++17 compiler (Debian, Ubuntu: apt install g++), then `pip install .` again",
    "_C_cuda": "the CUDA toolkit, for its compiler nvcc, then `pip install .` again",
}


def report() -> str:
    """All of it, at most 100 columns wide. A part that is missing is said, and no error."""
    parts = [_versions(), _hardware(), _native_core()]
    try:
        parts += [table(), thresholds(), _missing()]
    except ValueError:  # GAN_ENGINE_BACKEND is wrong
        raise
    except Exception as error:
        parts.append(_wrap("the ops cannot be imported: ", f"{type(error).__name__}: {error}"))
    return "\n\n".join(part for part in parts if part)


def table() -> str:
    """Op x backend for large tensors on the CPU and, if there is one, on a GPU; the reasons stand below as notes."""
    import torch

    from gan_engine import backends

    for name in ("gan_engine.ops", "gan_engine.activated"):
        importlib.import_module(name)  # registers its ops
    notes: list[str] = []

    def cell(op: str, backend: str, x: torch.Tensor) -> str:
        if not backends.has(op, backend):
            return "-"
        reason = backends.refusal(op, backend, x)
        if reason is None:
            return "chosen" if backend == _chosen(op, x) else "runs"
        if reason not in notes:
            notes.append(reason)
        return f"no ({notes.index(reason) + 1})"

    rows = [("op", "tensors", *backends.ORDER)]
    for op in backends.ops():
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            x = torch.empty(1, device=device)
            rows.append((op, device, *(cell(op, backend, x) for backend in backends.ORDER)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["   ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += [_wrap(f"({i}) ", note) for i, note in enumerate(notes, 1)]
    lines.append("(-) the op has no such backend")
    lines.append("Kernels are compared with the reference at their first use here; --check compares all of them now.")
    if named := os.environ.get("GAN_ENGINE_BACKEND", "").strip():
        text = f"GAN_ENGINE_BACKEND={named} asks for that backend, or an error, of each op that has it."
        lines.append(_wrap("", text))
    return "\n".join(lines)


def thresholds() -> str:
    """The calls that a backend of the table gains nothing by, and what runs them instead."""
    from gan_engine.ops.thresholds import TABLE

    lines = ["Calls that gain nothing by their backend run on another, unless it is asked for by name:"]
    lines += [_wrap(f"  {t.op}: ", f"{t.instead}, not {t.backend}: {t.sentence}") for t in TABLE.values()]
    return "\n".join(lines)


def check() -> tuple[str, bool]:
    """What the self-check says of all kernels on every device, and whether all of them are right."""
    import torch

    from gan_engine import backends
    from gan_engine.ops import self_check

    importlib.import_module("gan_engine.activated")  # registers its ops
    devices = [torch.device("cpu"), *(torch.device("cuda", i) for i in range(torch.cuda.device_count()))]
    right: dict[tuple[str, str], list[str]] = {}  # by backend and dtype
    wrong = []
    for device in devices:
        for (op, backend, _, _, dtype), sentence in self_check.check_all(device):
            if sentence is None:
                right.setdefault((f"{backend} on {device}", str(dtype).removeprefix("torch.")), []).append(op)
            else:
                wrong.append(_wrap(f"  {op} on {backend}: ", sentence))
    alike: dict[tuple[str, str], list[str]] = {}
    for (backend, dtype), ops in right.items():
        alike.setdefault((backend, ", ".join(ops)), []).append(dtype)
    agree = [_wrap(f"  {backend}: ", f"{ops}; in {', '.join(dtypes)}") for (backend, ops), dtypes in alike.items()]
    missing = [(backend, backends.MISSING[backend]) for backend in backends.KERNELS]
    unchecked = [_wrap(f"  {backend}: ", why) for backend, why in missing if why is not None]
    parts = {
        "Kernels that agree with the reference, in values and in gradients of both orders:": agree,
        "Kernels that differ, and will not run:": wrong,
        "Backends that cannot run here, so that nothing of them was checked:": unchecked,
    }
    return "\n".join(line for title, lines in parts.items() if lines for line in (title, *lines)), not wrong


def _compiles_on_a_gpu() -> bool:
    import torch

    from gan_engine import backends

    return torch.cuda.is_available() and backends.MISSING["triton"] is None


def _chosen(op: str, x: Any) -> str | None:
    from gan_engine import backends

    try:
        with backends.trusted():  # the table runs no kernels
            return backends.choose(op, x)
    except RuntimeError:  # the backend asked for by GAN_ENGINE_BACKEND refuses
        return None


def _versions() -> str:
    versions = {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}
    pairs = ", ".join(f"{name}\N{NO-BREAK SPACE}{version}" for name, version in versions.items())
    return f"gan_engine {gan_engine.__version__}\n" + _wrap("", pairs).replace("\N{NO-BREAK SPACE}", " ")


def _version(package: str) -> str:
    """From the installed metadata: to import torchvision may fail where its build does not fit that of torch."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _hardware() -> str:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = f"{cpu.model()}, {counted(cpus, 'CPU')}"
    try:
        import torch
    except Exception as error:
        return _wrap("cpu   ", name) + "\n" + _wrap("", f"PyTorch cannot be imported: {error} (pip install torch)")

    from gan_engine.system import bfloat16

    how, time = bfloat16.on_cpu()
    bf16 = how + (", slower than float32" if time > 1 else "")
    name += f", {counted(torch.get_num_threads(), 'thread')} in PyTorch, bf16 {bf16}"
    lines = [_wrap("cpu   ", name)]
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        lines.append(
            _wrap(
                f"cuda:{index} ",
                f"{device.name}, compute capability {device.major}.{device.minor}, "
                f"{device.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}",
            )
        )
    if not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build for the CPU only"
        lines.append(_wrap("gpu   ", f"none that PyTorch sees (this PyTorch is {build})"))
    return "\n".join(lines)


def _native_core() -> str:
    """Per native module: with what it was built and what it runs, or why it is not there."""
    try:
        info = importlib.import_module("gan_engine._build_info")
        built, not_built, isas = info.BUILT, info.NOT_BUILT, getattr(info, "ISAS", [])
    except (ImportError, AttributeError):
        built, not_built, isas = {}, {}, []
    try:
        from gan_engine.ops.convolution import forms
        from gan_engine.system import native
    except Exception as error:
        return _wrap("native core: ", f"{type(error).__name__}: {error}")

    lines = []
    for name, launcher, why_not in (
        ("_C", native.cpu, native.WHY_NO_CPU),
        ("_C_cuda", native.cuda, native.WHY_NO_CUDA),
    ):
        if why_not is not None:
            reason = not_built.get(name)
            text = f"not built: {reason}" if reason else why_not
        else:
            text = f"built with {built.get(name, 'a compiler that left no name')}"
            if name == "_C":
                text += f" for {', '.join(isas)}" * bool(isas)
                others = [isa for isa in launcher.module.isas() if isa != launcher.module.isa()]
                held = launcher.module.isa() != launcher.module.isas()[0] and "ATEN_CPU_CAPABILITY" in os.environ
                text += f"; runs {launcher.module.isa()}" + ", as ATEN_CPU_CAPABILITY says" * held
                text += f" (can run {', '.join(others)})" if others else ""
                if launcher.module.threads(2) == 1:
                    text += " on one thread, as it was built without OpenMP"
                text += "; convolutions of PyTorch" + ("" if forms.WHY_NOT else " or minimal filtering")
        lines.append(_wrap(f"{name:<8} ", text))
    return "\n".join(lines)


def _missing() -> str:
    """How to get what is missing; empty where nothing is."""
    import torch

    from gan_engine import backends
    from gan_engine.system import native

    advice = []
    for name, why_not in (("_C", native.WHY_NO_CPU), ("_C_cuda", native.WHY_NO_CUDA)):
        if why_not is not None:
            advice.append((name, _MODULES[name]))
    if _version("triton") == "missing":
        advice.append(("triton", 'pip install triton, or "gan-engine[gpu]"'))
    if not torch.cuda.is_available():
        what = "an NVIDIA GPU with its driver" + ("" if torch.version.cuda else ", and a PyTorch built for CUDA")
        blocked = [
            name for name in backends.ORDER if "cuda" in backends.DEVICES.get(name, ()) and backends.MISSING[name]
        ]
        if blocked:
            advice.append((", ".join(blocked), what))
    if not advice:
        return ""
    return "\n".join(["To get what is missing:", *(_wrap(f"  {name}: ", text) for name, text in advice)])


def _wrap(label: str, text: str) -> str:
    return textwrap.fill(
        text.replace("\n", " "), WIDTH, initial_indent=label, subsequent_indent=" " * len(label), break_on_hyphens=False
    )


@console.command
def main(argv: list[str]) -> int:
    """The command line, read by argparse: this command works where tyro is missing too. 1 if a kernel is wrong."""
    about = "Print versions, hardware, and which backend runs each op, with reasons; or what runs one call."
    parser = argparse.ArgumentParser(prog=console.prog("info"), description=about)
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the kernels of all backends that run here with the reference; exit status 1 if one differs",
    )
    try:
        from gan_engine.command_line import one_call
        from gan_engine.system.devices import choose_device
    except Exception:  # PyTorch is missing or broken, which the report says
        parser.parse_args(argv)
        print(report())
        return 0
    one_call.add_flags(parser)
    asked = parser.parse_args(argv)
    choose_device(asked.device)  # raises where it is missing
    all_right = True
    if asked.check:
        if _compiles_on_a_gpu():
            print("Triton compiles its kernels for the check, which may take minutes the first time.", flush=True)
        text, all_right = check()
        print(text, end="\n\n", flush=True)
    if asked.call is None:
        print(report())
    else:
        label = re.compile(r" *(not \w+: )?")
        print(
            "\n".join(
                _wrap(label.match(line).group(), line[label.match(line).end() :]) for line in one_call.report(asked)
            )
        )
    return 0 if all_right else 1


if __name__ == "__main__":
    sys.exit(main())
