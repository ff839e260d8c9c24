"""Build, test and measure on the GPU of this machine within a time budget: `make gpu-check`.

The check uses the current Python, installs nothing and needs no network. It writes to the folder `--out`, under a name
made of the date and the device:

    NAME.json     device, versions, stages, rows
    NAME.md       the same for people: one table for steps and one for operators
    NAME.log      the full output; git ignores this file
    NAME.jsonl    the rows as they came; a stage that is cut short keeps its rows here

NAME.json and NAME.md are written again after every stage.

`--dry-run` needs no GPU. Every stage then goes on to its first CUDA call, and the page says what was skipped there.

Exit status: 0 if every stage passed, 1 if a stage failed or ran out of time, 2 without a GPU.
"""

import argparse
import datetime
import re
import signal
import sys
from pathlib import Path

from benchmarks.gpu_check import check
from benchmarks.gpu_check.stages import ROOT, stages


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build, test and measure on the GPU of this machine.")
    parser.add_argument("--out", type=Path, help="folder of the results (default: benchmarks/results)")
    parser.add_argument("--budget", type=float, default=465, help="seconds for all stages together (default: 465)")
    parser.add_argument("--peers", type=Path, help="a Python file or folder with another library's ops, to time too")
    parser.add_argument("--skip", action="append", default=[], metavar="STAGE", help="leave a stage out; repeatable")
    parser.add_argument("--dry-run", action="store_true", help="go on to the first CUDA call of each stage")
    args = parser.parse_args(argv)
    device = check.find_device()
    if isinstance(device, str) and not args.dry_run:
        print(device, file=sys.stderr)
        return 2
    if isinstance(device, str):
        device = {"name": "dry run", "reason": device}
    default = ROOT / ("build/gpu-check" if args.dry_run else "benchmarks/results")
    slug = re.sub(r"[^a-z0-9]+", "-", device["name"].lower()).strip("-")
    name = (args.out or default).resolve() / f"{datetime.date.today()}-{slug}"
    rows = name.with_suffix(".jsonl")
    todo = stages(rows, peers=args.peers and args.peers.resolve(), dry=args.dry_run)
    if unknown := set(args.skip) - {stage.name for stage in todo}:
        parser.error(f"--skip: want one of {', '.join(stage.name for stage in todo)}, got {', '.join(unknown)}")
    todo = [stage for stage in todo if stage.name not in args.skip]
    # SIGTERM raises SystemExit, so that the current stage is ended and the results are written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return check.check(device, check.find_versions(), todo, rows, name, args.budget)


if __name__ == "__main__":
    sys.exit(main())
