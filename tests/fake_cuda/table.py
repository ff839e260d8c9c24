"""The operators, bytes and launches of a step on a GPU, by run: the committed table, and who must not exceed it.

    python -m tests.fake_cuda.table              every run against the table
    python -m tests.fake_cuda.table dcgan        the runs of that name
    python -m tests.fake_cuda.table --write      a new table

It is made without a GPU; see `tests.fake_cuda.device`. The counts are of one version of PyTorch, which the table names.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("table.json")
RAW = argparse.RawDescriptionHelpFormatter
COLUMNS = ("operators on the GPU", "MB on the GPU", "launches with graphs")
COUNTED = ("every phase", "ordinary step")


def version() -> str:
    """The major and minor version of PyTorch."""
    return ".".join(importlib.metadata.version("torch").split(".")[:2])


def rows(names: list[str]) -> dict[str, dict[str, Any]]:
    """What `tests.fake_cuda.steps` says of each run, in a process of its own; all runs without names."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("GAN_ENGINE_BACKEND", None)
    command = [sys.executable, "-m", "tests.fake_cuda.steps", *names]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr)
    return {row["name"]: row for row in map(json.loads, run.stdout.splitlines())}


def grown(row: dict[str, Any], table: dict[str, Any]) -> list[str]:
    """A sentence for each number of a run that is larger than in the table."""
    if table["torch"] != version():
        return []
    name, sentences = row["name"], []
    if name not in table["runs"]:
        return [f"{name}: no row in {TABLE.name}; want python -m tests.fake_cuda.table --write"]
    for step in COUNTED:
        for what, before, after in zip(COLUMNS, table["runs"][name][step], row[step], strict=True):
            if after > before:
                sentences.append(f"{name}, {step}: {before} {what} before, {after} now")
    return sentences


def read() -> dict[str, Any]:
    return json.loads(TABLE.read_text())


def write(found: dict[str, dict[str, Any]]) -> None:
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps({step: row[step] for step in COUNTED})}" for name, row in found.items()
    )
    TABLE.write_text(f'{{"torch": "{version()}", "columns": {json.dumps(COLUMNS)}, "runs": {{\n{lines}\n}}}}\n')


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fake_cuda.table", description=__doc__, formatter_class=RAW)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="names of runs; none stands for all")
    parser.add_argument("--write", action="store_true", help="write a new table of all runs")
    asked = parser.parse_args()
    if asked.write and asked.runs:
        parser.error("--write: want no names, as the table has all runs")
    if unknown := set(asked.runs) - set(read()["runs"]):
        parser.error(f"want names of {', '.join(read()['runs'])}; got {', '.join(sorted(unknown))}")
    found = rows(asked.runs)
    if (of_table := read()["torch"]) != version():
        print(f"The counts of the table are of PyTorch {of_table}; this is {version()}, whose counts are not compared.")
    problems = [f"{name}: {problem}" for name, row in found.items() for problem in row["problems"]]
    if asked.write and not problems:
        write(found)
    else:
        problems += [sentence for row in found.values() if not row["problems"] for sentence in grown(row, read())]
    print(*problems, f"{len(found)} runs, {len(problems)} problems", sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
