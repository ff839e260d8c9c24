"""The GPU kernels, compiled without a GPU for an H100 (sm_90): they fit, spill nothing, and take no more registers,
instructions and accesses to memory than the table in gpu_ledger.csv says. So do those of CUDA, and the critical ones of
Triton, for an A100 (sm_80)."""

import re
from pathlib import Path

import pytest

from gan_engine import backends
from tests import gpu_ledger, sass

no_nvcc = pytest.mark.skipif(gpu_ledger.NVCC is None, reason="nvcc was not found on PATH or in /usr/local/cuda")
no_cuobjdump = pytest.mark.skipif(sass.cuobjdump() is None, reason="cuobjdump was not found on PATH or in Triton")

SPILLS = """
namespace { __global__ void __launch_bounds__(1024, 2) spills(float* p) {
    float v[80];
#pragma unroll
    for (int k = 0; k < 80; ++k) v[k] = p[k * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 80; ++k) p[k * 1024 + threadIdx.x] = v[k] * v[79 - k];
} }
void start(float* p) { spills<<<1, 1024>>>(p); }
"""
# What the first backend of the order, cuda, and the second, triton, run for an op in a layout.
ORDER = {
    "bias_act": (r"bias_act.cu forward<bf16, 2>", r"bias_act._forward_kernel<bf16,fp32,bf16,u8,u8;2,True,.*,int32,.*"),
    "scale_bias_act": (
        r"scale_bias_act.cu forward<bf16, false, true>",
        r"scale_bias_act._forward_kernel<bf16,fp32,fp32,fp32,bf16,u8,u8;True,False,.*,int32,.*",
    ),
    "scale_bias_act in channels_last": (
        r"scale_bias_act.cu forward<bf16, true, true>",
        r"scale_bias_act._forward_kernel<bf16,fp32,fp32,fp32,bf16,u8,u8;True,True,.*,int32,.*",
    ),
    "upfirdn2d": (
        r"upfirdn2d.cu by_strips<bf16, 1, 4, true, .*>",
        r"strips._strip_kernel<bf16,fp32,bf16;\d,\d,False,fp32,.*>",
    ),
    "upfirdn2d in channels_last": (
        r"upfirdn2d.cu by_strips<bf16, 8, 1, false, .*>",
        r"strips._strip_kernel<bf16,fp32,bf16;\d,\d,True,fp32,.*>",
    ),
}
ROW = {"kernel": "k", "registers": "40/42/44", "shared": "64", "each": "17.5", "loads": "16/128", "stores": "128"}


@pytest.fixture(scope="module")
def triton_kernels():
    """Every Triton kernel, compiled for an H100, and the critical ones for an A100."""
    pytest.importorskip("triton")
    return gpu_ledger.triton_kernels(gpu_ledger.TESTED, "--critical")


def wrong(kernels: list[dict]) -> list[str]:
    """What is wrong with compiled kernels: spills, shared memory, and what has grown since the table was written."""
    messages = [f"{row['kernel']} for sm_{row['arch']}: {', '.join(row['wrong'])}" for row in kernels if row["wrong"]]
    compilers, table = gpu_ledger.read()
    if compilers != gpu_ledger.compilers():
        return messages  # other compilers, other numbers
    for name, row in gpu_ledger.by_kernel(kernels).items():
        before = table.get(name)
        messages += (
            gpu_ledger.grown(before, row) if before else [f"{name} is not in the table: make gpu-ledger ARGS=--write"]
        )
        if (of := gpu_ledger.hot(name)) is not None and of.limit is not None and float(row["each"]) > of.limit:
            messages.append(f"{name}: want at most {of.limit} instructions an element, got {row['each']}")
    return messages


@no_nvcc
@no_cuobjdump
def test_triton_kernels(triton_kernels):
    everywhere, others = gpu_ledger.TESTED
    names = {arch: {row["kernel"] for row in triton_kernels if row["arch"] == arch} for arch in gpu_ledger.TESTED}
    _, table = gpu_ledger.read()
    assert names[others] == {name for name in names[everywhere] if gpu_ledger.critical(name, table)} != set()
    assert not wrong(triton_kernels)


@no_nvcc
@no_cuobjdump
@pytest.mark.parametrize("source", gpu_ledger.sources(), ids=lambda path: path.name)
def test_cuda_kernels(source):
    kernels = gpu_ledger.cuda_kernels(source, gpu_ledger.TESTED)
    assert {row["arch"] for row in kernels} == set(gpu_ledger.TESTED)
    assert not wrong(kernels)


@no_nvcc
@no_cuobjdump
def test_a_kernel_that_spills_is_seen(tmp_path):
    source = Path(tmp_path / "spills.cu")
    source.write_text(SPILLS)
    kernels = gpu_ledger.cuda_kernels(source, (90,))
    assert [row["kernel"] for row in kernels] == ["spills.cu spills"]
    assert "bytes of stack and spills" in kernels[0]["wrong"][0]


@pytest.mark.parametrize(("first", "second"), ORDER.values(), ids=ORDER)
def test_the_first_backend_takes_about_the_fewest_instructions_an_element(first, second):
    assert backends.ORDER[:2] == ("cuda", "triton")
    _, table = gpu_ledger.read()
    counts = [
        [float(row["each"]) for name, row in table.items() if re.fullmatch(kernel, name)] for kernel in (first, second)
    ]
    cuda, triton = (sum(found) / len(found) for found in counts)
    assert cuda < 1.05 * triton  # bias_act takes 20 in both, and the CPU launches a Triton kernel more slowly


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"registers": "40/43"}, "k: 40/42/44 registers in the table, 40/43 as compiled now"),
        ({"shared": "65"}, "k: 64 bytes of shared memory in the table, 65 as compiled now"),
        ({"each": "17.6"}, "k: 17.5 instructions an element in the table, 17.6 as compiled now"),
        ({"stores": "32"}, "k: stores of 128 bits in the table, 32 now"),
        ({"registers": "/43/"}, "k: 40/42/44 registers in the table, /43/ as compiled now"),
        ({"registers": "/41/"}, None),
        ({"registers": "39/42", "each": "16.0"}, None),
    ],
)
def test_growth_is_a_sentence(change, sentence):
    assert list(gpu_ledger.grown(ROW, ROW | change)) == ([] if sentence is None else [sentence])


def test_the_fast_way_is_the_short_one_of_all_that_store():
    lines = [
        ("S2R", "R0", False),
        ("BRA", "0x50", True),  # a narrow way, longer
        ("LDG.E.128", "R4", False),
        ("STG.E.128", "R4", False),
        ("BRA", "0x90", False),
        ("LDG.E.U16", "R4", False),
        ("FADD", "R4", False),
        ("FADD", "R4", False),
        ("STG.E.U16", "R4", False),
        ("ISETP", "P0", False),
        ("BRA", "0x10", True),  # a loop around both
        ("EXIT", "", False),
    ]
    way = sass.way({16 * k: sass.Instruction(*line) for k, line in enumerate(lines)})
    assert way == sass.Way(whole=8, loop=6, loads=(16, 128), stores=(16, 128))
