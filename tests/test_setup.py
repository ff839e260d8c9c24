"""What setup.py does around CMake, with CMake replaced."""

import runpy
import subprocess
from pathlib import Path

import pytest
import setuptools

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
