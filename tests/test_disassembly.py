"""The hot loops of the C++ kernels, as the compiler made them: no spilled vectors, and no scalar code in their place.

A vector that is wider than a register of the instruction set, or a mask that the compiler takes apart, makes a loop
several times slower, and no other test sees it.
"""

import functools
import itertools
import re
import shutil
import subprocess
from dataclasses import dataclass

import pytest

from gan_engine.system import native

ISAS = native.cpu.module.isas() if native.WHY_NO_CPU is None else []
REGISTER = {"avx2": "ymm", "avx512": "zmm"}

# By kernel: what the demangled names of its functions contain, in float32. One regular expression is one function.
HOT = {
    "bias_act": [r"^(?!.*run_mixed).*\b[Ff]orward<float, [^<>]*\)2>(?!.*Spread\)2)"],
    "bias_act_grad": [r"^(?!.*run_mixed).*\b[Bb]ackward<float, [^<>]*\)2>(?!.*Spread\)2)"],
    "scale_bias_act": [r"\bforward<float, false>\(gan_engine::ScaleBias", r"\bforward<float, true>\(gan_engine::Scale"],
    "scale_bias_act_grad": [
        r"\bbackward<float, false>\(gan_engine::ScaleBias",
        r"\bbackward<float, true>\(gan_engine::Scale",
    ],
    "scale_bias_act_second": [
        r"\bsecond<float, false>\(gan_engine::ScaleBias",
        r"\bsecond<float, true>\(gan_engine::Scale",
    ],
    "norm_act": [r"\bfor_all<float, [^;]*\bApply<float"],
    "norm_act_grad": [r"\bfor_all<float, [^;]*\bGradient<float", r"\bchannel_sums<float, [^;]*\bGradient<float"],
    "norm_stats": [r"\bchannel_sums<float, [^;]*\bStatsTerms<float"],
    "pixel_norm": [r"\bPixelNorm<float, false>", r"\bPixelNorm<float, true>"],
    "gradient_penalty": [r"\brun_dot<float>", r"\bmix<float>|\brun_mix<float>"],
}

SCALAR = re.compile(
    r"v(add|sub|mul|div|min|max|cmp\w*|cvt\w+|fn?m(add|sub)\w+)(ss|sd)\b"  # arithmetic on one number
    r"|vmovs[sd]\b|v(u)?comis[sd]\b"  # its loads, stores and comparisons
    r"|vpextr[bwdq]\b|vpinsr[bwdq]\b|vextractps\b|vinsertps\b"  # lanes one by one
)


# Vectors that a loop may store in the frame of its function. More numbers than registers have to wait somewhere.
MOST_STORED = {
    ("scale_bias_act_grad", "avx2"): 5,  # two sums in double, and the numbers to add, take 12 of 16 registers
    ("scale_bias_act_second", "avx2"): 3,  # a sum takes 4, and the numbers of a row six
    ("norm_act_grad", "avx2"): 6,  # so do they here, and six numbers of each channel take 12
    ("pixel_norm", "avx2"): 32,  # 16 sums of 16 numbers are an array
    ("pixel_norm", "avx512"): 16,
}


@dataclass
class Loop:
    """An innermost loop: the function it lies in, and its instructions with their operands."""

    function: str
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
    # %rbp is the frame only where the function makes it so.
    framed = any(re.match(r"(mov\s+%rsp,%rbp|lea\s+0x[0-9a-f]+\(%rsp\),%rbp)", text) for text in code.values())
    frame = rf"-?(0x)?[0-9a-f]*\(%r{'[sb]' if framed else 's'}p\)"
    return [Loop(function, [code[at] for at in sorted(loop)], frame) for loop in innermost(set(code), after)]


def functions_of(listing: str) -> list[tuple[str, list[tuple[int, str]]]]:
    """Demangled names, each with addresses and instructions, from the output of objdump."""
    functions: list[tuple[str, list[tuple[int, str]]]] = []
    for line in listing.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            functions.append((head[1], []))
        elif found := re.match(r"\s+([0-9a-f]+):\s+(\S.*)$", line):
            functions[-1][1].append((int(found[1], 16), found[2]))
    return functions


@functools.cache
def module_functions(path: str) -> list[tuple[str, list[tuple[int, str]]]]:
    command = ["objdump", "-d", "-C", "-w", "--no-show-raw-insn", path]
    return functions_of(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def hot_loops(path: str, isa: str, function: str) -> list[Loop]:
    """The loops that multiply whole registers, in functions whose names match `function`."""
    name, register = re.compile(function), re.compile(rf"v(mul|fn?m(add|sub)\d+)p[sd]\b.*%{REGISTER[isa]}")
    return [
        loop
        for full_name, instructions in module_functions(path)
        if f"gan_engine::{isa}::" in full_name and name.search(full_name)
        for loop in loops_of(full_name, instructions)
        if any(register.match(line) for line in loop.lines)
    ]


@pytest.mark.parametrize("isa", REGISTER)
@pytest.mark.parametrize("kernel", HOT)
def test_hot_loops_keep_their_vectors_in_registers(kernel, isa):
    if isa not in ISAS:
        pytest.skip(f"the module has no code for {isa} that runs here")
    if shutil.which("objdump") is None:
        pytest.skip("objdump was not found (on Debian and Ubuntu: apt install binutils)")
    for function in HOT[kernel]:
        loops = hot_loops(native.cpu.module.__file__, isa, function)
        assert loops, f"{kernel}, {isa}: no function matches {function}, or none multiplies vectors in a loop"
        for loop in loops:
            where = f"{kernel}, {isa}: a hot loop of {loop.function}"
            assert not loop.scalar(), f"{where} has scalar code:\n  " + "\n  ".join(loop.scalar())
            stored = loop.stored()
            assert len(stored) <= MOST_STORED.get((kernel, isa), 0), f"{where} spills:\n  " + "\n  ".join(stored)


# An inner loop as GCC made it of a vector of 64 bytes with AVX2, shortened. The padding and the loop around it are no
# part of it.
LISTING = """
0000000000001000 <void gan_engine::avx2::apply<float>(long)>:
    1000:\tsub    $0x48,%rsp
    1004:\tjmp    1010 <void gan_engine::avx2::apply<float>(long)+0x10>
    1008:\tnopl   0x0(%rax)
    1010:\tvmovss (%rdi),%xmm9
    1014:\tvmovups (%rsi),%ymm0
    1018:\tvmovaps %ymm0,0x8(%rsp)
    1020:\tvmulps 0x8(%rsp),%ymm1,%ymm2
    1028:\tvpextrd $0x1,%xmm2,%eax
    1030:\tvaddss %xmm2,%xmm3,%xmm3
    1038:\tadd    $0x20,%rsi
    1040:\tcmp    %rdx,%rsi
    1048:\tjne    1014 <void gan_engine::avx2::apply<float>(long)+0x14>
    1050:\tadd    $0x4,%rdi
    1058:\tcmp    %rcx,%rdi
    1060:\tjne    1010 <void gan_engine::avx2::apply<float>(long)+0x10>
    1068:\tret
"""


def test_faults_of_a_loop_are_found():
    ((name, instructions),) = functions_of(LISTING)
    (loop,) = loops_of(name, instructions)
    assert len(loop.lines) == 8
    assert [line.split()[0] for line in loop.scalar()] == ["vpextrd", "vaddss"]
    assert loop.stored() == ["vmovaps %ymm0,0x8(%rsp)"]
