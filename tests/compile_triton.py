"""Compile every Triton kernel that the ops launch on their samples, without a GPU: python -m tests.compile_triton 80 90

The numbers are architectures. With --critical, only the first has all kernels, and the others have the critical ones of
tests/gpu_ledger.py. With --op NAME, only one operator is run. The program prints one line of JSON for each kernel and
architecture: name, registers and faults. It is a program of its own because Triton decides at import whether it
interprets or compiles.
"""

import argparse
import importlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)
os.environ["GAN_ENGINE_CHECK"] = "0"  # nothing is computed here

import torch
import triton
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction

from tests import gpu_ledger, sass

COMPUTED = 1 << 14  # elements: to compute fewer costs less than to find the form of the result


class NoGPU:
    """A false driver with the answers that Triton needs before it compiles."""

    def __init__(self, arch: int) -> None:
        self.target = GPUTarget("cuda", arch, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.target


class NothingComputed(TorchDispatchMode):
    """PyTorch's own ops give empty tensors of the right form, since only the launches of Triton kernels count.

    Views, ops that write into their inputs, and the ops of gan_engine run as they are.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        schema = function._schema
        aliases = any(argument.alias_info is not None for argument in (*schema.arguments, *schema.returns))
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        if function.namespace != "aten" or aliases or sum(t.numel() for t in tensors) < COMPUTED:
            return function(*args, **(kwargs or {}))
        args, kwargs = tree_map_only(torch.Tensor, lambda t: empty_like(t, "meta"), (args, kwargs or {}))
        if "device" in kwargs:
            kwargs["device"] = "meta"
        return tree_map_only(torch.Tensor, lambda t: empty_like(t, "cpu"), function(*args, **kwargs))


def empty_like(t: torch.Tensor, device: str) -> torch.Tensor:
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device)


def run_samples(dtypes: tuple[torch.dtype, ...], tiny: bool, only: str | None) -> None:
    """Run every op that has Triton kernels, or only one, on its samples to the second order. No kernel reads memory."""
    from gan_engine import backends

    backends.MISSING["triton"] = None
    backends.DEVICES["triton"] = ("cpu",)
    from gan_engine.ops.samples import OPS

    for name, op in OPS.items():
        if only not in (None, name) or backends.refusal(name, "triton", torch.empty(0)) is not None:
            continue
        owner = backends.kernels(name, "triton").__name__.rpartition(".")[2]
        if owner != name and owner in OPS:
            continue  # the kernels are compiled for the samples of their own op
        for sample, sample_dtypes, layout in (
            *((s, dtypes[:1], s.layout) for s in op.tiny if tiny),
            *((s, dtypes, layout) for s in op.real for layout in (torch.contiguous_format, torch.channels_last)),
        ):
            for dtype in sample_dtypes:
                tensors = {name: torch.empty(shape, dtype=dtype) for name, shape in sample.shapes.items()}
                tensors = {k: t.to(memory_format=layout) if t.ndim == 4 else t for k, t in tensors.items()}
                inputs = [t.requires_grad_() for t in tensors.values()]
                y = op.function(**tensors, **sample.options, backend="triton")
                dy = torch.empty_like(y).requires_grad_()
                first = torch.autograd.grad(y, inputs, dy, create_graph=True)
                torch.autograd.grad(first, [dy, *inputs], [torch.empty_like(t) for t in first], allow_unused=True)


def faults(kernel: CompiledKernel, usage: dict[str, int], arch: int, name: str) -> list[str]:
    """Faults of a compiled kernel: stack, spills, too much shared memory, and offsets that may overflow.

    A kernel with 32 bits for all places has its twin with 64 bits, and the launch chooses between them by the sizes.
    """
    memory = (("STACK", "stack"), ("LOCAL", "spills"))
    messages = [f"{usage[key]} bytes of {name}" for key, name in memory if usage[key]]
    if kernel.metadata.shared > (most := gpu_ledger.SHARED[arch]):
        messages.append(f"want at most {most} bytes of shared memory, got {kernel.metadata.shared}")
    in_32_bits = "int32" in re.split("[,;]", name)
    return messages if in_32_bits else messages + narrow_offsets(kernel.asm["ttir"])


def narrow_offsets(ttir: str) -> list[str]:
    """Offsets that do not have 64 bits, or get them only after 32-bit arithmetic, which overflows at 2^31 elements."""
    definitions = dict(re.findall(r"(%[\w#]+) = (.*)", ttir))

    def overflows(value: str, computed: bool = False) -> bool:
        line = definitions.get(value, "argument")
        op = line.split()[0]
        if op in ("tt.make_range", "arith.constant"):
            return False
        if op in ("tt.splat", "tt.expand_dims", "tt.broadcast", "tt.reshape", "tt.trans"):
            return overflows(re.findall(r"%[\w#]+", line)[0], computed)
        if op in ("arith.addi", "arith.muli", "arith.subi", "arith.shli"):
            return any(overflows(operand, True) for operand in re.findall(r"%[\w#]+", line))
        return computed  # an argument, a program index or a loaded value may be any number of 32 bits

    messages = [
        f"an offset does not have 64 bits: {line.strip()}"
        for line in re.findall(r".*tt\.addptr.*", ttir)
        if not re.search(r"(, i64|xi64>)( loc\(.*\))?$", line.strip())
    ]
    for value in re.findall(r"arith\.ext[su]i (%[\w#]+) : (?:tensor<[\dx]*)?i32", ttir):
        if overflows(value):
            messages.append(f"widened to 64 bits only after 32-bit arithmetic: {definitions[value].strip()}")
    return messages


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.compile_triton")
    parser.add_argument("archs", type=int, nargs="+")
    parser.add_argument("--critical", action="store_true")
    parser.add_argument("--op")
    asked = parser.parse_args()
    first, *others = asked.archs
    compiled = {}
    run = JITFunction.run

    def compile_only(self, *args, grid, warmup, **options):
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        compiled[kernel.hash] = kernel

    JITFunction.run = compile_only
    triton.runtime.driver.set_active(NoGPU(first))
    with NothingComputed():
        run_samples((torch.float32, torch.bfloat16, torch.float16, torch.float64), tiny=True, only=asked.op)
        # Once more, as if the tensors were too large for 32 bits.
        importlib.import_module("gan_engine.kernels.precision").MOST_OF_32_BITS = 0
        run_samples((torch.bfloat16,), tiny=False, only=asked.op)
    found = [(kernel, first, name_of(kernel)) for kernel in compiled.values()]
    _, table = gpu_ledger.read()
    again = [(kernel, name) for kernel, _, name in found if not asked.critical or gpu_ledger.critical(name, table)]
    found += [(recompiled(kernel, arch), arch, name) for kernel, name in again for arch in others]
    counted = [kernel for kernel, arch, _ in found if arch == sass.COUNTED]
    ways = dict(zip(counted, sass.ways_of([kernel.asm["cubin"] for kernel in counted]), strict=True))
    for kernel, arch, name in found:
        report(kernel, arch, name, ways.get(kernel))
    assert not (lacking := loaded() - gpu_ledger.files(gpu_ledger.TRITON)), f"not in the fingerprint: {lacking}"


def loaded() -> set[Path]:
    """The modules of the project that were imported, but for those that tell of this computer"""
    names = [name for name in sys.modules if re.match(r"(gan_engine|tests)\.(?!system|_build_info)", name)]
    paths = {Path(sys.modules[name].__file__ or "").resolve() for name in names}
    return {path for path in paths if path.suffix == ".py"}


def recompiled(kernel: CompiledKernel, arch: int) -> CompiledKernel:
    """The kernel for another architecture, compiled from its ttir, which is the same for all architectures."""
    with tempfile.NamedTemporaryFile("w", suffix=".ttir") as file:
        file.write(kernel.asm["ttir"])
        file.flush()
        options = {"num_warps": kernel.metadata.num_warps, "num_stages": kernel.metadata.num_stages}
        return triton.compile(file.name, GPUTarget("cuda", arch, 32), options)


def report(kernel: CompiledKernel, arch: int, name: str, way: sass.Way | None) -> None:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        (usage,) = sass.resources(file.name)
    row = {"arch": arch, "kernel": name, "registers": usage["REG"], "shared": kernel.metadata.shared}
    row |= {"way": way and way._asdict(), "wrong": faults(kernel, usage, arch, name)}
    print(json.dumps(row))


def name_of(kernel: CompiledKernel) -> str:
    """The module and function of a kernel, the dtypes of its pointers, and its constants."""
    source = kernel.src
    pointers = ",".join(t[1:] for t in source.signature.values() if t.startswith("*"))
    constants = ",".join(getattr(value, "name", str(value)) for value in source.constants.values())
    module = source.fn.fn.__module__.rpartition(".")[2]
    return f"{module}.{kernel.name}<{pointers};{constants}>"


if __name__ == "__main__":
    main()
