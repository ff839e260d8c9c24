"""Every generator in the files of other programs: the same images, batches of any size, sides where they may vary."""

import functools
import importlib.util
import json
import sys
import warnings
from pathlib import Path

import pytest
import torch

from gan_engine import export, models
from gan_engine.export import Options
from gan_engine.inference import program_files
from gan_engine.inference.drawing import Drawing
from gan_engine.inference.generator import load
from gan_engine.system import checkpoint
from tests.models.networks import RUNS, build

pytestmark = pytest.mark.filterwarnings("ignore")  # of PyTorch about its exporters

# Every kind of inputs: z, z with classes, z with truncation, sources of one size, and sources of many sizes.
KINDS = ("dcgan", "cgan", "stylegan2", "pix2pix", "cyclegan", "srgan")
PROGRAMS = ("stylegan2", "srgan")


def write_run(run_dir, name):
    G, _ = build(name)
    state = {"model": models.to_dict(G.config), "nimg": 1000, "G_ema": G.state_dict()}
    checkpoint.Keeper(run_dir, keep=1).save(1000, state)
    return run_dir


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    made = {}

    def find(name):
        if name not in made:
            made[name] = write_run(tmp_path_factory.mktemp("run"), name)
        return made[name]

    return find


@pytest.fixture(scope="module", autouse=True)
def recorded_once():
    """Record each program once: it takes seconds, and networks of one configuration have the same weights here.

    PyTorch's table of ONNX operators, which every export makes anew in a third of a second, is made once too.
    """
    record, made = program_files._program, {}

    def program(drawing):
        key = drawing.config, drawing.arguments
        if key not in made:
            made[key] = record(drawing)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program_files, "_program", program)
        if importlib.util.find_spec("onnxscript") is not None:
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


def run_onnx(path, drawing, inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == list(drawing.names)
    return torch.from_numpy(session.run(["img"], dict(zip(drawing.names, (x.numpy() for x in inputs), strict=True)))[0])


def run_program(path, drawing, inputs):
    return torch.export.load(path).module()(*inputs)


def run_script(path, drawing, inputs):
    return torch.jit.load(path)(*inputs)


def assert_same_images(read, path, run_dir, *arguments):
    drawing = Drawing(load(run_dir, "cpu"), *arguments)
    for num, taller in ((1, 0), (5, 3)):
        inputs = drawing.examples(num, taller=taller if drawing.any_sides else 0)
        wanted = drawing(*inputs)
        torch.testing.assert_close(read(path, drawing, inputs), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", RUNS)
def test_a_program_draws_the_same_images_in_any_number_by_operators_of_pytorch(name, run_of):
    drawing = Drawing(load(run_of(name), "cpu"))
    program = program_files._program(drawing)
    assert not [node for node in program.graph.nodes if "gan_engine" in str(node.target)]
    for num in (3, 60, 1):
        inputs = drawing.examples(num)
        torch.testing.assert_close(program.module()(*inputs), drawing(*inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_onnx_draws_the_same_images(name, run_of, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra export brings onnxruntime")
    lines = export.export(Options(run_of(name), tmp_path / "G.onnx"))
    assert lines[0] == str(tmp_path / "G.onnx") and "img [N, " in lines[1]
    assert_same_images(run_onnx, tmp_path / "G.onnx", run_of(name))


@pytest.mark.parametrize(
    ("ending", "read", "name"),
    [*((".pt2", run_program, name) for name in PROGRAMS), *((".pt", run_script, name) for name in KINDS)],
)
def test_pytorchs_own_files_draw_the_same_images(ending, read, name, run_of, tmp_path):
    out = tmp_path / f"G{ending}"
    export.export(Options(run_of(name), out))
    assert_same_images(read, out, run_of(name))


def test_a_drawing_is_the_network(run_of):
    """Without truncation, which is an input of its own."""
    for name in KINDS:
        trained = load(run_of(name), "cpu")
        drawing = Drawing(trained)
        inputs = drawing.examples(3)
        if drawing.styles:
            inputs = (*inputs[:-1], torch.tensor(1.0))
        torch.testing.assert_close(drawing(*inputs), trained(*inputs[: len(inputs) - drawing.styles]))
        if drawing.styles:
            truncated = drawing(*inputs[:-1], torch.tensor(0.5))
            torch.testing.assert_close(truncated, trained(*inputs[:-1], truncation=0.5))
            assert not torch.allclose(truncated, trained(*inputs[:-1]))


def test_each_direction_is_a_file_of_its_own(run_of, tmp_path):
    run_dir = run_of("cyclegan")
    export.export(Options(run_dir, tmp_path / "G.pt", direction="B2A"))
    assert_same_images(run_script, tmp_path / "G.pt", run_dir, "B2A")
    with pytest.raises(AssertionError):
        assert_same_images(run_script, tmp_path / "G.pt", run_dir, "A2B")
    with pytest.raises(ValueError, match="direction: want A2B for dcgan, which goes one way only, got B2A"):
        export.export(Options(run_of("dcgan"), tmp_path / "H.pt", direction="B2A"))
    assert not (tmp_path / "H.pt").exists()


def test_the_file_says_what_it_is(run_of, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra export brings onnx")
    pytest.importorskip("onnxruntime", reason="the extra export brings onnxruntime")
    export.export(Options(run_of("cgan"), tmp_path / "G.onnx", opset=20))
    written = onnx.load(tmp_path / "G.onnx")
    about = {entry.key: entry.value for entry in written.metadata_props}
    assert about["family"] == "cgan" and about["range"] == "-1 to 1"
    assert json.loads(about["config"]) == models.to_dict(RUNS["cgan"].model)
    assert [entry.version for entry in written.opset_import if entry.domain == ""] == [20]
    extra = {"family": ""}
    export.export(Options(run_of("cgan"), tmp_path / "G.pt"))
    torch.jit.load(tmp_path / "G.pt", _extra_files=extra)
    assert extra["family"] == b"cgan"


def test_a_file_with_other_images_is_not_written(run_of, tmp_path, monkeypatch):
    out = tmp_path / "G.pt"
    out.write_bytes(b"before")
    monkeypatch.setitem(program_files._WRITE, ".pt", lambda drawing, *_: lambda inputs: drawing(*inputs) + 1e-3)
    with pytest.raises(ValueError, match=r"G\.pt: not written: its images differ from PyTorch's by 1\..e-03 of"):
        export.export(Options(run_of("dcgan"), out, overwrite=True))
    monkeypatch.setitem(program_files._WRITE, ".pt", lambda drawing, *_: lambda inputs: drawing(*inputs) * float("nan"))
    with pytest.raises(ValueError, match="not written"):
        export.export(Options(run_of("dcgan"), out, overwrite=True))
    monkeypatch.setitem(
        program_files._WRITE,
        ".pt",
        lambda drawing, *_: lambda inputs: drawing(*inputs) * (1 if len(inputs[0]) == 1 else float("nan")),
    )
    with pytest.raises(ValueError, match="not written: its images differ from PyTorch's by nan"):
        export.export(Options(run_of("dcgan"), out, overwrite=True))
    assert out.read_bytes() == b"before" and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "G.pth"}, r"out: want a name ending in \.onnx, \.pt2 or \.pt, got G\.pth"),
        ({"opset": 9}, "opset: want 18 to 23, got 9"),
        ({"opset": 18, "out": "G.pt2"}, r"opset: want a name ending in \.onnx beside it, got G\.pt2"),
        ({"opset": 18, "out": "G.pt"}, r"opset: want a name ending in \.onnx beside it, got G\.pt,"),
        ({"direction": "C"}, "direction: want .*A2B.*B2A.*, got 'C'"),
    ],
)
def test_wrong_options(options, message, tmp_path):
    given = {"checkpoint": tmp_path, "out": Path(options.pop("out", "G.pt"))} | options
    with pytest.raises(ValueError, match=message):
        Options(**given)


def test_what_is_missing_is_said_first(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(ValueError, match=r"\.onnx needs onnxscript: pip install 'gan-engine\[export\]'"):
        export.export(Options(tmp_path / "no run", tmp_path / "G.onnx"))


def test_an_existing_file_stays(run_of, tmp_path):
    (tmp_path / "G.pt").write_bytes(b"before")
    with pytest.raises(FileExistsError, match="exists; --overwrite replaces it"):
        export.export(Options(run_of("dcgan"), tmp_path / "G.pt"))
    assert (tmp_path / "G.pt").read_bytes() == b"before"


def test_the_folder_of_the_file_is_made_when_the_generator_was_read(run_of, tmp_path, capsys):
    out = tmp_path / "no/such/G.pt2"
    assert export.main([str(tmp_path / "missing.pt"), str(out)]) == 2
    assert "missing.pt: no such checkpoint" in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert export.main([str(run_of("dcgan")), str(out)]) == 0 and out.is_file()
    assert export.main([str(run_of("dcgan")), str(out / "G.pt2")]) == 2
    assert capsys.readouterr().err == f"error: {out} cannot be written: want a directory, got a file\n"


def test_the_command_prints_the_inputs(run_of, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["export"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert export.main([str(run_of("srgan")), str(tmp_path / "G.pt2")]) == 0
    out, inputs, same = capsys.readouterr().out.splitlines()
    C, scale = RUNS["srgan"].model.channels, RUNS["srgan"].model.scale
    assert out == str(tmp_path / "G.pt2")
    assert inputs == f"source [N, {C}, H, W] -> img [N, {C}, {scale} H, {scale} W], float32; N is any number"
    assert same.startswith("its images are PyTorch's up to ")


@pytest.mark.parametrize("ending", [".onnx", ".pt2", ".pt"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(run_of, tmp_path, capsys, full_disk, ending):
    if ending == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    run, out = run_of("dcgan"), tmp_path / f"G{ending}"
    full_disk(1000)
    assert export.main([str(run), str(out)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {out}: not written: File too large; needs about ") and shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_keeps_no_temporary_name(run_of, tmp_path):
    for ending in (".pt2", ".pt"):
        assert export.main([str(run_of("dcgan")), str(tmp_path / f"G{ending}")]) == 0
        assert b".gan_engine-" not in (tmp_path / f"G{ending}").read_bytes()
