"""The C++ and Triton sources: files that comments name exist, and the CPU kernels compile for AArch64."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import arm_check

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("csrc", "kernels") for path in (ROOT / folder).rglob("*.[chp]*") if path.is_file())


@pytest.mark.parametrize("source", [path for path in SOURCES if "__pycache__" not in path.parts], ids=lambda p: p.name)
def test_files_that_a_comment_names_exist(source):
    text = re.sub(r"\n *(//|#) *", " ", source.read_text())
    named = re.findall(r"\b(?:gan_engine|docs|csrc)/[\w/]+\.(?:py|md|h|cpp)", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"{source.relative_to(ROOT)} names files that do not exist: {', '.join(missing)}"


@pytest.mark.parametrize("compiler", ["aarch64-linux-gnu-g++", "clang++ --target=aarch64-linux-gnu"])
def test_cpu_kernels_compile_for_aarch64_without_openmp(compiler, tmp_path):
    """`make arm-check` also runs them. -fsyntax-only instantiates every template, and takes no time to optimise."""
    program, *target = compiler.split()
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    command = [program, *target, "-std=c++17", "-fsyntax-only", "-Wno-psabi", "-DGE_ISA=neon"]
    probe = tmp_path / "probe.cpp"
    probe.write_text("#include <cmath>\n#include <arm_neon.h>\n")
    if subprocess.run([*command, probe], capture_output=True).returncode != 0:
        pytest.skip(f"{program} finds no C++ library for AArch64 (on Debian: apt install g++-aarch64-linux-gnu)")
    for source in sorted((ROOT / "csrc/cpu").glob("*.cpp")):
        done = subprocess.run([*command, source], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_arm_check_says_which_tool_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name.startswith("qemu") else name)
    with pytest.raises(SystemExit, match=r"want qemu-aarch64-static or .*apt install qemu-user-static"):
        arm_check.main([])
