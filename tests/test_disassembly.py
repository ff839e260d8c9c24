"""The hot loops of the C++ kernels, as the compiler made them: no spilled vectors, and no scalar code in their place.

A vector that is wider than a register of the instruction set, or a mask that the compiler takes apart, makes a loop
several times slower, and no other test sees it.
"""

import platform
import re
import shutil
import subprocess

import pytest

from gan_engine.system import native
from tests.disassembly import (
    REGISTER,
    Functions,
    Hot,
    Loop,
    described,
    faults,
    functions_of,
    functions_of_module,
    loops_of,
    multiplies,
)

ISAS = native.cpu.module.isas() if native.WHY_NO_CPU is None else []

# The hot functions of each kernel in float32. More numbers than registers have to wait somewhere: such a row says how
# many vectors a loop may store.
HOT = {
    "bias_act": [Hot(r"^(?!.*run_mixed).*\b[Ff]orward<float, [^<>]*\)2>(?!.*Spread\)2)", loops=2)],
    "bias_act_grad": [
        # Sums of rows and of threads are added up one by one, once for many elements.
        Hot(r"^(?!.*run_mixed).*\b[Bb]ackward<float, [^<>]*\)2>(?!.*Spread\)2)", loops=2, scalar_loops=4)
    ],
    "scale_bias_act": [
        Hot(r"\bforward<float, false>\(gan_engine::ScaleBias"),
        Hot(r"\bforward<float, true>\(gan_engine::ScaleBias"),
    ],
    "scale_bias_act_grad": [
        # Two sums in double, and the numbers to add, take 12 of 16 registers.
        Hot(r"\bbackward<float, false>\(gan_engine::ScaleBias", stored=(5, 0)),
        Hot(r"\bbackward<float, true>\(gan_engine::ScaleBias", stored=(1, 0)),
    ],
    "scale_bias_act_second": [
        Hot(r"\bsecond<float, false>\(gan_engine::ScaleBias", stored=(3, 0)),  # a sum takes 4, numbers of a row 6
        Hot(r"\bsecond<float, true>\(gan_engine::ScaleBias"),
    ],
    "norm_act": [Hot(r"\bfor_all<float, [^;]*\bApply<float", loops=3)],
    "norm_act_grad": [
        # Two sums in double take 8 of 16 registers, and six numbers of each channel take 12.
        Hot(r"\bfor_all<float, [^;]*\bGradient<float", loops=3, stored=(6, 0)),
        Hot(r"\bchannel_sums<float, [^;]*\bGradient<float", loops=3, stored=(6, 0)),
    ],
    # The numbers of a channel take 18 of 16 registers, and five sums of the last channels 10 beside three masks.
    "norm_act_second": [
        Hot(r"\bfor_all<float, [^;]*\bSecond<float", loops=3, stored=(14, 0)),
        Hot(r"\bsums_of_rows<float, [^;]*\bSecond<float", loops=3, stored=(13, 0)),
    ],
    "norm_stats": [Hot(r"\bchannel_sums<float, [^;]*\bStatsTerms<float", loops=3)],
    "pixel_norm": [
        Hot(r"\bPixelNorm<float, false>", loops=4, stored=(32, 16)),  # 16 sums of 16 numbers are an array
        Hot(r"\bPixelNorm<float, true>", loops=4),
    ],
    # The products of sixteen kernels wait in memory, where their taps are added one by one.
    "taps": [
        Hot(r"\bDot<float>", loops=3, stored=(2, 1), scalar_loops=2),
        Hot(r"\bScale<float>", loops=2),
    ],
    "pointwise": [Hot(r"\b(expand|reduce|wgrad)_(last|planes)<", loops=40)],
    "gradient_penalty": [Hot(r"\brun_dot<float>"), Hot(r"\bmix<float>|\brun_mix<float>")],
    # In loops over any number of taps, a weight is read and multiplied by the gain.
    "fir, planes": [Hot(r"\bPlanar<float> ?>?::(emit|make|blend|spread_row)\w*\(", loops=24, scalar=2, stored=(9, 0))],
    "fir, channels_last": [Hot(r"\bChannelsLast<float> ?>?::(emit|make|blend|spread_row)\w*\(", loops=16, scalar=2)],
    # A pair of sums reads two weights, and part of a row ends in a masked load.
    "fir, many taps": [
        Hot(r"\bblend_pair<float>\(", loops=6),
        Hot(r"\bPlanar<float> ?>?::(emit_pair|emit_two_rows|emit_many|make_many)\b", loops=12),
        Hot(r"\bChannelsLast<float> ?>?::(emit_pair|emit_pairs|make_many)\b", loops=6),
    ],
    # The weights of a filter are made one by one, in double.
    "fir, four taps": [Hot(r"\bFourTaps<float|\bby_four_taps<|\bfilter_on<float>\(", loops=20, scalar_loops=4)],
    # channels_last has one number of noise for each pixel.
    "upfirdn2d_act": [Hot(r"\b(Forward|Backward)<float, (true|false)>::(in|out)\(", loops=4, scalar_loops=2)],
    "filtered_lrelu": [
        Hot(r"\bRowsOfU<float>::(make_x|make_group)\(", loops=10),
        Hot(r"\bRowsOfU<float>::activate\(", loops=5),
        Hot(r"\bRowsOfY<float>::(blend|make)\(", loops=8),
        Hot(r"\bMatrixSums<.*, float>::sum\(", loops=12),
    ],
    # The argument of the sine waits in memory for the C library, in case that it is large.
    "alias_free_activation, images": [
        Hot(r"\bTile<float, [012]>::(split_rows|merge_columns|merge_rows)\(", loops=9),
        Hot(r"\bTile<float, [012]>::activate\(", loops=3, stored=(12, 4)),
    ],
    "winograd, product": [Hot(r"\bmultiply_pieces<", loops=4)],
    "winograd, images": [
        Hot(r"\bConvolution<.*::transform_channels\(", transforms=7),
        Hot(r"\bConvolution<.*::write_channels\(", transforms=7),
        Hot(r"\bWeightGradient<.*::transform_(x|dy)_channels<", transforms=5),
    ],
    "winograd, weights": [
        Hot(r"\btransform_taps<", transforms=7),
        Hot(r"\bWeightGradient<.*::write_taps\(", transforms=5),
    ],
}


def module_functions(isa: str) -> Functions:
    if isa not in ISAS:
        pytest.skip(f"the module has no code for {isa} that runs here")
    if shutil.which("objdump") is None:
        pytest.skip("objdump was not found (on Debian and Ubuntu: apt install binutils)")
    return functions_of_module(native.cpu.module.__file__)


@pytest.mark.parametrize("isa", REGISTER)
@pytest.mark.parametrize("kernel", HOT)
def test_hot_loops_keep_their_vectors_in_registers(kernel, isa):
    functions = module_functions(isa)
    wrong = [sentence for hot in HOT[kernel] for sentence in faults(functions, isa, hot)]
    assert not wrong, f"{kernel}, {isa}:\n  " + "\n  ".join(wrong)


def changed(functions: Functions, loop: Loop, lines: list[str]) -> Functions:
    """The functions, with other instructions in the loop."""
    new = dict(zip(loop.places, lines, strict=True))
    return [
        (name, [(at, new.get(at, text)) for at, text in code] if name == loop.function else code)
        for name, code in functions
    ]


def on_one_number(lines: list[str]) -> list[str]:
    """The instructions, with arithmetic on one number instead of a register."""
    arithmetic = re.compile(r"(v(?:add|sub|mul|fn?m(?:add|sub)\d+))p([sd])\b")
    return [re.sub(r"%[yz]mm", "%xmm", arithmetic.sub(r"\1s\2", line)) for line in lines]


@pytest.mark.parametrize("isa", REGISTER)
@pytest.mark.parametrize("kernel", HOT)
def test_a_loop_of_scalar_code_and_a_loop_with_spills_would_fail(kernel, isa):
    """Every row of the table can fail: the functions of the module pass, and with one loop changed they do not."""
    for hot in HOT[kernel]:
        functions = described(module_functions(isa), isa, hot)
        if hot.transforms:
            slow = [
                (name, [*zip(*[[at for at, _ in code], on_one_number([line for _, line in code])], strict=True)])
                for name, code in functions
            ]
            assert any("is missing" in sentence for sentence in faults(slow, isa, hot))
            assert any("one number at a time" in sentence for sentence in faults([*functions[1:], slow[0]], isa, hot))
            continue
        loops = [loop for name, code in functions for loop in loops_of(name, code) if multiplies(loop, isa)]
        slow = functions
        for loop in loops[: None if hot.scalar_loops else 1]:
            slow = changed(slow, loop, on_one_number(loop.lines))
        assert any(re.search("one number at a time|missing", sentence) for sentence in faults(slow, isa, hot))
        longest = max(loops, key=lambda loop: len(loop.lines))
        spills, left = [], 1 + max(hot.stored)
        for line in longest.lines:
            store = left > 0 and not re.match(r"j|v(mul|fn?m)", line)
            spills.append("vmovaps %ymm0,0x8(%rsp)" if store else line)
            left -= store
        assert any("spills" in sentence for sentence in faults(changed(functions, longest, spills), isa, hot))


# A sum of products as the product of minimal filtering makes it, in several sums side by side.
PRODUCT = """
namespace gan_engine {
namespace avx2 {
typedef float Register __attribute__((vector_size(32)));
void product(const NUMBER* a, const NUMBER* b, NUMBER* c, long n) {
    NUMBER sums[SUMS] = {};
    for (long i = 0; i < n; ++i)
#pragma GCC unroll 64
        for (int k = 0; k < SUMS; ++k) sums[k] += a[i * SUMS + k] * b[i];
#pragma GCC unroll 64
    for (int k = 0; k < SUMS; ++k) c[k] = sums[k];
}
}
}
"""


@pytest.mark.parametrize(
    ("number", "sums", "fault"),
    [("Register", 8, None), ("Register", 40, "spills"), ("float", 8, "one number at a time")],
)
def test_what_a_compiler_makes_of_spills_and_of_scalar_code_fails(number, sums, fault, tmp_path):
    if shutil.which("g++") is None or shutil.which("objdump") is None or platform.machine() != "x86_64":
        pytest.skip("needs g++ and objdump on x86-64")
    (tmp_path / "product.cpp").write_text(PRODUCT)
    command = ["g++", "-O2", "-fno-tree-vectorize", "-fno-tree-slp-vectorize", "-mavx2", "-mfma"]
    command += [f"-DNUMBER={number}", f"-DSUMS={sums}", "-c", "product.cpp"]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = faults(functions_of_module(str(tmp_path / "product.o")), "avx2", Hot(r"\bproduct\("))
    assert bool(found) == bool(fault)
    assert fault is None or any(fault in sentence for sentence in found)


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
