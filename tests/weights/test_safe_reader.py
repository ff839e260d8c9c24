"""Files of other programs are read without running anything in them, and refused by name if they name anything else."""

import builtins
import io
import os
import pickle
import sys
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_engine.system.checkpoint import CheckpointError
from gan_engine.weights import formats, safe_reader, stylegan2_ada
from gan_engine.weights.safe_reader import Record
from tests.weights.pickles import BOMBS


def dump(value, path, protocol=4):
    Path(path).write_bytes(pickle.dumps(value, protocol=protocol))


def legacy(value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


WRITERS = {
    "pickle": dump,
    "pickle of protocol 2": lambda value, path: dump(value, path, 2),
    "pickle of protocol 0": lambda value, path: dump(value, path, 0),
    "torch.save": torch.save,
    "old torch.save": legacy,
}
PLACES = {
    "alone": lambda bomb: bomb,
    "in a dict": lambda bomb: {"G": {"x": [1, (2, bomb)]}},
    "in the state of an object": lambda bomb: Holder({"_buffers": OrderedDict(x=bomb)}),
}


class Holder(torch.nn.Module):
    def __init__(self, state):
        super().__init__()
        self.__dict__.update(state)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    yield
    assert not Path("ran").exists() and "antigravity" not in sys.modules


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("place", list(PLACES)[:2])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_call_is_refused_by_its_name_and_does_not_happen(write, place, bomb):
    value, name = BOMBS[bomb]
    write(PLACES[place](value), "evil")
    with pytest.raises(CheckpointError, match=rf"evil: want numbers and text only, got (\w+\.)?{name}; nothing was"):
        safe_reader.read("evil")


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_call_in_the_state_of_a_persistent_object_is_refused(persistence, bomb):
    value, name = BOMBS[bomb]
    dump({"G_ema": persistence("Generator", {"_buffers": OrderedDict(x=value)})}, "evil")
    with pytest.raises(CheckpointError, match=rf"got (\w+\.)?{name}; nothing was read"):
        safe_reader.read("evil")


def test_the_refusal_names_all_and_comes_before_anything_is_made(monkeypatch):
    made = []
    monkeypatch.setitem(safe_reader._FUNCTIONS, "torch.storage._load_from_bytes", made.append)
    dump([torch.ones(3), BOMBS["system"][0], BOMBS["eval"][0]], "evil")
    with pytest.raises(CheckpointError, match=rf"got {os.system.__module__}\.system, builtins\.eval; nothing"):
        safe_reader.read("evil")
    assert not made


def test_a_pickle_that_breaks_off_is_refused_by_what_it_named():
    Path("evil").write_bytes(b"\x80\x04cos\nsystem\nX\xff\xff")
    with pytest.raises(CheckpointError, match=r"got os\.system"):
        safe_reader.read("evil")


def attributes():
    return {name: dict(vars(each)) for name, each in vars(safe_reader).items() if hasattr(each, "__dict__")}


@pytest.mark.parametrize(
    "body",
    [
        b"ctorch._utils\n_rebuild_parameter\n(N}X\x0c\x00\x00\x00__defaults__K\x01stb.",  # sets defaults of a function
        b"ctorch._utils\n_rebuild_parameter\n}X\x01\x00\x00\x00aK\x01sb.",
        b"cdnnlib.util\nEasyDict\n(N}X\x01\x00\x00\x00aK\x01stb.",  # sets an attribute of a class
        b"ctorch.nn.modules.linear\nLinear\n(N}X\x01\x00\x00\x00aK\x01stb.",
        b"\x8c\x01a\x8c\x02id\x93.",
    ],
)
def test_a_pickle_changes_no_function_and_no_class(body):
    before = attributes()
    defaults = safe_reader._parameter.__defaults__
    Path("evil").write_bytes(b"\x80\x04" + body)
    with pytest.raises(CheckpointError):
        safe_reader.read("evil")
    with pytest.raises((pickle.UnpicklingError, TypeError)):  # behind the walk that makes nothing
        safe_reader._Reader(io.BytesIO(b"\x80\x04" + body)).load()
    assert safe_reader._parameter.__defaults__ == defaults
    assert before == attributes()


@pytest.mark.parametrize("name", ["_buffers.update", "__init__", "os.system"])
def test_a_dotted_name_below_a_recorded_module_is_only_a_record(name):
    text = name.encode()
    Path("odd").write_bytes(b"\x80\x04\x8c\x08training\x8c" + bytes([len(text)]) + text + b"\x93).")
    with pytest.raises(CheckpointError):  # ')' leaves a tuple behind the name: not one object
        Path("odd").write_bytes(b"\x80\x04\x8c\x08training\x8c" + bytes([len(text)]) + text + b"\x93)R}bQ.")
        safe_reader.read("odd")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numbers_of_every_kind_are_read_from_pickles(protocol):
    value = {
        "text": ["a", b"b", 1, 2.5, None, True, (3, {4})],
        "tensor": torch.arange(12.0).reshape(3, 4)[1:, ::2],
        "parameter": torch.nn.Parameter(torch.ones(2, dtype=torch.float64)),
        "half": torch.ones(3, dtype=torch.float16),
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "transposed": np.arange(6, dtype=">i4").reshape(2, 3).T,
        "scalar": np.float64(0.25),
        "dtype": torch.float32,
        "ordered": OrderedDict(b=1, a=2),
    }
    dump(value, "good", protocol)
    found = safe_reader.read("good")
    assert found["text"] == value["text"] and found["scalar"] == 0.25 and list(found["ordered"]) == ["b", "a"]
    for name in ("tensor", "parameter", "half"):
        assert torch.equal(found[name], value[name]) and found[name].dtype == value[name].dtype
    for name in ("array", "transposed"):
        np.testing.assert_array_equal(found[name], value[name])


def test_networks_are_records_of_their_state(persistence):
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LeakyReLU())
    state = {"_parameters": OrderedDict(weight=torch.nn.Parameter(torch.ones(2))), "_modules": OrderedDict(inner=net)}
    dump({"G_ema": persistence("Generator", state)}, "good")
    G = safe_reader.read("good")["G_ema"]
    assert (
        isinstance(G, Record) and G.name == "Generator" and torch.equal(G.state["_parameters"]["weight"], torch.ones(2))
    )
    linear = G.state["_modules"]["inner"].state["_modules"]["0"]
    assert linear.name == "torch.nn.modules.linear.Linear"
    assert torch.equal(linear.state["_parameters"]["weight"], net[0].weight)


@pytest.mark.parametrize("write", [torch.save, legacy], ids=["torch.save", "old torch.save"])
def test_files_of_torch_are_read_with_the_flags_of_their_training(write):
    value = {"g_ema": torch.nn.Linear(2, 3).state_dict(), "args": Namespace(size=256)}
    write(value, "good.pt")
    found = safe_reader.read("good.pt")
    assert torch.equal(found["g_ema"]["weight"], value["g_ema"]["weight"]) and found["args"].size == 256


@pytest.mark.parametrize(
    ("value", "want"),
    [(np.array([builtins.print], dtype=object), "builtins.print"), (np.array(["a"]), "arrays of numbers, got dtype")],
)
def test_arrays_of_other_things_are_refused(value, want):
    dump(value, "odd")
    with pytest.raises(CheckpointError, match=want):
        safe_reader.read("odd")


def test_a_tensor_larger_than_its_numbers_takes_no_memory():
    x = torch.ones(1).expand(10)
    dump(x, "odd")
    with pytest.raises(CheckpointError, match=r"want a tensor of at most 1 numbers, got \[10\]"):
        safe_reader.read("odd")


@pytest.mark.parametrize("write", [torch.save, legacy], ids=["torch.save", "old torch.save"])
def test_a_tensor_of_torch_larger_than_its_numbers_is_refused(write):
    write({"x": torch.ones(1).expand(10)}, "odd")
    with pytest.raises(CheckpointError, match=r"want a tensor of at most 1 numbers, got \[10\]"):
        safe_reader.read("odd")
    write({"x": torch.empty(10, device="meta")}, "odd")
    with pytest.raises(CheckpointError, match=r"want dense tensors, got torch.strided \[10\] on meta"):
        safe_reader.read("odd")


@pytest.mark.parametrize("command", [b"r" + (1 << 27).to_bytes(4, "little"), b"p134217728\n"])
def test_the_number_of_an_object_makes_no_large_table(command):
    Path("odd").write_bytes(b"\x80\x02}" + command + b".")
    with pytest.raises(CheckpointError, match="want an object with a number of at most 2, got 134217728"):
        safe_reader.read("odd")


def compressed(path, out):
    """The zip with one more file, of many zeros, in few bytes"""
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as small:
        for entry in plain.infolist():
            small.writestr(entry.filename, plain.read(entry))
        small.writestr("archive/data/more", bytes(1 << 20))


def test_a_compressed_zip_is_refused():
    torch.save({"x": torch.ones(3)}, "good")
    compressed("good", "odd")
    with pytest.raises(CheckpointError, match=r"want a zip that is not compressed, got 10\d{5} bytes in one of \d{4}$"):
        safe_reader.read("odd")


def test_a_tuple_that_a_pickle_names_twice_holds_arrays_both_times():
    pair = (np.arange(3.0), "a")
    dump([pair, pair], "good")
    first, second = safe_reader.read("good")
    assert first is second and isinstance(first[0], np.ndarray)


def circle():
    tree = {}
    tree["a"] = [tree]
    return tree


def doubled():
    tree = ["a"]
    for _ in range(60):
        tree = [tree, tree]
    return {"b": tree}


@pytest.mark.parametrize("tree", [circle, doubled])
@pytest.mark.parametrize("write", [dump, torch.save])
def test_a_file_of_unknown_networks_that_holds_itself_is_refused_in_time(write, tree):
    write(tree(), "odd.pt")
    with pytest.raises(ValueError, match=r"got a dict with [ab]"):
        formats.read(Path("odd.pt"))


def test_a_network_that_holds_itself_has_each_tensor_once(persistence):
    inner = persistence("Layer", {"_parameters": {"w": torch.ones(2)}, "_modules": {}})
    for _ in range(60):
        inner = persistence("Block", {"_parameters": [1], "_modules": {"a": inner, "b": inner}})
    dump({"G_ema": inner}, "odd")
    record = safe_reader.read("odd")["G_ema"]
    record.state["_modules"]["c"] = record
    assert [name.lstrip("a.") for name, _ in stylegan2_ada.tensors(record)] == ["w"]


@pytest.mark.parametrize("data", [b"", b"version https://git-lfs", b"PK\x03\x04", b"\x80\x04", b"PK" + b"0" * 99])
def test_other_bytes_are_refused_with_their_beginning(data):
    Path("odd").write_bytes(data)
    with pytest.raises(CheckpointError, match=f"odd: want a pickle or a file of torch.save, got {len(data)} bytes"):
        safe_reader.read("odd")


def test_what_is_not_there_is_said():
    with pytest.raises(CheckpointError, match="nowhere: cannot be read: No such file"):
        safe_reader.read("nowhere")
