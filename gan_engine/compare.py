"""python -m gan_engine.compare RUN...: the measurements of several runs beside each other, as a table and as a page.

Runs that differ by the seed alone are one group. The table and the page have the mean of a group and its least and
largest run. The name of a group has the flags in which groups differ.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from gan_engine.command_line import console, flags
from gan_engine.pictures import targets
from gan_engine.runs import comparison, comparison_page
from gan_engine.system import fields
from gan_engine.system.names import legible


@dataclass(frozen=True)
class Options:
    """Compare runs by what --eval-kimg measured: final and best numbers, and curves against images and time."""

    runs: Annotated[fields.Positional[tuple[Path, ...]], fields.arg(metavar="RUN ...")]
    """Directories of runs."""
    out: Path = Path("compare.html")
    """The page. Its folder is made if it is missing."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs: want the directory of at least one run, got none")
        if self.out.is_dir():
            raise ValueError(f"out: want the name of a page, got the folder {self.out}")
        if self.out.suffix != ".html":
            raise ValueError(f"out: want the name of a page, which ends in .html, got {self.out}")


def lines(found: comparison.Comparison) -> list[str]:
    """The lines for a terminal: a table for each number, and the notes."""
    table, first = comparison.rows(found), ["runs", "seeds", "kimg", "seconds"]
    text = [f"measured against {legible(found.compared_with)}"]
    for name in found.names:
        columns = {column: column for column in first} | {f"{name}, {what}": what for what in ("final", "best")}
        text += ["", name, *_aligned([list(columns.values()), *([row[key] for key in columns] for row in table)])]
    return [*text, *([""] if found.notes else []), *map(legible, found.notes)]


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    cells = [[legible(cell) for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    options = flags.parse(Options, argv, command="compare")
    found = comparison.compare(options.runs)
    targets.prepare([], options.out.parent, overwrite=True)
    print("\n".join(lines(found)))
    comparison_page.write(found, options.out)
    print(f"\npage       {legible(str(options.out))}")


if __name__ == "__main__":
    sys.exit(main())
