"""python -m gan_engine.report RUN: a run on one page, RUN/report.html. Training writes that page too, when it ends."""

import sys
from dataclasses import dataclass
from pathlib import Path

from gan_engine.command_line import console, flags
from gan_engine.runs import report
from gan_engine.system import fields


@dataclass(frozen=True)
class Options:
    """Write report.html into the directory of a run: its pictures, curves and flags on one page."""

    run: fields.Positional[Path]
    """Directory of the run."""


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    print(report.write(flags.parse(Options, argv, command="report").run))


if __name__ == "__main__":
    sys.exit(main())
