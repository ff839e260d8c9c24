"""Parquet and Arrow tables, as Hugging Face's datasets writes them."""

import io
import json
import sys

import pytest
from PIL import Image

from gan_engine.data import DataConfig, DataError, describe, image_set, load, tables


def encoded(grey, size=(8, 8)):
    file = io.BytesIO()
    Image.new("L", size, grey).save(file, "PNG")
    return file.getvalue()


def cells(greys):
    return [{"bytes": encoded(grey), "path": f"{grey}.png"} for grey in greys]


def write(path, columns, features=None, group=3):
    """A table of {column: values}. `features` are the types that datasets notes in its files."""
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=group)
        return path
    new = pyarrow.ipc.new_stream if path.name.startswith("data") else pyarrow.ipc.new_file
    with pyarrow.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=group)
    return path


def read(path, **options):
    data = load(DataConfig(str(path)), resolution=8, channels=1, **options)
    greys = data.images[:, 0, 0, 0].tolist()
    classes = None if data.labels is None else [data.class_names[label] for label in data.labels]
    return data, classes and dict(zip(greys, classes)), greys


GREYS = [10, 20, 30, 40, 50]
DECLARED = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog", "eel"]}}


@pytest.mark.parametrize("name", ["a.parquet", "data-00000-of-00001.arrow", "file.arrow"])
def test_pictures_and_named_classes(tmp_path, name):
    columns = {"image": cells(GREYS), "label": [1, 0, 1, 0, 0], "text": list("abcde")}
    data, classes, _ = read(write(tmp_path / name, columns, DECLARED))
    assert classes == {10: "dog", 20: "cat", 30: "dog", 40: "cat", 50: "cat"}
    assert data.class_names == ("cat", "dog", "eel")  # eel has no picture, but the file declares it
    assert "; images from image; classes of the column label" in describe(data)


@pytest.mark.parametrize(
    ("columns", "features", "want"),
    [
        ({"img": [encoded(grey) for grey in GREYS], "class": list("xyxyx")}, None, "xyxyx"),  # bytes alone
        ({"image": cells(GREYS), "label": [3, 2, 3, 2, 3]}, None, "32323"),
        ({"image": cells(GREYS), "thumbnail": cells(GREYS), "label": list("12121")}, None, "12121"),
        ({"image": cells(GREYS), "fine": [0, 1, 0, 1, 0]}, {"fine": {"_type": "ClassLabel", "names": "pq"}}, "pqpqp"),
        ({"image": cells(GREYS), "text": list("abcde")}, None, None),
    ],
)
def test_columns_that_are_understood(tmp_path, columns, features, want):
    assert read(write(tmp_path / "a.parquet", columns, features))[1] == (want and dict(zip(GREYS, want)))


def test_the_training_split_of_a_folder_is_read_in_order(tmp_path):
    for shard in range(2):
        columns = {"image": cells(range(10 * shard, 10 * shard + 5)), "label": [shard] * 5}
        write(tmp_path / "set" / "data" / f"train-{shard:05d}-of-00002.parquet", columns)
    write(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", {"image": cells([99]), "label": [0]})
    (tmp_path / "set" / "README.md").write_text("words")
    data, classes, greys = read(tmp_path / "set")
    assert greys == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14] and classes[3] == "0" and classes[13] == "1"
    assert data.name == "set" and "only train read, 10 of 11 files, not test" in describe(data)
    assert read(tmp_path / "set" / "data" / "train-{00001..00001}-of-00002.parquet")[2] == [10, 11, 12, 13, 14]


def test_pictures_that_cannot_be_used_are_skipped(tmp_path):
    broken = [{"bytes": None, "path": "x.png"}, None, {"bytes": b"words", "path": None}]
    path = write(tmp_path / "a.parquet", {"image": cells(GREYS) + broken, "label": list("abcdefgh")})
    with pytest.warns(UserWarning, match=r"skipped 3 images: .*got none, but the path x\.png for .*\); .*not an"):
        assert read(path)[1] == dict(zip(GREYS, "abcde"))


def test_classes_that_cannot_be_used_are_a_warning(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": cells(GREYS), "label": [-1] * 5})
    with pytest.warns(
        UserWarning, match="no labels from the column label: want classes that are whole numbers from 0, got -1"
    ):
        assert read(path)[1] is None


def test_a_table_without_classes_says_which_columns_it_has(tmp_path):
    data, classes, _ = read(write(tmp_path / "a.parquet", {"image": cells(GREYS), "text": list("abcde")}))
    want = "no labels from the columns: want label, labels, class, cls or category, got image, text"
    assert classes is None and data.notes[-1] == want


def test_pairs(tmp_path):
    columns = {"imageB": cells(GREYS), "imageA": cells([grey + 1 for grey in GREYS]), "text": list("abcde")}
    data, _, greys = read(write(tmp_path / "facades" / "train.parquet", columns).parent, kind="pairs")
    assert greys == GREYS and data.source.images[:, 0, 0, 0].tolist() == [grey + 1 for grey in GREYS]
    assert "pairs from imageA and imageB" in describe(data)
    with pytest.raises(DataError, match=r"want two pictures of each pair, called .*, got left, right"):
        read(write(tmp_path / "a.parquet", {"left": cells(GREYS), "right": cells(GREYS)}), kind="pairs")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "label": [1]}, r"want a column of pictures, as .*, got text \(string\), label \(int64\)"),
        (
            {"image": [None, "x/1.PNG"]},
            r"want a column of pictures, .* image has names of files, such as x/1\.PNG: name",
        ),
        ({"a": cells([1]), "b": cells([1])}, "want one column of pictures, or a column image, got a, b"),
    ],
)
def test_a_table_without_one_column_of_pictures_is_refused(tmp_path, columns, message):
    with pytest.raises(DataError, match=rf"a\.parquet: {message}"):
        read(write(tmp_path / "a.parquet", columns))


def test_a_damaged_table_is_refused(tmp_path):
    for name in ("a.parquet", "data.arrow"):
        content = write(tmp_path / name, {"image": cells(GREYS)}).read_bytes()
        for damaged in (b"", b"words", content[: len(content) // 2]):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(DataError, match=rf"want a readable {name[name.index('.') :]} file, got "):
                read(tmp_path / name)


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_table_that_is_damaged_within_a_column_is_named(tmp_path, column):
    path = write(tmp_path / "a.parquet", {"image": cells(GREYS), "label": list("abcab")}, group=5)
    from pyarrow import parquet

    chunks = parquet.ParquetFile(path).metadata.row_group(0)
    chunk = next(
        chunks.column(i) for i in range(chunks.num_columns) if chunks.column(i).path_in_schema.startswith(column)
    )
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: want a readable \.parquet file, got OSError: "):
        read(path)


def test_a_column_that_is_not_read_may_be_damaged(tmp_path):
    file = write(tmp_path / "data.arrow", {"image": cells(GREYS), "text": ["caption"] * 5})
    file.write_bytes(file.read_bytes().replace(b"caption", b"captio\xf1"))
    assert read(file)[2] == GREYS


@pytest.mark.parametrize("name", ["data.arrow", "file.arrow"])
def test_an_offset_of_an_arrow_file_that_leads_elsewhere_is_refused(tmp_path, name):
    """Arrow itself follows it, and the process may end."""
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    file = write(tmp_path / name, {"image": [encoded(grey) for grey in GREYS]}, group=len(GREYS))
    table = (pyarrow.ipc.open_stream if name == "data.arrow" else pyarrow.ipc.open_file)(str(file)).read_all()
    _, offsets, _ = table.column("image").chunk(0).buffers()
    content, wrong = file.read_bytes(), bytearray(offsets.to_pybytes())
    assert content.count(wrong) == 1
    wrong[7] = 127  # the second offset: 2 GB further
    file.write_bytes(content.replace(offsets.to_pybytes(), bytes(wrong)))
    with pytest.raises(DataError, match=r"want a readable \.arrow file, got ArrowInvalid: .*offset"):
        read(file)


def test_a_declared_column_that_is_not_there_is_not_looked_for(tmp_path):
    declared = DECLARED | {"photo": {"_type": "Image"}}
    file = write(tmp_path / "a.parquet", {"image": cells(GREYS), "text": list("abcde")}, declared)
    data, classes, _ = read(file)
    assert classes is None and "no labels from the columns: want label," in describe(data)


def test_files_with_other_columns_are_refused(tmp_path):
    write(tmp_path / "set" / "a.parquet", {"image": cells([1])})
    write(tmp_path / "set" / "b.parquet", {"picture": cells([1])})
    with pytest.raises(DataError, match=r"b\.parquet: want the columns of a\.parquet, image, got picture"):
        read(tmp_path / "set")


def test_few_groups_of_rows_are_in_memory_at_once(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": cells(range(200))}, group=10)
    table = tables.Table([path])
    for name in table.paths:
        table.open_file("image", name)
        assert len(table._columns) <= 1 + tables._KEPT_ROWS // 10 + 1
    assert len(table._columns) > 2
    table = tables.Table([write(tmp_path / "b.parquet", {"image": cells(range(200))}, group=100)])
    for name in table.paths:
        table.open_file("image", name)
    assert len(table._columns) == 1


def test_a_group_of_rows_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", {"image": cells(range(200))}, group=200)
    monkeypatch.setattr(image_set, "available_bytes", lambda: 1000)
    with pytest.raises(DataError, match=r"its largest group of rows need 0\.00 GB of memory"):
        read(path)


def test_a_missing_package_is_named_with_the_line_of_pip(tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r'want the package pyarrow .*: pip install "gan-engine\[parquet\]"'):
        read(tmp_path)
