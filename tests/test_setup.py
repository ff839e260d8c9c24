"""What setup.py does around CMake, with CMake replaced."""

import runpy
import subprocess
from pathlib import Path

import pytest
import setuptools
import torch

SETUP = Path(__file__).parents[1] / "setup.py"


@pytest.mark.parametrize("heals", [True, False])
def test_a_build_folder_that_cmake_refuses_is_emptied_once(tmp_path, monkeypatch, heals):
    """As after the tree was moved: CMake's cache names the folder that it was made in."""
    pytest.importorskip("pybind11")
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    build = runpy.run_path(str(SETUP))
    build["cmake_build"].__globals__.update(ROOT=tmp_path, tool=lambda *_: "cmake", cxx_compiler=lambda: "c++")
    folder = tmp_path / "build" / f"_C{build['SUFFIX']}"
    folder.mkdir(parents=True)
    (folder / "CMakeCache.txt").touch()
    calls = []

    def cmake(command, **_):
        calls.append("configure" if "-S" in command else "build" if "--build" in command else "version")
        refused = calls[-1] == "configure" and ((folder / "CMakeCache.txt").exists() or not heals)
        return subprocess.CompletedProcess(command, int(refused), "CMake Error: made in another folder" * refused)

    monkeypatch.setattr(subprocess, "run", cmake)
    monkeypatch.setenv("GAN_ENGINE_NATIVE", "1")
    if heals:
        assert build["cmake_build"]("_C")[0].parent == folder
        assert calls == ["configure", "configure", "build", "version"]
    else:
        with pytest.raises(build["NotBuilt"], match="made in another folder"):
            build["cmake_build"]("_C")
        assert calls == ["configure", "configure"]


@pytest.mark.parametrize(("cuda", "request_", "built"), [(None, None, False), (None, "1", True), ("13.0", None, True)])
def test_cuda_kernels_are_not_built_for_a_torch_that_cannot_run_them(tmp_path, monkeypatch, cuda, request_, built):
    pytest.importorskip("pybind11")
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    build = runpy.run_path(str(SETUP))
    tools = {"tool": lambda *_: "cmake", "cxx_compiler": lambda: "c++", "cuda_compiler": lambda: "nvcc"}
    build["cmake_build"].__globals__.update(ROOT=tmp_path, **tools)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, ""))
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("GAN_ENGINE_CUDA", raising=False)
    if request_ is not None:
        monkeypatch.setenv("GAN_ENGINE_CUDA", request_)
    if built:
        build["cmake_build"]("_C_cuda")
    else:
        with pytest.raises(build["NotBuilt"], match=r"PyTorch .* here is without CUDA"):
            build["cmake_build"]("_C_cuda")
