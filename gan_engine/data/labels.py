"""Classes of files, from a table among them (`label_tables`), from values of their own, or from their folders."""

import itertools
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, BinaryIO

import torch

from gan_engine.data import label_tables
from gan_engine.data.label_tables import folders_of, normal_form
from gan_engine.system.names import counted, legible, listed

# (labels int64 [N] or None, class names, notes on the origin of the labels)
Labels = tuple[torch.Tensor | None, tuple[str, ...], tuple[str, ...]]

# Notes on missing labels begin so. A conditional run shows them.
NO_LABELS = "no labels"

# Folder names such as train, training_set, valid, test1, val2017, images_test, testA: the split, and A or B if given.
_SPLIT = re.compile(
    r"(?:(?:images?|imgs?)[_-]?)?(train|val|test|dev|eval|holdout)(?:ing|id|idation|uation)?"
    r"[_-]?(?:set|split|data|images?|imgs?|[0-9]{1,4}|([ab]))?",
    re.IGNORECASE,
)
# The word for a split inside a longer name: DIV2K_train_HR, valid_64x64.
_SPLIT_WORD = re.compile(r"(?<![a-z0-9])(train|val|test)(?:ing|id|idation)?(?![a-z0-9])", re.IGNORECASE)


def training_part(paths: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """-> the files of the training split, and a note on the files that are left out.

    A split is a folder called train, val, test or similar, either above or below the folders of the classes. If there
    are no such folders, all files are kept.
    """
    folders = [folders_of(path) for path in paths]
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
        return kept, (f"only {listed(trained)} read, {len(kept):,} of {len(paths):,} files, not {listed(others)}",)
    return list(paths), ()


def labels_of(name: str, kept: Sequence[str], found: Collection[str], open_file: Callable[[str], BinaryIO]) -> Labels:
    """Classes of the files `kept`, from the tables of `label_tables` among all files `found`. Else see `by_folder`.

    If a table cannot be used, there are no labels, and a warning says why.
    """
    tables = label_tables.find(kept, found)
    if not tables:
        return by_folder(name, kept)
    try:
        class_of = label_tables.read(tables, open_file)
    except label_tables.NoClasses as reason:
        labels, class_names, notes = by_folder(name, kept, shards_known=True)
        return labels, class_names, (f"{NO_LABELS} from {reason}", *notes)
    except ValueError as error:
        return _no_labels(name, str(error))
    table = tables[0].rpartition("/")[2]
    labels, class_names, notes = by_value(name, kept, [class_of.get(normal_form(path)) for path in kept], table)
    if labels is not None and (absent := class_of.keys() - set(map(normal_form, found))):
        notes = (*notes, f"{table} names {counted(len(absent), 'missing file')}")
        warnings.warn(f"{name}: {notes[-1]}, such as {legible(min(absent))}", stacklevel=3)
    return labels, class_names, notes


def by_value(
    name: str, kept: Sequence[str], values: Sequence[Any], origin: str, class_names: Sequence[str] = ()
) -> Labels:
    """Classes of the files `kept` by their values: numbers, words or one-hot lists; None where a file has no class.

    If the values cannot be used, there are no labels, and a warning says why.

    Args:
        origin: what holds the values, for the notes and the warning.
        class_names: names of the classes 0, 1, ... If given, every name is a class, even if no file has it.
    """
    try:
        missing = [path for path, value in zip(kept, values) if value is None]
        if missing:
            named = len(kept) - len(missing)
            got = f"one for {named:,} of {counted(len(kept), 'image')}, and none for {missing[0]}"
            raise ValueError(f"want a class for each image, got {got}")
        classes = _as_classes(values)
        if class_names and all(isinstance(value, int) and value < len(class_names) for value in classes):
            return torch.tensor(classes), tuple(map(legible, class_names)), (f"classes of {origin}",)
    except ValueError as error:
        return _no_labels(name, f"{origin}: {error}")
    return *_to_labels(classes), (f"classes of {origin}",)


def by_folder(name: str, kept: Sequence[str], *, shards_known: bool = False) -> Labels:
    """Classes by folder: the folders directly below the deepest folder that holds all files, sorted by name.

    There are no classes if all files lie in one folder. There are none either if some files lie outside these folders,
    or if the folders are numbered shards or splits of a set. A warning then says why.

    Args:
        shards_known: give no warning for numbered shards.
    """
    folders = [folders_of(file) for file in kept]
    depth = _depth(folders)
    outside = [file for file, folder in zip(kept, folders) if len(folder) == depth]
    if len(outside) == len(kept):
        return None, (), ()
    if outside:
        return _no_labels(name, f"folders: want each image in the folder of its class, got {outside[0]} outside")
    class_of = [folder[depth] for folder in folders]
    class_names = sorted(set(class_of))
    if _are_shards(class_names):
        if shards_known:
            return None, (), ()
        first, last = class_names[0], class_names[-1]
        return _no_labels(
            name,
            f"folders: want names of classes, got {first} to {last}, which look like numbered shards without a "
            f"{label_tables.DATASET}; rename them if they are classes",
        )
    split_of = _splits(class_names)
    splits = [split_of[folder] for folder in class_names]
    has_domains = any(match and match[2] for match in map(_SPLIT.fullmatch, class_names))
    if all(splits) and not has_domains:
        got = f"{listed(class_names)}, which are splits of a set; all of them are read"
        return _no_labels(name, f"folders: want names of classes, got {got}")
    if "train" in splits and {*splits} - {"train", None}:
        named = [folder for folder, split in zip(class_names, splits) if split]
        why = "because there are other folders too"
        warnings.warn(f"{name}: the folders {listed(named)} are read as classes, {why}", stacklevel=3)
    spellings = Counter(normal_form(folder).casefold() for folder in class_names)
    if twins := [folder for folder in class_names if spellings[normal_form(folder).casefold()] > 1]:
        how = "in capitals or in how accents are written"
        warnings.warn(f"{name}: {listed(twins)} are classes that differ only {how}", stacklevel=3)
    return *_to_labels(class_of), (f"folders are classes: {listed(class_names)}",)


def _as_classes(values: Sequence[Any]) -> list[int | str]:
    """Check the classes of a table: integers >= 0, words, or one-hot vectors. Raises ValueError."""
    kinds = {type(value) for value in values}
    if kinds == {list}:
        one_hot = all(value.count(1) == 1 and value.count(0) == len(value) - 1 for value in values)
        if not one_hot or len({len(value) for value in values}) > 1:
            raise ValueError("want one class for each image, got several classes or fractions of classes")
        return [value.index(1) for value in values]
    if kinds == {str}:
        return list(values)
    if not kinds <= {int, float}:
        types = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"want classes of the type int, float or str, got {types}")
    wrong = next((value for value in values if value != value // 1 or value < 0), None)
    if wrong is not None:
        raise ValueError(f"want classes that are whole numbers from 0, got {wrong}")
    return [int(value) for value in values]


def _to_labels(values: Sequence[int] | Sequence[str]) -> tuple[torch.Tensor, tuple[str, ...]]:
    """-> labels int64 [N], numbered from 0 in sorted order of the values, and the class names."""
    order = {value: i for i, value in enumerate(sorted(set(values)))}
    return torch.tensor([order[value] for value in values]), tuple(legible(str(value)) for value in order)


def _no_labels(name: str, why: str) -> Labels:
    """No labels, with a note and a warning. `why` is "ORIGIN: want ..., got ..."."""
    why = legible(f"{NO_LABELS} from {why}")
    warnings.warn(f"{name}: {why}", stacklevel=4)
    return None, (), (why,)


def _depth(folders: Sequence[tuple[str, ...]]) -> int:
    """The number of leading folders that all paths share."""
    return sum(itertools.takewhile(bool, (len(set(level)) == 1 for level in zip(*folders))))


def _splits(folders: Collection[str]) -> dict[str, str | None]:
    """{folder: "train", "val", ..., or None if it is not a split}. Longer names may differ only in that word."""
    words = [_SPLIT_WORD.search(folder) for folder in folders]
    if all(words) and len({word.string[: word.start()] + "/" + word.string[word.end() :] for word in words}) == 1:
        return {word.string: word[1].lower() for word in words}
    matches = {folder: _SPLIT.fullmatch(folder) for folder in folders}
    return {folder: match[1].lower() if match else None for folder, match in matches.items()}


def _are_shards(folders: Sequence[str]) -> bool:
    """True if sorted names are numbers from 0 in equal steps, all with the same number of digits, 5 or more: 00000."""
    if any(not re.fullmatch("[0-9]{5,}", folder) or len(folder) != len(folders[0]) for folder in folders):
        return False
    numbers = [int(folder) for folder in folders]
    return numbers == [i * (numbers[-1] // max(len(numbers) - 1, 1)) for i in range(len(numbers))]
