"""Look into the wheel of this Python in dist/, install it in a new environment, and use it: `make wheel-check`.

    python -m tests.wheel_check [WHEEL]

The environment is outside the tree, holds the versions of constraints.txt, and is removed at the end. It takes 1 GB
with a PyTorch for CPUs.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parents[1]
# Every Linux with glibc has these; PyTorch carries libgomp.so.1. A module that wants more is bound to a machine.
LIBRARIES = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libgomp.so.1"}
LIBRARIES |= {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libdl.so.2", "librt.so.1", "libpthread.so.0"}
TRAIN = [  # reads the embedded images, and the network that measures them
    *("dcgan", "--conditional", "--kimg", "0.256", "--width", "8", "--device", "cpu", "--out", "run"),
    *("--eval-kimg", "0.256", "--eval-num", "64", "--eval-metrics", "fid"),
]


def own_wheel() -> Path:
    """The wheel in dist/ for this Python. Exits if there is not exactly one."""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    found = sorted((ROOT / "dist").glob(f"gan_engine-*-{tag}-{tag}-*.whl"))
    if len(found) != 1:
        sys.exit(f"wheel-check: want one wheel for {tag} in dist/, got {[path.name for path in found]}")
    return found[0]


def require_files(wheel: zipfile.ZipFile) -> None:
    """Exit unless the wheel has every file of the package that git knows, except pages, and the compiled module."""
    listed = subprocess.run(
        ["git", "ls-files", "gan_engine", "kernels"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    files = {
        file.replace("kernels/", "gan_engine/kernels/") if file.startswith("kernels/") else file for file in listed
    }
    wanted = {file for file in files if not file.endswith(".md")} | {
        f"gan_engine/_C{sysconfig.get_config_var('EXT_SUFFIX')}",
        "gan_engine/_build_info.py",
    }
    if missing := sorted(wanted - set(wheel.namelist())):
        sys.exit(f"wheel-check: the wheel lacks {', '.join(missing)}")
    print(f"files      all {len(wanted)} of the package are in the wheel")


def require_libraries(wheel: zipfile.ZipFile) -> None:
    """Exit if a compiled module wants a library that other machines may lack, such as one of PyTorch's own."""
    for name in wheel.namelist():
        if name.endswith(".so"):
            with wheel.open(name) as file:
                dynamic = ELFFile(file).get_section_by_name(".dynamic")
                needed = {tag.needed for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED"}
            if others := sorted(needed - LIBRARIES):
                sys.exit(f"wheel-check: {name} is linked with {', '.join(others)}")
            print(f"links      {name}: {', '.join(sorted(needed))}")


def run(*command: object, cwd: Path) -> str:
    """The output of a command that knows nothing of the tree. Exits with the end of the output if it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GAN_ENGINE_"))}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        sys.exit(f"wheel-check: {' '.join(map(str, command[1:5]))} failed:\n{done.stdout[-3000:]}")
    return done.stdout


def main() -> None:
    path = Path(sys.argv[1]).resolve() if sys.argv[1:] else own_wheel()
    print(f"wheel      {path.name}, {path.stat().st_size / 1e6:.1f} MB")
    if "-linux_" in path.name:
        sys.exit("wheel-check: want a name that says which systems it runs on (manylinux), got linux")
    with zipfile.ZipFile(path) as wheel:
        require_files(wheel)
        require_libraries(wheel)
    with tempfile.TemporaryDirectory() as folder:
        home, elsewhere = Path(folder, "venv"), Path(folder, "elsewhere")
        elsewhere.mkdir()
        run(sys.executable, "-m", "venv", home, cwd=elsewhere)
        python = home / "bin" / "python"
        run(python, "-m", "pip", "install", "--no-compile", "-c", ROOT / "constraints.txt", path, cwd=elsewhere)
        where = run(python, "-c", "import gan_engine; print(gan_engine.__file__)", cwd=elsewhere).strip()
        if not Path(where).is_relative_to(home):
            sys.exit(f"wheel-check: want gan_engine in {home}, got {where}")
        told = run(python, "-m", "gan_engine.info", "--check", cwd=elsewhere)
        print("\n".join(line for line in told.splitlines() if line.startswith(("python ", "_C ", "         "))))
        if "_C       built with" not in told:
            sys.exit(f"wheel-check: the module _C does not run:\n{told}")
        print(run(python, "-m", "gan_engine.train", *TRAIN, cwd=elsewhere))
    print("wheel-check: passed")


if __name__ == "__main__":
    main()
