"""Read the pictures in .parquet and .arrow files, as Hugging Face's datasets writes them. Needs the package pyarrow.

A column holds pictures as bytes, or as {bytes, path}. A column of `label_tables.COLUMNS`, or the only column that the
file declares as a ClassLabel, holds the classes. One group of rows after another is read into memory.
"""

import io
import itertools
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from gan_engine.data import endings, label_tables
from gan_engine.data.braces import expand, folder_of
from gan_engine.data.files import load_pictures
from gan_engine.data.image_set import DataError, ImageSet, require_memory
from gan_engine.data.labels import NO_LABELS, Labels, by_value, training_part
from gan_engine.data.packages import require_package
from gan_engine.system.names import legible, listed

ENDINGS = (".parquet", ".arrow")
# The part of a file's name that counts the files of a split: train-00000-of-00002.
_SHARD = re.compile(r"(.*?)[-_.]?(\d{3,}(?:-of-\d+)?(?:-[0-9a-f]{16})?)")
# Threads ask for rows in order, but not quite. Groups are kept until later ones have this many rows.
_KEPT_ROWS = 64
_IMAGES = ("image", "img")


def load_table(path: Path, **options: Any) -> ImageSet:
    """Read every picture in a table, or in the tables that a path with braces names."""
    files = expand(path)
    return load_tables(path.stem if len(files) == 1 else folder_of(path).resolve().name, files, **options)


def load_tables(name: str, files: Sequence[Path], *, labelled: bool = True, **options: Any) -> ImageSet:
    """Read every picture in tables. `load_pictures` has the other `options`.

    Raises DataError: a file is damaged, or not exactly one column can be the pictures.
    """
    table = Table(files)
    column = table.only_pictures()
    paths, left_out = training_part(table.paths)
    notes = (f"images from {column}", *left_out)
    labels = partial(table.labels, name) if labelled else None
    return load_pictures(name, paths, partial(table.open_file, column), labels=labels, notes=notes, **options)


class Table:
    """The rows of several files. A row has a path, SPLIT/SHARD/NUMBER, so that splits look like folders."""

    def __init__(self, files: Sequence[Path]):
        self.file, self.schema = files[0], None
        self._groups: list[Group] = []
        self._place: dict[str, tuple[int, int]] = {}  # {path: (group, row in it)}
        root = os.path.commonpath([file.parent for file in files])
        places: dict[str, Path] = {}
        for file in files:
            schema, groups = _opened(file)
            if self.schema is not None and schema.names != self.schema.names:
                want, got = listed(self.schema.names), listed(schema.names)
                raise DataError(f"{file}: want the columns of {self.file.name}, {want}, got {got}")
            self.schema = self.schema or schema
            above = "/".join((*file.parent.relative_to(root).parts, *_split_and_shard(file.stem)))
            if other := places.get(above):
                raise DataError(
                    f"{file}: want a name that differs from {other.name} by letters or digits, got signs alone"
                )
            places[above] = file
            numbers = itertools.count()
            for group in groups:
                self._place |= {f"{above}/{next(numbers):08d}": (len(self._groups), row) for row in range(group.num)}
                self._groups.append(group)
        self._lock = threading.Lock()
        self._columns: dict[tuple[str, int], Any] = {}

    @property
    def paths(self) -> list[str]:
        return sorted(self._place)

    def pictures(self) -> list[str]:
        """The columns of pictures: those that the file declares, else all of bytes, or of {bytes, path}."""
        declared = [name for name, feature in self._features().items() if feature.get("_type") == "Image"]
        return declared or [field.name for field in self.schema if _may_be_pictures(field.type)]

    def only_pictures(self) -> str:
        """The one column of pictures, or the one with a name in `_IMAGES`. Raises DataError."""
        names = self.pictures()
        if not names:
            got = listed([f"{field.name} ({field.type})" for field in self.schema], most=8)
            want = "a column of pictures, as bytes or {bytes, path}"
            raise DataError(f"{self.file}: want {want}, got {got}{self._named_files()}")
        usual = names if len(names) == 1 else [name for name in names if name.lower() in _IMAGES]
        if len(usual) != 1:
            raise DataError(f"{self.file}: want one column of pictures, or a column image, got {listed(names)}")
        return usual[0]

    def open_file(self, column: str, path: str) -> BinaryIO:
        """The picture of a row. Raises ValueError if there is none."""
        group, row = self._place[path]
        value = self._read(column, group)[row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            elsewhere = value.get("path") if isinstance(value, dict) else None
            but = f", but the path {elsewhere}" if elsewhere else ""
            raise ValueError(f"want the bytes of a picture, got none{but}")
        return io.BytesIO(content)

    def labels(self, name: str, kept: list[str]) -> Labels:
        """The classes of rows, with the names that the file declares."""
        declared = {name: feature for name, feature in self._features().items() if feature.get("_type") == "ClassLabel"}
        column = label_tables.label_column(self.schema.names) or (next(iter(declared)) if len(declared) == 1 else None)
        if column is None:
            got = listed(self.schema.names, most=8)
            return None, (), (f"{NO_LABELS} from the columns: want {label_tables.WANTED}, got {got}",)
        groups = [group.values(column) for group in self._groups]
        values = [groups[group][row] for group, row in map(self._place.__getitem__, kept)]
        class_names = declared.get(column, {}).get("names") or ()
        return by_value(name, kept, label_tables.as_numbers(values), f"the column {column}", class_names)

    def _named_files(self) -> str:
        """What to do if a column holds the names of files; '' if none does."""
        from pyarrow import types

        for field in self.schema:
            if types.is_string(field.type) or types.is_large_string(field.type):
                first = next((value for group in self._groups for value in group.values(field.name) if value), "")
                if first.lower().endswith(endings.endings()):
                    do = "name their folder, and put the table into it as metadata.csv, with a column file_name"
                    return f"; {field.name} has names of files, such as {legible(first, most=60)}: {do}"
        return ""

    def _features(self) -> dict[str, dict]:
        """{column: type} as datasets of Hugging Face note it in their files, of the columns that are there."""
        with _readable(self.file):
            about = json.loads((self.schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about.get("info", {}).get("features", {})
        names = {*self.schema.names}
        return {name: feature for name, feature in features.items() if isinstance(feature, dict) and name in names}

    def _read(self, column: str, group: int) -> Any:
        """A column of a group, from memory if it was read a short time ago."""
        with self._lock:
            if (column, group) not in self._columns:
                self._columns[column, group] = self._groups[group].read(column)
                others = [key for key in self._columns if key[0] == column]
                while len(others) > 1 and sum(self._groups[key[1]].num for key in others[1:]) >= _KEPT_ROWS:
                    del self._columns[others.pop(0)]
            return self._columns[column, group]


@dataclass(frozen=True)
class Group:
    """Rows of a file that are read at once."""

    file: Path
    num: int
    column: Callable[[str], Any]
    """Returns one of their columns."""

    def read(self, name: str) -> Any:
        """The column of that name. Raises DataError if the file is damaged there."""
        with _readable(self.file):
            return self.column(name)

    def values(self, name: str) -> list:
        """The values of the column of that name. Raises DataError as `read` does."""
        with _readable(self.file):
            return self.column(name).to_pylist()


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turns the errors of a damaged file into DataError with its name."""
    import pyarrow

    try:
        yield
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        kind = file.suffix.lower()
        raise DataError(f"{file}: want a readable {kind} file, got {type(error).__name__}: {error}") from error


def _opened(file: Path) -> tuple[Any, list[Group]]:
    """-> the schema of a file, and its groups of rows. Raises DataError."""
    require_package("pyarrow", file, extra="parquet")
    with _readable(file):
        schema, groups = (_open_parquet if file.suffix.lower() == ".parquet" else _open_arrow)(file)
        _ = schema.names  # which may be damaged
        return schema, groups


def _open_parquet(file: Path) -> tuple[Any, list[Group]]:
    from pyarrow import parquet

    def read(group: int, column: str) -> Any:
        with parquet.ParquetFile(file) as opened:
            return opened.read_row_group(group, columns=[column]).column(column)

    with parquet.ParquetFile(file) as opened:
        heads = [opened.metadata.row_group(i) for i in range(opened.num_row_groups)]
        largest = max((head.total_byte_size for head in heads), default=0)
        require_memory(f"{file}: its largest group of rows", largest)
        return opened.schema_arrow, [Group(file, head.num_rows, partial(read, i)) for i, head in enumerate(heads)]


def _open_arrow(file: Path) -> tuple[Any, list[Group]]:
    """A stream, as datasets writes it, or a file with an index. Both are mapped into memory."""
    import pyarrow

    mapped = pyarrow.memory_map(str(file))
    try:
        table = pyarrow.ipc.open_stream(mapped).read_all()
    except pyarrow.ArrowInvalid:
        mapped.seek(0)
        table = pyarrow.ipc.open_file(mapped).read_all()
    return table.schema, [Group(file, batch.num_rows, partial(_checked, batch)) for batch in table.to_batches()]


def _checked(batch: Any, name: str) -> Any:
    """The column of a batch. Arrow itself would follow a damaged offset to anywhere, and the process might end."""
    column = batch.column(name)
    column.validate(full=True)
    return column


def _may_be_pictures(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return "bytes" in [kind.field(i).name for i in range(kind.num_fields)]
    return types.is_binary(kind) or types.is_large_binary(kind)


def _split_and_shard(stem: str) -> list[str]:
    """The split and the count in the name of a file: train-00000-of-00002 -> train, 00000-of-00002."""
    counted = _SHARD.fullmatch(stem)
    return [part for part in counted.groups() if part] if counted else [stem]
