"""Classes of files: those of a dataset.json, as the tools around StyleGAN write it, or the folders of the files."""

import itertools
import json
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, BinaryIO

import torch

from gan_engine.system.names import legible

TABLE = "dataset.json"

# labels int64 [N] and the names of the classes, or None and no names; and notes of where they come from.
Labels = tuple[torch.Tensor | None, tuple[str, ...], tuple[str, ...]]

# train, training_set, valid, test1, val2017, images_test, testA, ...: the split, and the letter of a domain.
_SPLIT = re.compile(
    r"(?:(?:images?|imgs?)[_-]?)?(train|val|test|dev|eval|holdout)(?:ing|id|idation|uation)?"
    r"[_-]?(?:set|split|data|images?|imgs?|[0-9]{1,4}|([ab]))?",
    re.IGNORECASE,
)
# The word for the split in longer names: DIV2K_train_HR, valid_64x64.
_SPLIT_WORD = re.compile(r"(?<![a-z0-9])(train|val|test)(?:ing|id|idation)?(?![a-z0-9])", re.IGNORECASE)


def training_part(paths: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Those of the files that are there to train on, and a note of what is left out.

    They are those of `train` where folders are called train, val, test and the like, above the classes or below.
    """
    folders = [_folders(path) for path in paths]
    depth = _depth(folders)
    for level in (depth, depth + 1):
        names = [folder[level] if len(folder) > level else "" for folder in folders]
        if level > depth and "" in names:
            break
        splits = _splits({*names} - {""})
        if None in splits.values() or "train" not in splits.values() or len({*splits.values()}) == 1:
            continue
        kept = [path for path, name in zip(paths, names) if splits.get(name) == "train"]
        others = sorted(name for name, split in splits.items() if split != "train")
        trained = sorted(splits.keys() - others)
        return kept, (f"only {_some(trained)} read, {len(kept):,} of {len(paths):,} files, not {_some(others)}",)
    return list(paths), ()


def labels_of(name: str, kept: Sequence[str], found: Collection[str], open_file: Callable[[str], BinaryIO]) -> Labels:
    """Classes of the files `kept`: of a dataset.json among the files `found`, or else of `by_folder`.

    A table that cannot be used costs the labels, which a warning says.
    """
    holds = {folder[:depth] for folder in {*map(_folders, kept)} for depth in range(len(folder) + 1)}
    tables = [path for path in found if path.endswith(TABLE) and path.split("/")[-1] == TABLE]
    tables = sorted((path for path in tables if _folders(path) in holds), key=lambda path: (path.count("/"), path))
    if not tables:
        return by_folder(name, kept)
    table = tables[0]
    try:
        if len(tables) > 1 and tables[1].count("/") == table.count("/"):
            raise ValueError(f"is there several times, as {table} and {tables[1]}")
        class_of = _read_table(table, open_file)
        if class_of is None:
            labels, class_names, notes = by_folder(name, kept, shards_known=True)
            return labels, class_names, (f"{TABLE} holds no labels", *notes)
        missing = [path for path in kept if class_of.get(as_it_looks(path)) is None]
        if missing:
            named = len(kept) - len(missing)
            raise ValueError(f"gives a class to {named:,} of {len(kept):,} images, and none to {missing[0]}")
        values = _as_classes([class_of[as_it_looks(path)] for path in kept])
    except ValueError as error:
        return _none(name, f"no labels, because {TABLE} {error}")
    notes = [f"classes of {TABLE}"]
    if absent := class_of.keys() - set(map(as_it_looks, found)):
        notes.append(f"{TABLE} names {len(absent):,} files that are not there")
        warnings.warn(f"{name}: {notes[-1]}, such as {legible(min(absent))}", stacklevel=3)
    return *_indexed(values), tuple(notes)


def by_folder(name: str, kept: Sequence[str], *, shards_known: bool = False) -> Labels:
    """Classes are the folders just below the deepest folder that holds all files, in sorted order.

    There are none where all files lie in one folder, or some outside such folders, or where the folders are numbered
    shards, or the splits of a set. A warning says so, but for shards that are `shards_known`.
    """
    folders = [_folders(file) for file in kept]
    depth = _depth(folders)
    outside = [file for file, folder in zip(kept, folders) if len(folder) == depth]
    if len(outside) == len(kept):
        return None, (), ()
    if outside:
        return _none(name, f"no labels, because {outside[0]} lies outside the class folders")
    class_of = [folder[depth] for folder in folders]
    class_names = sorted(set(class_of))
    if _are_shards(class_names):
        if shards_known:
            return None, (), ()
        first, last = class_names[0], class_names[-1]
        return _none(
            name,
            f"no labels, because the folders {first} to {last} are taken for numbered shards without a {TABLE}; "
            "rename them if they are classes",
        )
    split_of = _splits(class_names)
    splits = [split_of[each] for each in class_names]
    of_domains = any(match and match[2] for match in map(_SPLIT.fullmatch, class_names))
    if all(splits) and not of_domains:
        return _none(name, f"no labels, because the folders {_some(class_names)} are splits of a set, all of it read")
    if "train" in splits and {*splits} - {"train", None}:
        named = [each for each, split in zip(class_names, splits) if split]
        warnings.warn(f"{name}: {_some(named)} are read as classes, as others lie beside them", stacklevel=3)
    spelt = Counter(as_it_looks(each).casefold() for each in class_names)
    if twins := [each for each in class_names if spelt[as_it_looks(each).casefold()] > 1]:
        how = "in capitals or in how accents are written"
        warnings.warn(f"{name}: {_some(twins)} are classes that differ only {how}", stacklevel=3)
    return *_indexed(class_of), (f"folders are classes: {_some(class_names)}",)


def _read_table(table: str, open_file: Callable[[str], BinaryIO]) -> dict[str, Any] | None:
    """{file `as_it_looks`: its class} of {"labels": [[file, class], ...]}, or None where it has no labels."""
    try:
        with open_file(table) as file:
            content = json.loads(file.read())
    except Exception as error:  # of archives, compression and JSON; a table that is damaged need not end a run
        raise ValueError(f"cannot be read ({error})") from None
    rows = content.get("labels") if isinstance(content, dict) else None
    if rows is None:
        return None
    if isinstance(rows, dict):
        rows = list(rows.items())
    wrong = next((row for row in rows if not _is_row(row)), None) if isinstance(rows, list) else rows
    if wrong is not None:
        raise ValueError(f'has other labels than [["file", class], ...], such as {json.dumps(wrong)[:40]}')
    class_of: dict[str, Any] = {}
    for file, value in rows:
        path = as_it_looks("/".join((*_folders(table), plain_path(file))))
        if path in class_of and class_of[path] != value:
            raise ValueError(f"gives two classes to {file}")
        class_of[path] = value
    return class_of


def plain_path(path: str) -> str:
    """With slashes only, and without the parts that lead nowhere: r".\\a\\b.png" is a/b.png."""
    return "/".join(part for part in path.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def as_it_looks(path: str) -> str:
    """Equal for names that look alike: macOS writes an accent as a character of its own."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def _is_row(row: Any) -> bool:
    return isinstance(row, list | tuple) and len(row) == 2 and isinstance(row[0], str)


def _as_classes(values: Sequence[Any]) -> list[int | str]:
    """Classes as they are written: numbers from 0 on, words, or vectors with one 1 among zeros. Raises ValueError."""
    kinds = {type(value) for value in values}
    if kinds == {list}:
        one_hot = all(value.count(1) == 1 and value.count(0) == len(value) - 1 for value in values)
        if not one_hot or len({len(value) for value in values}) > 1:
            raise ValueError("gives several labels, or shares of them, to an image; one class each is supported")
        return [value.index(1) for value in values]
    if kinds == {str}:
        return list(values)
    if not kinds <= {int, float}:
        raise ValueError(f"gives classes of the types {', '.join(sorted(kind.__name__ for kind in kinds))}")
    wrong = next((value for value in values if value != value // 1 or value < 0), None)
    if wrong is not None:
        raise ValueError(f"gives the class {wrong}; want whole numbers from 0 on")
    return [int(value) for value in values]


def _indexed(values: Sequence[int] | Sequence[str]) -> tuple[torch.Tensor, tuple[str, ...]]:
    """labels int64 [N] from 0 on, and the values they stand for, sorted, which name the classes."""
    order = {value: i for i, value in enumerate(sorted(set(values)))}
    return torch.tensor([order[value] for value in values]), tuple(legible(str(value)) for value in order)


def _none(name: str, why: str) -> Labels:
    why = legible(why)
    warnings.warn(f"{name}: {why}", stacklevel=4)
    return None, (), (why,)


def _depth(folders: Sequence[tuple[str, ...]]) -> int:
    """How many folders all of them have in common."""
    return sum(itertools.takewhile(bool, (len(set(level)) == 1 for level in zip(*folders))))


def _splits(folders: Collection[str]) -> dict[str, str | None]:
    """{folder: train, val, ..., or None for one that is no split}. Longer names must be equal but for that word."""
    words = [_SPLIT_WORD.search(folder) for folder in folders]
    if all(words) and len({word.string[: word.start()] + "/" + word.string[word.end() :] for word in words}) == 1:
        return {word.string: word[1].lower() for word in words}
    matches = {folder: _SPLIT.fullmatch(folder) for folder in folders}
    return {folder: match[1].lower() if match else None for folder, match in matches.items()}


def _are_shards(folders: Sequence[str]) -> bool:
    """Whether sorted names are numbers of five or more digits, all as long, from 0 on in equal steps: 00000, 00001."""
    if any(not re.fullmatch("[0-9]{5,}", folder) or len(folder) != len(folders[0]) for folder in folders):
        return False
    numbers = [int(folder) for folder in folders]
    return numbers == [i * (numbers[-1] // max(len(numbers) - 1, 1)) for i in range(len(numbers))]


def _folders(path: str) -> tuple[str, ...]:
    return tuple(path.split("/")[:-1])


def _some(names: Sequence[str]) -> str:
    return legible(", ".join(names[:5])) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
