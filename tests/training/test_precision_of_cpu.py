"""A run on a CPU trains in bfloat16 only where that is faster, and says so."""

import os
import subprocess
import sys

import pytest
import torch

from gan_engine.system import bfloat16
from gan_engine.training.precision import remark, resolve

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """machine(capability of PyTorch, features): pretend that this is the CPU."""

    def pretend(capability: str, machine: str = "x86_64", **features: object) -> bfloat16.OnCpu:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
        monkeypatch.setattr("platform.machine", lambda: machine)
        bfloat16.on_cpu.cache_clear()
        return bfloat16.on_cpu()

    yield pretend
    bfloat16.on_cpu.cache_clear()


@pytest.mark.parametrize(
    ("capability", "features", "how", "auto"),
    [
        ("AVX2", {"avx512_bf16": True, "amx_bf16": True}, "in software", "fp32"),
        ("AVX2", {}, "in software", "fp32"),
        ("AVX512", {"avx512_bf16": False}, "in software", "fp32"),
        ("AVX512", {}, "in a way that this PyTorch does not tell", "fp32"),
        ("AVX512", {"avx512_bf16": True, "cpu_name": "Intel Xeon"}, "in hardware (AVX512_BF16 without AMX)", "fp32"),
        ("AVX512", {"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "in hardware (AVX512_BF16)", "bf16"),
        ("AVX512", {"avx512_bf16": True, "cpu_name": "QEMU Virtual"}, "in hardware (AVX512_BF16)", "fp32"),
        ("AVX512", {"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, "in hardware (AMX)", "bf16"),
        ("DEFAULT", {"machine": "aarch64"}, "in software", "fp32"),
        ("DEFAULT", {"machine": "aarch64", "bf16": True}, "in hardware", "fp32"),
    ],
)
def test_auto_is_bfloat16_where_it_is_faster(machine, capability, features, how, auto):
    assert machine(capability, **features).how == how
    assert resolve("auto", CPU) == auto
    assert resolve("bf16", CPU) == "bf16" and resolve("fp32", CPU) == "fp32"


def test_the_first_lines_say_which_precision_is_faster(machine):
    machine("AVX2")
    why = "this CPU computes bfloat16 in software, which is slower than float32"
    assert remark("fp32", CPU) == f": {why}"
    assert remark("bf16", CPU) == f"; --precision fp32 may be faster: {why}"
    assert remark("bf16", torch.device("cuda")) == ""
    machine("AVX512", amx_bf16=True)
    assert remark("bf16", CPU) == remark("fp32", CPU) == ""


@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="a CPU without AVX2")
def test_a_run_on_avx2_is_in_float32_and_says_why(tmp_path):
    command = [sys.executable, "-m", "gan_engine.train", "vanilla", "--kimg", "0.1", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        command, env=os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}, capture_output=True, text=True, check=True
    )
    said = done.stdout + done.stderr
    assert "fp32: this CPU computes bfloat16 in software, which is slower than float32" in said
