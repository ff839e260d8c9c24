"""The resources of every GPU kernel, as compiled, beside the table in gpu_ledger.csv: `make gpu-ledger`.

    python -m tests.gpu_ledger              what has grown, and what the table lacks; exit status 1 if there is any
    python -m tests.gpu_ledger --write      a new table, unless a kernel spills or is over a limit

Compilers have no moods: the same sources give the same numbers. The second line of the table has a fingerprint of each
part, a file of CUDA kernels or "triton": of all that its numbers follow from, and of the numbers. Where it holds, tests
compile little; `python -m tests.gpu_ledger` compiles all, always.

The columns of the table:

    registers   of a thread, on sm_80/sm_90/sm_100
    shared      bytes of shared memory of a block
    way         instructions on the fast way through the kernel, once, for sm_90 (tests/sass.py)
    round       of these, the instructions in a round of its hottest loop
    loads       bits of each load from memory, on that way
    stores      bits of each store
    each        instructions for an element, of a hot kernel
    roofline    the share of the memory bandwidth of an H100 that `each` allows, if every cycle issues an instruction

Nothing here ran on a GPU.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests import sass

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_suffix(".csv")
# Where a fingerprint does not hold, the tests compile every kernel for an H100, and for an A100 those of CUDA and the
# critical ones of Triton. A kernel of Triton takes about 0.15 s of CPU time for each. make gpu-ledger compiles all of
# them, and for sm_100.
TESTED = (sass.COUNTED, 80)
MANY = 96  # registers of a critical kernel: it is the first to spill on an architecture where it needs a few more
TRITON = "triton"  # the part of the table that is not a file of CUDA kernels
SHARED = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}  # bytes of shared memory for a block, at most
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
RAW = argparse.RawDescriptionHelpFormatter
FIELDS = ("kernel", "registers", "shared", "way", "round", "loads", "stores", "each", "roofline")
GROWING = {"registers": "registers", "shared": "bytes of shared memory", "each": "instructions an element"}

# An H100: instructions of threads, and bytes, in a second.
ISSUED, MOVED = 2.97e13, 3.35e12


class Hot(NamedTuple):
    """How to read the counts of a hot kernel: a thread makes `elements` in a round of its loop, or on the way.

    `rounds` are the rounds of the loop: those of the longest strip. None: only the loop counts. `limit` is the most
    instructions an element, whatever the table says.
    """

    kernel: str  # a regular expression of its name
    elements: int
    bytes: float  # that an element moves to and from memory
    rounds: int | None = 1
    limit: float | None = None

    def each(self, way: sass.Way) -> float:
        """Instructions an element."""
        count = way.loop if self.rounds is None else way.whole + (self.rounds - 1) * way.loop
        return count / (self.elements * (self.rounds or 1))


# In bfloat16, with a bias and both mask bits where there are such. The bias and the scale are read from caches.
HOT = (
    Hot(r"bias_act.cu forward<bf16, 2>", 16, 4.125, limit=25),
    Hot(r"bias_act.cu backward_(rows|columns)<bf16, 2>", 16, 4.125, rounds=None),
    Hot(r"upfirdn2d.cu by_strips<bf16, 8, 1, false, 1, 1, 0>", 32, 4, rounds=8, limit=40),
    Hot(r"upfirdn2d.cu by_strips<bf16, 8, 1, false, 2, 1, 0>", 64, 2.5, rounds=16, limit=40),
    Hot(r"upfirdn2d.cu by_strips<bf16, 8, 1, false, 1, 2, 0>", 16, 10, rounds=16, limit=40),
    Hot(r"upfirdn2d.cu by_strips<bf16, 1, 4, true, 1, 1, 0>", 16, 4, rounds=8),
    Hot(r"upfirdn2d.cu by_strips<bf16, 1, 4, true, 2, 1, [01]>", 32, 2.5, rounds=16),
    Hot(r"upfirdn2d.cu by_strips<bf16, 1, 4, true, 1, 2, 0>", 8, 10, rounds=16),
    Hot(r"upfirdn2d.cu by_strips<bf16, 1, 2, false, 1, 1, 0>", 8, 4, rounds=8),
    Hot(r"upfirdn2d.cu by_strips<bf16, 1, 2, false, 2, 1, 0>", 16, 2.5, rounds=16),
    Hot(r"upfirdn2d.cu by_strips<bf16, 1, 2, false, 1, 2, 0>", 4, 10, rounds=16),
    Hot(r"upfirdn2d_act.cu forward<bf16>", 32, 4.25, rounds=8, limit=40),
    Hot(r"upfirdn2d_act.cu backward<bf16>", 32, 6.25, rounds=8, limit=40),
    Hot(r"scale_bias_act.cu forward<(bf16|fp16), (true|false), (true|false)>", 8, 4.25, rounds=8, limit=25),
    Hot(r"scale_bias_act.cu forward<float, (true|false), (true|false)>", 8, 8.25, rounds=8, limit=25),
    Hot(r"scale_bias_act_grad.cu backward<(bf16|fp16), (true|false), true>", 8, 6.25, rounds=16),
    Hot(r"scale_bias_act_grad.cu second<(bf16|fp16), (true|false), true>", 8, 10.25, rounds=16),
    Hot(r"bias_act._forward_kernel<bf16,fp32,bf16,u8,u8;2,.*,int32,.*", 16, 4.25, limit=25),
    Hot(r"norm_act._stats_kernel<bf16,.*,int32,(64,64|4,1024)>", 32, 2),
    Hot(r"norm_act._forward_kernel<bf16,.*,int32,(32,64|2,1024)>", 16, 4),
    Hot(r"norm_act._sums_kernel<bf16,bf16,.*,int32,(64,64|4,1024)>", 32, 4),
    Hot(r"norm_act._backward_kernel<bf16,bf16,.*,int32,(32,64|2,1024)>", 16, 6),
    Hot(r"pixel_norm._kernel<bf16,bf16;None,True,.*,int32,8,256>", 16, 4),
    Hot(r"pixel_norm._kernel<bf16,bf16,bf16;True,.*,int32,8,256>", 16, 6),
    Hot(r"strips._strip_kernel<bf16,fp32,bf16;1,1,True,fp32,.*>", 8, 4, rounds=32, limit=40),
    Hot(r"strips._strip_kernel<bf16,fp32,bf16;2,1,True,fp32,.*>", 32, 2.5, rounds=32, limit=40),
    Hot(r"strips._strip_kernel<bf16,fp32,bf16;1,2,True,fp32,.*>", 8, 10, rounds=32, limit=40),
    Hot(r"strips._strip_kernel<bf16,fp32,bf16;1,1,False,fp32,.*>", 4, 4, rounds=32),
    Hot(r"strips._strip_kernel<bf16,fp32,bf16;2,1,False,fp32,.*>", 16, 2.5, rounds=32),
    Hot(r"strips._strip_kernel<bf16,fp32,bf16;1,2,False,fp32,.*>", 4, 10, rounds=32),
    Hot(r"scale_bias_act._forward_kernel<bf16,fp32,fp32,fp32,bf16,u8,u8;.*,int32,.*", 16, 4.25, limit=25),
    Hot(r"scale_bias_act._backward_kernel<bf16,bf16,fp32,u8,u8,bf16,fp32,fp32,fp32;.*,int32,.*", 8, 6.25, rounds=None),
)


def hot(name: str) -> Hot | None:
    return next((row for row in HOT if re.fullmatch(row.kernel, name)), None)


def critical(name: str, table: dict[str, dict[str, str]]) -> bool:
    """Whether a kernel is hot, takes many registers, or is not in the table."""
    row = table.get(name)
    return row is None or hot(name) is not None or max(map(int, row["registers"].split("/"))) >= MANY


def by_kernel(kernels: list[dict]) -> dict[str, dict[str, str]]:
    """The rows of the table for compiled kernels, by the name of the kernel."""
    found: dict[str, list[dict]] = {}
    for row in kernels:
        found.setdefault(row["kernel"], []).append(row)
    return {name: summary(name, rows) for name, rows in sorted(found.items())}


def summary(name: str, rows: list[dict]) -> dict[str, str]:
    """A row of the table. A kernel that was compiled several times, for other strides, counts with its largest.

    The registers of an architecture that it was not compiled for are left out: "/32/"
    """
    ways = [sass.Way(**row["way"]) for row in rows if row["way"]]
    way = max(ways, key=lambda w: (w.loop, w.whole))
    registers = [max((r["registers"] for r in rows if r["arch"] == arch), default="") for arch in SHARED]
    row = {
        "kernel": name,
        "registers": "/".join(map(str, registers)),
        "shared": str(max(r["shared"] for r in rows)),
        "way": str(way.whole),
        "round": str(way.loop),
        "loads": "/".join(map(str, way.loads)),
        "stores": "/".join(map(str, way.stores)),
        "each": "",
        "roofline": "",
    }
    if (of := hot(name)) is not None:
        each = of.each(way)
        row |= {"each": f"{each:.1f}", "roofline": f"{min(1, of.bytes / MOVED * ISSUED / each):.0%}"}
    return row


def grown(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """A sentence for each number of a kernel that is larger than in the table. It compares what both have."""
    for field, what in GROWING.items():
        numbers = zip(before[field].split("/"), after[field].split("/"))
        if any(was and now and float(now) > float(was) for was, now in numbers):
            yield f"{after['kernel']}: {before[field]} {what} in the table, {after[field]} as compiled now"
    for field in ("loads", "stores"):
        if widest(after[field]) < widest(before[field]):
            yield f"{after['kernel']}: {field} of {widest(before[field])} bits in the table, {after[field]} now"


def widest(widths: str) -> int:
    return max(map(int, filter(None, widths.split("/"))), default=0)


def read() -> tuple[str, dict[str, dict[str, str]]]:
    """The compilers of the table, and its rows by the name of the kernel."""
    first, *lines = TABLE.read_text().splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return first, {row["kernel"]: row for row in rows}


def holds(part: str) -> bool:
    """Whether the numbers of a part of the table are those that its sources and the compilers here make."""
    return f" {part}={fingerprint(part, read()[1])}" in TABLE.read_text().splitlines()[1]


def fingerprint(part: str, table: dict[str, dict[str, str]]) -> str:
    """A digest of all that the numbers of a part of the table follow from, and of the numbers."""
    digest = hashlib.sha256(repr(versions(part)).encode())
    for path in sorted(files(part)):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT.resolve())} {len(text)} ".encode() + text)
    rows = [list(row.values()) for name, row in sorted(table.items()) if part == part_of(name)]
    digest.update(json.dumps(rows).encode())
    return digest.hexdigest()[:16]


def part_of(kernel: str) -> str:
    return found[0] if (found := re.match(r"\w+\.cu(?= )", kernel)) else TRITON


def files(part: str) -> set[Path]:
    """The sources of a part of the table, with what launches, compiles and counts them.

    gan_engine/system tells of this computer and launches nothing.
    """
    counting = [ROOT / "tests/gpu_ledger.py", ROOT / "tests/sass.py"]
    if part != TRITON:
        return with_includes(ROOT / "csrc/cuda" / part).union(path.resolve() for path in counting)
    patterns = ("kernels/*.py", "gan_engine/backends.py", "gan_engine/ops/**/*.py", "tests/compile_triton.py")
    return {path.resolve() for path in (*counting, *(found for pattern in patterns for found in ROOT.glob(pattern)))}


def versions(part: str) -> tuple[str, ...]:
    """All that the compilers of a part say of themselves, and the PyTorch whose calls launch the Triton kernels"""
    if part != TRITON:
        return (nvcc_version(),)
    import torch
    import triton

    return nvcc_version(), triton.__version__, torch.__version__.partition("+")[0]


@cache
def nvcc_version() -> str:
    return subprocess.run([NVCC, "--version"], capture_output=True, text=True, check=True).stdout


def compilers() -> str:
    import triton

    release = re.findall(r"release ([\d.]+)", nvcc_version())[0]
    return f"# nvcc {release} and triton {triton.__version__}"


def over_limits(table: dict[str, dict[str, str]]) -> list[str]:
    """A sentence for each hot kernel that takes more instructions an element than it may."""
    limits = {name: of.limit for name in table if (of := hot(name)) is not None and of.limit is not None}
    return [
        f"{name}: want at most {limit} instructions an element, got {table[name]['each']}"
        for name, limit in limits.items()
        if float(table[name]["each"]) > limit
    ]


def triton_kernels(archs: tuple[int, ...], *options: str) -> list[dict]:
    """Every Triton kernel that the samples launch, compiled for each architecture.

    With the option --critical, only critical kernels are compiled for the second and later ones; with --op NAME, only
    those of one operator.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(ROOT / "build/triton")}
    command = [sys.executable, "-m", "tests.compile_triton", *options, *map(str, archs)]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def sources() -> list[Path]:
    return sorted(ROOT.glob("csrc/cuda/*.cu"))


def cuda_kernels(source: Path, archs: tuple[int, ...]) -> list[dict]:
    """Every kernel of a source file, compiled for each architecture."""
    with ThreadPoolExecutor(2) as pool:
        binaries = list(pool.map(lambda arch: compiled(source, arch), archs))
    rows = []
    for arch, binary in zip(archs, binaries, strict=True):
        ways = sass.ways(binary) if arch == sass.COUNTED else {}
        for usage in sass.resources(binary):
            spilled, way = usage["STACK"] + usage["LOCAL"], ways.get(usage["kernel"])
            wrong = [f"{spilled} bytes of stack and spills"] if spilled else []
            if usage["SHARED"] > SHARED[arch]:
                wrong.append(f"want at most {SHARED[arch]} bytes of shared memory, got {usage['SHARED']}")
            row = {"arch": arch, "kernel": usage["kernel"], "registers": usage["REG"], "shared": usage["SHARED"]}
            rows.append(row | {"way": way and way._asdict(), "wrong": wrong})
    names = "\n".join(row["kernel"] for row in rows)
    demangled = subprocess.run(["c++filt"], input=names, capture_output=True, text=True, check=True).stdout.splitlines()
    return [row | {"kernel": f"{source.name} {short(name)}"} for row, name in zip(rows, demangled, strict=True)]


def short(demangled: str) -> str:
    """The name of a kernel and its template arguments: forward<bf16, 2>"""
    name = re.sub(r"\(gan_engine::Act\)|\(anonymous namespace\)::|gan_engine::cuda::|^void ", "", demangled)
    return name.partition("(")[0].replace("__nv_bfloat16", "bf16").replace("__half", "fp16")


def compiled(source: Path, arch: int) -> Path:
    """The kernels of a source file for an architecture. They are kept until a source or the compiler changes."""
    command = [NVCC, "-std=c++17", "-O3", "-DNDEBUG", f"-arch=sm_{arch}", "-cubin", "-I", str(ROOT / "csrc")]
    texts = b"".join(path.read_bytes() for path in sorted(with_includes(source)))
    digest = hashlib.sha256(nvcc_version().encode() + repr(command).encode() + texts).hexdigest()
    binary = ROOT / "build/compile_gpu" / f"{source.stem}-sm_{arch}-{digest[:16]}.cubin"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        unfinished = binary.with_suffix(f".{os.getpid()}")
        run = subprocess.run([*command, "-o", unfinished, source], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        unfinished.rename(binary)
    return binary


def with_includes(source: Path) -> set[Path]:
    """A source file and its own headers, and theirs."""
    names = re.findall(r'^#include "(.+)"', source.read_text(), re.MULTILINE)
    return {source.resolve()}.union(*(with_includes(source.resolve().parent / name) for name in names))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_ledger", description=__doc__, formatter_class=RAW)
    parser.add_argument("--write", action="store_true", help="write a new table")
    asked = parser.parse_args()
    archs = tuple(SHARED)
    kernels = triton_kernels(archs) + [row for source in sources() for row in cuda_kernels(source, archs)]
    found, before = compilers(), {}
    if TABLE.exists():
        of_table, before = read()
        if found != of_table:
            print(f"The table is of {of_table[2:]}. Here is {found[2:]}, whose numbers differ for other reasons too.")
    after = by_kernel(kernels)
    wrong = [f"{row['kernel']} for sm_{row['arch']}: {row['wrong']}" for row in kernels if row["wrong"]]
    wrong += over_limits(after)
    new = [f"{name} is not in the table" for name in after if name not in before]
    larger = [text for name in after if name in before for text in grown(before[name], after[name])]
    print(*wrong, *new, *larger, f"{len(after)} kernels, {len(new)} not in the table, {len(larger)} grown", sep="\n")
    if not asked.write:
        return int(bool(wrong or new or larger))
    if wrong:
        print("The table was not written: want kernels without faults")
        return 1
    parts = (TRITON, *(source.name for source in sources()))
    with TABLE.open("w", newline="") as file:
        print(found, file=file)
        print("# fingerprints:", *(f"{part}={fingerprint(part, after)}" for part in parts), file=file)
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(after.values())
    return 0


if __name__ == "__main__":
    sys.exit(main())
