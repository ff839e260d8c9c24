"""Bars of progress. tqdm is imported with the first bar: models and the trainer need no library for command lines."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def bar(items: Iterable[Any] | None = None, name: str | None = None, **options: Any) -> "tqdm":
    """A bar over `items`, or one that its caller moves on. It is shown on a terminal only.

    Args:
        items: what the bar gives back, one after the other.
        name: what stands in front of the bar.
        options: as tqdm takes them, such as total, unit and delay.
    """
    from tqdm import tqdm

    return tqdm(items, name, disable=None, **options)
