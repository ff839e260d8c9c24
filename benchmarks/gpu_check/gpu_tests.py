"""Run the tests of the GPU backends in several processes at once: `python -m benchmarks.gpu_check.gpu_tests`.

Most of their time is the compilation of Triton kernels, on one core each. The processes share the compiled kernels.
A dry run collects the tests, and says how many there are.
"""

import os
import re
import subprocess
import sys
import threading

from benchmarks.gpu_check.cases import parser
from benchmarks.gpu_check.stages import ROOT

# The files with tests that a GPU runs. The other files would only be collected, which takes a process half a minute.
FILES = ("tests/ops", "tests/models", "tests/test_layers.py", "tests/test_backends.py", "tests/losses/test_level1.py")
OTHER_FILES = ("tests/training/test_graphs.py", "tests/data/test_sampler.py")
MOST = 8  # processes: each holds a context of CUDA, half a GiB of the GPU's memory


def workers() -> int:
    return max(1, min(MOST, len(os.sched_getaffinity(0))))


def main(argv: list[str] | None = None) -> int:
    made = parser("Run the tests of the GPU backends in several processes.")
    made.add_argument("--workers", type=int, default=workers(), help="processes (default: one a core, at most 8)")
    args = made.parse_args(argv)
    command = [sys.executable, "-m", "pytest", "--color=no", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", "-p", "benchmarks.gpu_check.only_gpu", *FILES, *OTHER_FILES]
    if args.dry_run:
        found = subprocess.run([*command, "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True)
        count = re.search(r"^(\d+)(?:/\d+)? tests collected", found.stdout, re.MULTILINE)
        if count is None:
            print(found.stdout[-2000:], found.stderr[-2000:], "case GPU tests: failed: nothing was collected", sep="\n")
            return 1
        print(f"{count[1]} tests collected, for {args.workers} processes")
        return 0
    running = []
    for i in range(args.workers):
        env = {**os.environ, "GPU_CHECK_SHARE": f"{i + 1}/{args.workers}", "OMP_NUM_THREADS": "1"}
        env["GPU_CHECK_SECONDS"] = str(args.seconds)
        running.append(
            subprocess.Popen([*command, "-v", "-rsfE"], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        )
    # Lines of several processes must not mix: one thread for each reads its lines, and print writes a line at once.
    readers = [threading.Thread(target=_hand_on, args=(process,)) for process in running]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    # pytest's status 5 is a share without tests.
    return int(any(process.wait() not in (0, 5) for process in running))


def _hand_on(process: subprocess.Popen) -> None:
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
