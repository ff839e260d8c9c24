"""Marks of fields, which say how the command line treats them. They are tyro's, if tyro is installed.

A configuration is also made and read without a command line, and then needs no tyro: its marks say nothing.
"""

from typing import Any

from gan_engine.system import resolution

try:
    from tyro.conf import Fixed, Positional, Suppress, UseAppendAction, arg
    from tyro.constructors import PrimitiveConstructorSpec

    WHY_NO_TYRO = None
except ImportError as error:
    WHY_NO_TYRO = str(error)

    class _Unmarked:
        def __class_getitem__(cls, kind: Any) -> Any:
            return kind

    Fixed = Positional = Suppress = UseAppendAction = _Unmarked

    def arg(**options: Any) -> None:
        """A mark that says nothing."""

    PrimitiveConstructorSpec = arg


def resolution_arg(metavar: str) -> Any:
    """The mark of a flag that reads 64 or 48x64."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda texts: resolution.parse(texts[0]),
        is_instance=lambda value: isinstance(value, int | tuple),
        str_from_instance=lambda value: [str(value) if isinstance(value, int) else resolution.named(value)],
    )


__all__ = ["WHY_NO_TYRO", "Fixed", "Positional", "Suppress", "UseAppendAction", "arg", "resolution_arg"]
