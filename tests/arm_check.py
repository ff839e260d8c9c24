"""Compile the CPU kernels for AArch64, and run the tests of the operators with them in an emulator: `make arm-check`.

An AArch64 Python with PyTorch goes to build/arm, 1.3 GB. The system is not changed, and root is not needed. qemu
emulates a Neoverse N1 (Graviton 2): PyTorch convolves float16 only on CPUs with its arithmetic. Emulation tells nothing
about speed.

    python -m tests.arm_check                                every file of tests/ops, as many at once as there are CPUs
    python -m tests.arm_check tests/ops/test_conv2d.py -x    arguments for pytest instead

Left out are the tests of other backends than `cpu`, and the tests that start a compiler or a Python.
"""

import concurrent.futures
import functools
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "arm"
SYSTEM, SITE, LOGS = HOME / "root", HOME / "site", HOME / "logs"

TOOLS = {  # by Debian's package
    "g++-aarch64-linux-gnu": ("aarch64-linux-gnu-g++",),
    "qemu-user-static": ("qemu-aarch64-static", "qemu-aarch64"),
    "apt": ("apt-get",),
    "dpkg": ("dpkg-deb",),
}
# What the AArch64 Python needs: Debian's packages, and wheels. The wheels that PyTorch wants for CUDA are left out.
DEBIAN = ("python3-minimal", "libpython3-stdlib", "libpython3-dev", "libstdc++6", "libgomp1")
WHEELS = ("torch", "numpy", "pytest", "iniconfig", "packaging", "pluggy", "Pygments", "filelock", "typing_extensions")
WHEELS += ("sympy", "mpmath", "networkx", "Jinja2", "MarkupSafe", "fsspec", "setuptools")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
CPUINFO = """processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""
# Tests of other backends have their names in brackets. Programs that a test starts are those of this machine, not
# emulated ones: Inductor's compiler, and another Python.
OTHERS = [f"not [{name} and not -{name}" for name in ("cuda", "triton", "pytorch", "reference")]
COMPILING = ("inductor", "interpreted", "compiled_for_all_sizes", "taps_compile")
STARTING = [f"not {name}" for name in (*COMPILING, "imported_first", "an_import_inside")]
LEFT_OUT = " and ".join(OTHERS + STARTING)


def tool(package: str) -> str:
    """The path of the tool. Exits with a sentence if the tool is missing."""
    path = next(filter(None, map(shutil.which, TOOLS[package])), None)
    if path is None:
        sys.exit(f"arm-check: want {' or '.join(TOOLS[package])}, got none (on Debian: apt install {package})")
    return path


def run(*command: object, **options) -> str:
    """The output of a command. Exits with the end of the output if the command fails."""
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"arm-check: {Path(str(command[0])).name} failed:\n{done.stdout[-3000:]}")
    return done.stdout


def emulated(*arguments: object) -> list[str]:
    """The command of the AArch64 Python. qemu takes each file from SYSTEM that is there, and else from this system."""
    path = os.pathsep.join(map(str, (ROOT, SITE)))
    variables = {"LD_LIBRARY_PATH": SITE / "stubs", "PYTHONPATH": path, "OMP_NUM_THREADS": 1, "PYTHONHASHSEED": 0}
    named = (part for name, value in variables.items() for part in ("-E", f"{name}={value}"))
    python = SYSTEM / "usr/bin/python3"
    return [*map(str, (tool("qemu-user-static"), "-cpu", "neoverse-n1", "-L", SYSTEM, *named, python, *arguments))]


def once(step):
    """Decorator: a finished step is not done again until constraints.txt changes."""

    @functools.wraps(step)
    def wrapped() -> None:
        stamp = HOME / f"{step.__name__}.done"
        if stamp.exists() and stamp.stat().st_mtime > (ROOT / "constraints.txt").stat().st_mtime:
            return
        print(f"arm-check: {step.__doc__.partition('.')[0]}", flush=True)
        step()
        stamp.touch()

    return wrapped


@once
def unpack_debian() -> None:
    """Unpacking Python for AArch64 from Debian's packages. apt keeps its state in build/arm."""
    shutil.rmtree(SYSTEM, ignore_errors=True)
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (HOME / "apt" / folder).mkdir(parents=True, exist_ok=True)
    (HOME / "apt/status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
        "Dir::State": HOME / "apt/state",
        "Dir::State::status": HOME / "apt/status",
        "Dir::Cache": HOME / "apt/cache",
    }
    (HOME / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    env = {**os.environ, "APT_CONFIG": str(HOME / "apt.conf")}
    run(tool("apt"), "update", env=env)
    run(tool("apt"), "install", "--download-only", "-y", "--no-install-recommends", *DEBIAN, env=env)
    for package in (HOME / "apt/cache/archives").glob("*.deb"):
        run(tool("dpkg"), "-x", package, SYSTEM)
    if not (SYSTEM / "lib").exists():
        (SYSTEM / "lib").symlink_to("usr/lib")  # the loader's name begins with /lib
    for name, text in (
        ("proc/cpuinfo", CPUINFO),  # without these, PyTorch reads what this machine has, and crashes
        ("sys/devices/system/cpu/cpu0/regs/identification/midr_el1", "0x00000000413fd0c1\n"),
    ):
        (SYSTEM / name).parent.mkdir(parents=True, exist_ok=True)
        (SYSTEM / name).write_text(text)


@once
def install_wheels() -> None:
    """Installing PyTorch for AArch64 (430 MB). The index has it with CUDA alone."""
    shutil.rmtree(SITE, ignore_errors=True)
    version = run(*emulated("-c", "import sys; print('%d.%d' % sys.version_info[:2])")).split()[-1]
    platforms = (part for name in PLATFORMS for part in ("--platform", name))
    where = ("--target", SITE, "--python-version", version, "--only-binary=:all:", "--no-deps", "--no-compile")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt")
    run(*pip, *where, *platforms, *WHEELS)
    make_stubs()


def make_stubs() -> None:
    """Write libraries of CUDA in which every function returns 100, `no device`. PyTorch loads them and calls few."""
    stubs, lib = SITE / "stubs", SITE / "torch/lib"
    stubs.mkdir()
    text = run("aarch64-linux-gnu-readelf", "-dW", "--dyn-syms", *lib.glob("*.so*"))
    wanted = set(re.findall(r"\(NEEDED\) +Shared library: \[(lib(?:cu|nv|nccl).*?)\]", text))
    libraries = {name: {} for name in wanted - {path.name for path in lib.iterdir()}}
    for symbol in set(re.findall(r" UND ((?:cu|nv|nccl|__cuda)\w+(?:@\S+)?)", text)):
        name, _, version = symbol.partition("@")
        library = {"NVSHMEM": "libnvshmem_host.so.3", "": "libnccl.so.2"}.get(version, version)  # any, without version
        libraries.setdefault(library, {}).setdefault(version, []).append(name)
    source, script = stubs / "stub.c", stubs / "stub.map"
    for library, names in libraries.items():
        functions = (name for found in names.values() for name in found)
        source.write_text("".join(f"int {name}(void) {{ return 100; }}\n" for name in functions))
        script.write_text("".join(f"{v} {{ {'; '.join(found)}; }};\n" for v, found in names.items() if v))
        versions = [f"-Wl,--version-script={script}"] if any(names) else []
        link = ("-w", "-shared", "-fPIC", f"-Wl,-soname,{library}", *versions, "-o", stubs / library, source)
        run("aarch64-linux-gnu-gcc", *link)


def build() -> None:
    """Compile the kernels. The module lies beside the module of this machine, and its name ends in its platform."""
    print("arm-check: Compiling the kernels", flush=True)
    import pybind11

    names = "import sysconfig as s; print(s.get_config_var('EXT_SUFFIX'), s.get_path('include'))"
    suffix, include = run(*emulated("-c", names)).split()[-2:]
    folder = HOME / "build"
    options = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": tool("g++-aarch64-linux-gnu"),
        "CMAKE_CXX_FLAGS": f"-idirafter {SYSTEM / 'usr/include'}",
        "PYBIND11_USE_CROSSCOMPILING": "ON",
        "Python_INCLUDE_DIR": SYSTEM / include.removeprefix(str(SYSTEM)).lstrip("/"),
        "PYTHON_MODULE_EXTENSION": suffix,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *(f"-D{name}={value}" for name, value in options.items()))
    run("cmake", "--build", folder)
    shutil.copy2(folder / f"_C{suffix}", ROOT / "gan_engine")


def test(file: Path) -> bool:
    """Whether all tests of the file passed. Prints how many did, and the failures."""
    began = time.monotonic()
    command = emulated("-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "-k", LEFT_OUT, file)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (LOGS / f"{file.stem}.txt").write_text(done.stdout)
    lines = done.stdout.splitlines() or ["no output"]
    told = [line for line in lines[:-1] if line.startswith(("FAILED", "ERROR"))] + lines[-1:]
    print(f"{file.relative_to(ROOT)}, {time.monotonic() - began:.0f} s: " + "\n  ".join(told), flush=True)
    return done.returncode in (0, 5)  # 5: no test is left


def main(arguments: list[str]) -> int:
    for package in TOOLS:
        tool(package)
    HOME.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(exist_ok=True)
    unpack_debian()
    install_wheels()
    build()
    loaded = run(*emulated("-c", "from gan_engine.system import native; print(native.cpu.module.isa())"), cwd=ROOT)
    if loaded.split()[-1:] != ["neon"]:
        sys.exit(f"arm-check: the kernels must run on neon, got {loaded.strip()}")
    if arguments:
        return subprocess.run(emulated("-m", "pytest", "-p", "no:cacheprovider", *arguments), cwd=ROOT).returncode
    print(run(*emulated("-m", "gan_engine.info"), cwd=ROOT).partition("\n\n")[2].partition("\n\nop ")[0])
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        files = sorted((ROOT / "tests/ops").glob("test_*.py"), key=lambda path: path.stat().st_size, reverse=True)
        results = [*pool.map(test, files)]
    print(f"arm-check: {'passed' if all(results) else 'failed'}; the full output is in {LOGS.relative_to(ROOT)}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
