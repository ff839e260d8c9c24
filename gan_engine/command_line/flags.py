"""The flags of a command. tyro reads them into a dataclass; a misspelt name or value gives an error of one line."""

import contextlib
import dataclasses
import io
import itertools
import re
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

from gan_engine.command_line import console
from gan_engine.system import fields
from gan_engine.system.names import nearest

T = TypeVar("T")

_STRAY, _HELP = "Unrecognized options: ", "; --help lists the flags"  # around words that tyro cannot use
_NAME = re.compile(r"[│ ] {5}\S")  # of something that is missing, in tyro's box
_TRUTHS = ("true", "false", "1", "0", "yes", "no", "on", "off")  # that other programs expect behind such a flag
_NUMBERS = {
    r"could not convert string to float: (.*)": "a number",
    r"invalid literal for int\(\) with base 10: (.*)": "a whole number",
    r"no type matching \{None\}\|FLOAT could be instantiated from \[(.*?)\]": "a number",
    r"no type matching \{None\}\|INT could be instantiated from \[(.*?)\]": "a whole number",
    r"Could not parse arguments \[(.*?)\] into tuple type typing.Tuple\[float, float\]": "two numbers",
}
_NO_FLAGS = (fields.Suppress, fields.Fixed, fields.Positional)


class NoSuchFlag(ValueError):
    """The command has no such flag; the message suggests the nearest of the `known` flags."""

    def __init__(self, flag: str, known: Iterable[str]) -> None:
        super().__init__(f"{flag}: no such flag{nearest(flag, known)}; --help lists them")
        self.flag = flag


class NoSuchChoice(ValueError):
    """The flag takes some words alone; the message has all of them, and suggests the nearest to `value`."""

    def __init__(self, name: str, value: str, choices: tuple[str, ...]) -> None:
        hint = nearest(value, choices)
        super().__init__(f"{name}: invalid choice {value!r}, want one of {', '.join(choices)}{hint}")
        self.flag = name.replace("_", "-")


class StrayWords(ValueError):
    """The call has `words` that are neither a flag nor the value of one."""

    def __init__(self, words: str) -> None:
        super().__init__(f"no flag takes {words}; a value with spaces needs quotes{_HELP}")
        self.words = words.split(", ")


def parse(
    kind: type[T],
    argv: Sequence[str],
    *,
    command: str,
    default: T | None = None,
    description: str | None = None,
) -> T:
    """Read `argv` into an instance of the dataclass `kind`.

    A field that is itself a dataclass becomes a box in --help. Its flags do not begin with the name of the field.

    Args:
        command: the name in the usage line; see `console.prog`.
        default: the values of flags that argv leaves out. None: the defaults of the class.
        description: the first lines of --help. None: the docstring of the class.

    Raises:
        ValueError: a wrong call, in one line. The message names the flags or values nearest to an unknown one.
            A missing tyro.
        SystemExit: status 0, after --help.
    """
    if fields.WHY_NO_TYRO is not None:
        raise ValueError(f"the command line needs tyro: pip install tyro ({fields.WHY_NO_TYRO})")
    import tyro  # not at the top: commands are also imported for their functions

    options: dict[str, Any] = {"args": argv, "prog": console.prog(command), "description": description}
    options["config"] = (
        tyro.conf.OmitArgPrefixes,
        tyro.conf.AvoidSubcommands,
        tyro.conf.HelptextFromCommentsOff,
    )
    if default is not None:
        options["default"] = default
    explained = io.StringIO()
    try:
        with contextlib.redirect_stderr(explained):
            return tyro.cli(kind, **options)
    except SystemExit as exit:
        if not exit.code:
            raise
        refuse(argv, known(kind))
        message = in_one_line(explained.getvalue())
        if (words := message.removeprefix(_STRAY)) != message:
            raise StrayWords(words.removesuffix(_HELP)) from None
        raise ValueError(message) from None


def in_one_line(box: str) -> str:
    """Reduce tyro's error, several lines in a box, to its first part, and point to --help."""
    # The part stands below the title, between two rules. Streams that are not UTF-8 get a frame of spaces and hyphens.
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    rules = [not set(line) - set("─-╰╯") for line in lines]
    body = itertools.dropwhile(lambda pair: pair[1], zip(lines, rules))
    words = " ".join(line for line, rule in itertools.takewhile(lambda pair: not pair[1], body)).split()
    if words[:2] == ["Missing", "from"]:  # names stand behind five spaces, and what --help says of them behind more
        parts = box.rpartition("For full")[0].partition("Unrecognized options")  # which may be missing
        missing, _, stray = ([line.strip("│ ") for line in part.splitlines() if _NAME.match(line)] for part in parts)
        got = f"got {', '.join(stray)}, which no flag takes" if stray else "got none"
        return f"want {', '.join(missing)}, {got}; --help explains what a call needs"
    if few := re.match(r"Missing value for argument '(.+?)'\. Expected (\d+) values", " ".join(words)):
        wanted = "a value, got none" if few[2] == "1" else f"{few[2]} values with spaces between them, got fewer"
        return f"{few[1]}: want {wanted}{_HELP}"
    # The flag already names the field, and checks of a whole dataclass name their fields themselves.
    message = re.sub(r"^Error parsing (?:[A-Z]\w*: )?", "", " ".join(words))
    # tyro names types for a value that may also be None, and the reason of Python for any other value.
    for named, wanted in _NUMBERS.items():
        message = re.sub(named, rf"want {wanted}, got \1", message)
    return message.rstrip(".") + _HELP


def known(kind: type) -> dict[str, tuple[str, ...]]:
    """{flag: its allowed values, or () for any} for a dataclass and the dataclasses in it."""
    flags: dict[str, tuple[str, ...]] = {}
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in (field.name for field in dataclasses.fields(kind)):
        hint = hints[field]
        notes = getattr(hint, "__metadata__", ())
        hint = hint.__origin__ if notes else hint
        if dataclasses.is_dataclass(hint):
            flags |= known(hint)
        elif not any(note is hidden for note in notes for hidden in _NO_FLAGS):
            names = [note.name for note in notes if getattr(note, "name", None)] or [field]
            names += [alias for note in notes for alias in getattr(note, "aliases", None) or ()]
            for flag in ("--" + name.strip("-").replace("_", "-") for name in names):
                flags[flag] = _choices(hint)
                if hint is bool:
                    flags[flag.replace("--", "--no-", 1)] = ()
    return flags


def _choices(hint: Any) -> tuple[str, ...]:
    """The values of a Literal, as texts; () for another type."""
    return tuple(map(str, typing.get_args(hint))) if typing.get_origin(hint) is Literal else ()


def refuse(argv: Iterable[str], flags: dict[str, tuple[str, ...]]) -> None:
    """Raise ValueError for the first flag in `argv` that is not in `flags`, or whose value is not allowed."""
    argv = list(argv)
    for argument, following in zip(argv, [*argv[1:], ""]):
        if not re.match("--[A-Za-z]|-[A-Za-z][a-z]", argument):
            continue
        name, given, value = argument.partition("=")
        flag = name.replace("_", "-")
        if flag not in flags:
            raise NoSuchFlag(flag, flags)
        value = value if given else following
        if flags[flag] and value not in flags[flag]:
            raise NoSuchChoice(name, value, flags[flag])
        switch = flag.replace("--no-", "--", 1)
        negative = switch.replace("--", "--no-", 1)
        if negative in flags and (given or value.lower() in _TRUTHS):
            raise ValueError(f"{name}: want {switch} or {negative} without a value, got {value}")
