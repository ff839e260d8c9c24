"""Marks of fields, which say how the command line treats them. They are tyro's, if tyro is installed.

A configuration is also made and read without a command line, and then needs no tyro: its marks say nothing.
"""

from typing import Any

try:
    from tyro.conf import Fixed, Positional, Suppress, UseAppendAction, arg

    WHY_NO_TYRO = None
except ImportError as error:
    WHY_NO_TYRO = str(error)

    class _Unmarked:
        def __class_getitem__(cls, kind: Any) -> Any:
            return kind

    Fixed = Positional = Suppress = UseAppendAction = _Unmarked

    def arg(**options: Any) -> None:
        """A mark that says nothing."""


__all__ = ["WHY_NO_TYRO", "Fixed", "Positional", "Suppress", "UseAppendAction", "arg"]
