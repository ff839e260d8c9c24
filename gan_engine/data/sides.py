"""Find the two sides of pairs: {name of a pair: what opens its picture} for A and B, or once for both side by side."""

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gan_engine.data import databases, tables, tars
from gan_engine.data.braces import expand
from gan_engine.data.files import pictures, walk
from gan_engine.data.folders import archives_in
from gan_engine.data.image_set import DataError
from gan_engine.data.label_tables import normal_form
from gan_engine.data.labels import training_part
from gan_engine.system.names import listed

Side = dict[str, Callable[[], BinaryIO]]

# The words for A and B in columns of tables, and in endings such as key.a.png.
SIDES = (
    *(("a", "b"), ("imagea", "imageb"), ("image_a", "image_b"), ("source", "target"), ("input", "target")),
    *(("input", "output"), ("input_image", "edited_image"), ("input_image", "output_image"), ("lq", "gt")),
)


def sides_of_folders(path: Path, folders: Sequence[Path], stack: ExitStack) -> tuple[list[Side], tuple[str, ...]]:
    """The sides in folders A and B, of pictures or LMDB databases, or in one folder; and notes for the user.

    Raises DataError: a name is in one side alone, or a side has two pictures of one name.

    Args:
        path: the folder that holds `folders`.
        stack: closes the databases.
    """
    if len(folders) == 1:
        (folder,) = folders
        return [{name: partial(open, folder / name, "rb") for name in pictures(path.name, walk(folder)[0])}], ()
    sides = [_by_stem(folder, stack) for folder in folders]
    where = " and ".join(folder.relative_to(path).as_posix() for folder in folders)
    return _matched(path, sides, where), ()


def sides_of_archives(path: Path) -> tuple[list[Side], tuple[str, ...]] | None:
    """The sides in tar archives or tables, and notes for the user. None if `path` is another kind of folder.

    Raises DataError: the words for A and B are not in `SIDES`, or a pair has one picture alone.
    """
    kind, files = archives_in(path, walk(path)[0]) if path.is_dir() else (path.suffix.lower(), expand(path))
    if kind not in (".tar", *tables.ENDINGS):
        return None
    if kind == ".tar":
        return _sides_of_tars(path, files)
    table = tables.Table(files)
    names, left_out = training_part(table.paths)
    columns = table.pictures()
    chosen = _two_sides(path, columns) if len(columns) > 1 else [table.only_pictures()]
    sides = [{name: partial(table.open_file, column, name) for name in names} for column in chosen]
    return sides, (f"pairs from {' and '.join(chosen)}", *left_out)


def _sides_of_tars(path: Path, files: Sequence[Path]) -> tuple[list[Side], tuple[str, ...]]:
    members = tars.index(files)
    names, left_out = training_part(pictures(path.name, [name for name in members if not name.endswith(".cls")]))
    by_word: dict[str, Side] = {}
    for name in names:
        key = tars.key_of(name)
        word = name.removeprefix(key).strip(".").rpartition(".")[0]
        if key in (side := by_word.setdefault(word, {})):
            raise DataError(f"{path}: want one picture of each name, got another one in {name}")
        side[key] = members[name].open
    if len(by_word) == 1:
        return [*by_word.values()], left_out
    chosen = _two_sides(path, by_word)
    return _matched(path, [by_word[word] for word in chosen], " and ".join(chosen)), left_out


def _two_sides(path: Path, words: Collection[str]) -> list[str]:
    """The words for A and B, in this order. Raises DataError."""
    by_small = {word.lower(): word for word in words}
    fits = [pair for pair in SIDES if by_small.keys() >= {*pair}]
    if len(fits) != 1:
        want = ", ".join("/".join(pair) for pair in SIDES)
        raise DataError(f"{path}: want two pictures of each pair, called {want}, got {listed(sorted(words), most=8)}")
    return [by_small[word] for word in fits[0]]


def _matched(path: Path, sides: list[Side], where: str) -> list[Side]:
    """`sides`. Raises DataError if one of them lacks a name of the other."""
    if alone := sorted(sides[0].keys() ^ sides[1].keys()):
        raise DataError(f"{path}: want the same file names in {where}, got {listed(alone, most=3)} in only one of them")
    return sides


def _by_stem(folder: Path, stack: ExitStack) -> Side:
    """{path without its ending: what opens it} of the pictures below `folder`. Raises DataError if two share a key."""
    found = walk(folder)[0]
    if databases.DATA in found:
        database = stack.enter_context(databases.opened(folder))
        return {normal_form(key): partial(database.open_file, key) for key in database.keys}
    by_stem: dict[str, str] = {}
    for file in pictures(f"{folder.parent.name}/{folder.name}", found):
        stem = normal_form(PurePosixPath(file).with_suffix("").as_posix())
        if stem in by_stem:
            names = f"{Path(by_stem[stem]).name} and {Path(file).name}"
            raise DataError(f"{folder}: want one picture of each name, got {names}")
        by_stem[stem] = file
    return {stem: partial(open, folder / file, "rb") for stem, file in by_stem.items()}
