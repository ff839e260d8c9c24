"""Tables that give a class to each file, and lie among the files.

dataset.json                    of StyleGAN's tools: {"labels": [["a.png", 3], ...]}
metadata.jsonl, metadata.csv    of Hugging Face's image folders: rows with a file_name and a column of `COLUMNS`
"""

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, BinaryIO

from gan_engine.system.names import listed

DATASET, METADATA = "dataset.json", ("metadata.jsonl", "metadata.csv")
# Names of columns that hold classes, in small letters. The first one that a table has counts.
COLUMNS = ("label", "labels", "class", "cls", "category")
WANTED = f"{', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}"
_DATASET_ROWS = 'labels [["file", class], ...]'
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "signs |"}


class NoClasses(Exception):
    """A table is intact and holds no classes. The message is "TABLE: want ..., got ..."."""


def find(kept: Sequence[str], found: Collection[str]) -> list[str]:
    """The tables among `found` that lie in a folder above a file of `kept`, the nearest to the root first.

    A dataset.json wins over metadata, and only the one nearest to the root counts. Metadata count in every folder.
    """
    above = {folder[:depth] for folder in {*map(folders_of, kept)} for depth in range(len(folder) + 1)}
    for names in ((DATASET,), METADATA):
        tables = [path for path in found if path.endswith(names) and path.rpartition("/")[2] in names]
        tables = [path for path in tables if folders_of(path) in above]
        tables.sort(key=lambda path: (path.count("/"), path))
        if tables:
            nearest = [path for path in tables if path.count("/") == tables[0].count("/")]
            return nearest if names == (DATASET,) else tables
    return []


def read(tables: Sequence[str], open_file: Callable[[str], BinaryIO]) -> dict[str, Any]:
    """{file in its `normal_form`: class} of the tables that `find` gave.

    Raises:
        NoClasses: no table holds classes.
        ValueError: "TABLE: want ..., got ...": a table is damaged, or is not the only one for its files.
    """
    folders = [folders_of(table) for table in tables]
    is_dataset = tables[0].endswith(DATASET)
    twice = [table for table, folder in zip(tables, folders) if is_dataset or folders.count(folder) > 1]
    if len(twice) > 1:
        raise ValueError(f"{twice[0]}: want one table for its files, got {twice[1]} too")
    class_of: dict[str, Any] = {}
    without = []
    for table, folder in zip(tables, folders):
        own: dict[str, Any] = {}
        try:
            rows = _rows(table, open_file)
        except NoClasses as reason:
            without.append(NoClasses(f"{table}: {reason}"))
            continue
        except ValueError as error:
            raise ValueError(f"{table}: {error}") from None
        for file, value in rows:
            path = normal_form("/".join((*folder, plain_path(file))))
            if path in own and own[path] != value:
                raise ValueError(f"{table}: want one class for each file, got two for {file}")
            own[path] = value
        class_of |= own
    if len(without) == len(tables):
        raise without[0]
    return class_of


def _rows(table: str, open_file: Callable[[str], BinaryIO]) -> list[tuple[str, Any]]:
    """(file, class) of each row of a table. Raises NoClasses and ValueError with "want ..., got ..."."""
    try:
        with open_file(table) as file:
            text = file.read().decode("utf-8-sig")
        if table.endswith(".json"):
            content: Any = json.loads(text)
        elif table.endswith(".jsonl"):
            content = _json_lines(text)
        else:
            content = [*csv.DictReader(io.StringIO(text, newline=""))]
    except Exception as error:  # archives, compression and JSON raise many kinds; a damaged table must not end a run
        raise ValueError(f"want a readable file, got {error}") from None
    return _rows_of_dataset(content) if table.endswith(".json") else _rows_of_metadata(content)


def _json_lines(text: str) -> list[Any]:
    """The value of each line. Raises ValueError with the number of a damaged line."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise ValueError(f"{error.msg} in line {number}, column {error.colno}") from None
    return rows


def _rows_of_dataset(content: Any) -> list[tuple[str, Any]]:
    rows = content.get("labels") if isinstance(content, dict) else None
    if rows is None:
        raise NoClasses(f"want {_DATASET_ROWS}, got none")
    if isinstance(rows, dict):
        rows = list(rows.items())
    wrong = next((row for row in rows if not _is_row(row)), None) if isinstance(rows, list) else rows
    if wrong is not None:
        raise ValueError(f"want {_DATASET_ROWS}, got {json.dumps(wrong)[:40]}")
    return rows


def _rows_of_metadata(content: Sequence[Any]) -> list[tuple[str, Any]]:
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            if sign := _other_separator(row):
                raise ValueError(f"want commas between its columns, got {_SEPARATORS[sign]}")
            raise ValueError(f"want a file_name in each row, got {json.dumps(row)[:60]} in row {number}")
    column = label_column(name for row in content for name in row)
    if column is None:
        names = dict.fromkeys(str(name) for row in content for name in row)
        raise NoClasses(f"want a column {WANTED}, got {listed([*names]) or 'no rows'}")
    return list(zip([row["file_name"] for row in content], as_numbers([row.get(column) for row in content])))


def _other_separator(row: Any) -> str | None:
    """The sign between the columns of a CSV, if it is no comma: a row then has a column "file_name;label"."""
    head = ",".join(map(str, row)) if isinstance(row, dict) else ""
    return next((sign for sign in _SEPARATORS if "file_name" in [name.strip('"') for name in head.split(sign)]), None)


def label_column(names: Iterable[Any]) -> str | None:
    """The column of classes: the name that comes first in `COLUMNS`. None if there is none."""
    by_name = {name.lower(): name for name in names if isinstance(name, str)}
    return next((by_name[column] for column in COLUMNS if column in by_name), None)


def as_numbers(values: list) -> list:
    """Words become numbers if all of them are whole numbers, and empty words become None: CSV knows only words."""
    values = [None if value == "" else value for value in values]
    if all(value is None or (isinstance(value, str) and value.isdecimal()) for value in values):
        return [None if value is None else int(value) for value in values]
    return values


def plain_path(path: str) -> str:
    """`path` with slashes, and without the parts '', '.' and '..': r".\\a\\b.png" -> a/b.png."""
    return "/".join(part for part in path.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def normal_form(path: str) -> str:
    """The same text for names that look the same. macOS writes a letter with an accent as two characters."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def folders_of(path: str) -> tuple[str, ...]:
    """The folders of a path: a/b/c.png -> (a, b)."""
    return tuple(path.split("/")[:-1])


def _is_row(row: Any) -> bool:
    return isinstance(row, list | tuple) and len(row) == 2 and isinstance(row[0], str)
