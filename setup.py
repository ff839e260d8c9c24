"""Builds the modules _C and _C_cuda with CMake. Everything else about the package is in pyproject.toml.

A wheel with one of these modules is for this Python and platform. A wheel without them is for all.

If a module cannot be built, the installation still succeeds, and the package is slower. The reason is printed in one
line. `python -m gan_engine.info` shows it too, from gan_engine/_build_info.py. Environment variables change what is
built:

    GAN_ENGINE_NATIVE=1   GAN_ENGINE_CUDA=1     _C / _C_cuda must be built: a failure ends the installation
    GAN_ENGINE_NATIVE=0   GAN_ENGINE_CUDA=0     _C / _C_cuda is not built
    (neither)                                   built if possible; _C_cuda only if PyTorch has CUDA
    GAN_ENGINE_CUDA_ARCHS="90-real;90-virtual"  replaces the architectures of CMakeLists.txt
    GAN_ENGINE_ISAS=native                      only the best instruction set of this CPU: a third of the time. A wheel
                                                has the set in its name, and other CPUs may refuse the module.
    CXX, CUDACXX, CUDA_HOME, CMAKE_ARGS         the usual meaning
"""

import importlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# The metadata says this too, but pip may download PyTorch before it reads them.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(f"gan_engine needs Python 3.11 or newer, and this is {sys.version.split()[0]}")

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
REQUEST = {"_C": "GAN_ENGINE_NATIVE", "_C_cuda": "GAN_ENGINE_CUDA"}


class NotBuilt(Exception):
    """A module was not built; the message is the reason, in one line."""


def tool(name: str, attribute: str) -> str | None:
    """The path of cmake or ninja: in the Python package of that name, or on PATH."""
    try:
        folder = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError):
        folder = None
    return shutil.which(name, path=folder) or shutil.which(name)


def cxx_compiler() -> str:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        path = shutil.which(shlex.split(name)[0])
        if path:
            return path
    raise NotBuilt(f"no C++ compiler was found (looked for {', '.join(names)})")


def cuda_compiler() -> str:
    folders = [os.environ[key] for key in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(key)]
    wanted = [
        os.environ.get("CUDACXX"),
        *(f"{folder}/bin/nvcc" for folder in folders),
        "nvcc",
        "/usr/local/cuda/bin/nvcc",
    ]
    for name in filter(None, wanted):
        path = shutil.which(name)
        if path:
            return path
    raise NotBuilt("no CUDA compiler was found (nvcc, on PATH or in CUDA_HOME)")


def torch_without_cuda() -> str | None:
    """The version of the installed PyTorch if it cannot use CUDA kernels, else None.

    Also None under build isolation, where no PyTorch is installed yet.
    """
    try:
        from torch import version
    except Exception:
        return None
    return None if version.cuda else version.__version__


def first_error(output: str) -> str:
    """The cause of a failed build, found in its output, in one line."""
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("CMake Error") and line.endswith(":"):
            # The next lines are the sentence, indented and wrapped. A call stack may follow; it is left out.
            sentence = []
            for below in lines[number + 1 :]:
                if (below and not below.startswith("  ")) or below.startswith("Call Stack"):
                    break
                sentence.append(below.strip())
            return " ".join(filter(None, sentence))
    for mark in ("error:", "fatal", "Error", "FAILED"):
        for line in lines:
            if mark in line:
                return line.strip()
    return lines[-1].strip() if lines else "no output"


def version_line(compiler: str) -> str:
    text = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = next((line for line in lines if "release" in line), lines[0] if lines else "version unknown")
    name = Path(compiler).name
    return line if line.startswith(name) else f"{name}: {line}"


def _output_of(command: list) -> subprocess.CompletedProcess:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")


def cmake_build(name: str) -> tuple[Path, str]:
    """Builds one module in its own folder under build/, where the next build reuses what has not changed.

    Returns the file of the module, and the compiler with its version. Raises NotBuilt.
    """
    if os.environ.get(REQUEST[name]) == "0":
        raise NotBuilt(f"{REQUEST[name]}=0 was set")
    compiler = cxx_compiler()
    options = [f"-DCMAKE_CXX_COMPILER={compiler}"]
    if name == "_C_cuda":
        compiler = cuda_compiler()
        if os.environ.get(REQUEST[name]) != "1" and (version := torch_without_cuda()):
            raise NotBuilt(f"PyTorch {version} here is without CUDA and cannot use it ({REQUEST[name]}=1 builds it)")
        archs = os.environ.get("GAN_ENGINE_CUDA_ARCHS", "")
        options += ["-DGE_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={compiler}", f"-DGE_CUDA_ARCHS={archs}"]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise NotBuilt("Python.h is missing (on Debian and Ubuntu: apt install python3-dev)")
    cmake, ninja = tool("cmake", "CMAKE_BIN_DIR"), tool("ninja", "BIN_DIR")
    if cmake is None:
        raise NotBuilt("cmake was not found (pip install cmake)")
    if ninja is not None:
        options += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    try:
        import pybind11
    except ImportError:
        raise NotBuilt("pybind11 was not found (pip install pybind11)") from None

    folder = ROOT / "build" / f"{name}{SUFFIX}"
    folder.mkdir(parents=True, exist_ok=True)
    options += [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    if sys.platform == "darwin":
        # A Python may be universal or translated. The module is for the architecture that Python runs as now.
        options.append(f"-DCMAKE_OSX_ARCHITECTURES={platform.machine()}")
    isas = os.environ.get("GAN_ENGINE_ISAS", "all")
    if isas not in ("all", "native"):
        raise SystemExit(f"GAN_ENGINE_ISAS: want all or native, got {isas!r}")
    options += [f"-DGE_ISAS={isas}", *shlex.split(os.environ.get("CMAKE_ARGS", ""))]
    configure = [cmake, "-S", ROOT, "-B", folder, *options]
    done = _output_of(configure)
    if done.returncode != 0:
        # CMake refuses a folder that was configured at another path or with other tools. Empty it, and try once more.
        shutil.rmtree(folder)
        folder.mkdir()
        done = _output_of(configure)
    if done.returncode == 0:
        done = _output_of([cmake, "--build", folder, "--parallel"])
    if done.returncode != 0 or "warning:" in done.stdout:
        print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        raise NotBuilt(f"the build with {compiler} failed: {first_error(done.stdout)}")
    return folder / f"{name}{SUFFIX}", version_line(compiler)


def instruction_sets(module: Path) -> list[str]:
    """The sets that a module in its build folder has kernels for, as CMake wrote them down; none for _C_cuda."""
    listed = module.with_name("isas.txt")
    return listed.read_text().split(";") if listed.exists() else []


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        python, abi, system = super().get_tag()
        return python, abi, system.replace("universal2", platform.machine())  # a module is for one architecture

    def run(self) -> None:
        self.run_command("build")
        built = Path(self.get_finalized_command("build").build_lib, "gan_engine")
        if not any((built / f"{name}{SUFFIX}").exists() for name in REQUEST):
            self.root_is_pure = True
            self.distribution.ext_modules = []  # otherwise the Python files go to the folder of compiled code
        elif (narrow := self.get_finalized_command("build_ext").isas) and not {"portable", "neon"} & set(narrow):
            self.build_number = f"0{narrow[0]}"  # part of the name of the file
        super().run()


class BuildNative(build_ext):
    def initialize_options(self) -> None:
        super().initialize_options()
        self.isas = []

    def run(self) -> None:
        target = ROOT / "gan_engine" if self.inplace else Path(self.build_lib, "gan_engine")
        target.mkdir(parents=True, exist_ok=True)
        built, not_built = {}, {}
        for name in REQUEST:
            module = target / f"{name}{SUFFIX}"
            try:
                made, built[name] = cmake_build(name)
            except NotBuilt as reason:
                not_built[name] = str(reason)
                print(f"gan_engine.{name} was not built: {reason}", file=sys.stderr, flush=True)
                module.unlink(missing_ok=True)
            else:
                # A new file replaces the old file, whose bytes do not change: a running process may have mapped them.
                shutil.copy2(made, module.with_suffix(".new"))
                module.with_suffix(".new").replace(module)
                isas = instruction_sets(made)
                self.isas += isas
                what = f" for {', '.join(isas)}" if isas else ""
                print(f"gan_engine.{name} was built{what} with {built[name]}", flush=True)
        (target / "_build_info.py").write_text(
            '"""Written by setup.py: what was built, with which compiler, and why a module was not built."""\n\n'
            f"BUILT = {built!r}\nNOT_BUILT = {not_built!r}\nISAS = {self.isas!r}\n"
        )
        if self.inplace and not (ROOT / "gan_engine" / "kernels").exists():
            # With this link the tree works without an installation.
            (ROOT / "gan_engine" / "kernels").symlink_to("../kernels")
        missed = [name for name in not_built if os.environ.get(REQUEST[name]) == "1"]
        if missed:
            reasons = ", ".join(f"{REQUEST[name]}=1 asks for {name}: {not_built[name]}" for name in missed)
            raise SystemExit(f"not everything was built: {reasons}")

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


setup(
    packages=sorted({*find_packages(include=["gan_engine", "gan_engine.*"]), "gan_engine.kernels"}),
    # A top-level package called `kernels` would collide with the one on the package index.
    package_dir={"gan_engine.kernels": "kernels"},
    package_data={
        "gan_engine": ["py.typed"],
        "gan_engine.data": ["**/*.gz", "**/*LICENSE*"],
        "gan_engine.inference": ["demo_page/*"],
        "gan_engine.metrics": ["*.pt"],
    },
    # Only their names count: BuildNative builds the modules of REQUEST.
    ext_modules=[Extension(f"gan_engine.{name}", []) for name in REQUEST],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": Wheel},
)
