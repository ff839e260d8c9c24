"""What a patch did: rows of a table, and the way back."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple


class Row(NamedTuple):
    """A layer or a function, by name and kind, and what became of it."""

    name: str
    kind: str
    replaced: bool
    note: str  # what replaced it, or why it was left


class Swap(NamedTuple):
    """Two functions that replace something and put the original back."""

    do: Callable[[], None]
    undo: Callable[[], None]


@dataclass
class Patch:
    """A patch: `rows` say what was replaced and what was left, and `gains` what it brought on the example."""

    rows: list[Row] = field(default_factory=list)
    gains: dict[str, float] = field(default_factory=dict)
    swaps: list[Swap] = field(default_factory=list)
    active: bool = False

    def do(self) -> "Patch":
        if not self.active:
            for swap in self.swaps:
                swap.do()
        self.active = True
        return self

    def undo(self) -> None:
        """Put every original back."""
        if self.active:
            for swap in reversed(self.swaps):
                swap.undo()
        self.active = False

    def __enter__(self) -> "Patch":
        return self.do()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.undo()

    def __str__(self) -> str:
        lines = []
        for replaced, title in ((True, "replaced"), (False, "left")):
            rows = [row for row in self.rows if row.replaced == replaced]
            lines.append(f"{title}: {len(rows)}")
            first = {(row.kind, row.note): row.name for row in reversed(rows)}
            for (kind, note), num in Counter((row.kind, row.note) for row in rows).items():
                others = f" and {num - 1} more" if num > 1 else ""
                lines.append(f"  {kind}: {note} ({first[kind, note] or 'the network'}{others})")
        lines += [f"{what}: {gain:.2f} times as fast" for what, gain in self.gains.items()]
        return "\n".join(lines)
