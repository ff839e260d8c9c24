"""The instructions of a compiled GPU kernel that a thread issues on its fast way, counted in the disassembly.

The fast way is the way through the kernel that moves the most bits by stores and by loads of 16 bytes, and then has the
fewest instructions: what a thread issues where pointers are aligned and no edge is near. A loop counts once, and
`Way.loop` is one round of the loop without loops inside that moves most.
"""

import itertools
import os
import re
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\d\s+)?(\S+)\s*(.*?)\s*;")
PREDICATED = re.compile(r"\*/\s+@")
ACCESS = re.compile(r"(LDG|STG)\.E(?:\.\w+)*?(?:\.(64|128|U8|S8|U16|S16))?(?:\.|$)")
COUNTED = 90  # the architecture whose instructions are counted: an H100
BITS = {"64": 64, "128": 128, "U8": 8, "S8": 8, "U16": 16, "S16": 16}


class Instruction(NamedTuple):
    opcode: str
    operands: str
    predicated: bool


class Way(NamedTuple):
    """The fast way: instructions from the start to the end, and in one round of the hottest loop (0: there is none)"""

    whole: int
    loop: int
    loads: tuple[int, ...]  # widths in bits that occur in the kernel
    stores: tuple[int, ...]


@cache
def cuobjdump() -> str | None:
    """The disassembler: of the CUDA toolkit, else the one that comes with Triton."""
    found = shutil.which("cuobjdump") or shutil.which("/usr/local/cuda/bin/cuobjdump")
    try:
        import triton
    except ImportError:
        return found
    bundled = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return found or (str(bundled) if os.access(bundled, os.X_OK) else None)


def dump(path: Path | str, *options: str) -> str:
    return subprocess.run([cuobjdump(), *options, path], capture_output=True, text=True, check=True).stdout


def resources(path: Path | str) -> list[dict]:
    """Registers, bytes of stack and spills, and shared memory of every kernel in a file, for each architecture."""
    rows, arch = [], 0
    for line in dump(path, "-res-usage").splitlines():
        if found := re.match(r"arch = sm_(\d+)", line):
            arch = int(found[1])
        elif found := re.match(r"\s*Function (\S+):", line):
            rows.append({"arch": arch, "kernel": found[1]})
        elif found := re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", line):
            rows[-1] |= {key: int(value) for key, value in found}
    return rows


def ways(path: Path | str, *options: str) -> dict[str, Way]:
    """The fast way of every kernel in a file."""
    functions: dict[str, dict[int, Instruction]] = {}
    code: dict[int, Instruction] = {}
    for line in dump(path, "-sass", *options).splitlines():
        if "Function : " in line:
            code = functions.setdefault(line.split("Function : ")[1].strip(), {})
        else:
            code |= instruction(line)
    return {name: way(code) for name, code in functions.items()}


def ways_of(cubins: list[bytes]) -> list[Way]:
    """The fast way of each cubin, which has one kernel, for sm_90.

    A disassembler takes a quarter of a second to begin. All kernels are one image for it, one behind the other.
    """
    codes = [instructions(cubin) for cubin in cubins]
    with tempfile.NamedTemporaryFile() as image:
        image.write(b"".join(codes))
        image.flush()
        command = [Path(cuobjdump()).with_name("nvdisasm"), "--binary", f"SM{COUNTED}", image.name]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {at: i for line in lines for at, i in instruction(line).items()}
    begins = [0, *itertools.accumulate(map(len, codes))]
    return [way({at: found[at] for at in range(begin, end, 16)}) for begin, end in itertools.pairwise(begins)]


def instructions(cubin: bytes) -> bytes:
    """The section .text of a cubin, an ELF file of 64 bits that has one"""
    table, entry, count, of_names = struct.unpack_from("<40xQ10xHHH", cubin)
    sections = [struct.unpack_from("<II16xQQ", cubin, table + k * entry) for k in range(count)]  # name, offset, size
    names = sections[of_names][2]
    ((offset, size),) = (at for name, _, *at in sections if cubin.startswith(b".text", names + name))
    return cubin[offset : offset + size]


def instruction(line: str) -> dict[int, Instruction]:
    """The instruction of a line by its address; nothing for other lines"""
    if not (found := LINE.match(line)):
        return {}
    return {int(found[1], 16): Instruction(found[2], found[3], PREDICATED.search(line) is not None)}


def way(code: dict[int, Instruction]) -> Way:
    edges = successors(code)
    order, back = order_of(edges, min(code))
    whole = best(code, edges, order, back, min(code), ends(code))
    loops = [(first, last) for last, first in back if first <= last]
    inner = [(a, b) for a, b in loops if not any((a, b) != (c, d) and a <= c and d <= b for c, d in loops)]
    rounds = [best(code, edges, order, back, first, {last}) for first, last in inner]
    hot = max((r for r in rounds if r is not None), default=(0, 0), key=lambda r: (r[0], -r[1]))
    accesses = {(kind, width) for kind, width in map(access, code.values()) if kind}
    loads, stores = (tuple(sorted(width for k, width in accesses if k == kind)) for kind in ("LDG", "STG"))
    return Way(whole[1] if whole else 0, hot[1], loads, stores)


def access(instruction: Instruction) -> tuple[str, int]:
    found = ACCESS.match(instruction.opcode)
    return (found[1], BITS.get(found[2], 32)) if found else ("", 0)


def moved(instruction: Instruction) -> int:
    """Bits that decide which way is the fast one"""
    kind, width = access(instruction)
    return width if kind == "STG" or width == 128 else 0


def ends(code: dict[int, Instruction]) -> set[int]:
    return {at for at, i in code.items() if i.opcode == "EXIT"}


def successors(code: dict[int, Instruction]) -> dict[int, list[int]]:
    """Where each instruction may go on. A call goes into the function, and its return behind every call of it."""
    addresses = sorted(code)
    after = dict(itertools.pairwise(addresses))
    joins: dict[str, set[int]] = {}
    returns = []
    for at, i in code.items():
        if i.opcode.startswith("BSSY"):
            barrier, target = i.operands.split(", ")[-2:]
            joins.setdefault(barrier, set()).add(int(target, 16))
        elif i.opcode.startswith("CALL"):
            returns.append(after[at])
    edges = {}
    for at, i in code.items():
        following = [after[at]] if at in after else []
        name = i.opcode.split(".")[0]
        if name == "BRA":
            *conditions, target = i.operands.split(", ")
            conditional = i.predicated or any(condition not in ("", "`") for condition in conditions)
            edges[at] = [*(following if conditional else []), int(target, 16)]
        elif name == "CALL":
            edges[at] = [int(i.operands.split()[-1], 16)]
        elif name == "RET":
            edges[at] = returns + (following if i.predicated else [])
        elif name == "EXIT":
            edges[at] = following if i.predicated else []
        elif name == "BSYNC":
            targets = joins.get(i.operands.split()[-1], set())
            edges[at] = following if set(following) & targets or not targets else sorted(targets)
        else:
            edges[at] = following
    return {at: [to for to in targets if to in code] for at, targets in edges.items()}


def order_of(edges: dict[int, list[int]], start: int) -> tuple[list[int], set[tuple[int, int]]]:
    """A topological order without the edges that close loops, and these edges."""
    order, back, active, seen = [], set(), {start}, {start}
    stack = [(start, iter(edges[start]))]
    while stack:
        at, targets = stack[-1]
        to = next(targets, None)
        if to is None:
            order.append(at)
            active.discard(at)
            stack.pop()
        elif to in active:
            back.add((at, to))
        elif to not in seen:
            seen.add(to)
            active.add(to)
            stack.append((to, iter(edges[to])))
    return order[::-1], back


def best(code, edges, order, back, start: int, stops: set[int]) -> tuple[int, int] | None:
    """(bits moved, instructions) on the way from start to a stop that moves the most bits by the fewest instructions"""
    reached: dict[int, tuple[int, int]] = {}
    found = None
    for at in order:
        if at == start:
            before = (0, 0)
        elif at in reached:
            before = reached[at]
        else:
            continue
        here = (before[0] + moved(code[at]), before[1] + 1)
        if at in stops and (not code[at].predicated or not edges[at] or len(stops) == 1):
            found = max((found or here, here), key=lambda r: (r[0], -r[1]))
        for to in edges[at]:
            if (at, to) not in back:
                reached[to] = max((reached.get(to, here), here), key=lambda r: (r[0], -r[1]))
    return found
