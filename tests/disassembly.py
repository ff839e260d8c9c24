"""What the compiler made of functions: their innermost loops, and faults of those that should be fast."""

import functools
import itertools
import re
import subprocess
from dataclasses import dataclass

REGISTER = {"avx2": "ymm", "avx512": "zmm"}

SCALAR = re.compile(
    r"v(add|sub|mul|div|min|max|cmp\w*|cvt\w+|fn?m(add|sub)\w+)(ss|sd)\b"  # arithmetic on one number
    r"|vmovs[sd]\b|v(u)?comis[sd]\b"  # its loads, stores and comparisons
    r"|vpextr[bwdq]\b|vpinsr[bwdq]\b|vextractps\b|vinsertps\b"  # lanes one by one
)

ARITHMETIC_ON_ONE = re.compile(r"v(add|sub|mul|div|fn?m(add|sub)\d+)(ss|sd)\b")

Functions = list[tuple[str, list[tuple[int, str]]]]  # demangled names, each with addresses and instructions


@dataclass(frozen=True)
class Hot:
    """Functions of a kernel by what their demangled names contain (`function`), and what they must be made of.

    Numbers of loops are those of all functions with such a name. A function that transforms small tiles (`transforms`)
    is looked at as a whole, because its loops have others inside, for what is left of channels.
    """

    function: str
    loops: int = 1  # at least so many innermost loops multiply whole registers
    scalar: int = 0  # at most so many instructions on one number in such a loop
    scalar_loops: int = 0  # at most so many other innermost loops compute one number at a time
    stored: tuple[int, int] = (0, 0)  # a hot loop stores at most so many vectors in the frame: AVX2, AVX-512
    transforms: int = 0  # at least so many functions compute with whole registers


@dataclass
class Loop:
    """An innermost loop: the function it lies in, and its instructions with their operands."""

    function: str
    places: list[int]  # addresses of the instructions
    lines: list[str]
    frame: str  # a regular expression of addresses in the frame of the function

    def scalar(self) -> list[str]:
        """The instructions that do for one number what others do for a register of numbers."""
        return [line for line in self.lines if SCALAR.match(line)]

    def stored(self) -> list[str]:
        """The instructions that store a vector in the frame. Reading a constant there costs no more than elsewhere."""
        spill = re.compile(rf"v\w+\s+%[xyz]mm\d+,{self.frame}$")
        return [line for line in self.lines if spill.match(line)]


def cycles(nodes: set[int], after: dict[int, list[int]]) -> list[set[int]]:
    """The largest sets of nodes that all reach each other (Tarjan 1972)."""
    number: dict[int, int] = {}
    lowest: dict[int, int] = {}
    path, found = [], []
    for root in nodes:
        stack = [] if root in number else [(root, iter(after[root]))]
        while stack:
            node, following = stack[-1]
            if node not in number:
                number[node] = lowest[node] = len(number)
                path.append(node)
            for target in following:
                if target in nodes and target not in number:
                    stack.append((target, iter(after[target])))
                    break
                if target in nodes and target in lowest:
                    lowest[node] = min(lowest[node], number[target])
            else:
                stack.pop()
                if stack:
                    lowest[stack[-1][0]] = min(lowest[stack[-1][0]], lowest[node])
                if lowest[node] == number[node]:
                    cut = path.index(node)
                    for member in path[cut:]:
                        del lowest[member]
                    if len(path) - cut > 1 or node in after[node]:
                        found.append(set(path[cut:]))
                    del path[cut:]
    return found


def innermost(nodes: set[int], after: dict[int, list[int]]) -> list[set[int]]:
    """The loops without a loop inside: a loop minus its entry has no cycle.

    Loops with one entry may be nested too. Each has jumps of its own to the entry, and the inner loop is a part of the
    other loop.
    """
    found = []
    for loop in cycles(nodes, after):
        entries = {target for node in nodes - loop for target in after[node] if target in loop} or {min(loop)}
        if inner := innermost(loop - entries, after):
            found += inner
            continue
        before: dict[int, list[int]] = {node: [] for node in loop}
        for node in loop:
            for target in loop.intersection(after[node]):
                before[target].append(node)
        bodies = [_reaching(last, entry, before) for entry in entries for last in before[entry]]
        found += [body for body in bodies if not any(other < body for other in bodies)]
    return found


def _reaching(last: int, entry: int, before: dict[int, list[int]]) -> set[int]:
    """What lies between `entry` and `last`, which jumps back to it."""
    body, left = {entry}, [last]
    while left:
        if (node := left.pop()) not in body:
            body.add(node)
            left += before[node]
    return body


def loops_of(function: str, instructions: list[tuple[int, str]]) -> list[Loop]:
    """The innermost loops of a function, wherever the compiler put their parts."""
    code = dict(instructions)
    after: dict[int, list[int]] = {at: [] for at in code}  # the instructions that may run next
    jumps = {at: int(jump[1], 16) for at, text in instructions if (jump := re.match(r"j\w+\s+([0-9a-f]+)\b", text))}
    reached, falls = {*jumps.values()}, True
    for (at, text), (following, _) in itertools.pairwise([*instructions, (-1, "")]):
        if not falls and at not in reached and re.match(r"(cs |data16 )*nop|xchg\s+%ax,%ax", text):
            continue  # padding between blocks, which never runs
        falls = not re.match(r"(notrack )?(jmp|ret|ud2)", text)
        after[at] = [target for target in (jumps.get(at), following if falls else None) if target in code]
    frame = frame_of(list(code.values()))
    places = [sorted(loop) for loop in innermost(set(code), after)]
    return [Loop(function, loop, [code[at] for at in loop], frame) for loop in places]


def frame_of(lines: list[str]) -> str:
    """A regular expression of addresses in the frame. %rbp is the frame only where the function makes it so."""
    framed = any(re.match(r"(mov\s+%rsp,%rbp|lea\s+0x[0-9a-f]+\(%rsp\),%rbp)", line) for line in lines)
    return rf"-?(0x)?[0-9a-f]*\(%r{'[sb]' if framed else 's'}p\)"


def functions_of(listing: str) -> Functions:
    """Demangled names, each with addresses and instructions, from the output of objdump."""
    functions: Functions = []
    for line in listing.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            functions.append((head[1], []))
        elif found := re.match(r"\s+([0-9a-f]+):\s+(\S.*)$", line):
            functions[-1][1].append((int(found[1], 16), found[2]))
    return functions


@functools.cache
def functions_of_module(path: str) -> Functions:
    command = ["objdump", "-d", "-C", "-w", "--no-show-raw-insn", path]
    return functions_of(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def described(functions: Functions, isa: str, hot: Hot) -> Functions:
    name = re.compile(hot.function)
    return [(full, code) for full, code in functions if f"gan_engine::{isa}::" in full and name.search(full)]


def multiplies(loop: Loop, isa: str) -> bool:
    """Whether the loop multiplies whole registers."""
    whole = re.compile(rf"v(mul|fn?m(add|sub)\d+)p[sd]\b.*%{REGISTER[isa]}")
    return any(whole.match(line) for line in loop.lines)


def faults(functions: Functions, isa: str, hot: Hot) -> list[str]:
    """What is wrong with the functions that `hot` describes, in a sentence each."""
    if hot.transforms:
        return _faults_of_transforms(functions, isa, hot)
    loops = [loop for full, code in described(functions, isa, hot) for loop in loops_of(full, code)]
    packed = [loop for loop in loops if multiplies(loop, isa)]
    others = [loop for loop in loops if not multiplies(loop, isa)]
    on_one = [loop for loop in others if any(ARITHMETIC_ON_ONE.match(line) for line in loop.lines)]
    wrong = []
    if len(packed) < hot.loops:
        wrong.append(f"loops of {hot.function} are missing: want {hot.loops} that multiply vectors, got {len(packed)}")
    if len(on_one) > hot.scalar_loops:
        wrong += [f"a loop of {loop.function} computes one number at a time: {loop.lines}" for loop in on_one]
    for loop in packed:
        if len(scalar := loop.scalar()) > hot.scalar:
            wrong.append(f"a hot loop of {loop.function} has scalar code: {scalar}")
        if len(stored := loop.stored()) > hot.stored[list(REGISTER).index(isa)]:
            wrong.append(f"a hot loop of {loop.function} spills: {stored}")
    return wrong


def _faults_of_transforms(functions: Functions, isa: str, hot: Hot) -> list[str]:
    computes = re.compile(rf"v(add|sub|mul|fn?m(add|sub)\d+)ps\b.*%{REGISTER[isa]}")
    wrong, packed = [], 0
    for full, code in described(functions, isa, hot):
        lines = [line for _, line in code]
        arithmetic = sum(bool(computes.match(line)) for line in lines)
        packed += arithmetic > 0
        if one := [line for line in lines if ARITHMETIC_ON_ONE.match(line)]:
            wrong.append(f"{full} computes one number at a time: {one}")
        # A tile has up to 36 numbers, and the addresses of its pixels are stored as vectors too.
        stored = len(Loop(full, [], lines, frame_of(lines)).stored())
        if stored > 3 * arithmetic > 0:
            wrong.append(f"{full} stores {stored} vectors in its frame, and computes with {arithmetic}")
    if packed < hot.transforms:
        wrong.append(f"{hot.function} is missing: want {hot.transforms} that compute with vectors, got {packed}")
    return wrong
