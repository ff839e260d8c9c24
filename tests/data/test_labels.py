"""The files that are trained on, and their classes, from a dataset.json or from folders."""

import io
import json
import unicodedata
import warnings
import zipfile

import pytest
from PIL import Image

from gan_engine.data import DataConfig, describe, load
from gan_engine.data.labels import by_folder, training_part

NAMES = [f"{i // 2:05d}/img{i:08d}.png" for i in range(6)]  # in three shards


def picture(grey=0):
    file = io.BytesIO()
    Image.new("L", (4, 4), grey).save(file, "PNG")
    return file.getvalue()


def write(target, table, names=NAMES, root=""):
    """A zip or a folder of pictures; picture i has the grey value i. `table` becomes its dataset.json."""
    content = {root + name: picture(i) for i, name in enumerate(names)}
    if table is not None:
        content[root + "dataset.json"] = table if isinstance(table, bytes) else json.dumps(table).encode()
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return target
    for name, data in content.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    return target


def read(source):
    """The set, {grey: class name}, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load(DataConfig(str(source)), resolution=4, channels=1)
    greys = data.images[:, 0, 0, 0].tolist()
    classes = None if data.labels is None else [data.class_names[label] for label in data.labels]
    return data, classes and dict(zip(greys, classes)), [str(each.message) for each in caught]


# dataset.json

CLASSES = [2, 0, 1, 2, 0, 1]
AS_READ = dict(enumerate("201201"))


@pytest.mark.parametrize("target", ["set.zip", "set"])
@pytest.mark.parametrize("root", ["", "ffhq/"])
def test_classes_come_from_the_table_and_not_from_the_shards(tmp_path, target, root):
    source = write(tmp_path / target, {"labels": list(zip(NAMES, CLASSES))}, root=root)
    data, classes, warned = read(source)
    assert classes == AS_READ and data.class_names == ("0", "1", "2") and not warned
    assert "3 classes" in describe(data) and "; classes of dataset.json" in describe(data)


@pytest.mark.parametrize(
    "labels",
    [
        [[name.replace("/", "\\"), c] for name, c in zip(NAMES, CLASSES)],
        [[f"./{name}", c] for name, c in zip(NAMES, CLASSES)],
        dict(zip(NAMES, CLASSES)),
        list(zip(NAMES, map(float, CLASSES))),
        [[name, [float(c == i) for i in range(3)]] for name, c in zip(NAMES, CLASSES)],
        [[name, str(c)] for name, c in zip(NAMES, CLASSES)],
        [*zip(NAMES, CLASSES), *zip(NAMES, CLASSES)],
    ],
    ids=["backslashes", "dots", "dict", "whole floats", "one-hot", "words", "twice"],
)
def test_forms_of_the_table(tmp_path, labels):
    _, classes, warned = read(write(tmp_path / "set.zip", {"labels": labels}))
    assert classes == AS_READ and not warned


def test_numbers_are_sorted_as_numbers(tmp_path):
    data, _, _ = read(write(tmp_path / "set.zip", {"labels": list(zip(NAMES, [10, 9, 2, 10, 9, 2]))}))
    assert data.class_names == ("2", "9", "10")


def test_accents_match_in_both_forms_of_unicode(tmp_path):
    composed, apart = unicodedata.normalize("NFC", "café.png"), unicodedata.normalize("NFD", "café.png")
    for written, named in ((composed, apart), (apart, composed)):
        source = write(tmp_path / f"{len(written)}.zip", {"labels": [[named, 3], ["a.png", 4]]}, [written, "a.png"])
        _, classes, warned = read(source)
        assert classes == {0: "3", 1: "4"} and not warned


def test_a_table_wins_over_folders(tmp_path):
    names = ["x/1.png", "y/2.png"]
    _, classes, _ = read(write(tmp_path / "set", {"labels": [["x/1.png", 1], ["y/2.png", 0]]}, names))
    assert classes == {0: "1", 1: "0"}


@pytest.mark.parametrize("table", [{"labels": None}, {}, {"labels": None, "name": "ffhq"}, [1, 2]])
def test_folders_decide_if_the_table_has_no_labels(tmp_path, table):
    data, classes, warned = read(write(tmp_path / "set.zip", table))
    assert classes is None and not warned and "; no labels from dataset.json: want labels [[" in describe(data)
    data, classes, _ = read(write(tmp_path / "folders", table, ["cats/1.png", "dogs/2.png"]))
    assert classes == {0: "cats", 1: "dogs"} and "; no labels from dataset.json: want labels [[" in describe(data)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (
            {"labels": list(zip(NAMES, CLASSES))[:4]},
            "want a class for each image, got one for 4 of 6 images, and none for 00002/img00000004.png",
        ),
        ({"labels": [*list(zip(NAMES, CLASSES))[:5], [NAMES[5], None]]}, "got one for 5 of 6 images"),
        ({"labels": [[name, [0, 1, 1]] for name in NAMES]}, "several classes or fractions of classes"),
        ({"labels": [[name, [0.2, 0.8]] for name in NAMES]}, "several classes or fractions of classes"),
        ({"labels": [[name, [1] + [0] * i] for i, name in enumerate(NAMES)]}, "several classes or fractions"),
        ({"labels": [[name, 0.37] for name in NAMES]}, r"whole numbers from 0, got 0\.37"),
        ({"labels": [[name, -1] for name in NAMES]}, "whole numbers from 0, got -1"),
        ({"labels": [[name, float("nan")] for name in NAMES]}, "whole numbers from 0, got nan"),
        ({"labels": [[name, True] for name in NAMES]}, "type int, float or str, got bool"),
        ({"labels": [[name, c or "none"] for name, c in zip(NAMES, CLASSES)]}, "int, float or str, got int, str"),
        ({"labels": [*zip(NAMES, CLASSES), [NAMES[0], 1]]}, f"want one class for each file, got two for {NAMES[0]}"),
        ({"labels": CLASSES}, r"want labels .*, got 2"),
        ({"labels": "none"}, r"want labels .*, got \"none\""),
        (b'{"labels": [["00000/img', "want a readable file, got "),
        (b"\xff\xfe\xfd", "want a readable file, got "),
        (b"[" * 100_000, "want a readable file, got "),
    ],
)
def test_a_table_that_cannot_be_used_gives_no_labels_and_a_warning(tmp_path, table, why):
    data, classes, warned = read(write(tmp_path / "set.zip", table))
    assert len(data) == 6 and classes is None
    assert len(warned) == 1 and warned[0].startswith("set: no labels from dataset.json: want ")
    with pytest.warns(UserWarning, match=why):
        load(DataConfig(str(tmp_path / "set.zip")), resolution=4, channels=1)
    assert "; no labels from dataset.json: want " in describe(data)  # a conditional run shows this reason


def test_a_warning_counts_missing_files_of_the_table(tmp_path):
    table = {"labels": [*zip(NAMES, CLASSES), ["00009/a.png", 7]]}
    data, classes, warned = read(write(tmp_path / "set.zip", table))
    assert classes == AS_READ and data.num_classes == 3
    assert warned == ["set: dataset.json names 1 missing file, such as 00009/a.png"]


def test_two_tables_at_the_same_depth_are_not_used(tmp_path):
    source = write(tmp_path / "set", {"labels": [["1.png", 0]]}, ["1.png"], root="a/")
    write(source, {"labels": [["1.png", 0]]}, ["1.png"], root="b/")
    _, classes, warned = read(source)
    assert classes is None and "a/dataset.json: want one table for its files, got b/dataset.json too" in warned[0]


# metadata.jsonl and metadata.csv of Hugging Face


def metadata(target, tables, names):
    """A folder of pictures with the `tables` {path: text or rows for JSON lines}."""
    write(target, None, names)
    for path, table in tables.items():
        rows = table if isinstance(table, str) else "".join(json.dumps(row) + "\n" for row in table)
        (target / path).write_text(rows)
    return target


ROWS = [{"file_name": "a.png", "text": "x", "label": "cat"}, {"file_name": "b.png", "text": "y", "label": "dog"}]


@pytest.mark.parametrize(
    ("name", "table", "want"),
    [
        ("metadata.jsonl", ROWS, ["cat", "dog"]),
        (
            "metadata.jsonl",
            [{"file_name": f"./{file}", "Class": c} for file, c in (("a.png", 10), ("b.png", 9))],
            ["10", "9"],
        ),
        ("metadata.csv", '\ufefffile_name,text,label\na.png,"x, and\nx",cat\nb.png,y,dog\n', ["cat", "dog"]),
        ("metadata.csv", "file_name,label\na.png,10\nb.png,9\n", ["10", "9"]),
    ],
)
def test_classes_of_metadata(tmp_path, name, table, want):
    data, classes, warned = read(metadata(tmp_path / "set", {name: table}, ["a.png", "b.png"]))
    assert classes == dict(enumerate(want)) and not warned and f"; classes of {name}" in describe(data)
    assert data.class_names == tuple(sorted(want, key=lambda word: (len(word), word)))  # numbers as numbers


def test_every_folder_has_its_metadata(tmp_path):
    names = ["train/a.png", "train/b.png", "train/more/a.png", "test/a.png"]
    tables = {
        "train/metadata.jsonl": [*ROWS, {"file_name": "more/a.png", "label": "eel"}],
        "train/more/metadata.jsonl": [{"file_name": "a.png", "label": "fox"}],  # the nearest table counts
        "test/metadata.jsonl": [{"file_name": "a.png", "label": "gnu"}],
    }
    _, classes, warned = read(metadata(tmp_path / "set", tables, names))
    assert classes == {0: "cat", 1: "dog", 2: "fox"} and not warned


def test_folders_decide_if_metadata_have_no_classes(tmp_path):
    rows = [{"file_name": "cats/a.png", "text": "x"}, {"file_name": "dogs/b.png", "text": "y"}]
    data, classes, _ = read(metadata(tmp_path / "set", {"metadata.jsonl": rows}, ["cats/a.png", "dogs/b.png"]))
    assert classes == {
        0: "cats",
        1: "dogs",
    } and "metadata.jsonl: want a column label, labels, class, cls or category, got file_name, text;" in describe(data)


def test_a_dataset_json_wins_over_metadata(tmp_path):
    write(tmp_path / "set", {"labels": [["a.png", 4], ["b.png", 5]]}, ["a.png", "b.png"])
    assert read(metadata(tmp_path / "set", {"metadata.jsonl": ROWS}, ["a.png", "b.png"]))[1] == {0: "4", 1: "5"}


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"metadata.jsonl": ROWS[:1]}, "want a class for each image, got one for 1 of 2 images, and none for b.png"),
        ({"metadata.jsonl": [*ROWS, {**ROWS[0], "label": "dog"}]}, "want one class for each file, got two for a.png"),
        (
            {"metadata.jsonl": [{"name": "a.png", "label": 1}]},
            'want a file_name in each row, got {"name": "a.png", "label": 1} in row 1',
        ),
        ({"metadata.jsonl": [1]}, "want a file_name in each row, got 1"),
        ({"metadata.jsonl": "words"}, "want a readable file, got Expecting value in line 1, column 1"),
        (
            {"metadata.jsonl": f'{json.dumps(ROWS[0])}\n\n{{"file_name": "b.png" "label": 1}}\n'},
            "want a readable file, got Expecting ',' delimiter in line 3, column 23",
        ),
        ({"metadata.csv": "file_name;label\na.png;x\nb.png;y\n"}, "want commas between its columns, got semicolons"),
        ({"metadata.csv": '"label"\t"file_name"\nx\ta.png\n'}, "want commas between its columns, got tabs"),
        ({"metadata.csv": "file_name|label\na.png|1,5\n"}, "want commas between its columns, got signs |"),
        (
            {"metadata.jsonl": ROWS, "metadata.csv": "file_name,label\n"},
            "metadata.csv: want one table for its files, got metadata.jsonl too",
        ),
        ({"metadata.csv": "file_name,label\na.png,x\nb.png,\n"}, "got one for 1 of 2 images"),
        ({"metadata.jsonl": [{**row, "label": [0, 1, 1]} for row in ROWS]}, "several classes or fractions of classes"),
    ],
)
def test_metadata_that_cannot_be_used_are_a_warning(tmp_path, tables, why):
    _, classes, warned = read(metadata(tmp_path / "set", tables, ["a.png", "b.png"]))
    assert classes is None and len(warned) == 1 and "no labels from metadata." in warned[0] and why in warned[0]


def test_the_damaged_table_of_several_is_named(tmp_path):
    tables = {"metadata.jsonl": ROWS, "more/metadata.jsonl": "words"}
    _, classes, warned = read(metadata(tmp_path / "set", tables, ["a.png", "b.png", "more/c.png"]))
    assert classes is None and "no labels from more/metadata.jsonl: want a readable file" in warned[0]


# Folders that are no classes


@pytest.mark.parametrize("names", [["00000", "00001", "00002"], ["00000", "01000", "02000"], ["000000", "000001"]])
def test_numbered_shards_are_no_classes(names):
    with pytest.warns(UserWarning, match="look like numbered shards without a dataset.json"):
        labels, class_names, notes = by_folder("set", [f"{name}/1.png" for name in names])
    assert labels is None and class_names == () and notes[0].startswith("no labels")


@pytest.mark.parametrize("names", [["0", "1"], ["0000", "0001"], ["00001", "00002"], ["00000", "00001", "00007"]])
def test_numbers_can_be_classes(names):
    _, class_names, notes = by_folder("set", [f"{name}/1.png" for name in names])
    assert class_names == tuple(names) and notes == (f"folders are classes: {', '.join(names)}",)


@pytest.mark.parametrize(
    ("train", "others"),
    [
        (["train/1.png"], ["val/2.png", "test/3.png"]),
        (["images/train/1.png"], ["images/valid/2.png"]),
        (["Training/cats/1.png", "Training/dogs/1.png"], ["Test/cats/2.png"]),
        (["train2017/1.png"], ["val2017/1.png"]),
        (["cats/train/1.png", "dogs/train/1.png"], ["cats/test/1.png"]),
        (["train/1.png"], ["val/2.png", "cover.png"]),
        (["trainA/1.png", "trainB/1.png"], ["testA/1.png", "testB/1.png"]),
        (["training_set/1.png"], ["test_set/1.png"]),
        (["train/1.png"], ["test1/1.png"]),
        (["train_64x64/1.png"], ["valid_64x64/1.png"]),
        (["DIV2K_train_HR/1.png"], ["DIV2K_valid_HR/1.png"]),
    ],
)
def test_only_the_training_split_is_read(train, others):
    kept, notes = training_part(sorted(train + others))
    assert kept == sorted(train)
    assert len(notes) == 1 and f"{len(train)} of {len(train + others)} files, not " in notes[0]


@pytest.mark.parametrize(
    "paths",
    [
        ["train/1.png"],
        ["cats/1.png", "dogs/1.png"],
        ["test/1.png", "val/1.png"],
        ["cats/train.png"],
        [],
        ["toy_train/1.png", "toy_test_tube/1.png"],
        ["steam_train/1.png", "steam_engine/1.png"],
    ],
)
def test_nothing_is_left_out_without_a_training_split(paths):
    assert training_part(paths) == (paths, ())


def test_the_start_line_says_which_split(tmp_path):
    data, classes, warned = read(write(tmp_path / "set", None, ["test/3.png", "train/1.png", "val/2.png"]))
    assert len(data) == 1 and classes is None and not warned
    assert describe(data).endswith("; only train read, 1 of 3 files, not test, val")


@pytest.mark.parametrize("form", ["{}", "{}_64x64", "DIV2K_{}_HR"])
def test_splits_without_a_training_split_are_no_classes(form):
    names = [form.format(split) for split in ("test", "val")]
    with pytest.warns(
        UserWarning, match=f"no labels from folders: .*, got {', '.join(names)}, which are splits of a set"
    ):
        labels, _, _ = by_folder("set", [f"{name}/1.png" for name in names])
    assert labels is None


def test_splits_among_other_folders_are_classes_with_a_warning():
    with pytest.warns(UserWarning, match="test, train are read as classes, because there are other folders too"):
        _, class_names, _ = by_folder("set", ["test/1.png", "train/1.png", "truck/1.png"])
    assert class_names == ("test", "train", "truck")


def test_classes_whose_names_look_alike():
    with pytest.warns(UserWarning, match="Cats, cats are classes that differ only in capitals or"):
        _, class_names, _ = by_folder("set", ["Cats/1.png", "cats/1.png", "dogs/1.png"])
    assert class_names == ("Cats", "cats", "dogs")
    composed, apart = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    with pytest.warns(UserWarning, match="are classes that differ only in capitals or in how accents are written"):
        by_folder("set", [f"{composed}/1.png", f"{apart}/1.png", "dogs/1.png"])


def test_the_start_line_names_the_folders(tmp_path):
    data, _, _ = read(write(tmp_path / "set", None, [f"class {i}/1.png" for i in range(7)]))
    first = ", ".join(f"class {i}" for i in range(5))
    assert describe(data).endswith(f"; folders are classes: {first} and 2 more")
