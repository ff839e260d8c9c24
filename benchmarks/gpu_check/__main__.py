"""Build, test and measure on the GPU of this machine within a time budget: `make gpu-check`.

The check uses the current Python, installs nothing and needs no network. It writes to the folder `--out`, under a name
made of the date and the device:

    NAME.json     device, versions, stages, rows
    NAME.md       the same for people: one table for steps and one for operators
    NAME.log      the full output; git ignores this file
    NAME.jsonl    the rows as they came; a stage that is cut short keeps its rows here

A second check on the same day and device replaces these files.

NAME.json and NAME.md are written again before and after every stage. If the check is killed, the page keeps the stages
that ended. SIGTERM and Ctrl-C also end the stage under way, which is then "interrupted", and the later ones are
"not run". SIGKILL leaves the stage as "under way".

`--dry-run` needs no GPU. The stage `build` then compiles as ever. The cases of the other stages stop at their first
CUDA call, and their result is "dry: 6 of 6 skipped".

Exit status: 0 if every stage passed, 1 if a stage failed or ran out of time, 2 without a GPU, 130 after Ctrl-C, 143
after SIGTERM. A build that runs out of time in a dry run counts as passed: it has met no error, and the later stages of
a dry run call no kernel. A build that fails gives 1.
"""

import argparse
import datetime
import re
import sys
from pathlib import Path

from benchmarks.gpu_check import check
from benchmarks.gpu_check.stages import ROOT, Stop, stages

OUT, DRY_OUT = "benchmarks/results", "build/gpu-check"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build, test and measure on the GPU of this machine.")
    parser.add_argument("--out", type=Path, help=f"folder of the results (default: {OUT}; {DRY_OUT} for a dry run)")
    parser.add_argument("--budget", type=float, default=465, help="seconds for all stages together (default: 465)")
    parser.add_argument("--peers", type=Path, help="a Python file or folder with another library's ops, to time too")
    parser.add_argument("--skip", action="append", default=[], metavar="STAGE", help="leave a stage out; repeatable")
    parser.add_argument(
        "--dry-run", action="store_true", help="without a GPU: build, then try all up to the first CUDA call"
    )
    args = parser.parse_args(argv)
    with Stop() as stop:
        device = check.find_device()
        if isinstance(device, str) and not args.dry_run:
            print(f"gpu-check: {device}", file=sys.stderr)
            return 2
        if isinstance(device, str):
            device = {"name": "dry run", "reason": device}
        slug = re.sub(r"[^a-z0-9]+", "-", device["name"].lower()).strip("-")
        folder = (args.out or ROOT / (DRY_OUT if args.dry_run else OUT)).resolve()
        name = folder / f"{datetime.date.today()}-{slug}"
        rows = name.with_suffix(".jsonl")
        todo = stages(rows, peers=args.peers and args.peers.resolve(), dry=args.dry_run)
        if unknown := set(args.skip) - {stage.name for stage in todo}:
            parser.error(f"--skip: want one of {', '.join(stage.name for stage in todo)}, got {', '.join(unknown)}")
        todo = [stage for stage in todo if stage.name not in args.skip]
        return check.check(device, check.find_versions(), todo, rows, name, args.budget, stop)


if __name__ == "__main__":
    sys.exit(main())
