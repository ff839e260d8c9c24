"""setup.py with CMake replaced, and the contents of an installation."""

import os
import platform
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import setuptools
import torch
from setuptools.command.bdist_wheel import bdist_wheel

SETUP = Path(__file__).parents[1] / "setup.py"


@pytest.mark.parametrize("heals", [True, False])
def test_a_build_folder_that_cmake_refuses_is_emptied_once(tmp_path, monkeypatch, heals):
    """This happens after the tree was moved: CMake's cache names the folder where it was made."""
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


def test_a_mac_builds_for_the_architecture_that_python_runs_as(tmp_path, monkeypatch):
    pytest.importorskip("pybind11")
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    build = runpy.run_path(str(SETUP))
    build["cmake_build"].__globals__.update(ROOT=tmp_path, tool=lambda *_: "cmake", cxx_compiler=lambda: "c++")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setenv("GAN_ENGINE_NATIVE", "1")
    commands = []
    done = subprocess.CompletedProcess([], 0, "")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command) or done)
    build["cmake_build"]("_C")
    assert "-DCMAKE_OSX_ARCHITECTURES=arm64" in commands[0]

    tag = ("cp311", "cp311", "macosx_11_0_universal2")
    monkeypatch.setattr(bdist_wheel, "get_tag", lambda wheel: tag)
    wheel = object.__new__(build["Wheel"])
    assert build["Wheel"].get_tag(wheel) == ("cp311", "cp311", "macosx_11_0_arm64")


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


@pytest.mark.parametrize(("request_", "want"), [(None, "-DGE_ISAS=all"), ("native", "-DGE_ISAS=native")])
def test_instruction_sets_are_those_asked_for_now(tmp_path, monkeypatch, request_, want):
    """CMake would keep the request of the build before."""
    pytest.importorskip("pybind11")
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    build, commands = runpy.run_path(str(SETUP)), []
    build["cmake_build"].__globals__.update(ROOT=tmp_path, tool=lambda *_: "cmake", cxx_compiler=lambda: "c++")

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(subprocess, "run", run)
    for name in ("GAN_ENGINE_ISAS", "GAN_ENGINE_NATIVE"):
        monkeypatch.delenv(name, raising=False)
    if request_ is not None:
        monkeypatch.setenv("GAN_ENGINE_ISAS", request_)
    build["cmake_build"]("_C")
    assert want in commands[0]


ROOT = SETUP.parent


def run(*command, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """An unpacked sdist of the tree."""
    folder = tmp_path_factory.mktemp("sdist")
    run("setup.py", "-q", "egg_info", "--egg-base", folder, "sdist", "--dist-dir", folder, cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def test_an_sdist_is_the_repository(sdist):
    if not (ROOT / ".git").exists():
        pytest.skip("this tree is no clone, whose files git could list")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip(f"git does not list the files: {listed.stderr}")
    files = {file for file in listed.stdout.split("\0") if file and (ROOT / file).exists()}
    found = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    assert len(files) > 200 and not files - found
    assert {file for file in found - files if not file.startswith("gan_engine.egg-info/")} <= {"PKG-INFO", "setup.cfg"}


# Builds a wheel with a compiled module, but without a compiler.
WITH_A_MODULE = """
import runpy, setuptools, sys
from pathlib import Path

options = {}
setup, setuptools.setup = setuptools.setup, options.update
names = runpy.run_path("setup.py")["cmake_build"].__globals__

def cmake_build(name):
    if name == "_C_cuda":
        raise names["NotBuilt"]("no GPU")
    folder = Path("build")
    folder.mkdir(exist_ok=True)
    (folder / "made").write_text("native")
    (folder / "isas.txt").write_text("SETS")
    return folder / "made", "a compiler"

names["cmake_build"] = cmake_build
setup(**options)
"""


def wheel(sdist, folder, *command, **environment):
    run(*command, "-q", "bdist_wheel", "--dist-dir", folder, cwd=sdist, GAN_ENGINE_CUDA="0", **environment)
    (path,) = folder.glob("*.whl")
    return path.name, zipfile.ZipFile(path)


def test_a_wheel_with_native_code_is_for_one_platform_and_one_without_for_all(sdist, tmp_path):
    """The second wheel is built beside the module of the first. The third has a compiler that fails."""
    name, files = wheel(sdist, tmp_path / "native", "-c", WITH_A_MODULE.replace("SETS", "portable;avx2;avx512"))
    assert "avx" not in name and files.read("gan_engine/_build_info.py").endswith(
        b"\nISAS = ['portable', 'avx2', 'avx512']\n"
    )
    assert not name.endswith("none-any.whl") and f"cp{sys.version_info[0]}{sys.version_info[1]}" in name
    assert any(file.startswith("gan_engine/_C.") for file in files.namelist())
    for folder, environment in (("asked", {"GAN_ENGINE_NATIVE": "0"}), ("failed", {"CXX": "false"})):
        name, files = wheel(sdist, tmp_path / folder, "setup.py", **environment)
        assert name.endswith("-py3-none-any.whl")
        assert not any(file.startswith("gan_engine/_C") or ".data/" in file for file in files.namelist())
        assert {"gan_engine/__main__.py", "gan_engine/kernels/bias_act.py"} <= set(files.namelist())


def test_a_wheel_for_one_kind_of_cpu_has_the_kind_in_its_name(sdist, tmp_path):
    name, files = wheel(sdist, tmp_path, "-c", WITH_A_MODULE.replace("SETS", "avx512"))
    assert re.fullmatch(r"gan_engine-[^-]+-0avx512-cp\d+-cp\d+-\w+\.whl", name)
    assert files.read("gan_engine/_build_info.py").endswith(b"\nISAS = ['avx512']\n")


def test_what_only_some_need_is_an_extra(sdist, tmp_path):
    _, files = wheel(sdist, tmp_path, "setup.py", GAN_ENGINE_NATIVE="0")
    texts = {file.rpartition("/")[2]: files.read(file).decode() for file in files.namelist() if "dist-info/" in file}
    needs = [line for line in texts["METADATA"].splitlines() if line.startswith("Requires-Dist: ")]
    always = " ".join(line for line in needs if "extra ==" not in line)
    assert "torch>=2.11" in always and "pillow>=11" in always and "triton" not in always and "torchvision" not in always
    assert 'Requires-Dist: torchvision; extra == "data"' in needs
    assert any(line.startswith("Requires-Dist: triton>=3.6") and 'extra == "gpu"' in line for line in needs)
    (everything,) = (line for line in needs if line.endswith('extra == "all"'))
    extras = set(re.search(r"gan-engine\[(.*)\]", everything)[1].split(","))
    assert extras == {"gpu", "data", "lmdb", "perceptual", "meshes", "export", "weights"}
    assert "Requires-Python: >=3.11" in texts["METADATA"]
    assert "gan-engine = gan_engine.__main__:main" in texts["entry_points.txt"]


def test_an_older_python_is_refused_in_a_line():
    code = (
        "import runpy, sys; sys.version_info, sys.version = (3, 10, 13), '3.10.13 (main)'; runpy.run_path('setup.py')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "gan_engine needs Python 3.11 or newer, and this is 3.10.13\n"
