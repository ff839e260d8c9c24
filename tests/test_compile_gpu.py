"""The GPU kernels, compiled without a GPU for an H100 (sm_90): they fit, spill nothing, and take no more registers,
instructions and accesses to memory than the table in gpu_ledger.csv says. So do those of CUDA, and the critical ones of
Triton, for an A100 (sm_80).

The table was written with fingerprints of the sources, the compilers and its rows. Where these hold, the table is what
compiling all would give, and one source of CUDA and one operator of Triton are compiled to see that it is so here."""

import re
from pathlib import Path

import pytest

from gan_engine import backends
from tests import gpu_ledger, sass

SOME_CUDA, SOME_TRITON = "scale_bias_act.cu", "pixel_norm"  # with hot kernels, and soon compiled
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
    return messages + gpu_ledger.over_limits(gpu_ledger.by_kernel(kernels))


def assert_as_in_the_table(kernels: list[dict], begin: str) -> None:
    """All kernels whose names begin so have the very numbers of the table, for the architectures that were compiled."""
    _, table = gpu_ledger.read()
    rows = gpu_ledger.by_kernel(kernels)
    assert rows.keys() == {name for name in table if name.startswith(begin)} != set()
    for name, row in rows.items():
        kept = table[name]
        registers = zip(kept["registers"].split("/"), row["registers"].split("/"), strict=True)
        assert row | {"registers": "/".join(now or was for was, now in registers)} == kept


@no_nvcc
@no_cuobjdump
def test_triton_kernels():
    """All of them, where the fingerprint of the table does not hold."""
    pytest.importorskip("triton")
    if gpu_ledger.holds(gpu_ledger.TRITON):
        kernels = gpu_ledger.triton_kernels(gpu_ledger.TESTED, "--op", SOME_TRITON)
        assert_as_in_the_table(kernels, f"{SOME_TRITON}._")
    else:
        kernels = gpu_ledger.triton_kernels(gpu_ledger.TESTED, "--critical")
        everywhere, others = gpu_ledger.TESTED
        names = {arch: {row["kernel"] for row in kernels if row["arch"] == arch} for arch in gpu_ledger.TESTED}
        _, table = gpu_ledger.read()
        assert names[others] == {name for name in names[everywhere] if gpu_ledger.critical(name, table)} != set()
    assert not wrong(kernels)


@no_nvcc
@no_cuobjdump
@pytest.mark.parametrize("source", gpu_ledger.sources(), ids=lambda path: path.name)
def test_cuda_kernels(source):
    """Those of one file, and of files whose fingerprint in the table does not hold."""
    held = gpu_ledger.holds(source.name)
    if held and source.name != SOME_CUDA:
        return
    kernels = gpu_ledger.cuda_kernels(source, gpu_ledger.TESTED)
    assert {row["arch"] for row in kernels} == set(gpu_ledger.TESTED)
    if held:
        assert_as_in_the_table(kernels, f"{source.name} ")
    assert not wrong(kernels)


def test_the_table_is_within_the_limits():
    _, table = gpu_ledger.read()
    assert not gpu_ledger.over_limits(table)
    some = next(name for name in table if (of := gpu_ledger.hot(name)) is not None and of.limit is not None)
    assert len(gpu_ledger.over_limits({some: table[some] | {"each": "99.0"}})) == 1


OF_CUDA = {"csrc/cuda/k.cu": '#include "../k.h"\n', "csrc/k.h": '#include "m.h"\n', "csrc/m.h": ""}
OF_TRITON = ("kernels/k.py", "gan_engine/backends.py", "gan_engine/ops/samples/k.py", "tests/compile_triton.py")
OF_BOTH = ("tests/gpu_ledger.py", "tests/sass.py")
PROJECT = OF_CUDA | dict.fromkeys((*OF_TRITON, *OF_BOTH, "gan_engine/system/native.py"), "")


def test_a_changed_source_row_or_compiler_changes_the_fingerprint(tmp_path, monkeypatch):
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(gpu_ledger, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_ledger, "TABLE", tmp_path / "table.csv")
    monkeypatch.setattr(gpu_ledger, "versions", lambda part: ("one",))
    rows = {"k.cu k<1>": {"kernel": "k.cu k<1>", "registers": "1"}, "k._k<1>": {"kernel": "k._k<1>", "registers": "1"}}
    parts = ("k.cu", gpu_ledger.TRITON)

    def now(rows: dict = rows) -> list[str]:
        return [gpu_ledger.fingerprint(part, rows) for part in parts]

    before, changed = now(), {part: set() for part in parts}
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text + "// other")
        for part, was, found in zip(parts, before, now()):
            changed[part] |= {name} if was != found else set()
        (tmp_path / name).write_text(text)
    assert now() == before
    assert changed == {"k.cu": {*OF_CUDA, *OF_BOTH}, gpu_ledger.TRITON: {*OF_TRITON, *OF_BOTH}}
    for k, name in enumerate(rows):
        other = now(rows | {name: rows[name] | {"registers": "2"}})
        assert other[k] != before[k] and other[1 - k] == before[1 - k]
    gpu_ledger.TABLE.write_text(f"# compilers\n# fingerprints: k.cu={before[0]} triton={before[1]}\nkernel,registers\n")
    assert not gpu_ledger.holds("k.cu")  # its row is missing
    with gpu_ledger.TABLE.open("a") as file:
        file.writelines(f"{name},1\n" for name in rows)
    assert gpu_ledger.holds("k.cu") and gpu_ledger.holds(gpu_ledger.TRITON)
    monkeypatch.setattr(gpu_ledger, "versions", lambda part: ("another",))
    assert not gpu_ledger.holds("k.cu") and not gpu_ledger.holds(gpu_ledger.TRITON)


@no_nvcc
def test_the_fingerprint_knows_the_compilers():
    pytest.importorskip("triton")
    assert "release" in gpu_ledger.versions("bias_act.cu")[0]
    assert len(gpu_ledger.versions(gpu_ledger.TRITON)) == 3


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
