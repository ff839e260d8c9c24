"""`python -m gan_engine.info` tells the truth, fits the terminal, and survives whatever is missing."""

import os
import subprocess
import sys
import sysconfig
from types import SimpleNamespace

import pytest
import torch

from gan_engine import backends, info
from gan_engine.backends import Kernels
from gan_engine.ops import self_check
from gan_engine.ops.thresholds import TABLE
from gan_engine.system import native


def cells(op, device):
    """{backend: what the table says} of one row."""
    lines = [line.split() for line in info.table().replace("no (", "no(").splitlines()]
    row = next(line for line in lines if line[:2] == [op, device])
    return dict(zip(backends.ORDER, row[2:], strict=True))


def test_the_report_fits_and_names_versions_and_every_op():
    text = info.report()
    assert max(map(len, text.splitlines())) <= info.WIDTH
    assert f"torch {info._version('torch')}" in text
    for op in backends.ops():
        assert cells(op, "cpu")["reference"] in ("runs", "chosen")


def test_the_table_says_what_backends_say():
    x = torch.empty(1)
    text = "".join(info.table().split())
    for op in backends.ops():
        for backend, cell in cells(op, "cpu").items():
            reason = backends.refusal(op, backend, x)
            if not backends.has(op, backend):
                assert cell == "-"
            elif reason is None:
                assert cell == ("chosen" if backend == backends.choose(op, x) else "runs")
            else:
                assert cell.startswith("no(")
                assert reason.replace(" ", "") in text


def test_one_thread_is_in_the_singular(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert " 1 thread in PyTorch," in " ".join(info._hardware().split())


def test_kernels_on_one_thread_are_said(monkeypatch):
    module = SimpleNamespace(isa=lambda: "neon", isas=lambda: ["neon"], threads=lambda most: 1)
    monkeypatch.setattr(native, "WHY_NO_CPU", None)
    monkeypatch.setattr(native.cpu, "module", module)
    said = " ".join(info._native_core().split())
    assert "; runs neon on one thread, as it was built without OpenMP; convolutions" in said


@pytest.mark.parametrize(
    ("value", "isa"), [("avx2", "avx2"), ("default", "portable"), ("avx512", None), ("", None), (None, None)]
)
def test_what_holds_pytorch_to_a_set_holds_the_kernels_too(value, isa):
    used = []
    module = SimpleNamespace(isas=lambda: ["avx512", "avx2", "portable"], use_isa=used.append)
    native._hold(module, value)
    assert used == [isa] * (isa is not None)
    native._hold(SimpleNamespace(isas=lambda: ["avx512"]), value)  # which has no other


def test_a_set_that_is_held_is_said():
    isas = native.cpu.module.isas() if native.WHY_NO_CPU is None else []
    if "avx2" not in isas[1:]:
        pytest.skip(f"this machine runs {', '.join(isas) or 'no C++ kernels'}")
    code = "from gan_engine import info; print(info._native_core())"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "; runs avx2, as ATEN_CPU_CAPABILITY says (can run avx512, portable)" in " ".join(run.stdout.split())


def test_the_sets_that_were_built_are_said(monkeypatch):
    module = SimpleNamespace(isa=lambda: "avx512", isas=lambda: ["avx512"], threads=lambda most: 2)
    information = SimpleNamespace(BUILT={"_C": "a compiler"}, NOT_BUILT={}, ISAS=["avx512"])
    monkeypatch.setitem(sys.modules, "gan_engine._build_info", information)
    monkeypatch.setattr(native, "WHY_NO_CPU", None)
    monkeypatch.setattr(native.cpu, "module", module)
    assert "built with a compiler for avx512; runs avx512; convolutions" in " ".join(info._native_core().split())


def test_the_thresholds_are_said():
    text = "".join(info.thresholds().split())
    for threshold in TABLE.values():
        assert f"{threshold.op}:{threshold.instead},not{threshold.backend}:" in text
        assert threshold.sentence.replace(" ", "") in text


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["conv2d", "--shape=4,8,9,9", "--weight=8,8,3,3"], ["conv2d: pytorch", "not cpu: fewer than 32 channels"]),
        (["conv_transpose2d", "--shape=2,3,4,4", "--weight=3,5,4,4", "--option=stride=2"], ["conv_transpose2d: "]),
        (["bias_act", "--shape=4,5", "--option=act=lrelu", "--tensor=b=5"], ["lrelu of up to 524,288 float32"]),
        (["upsample_conv2d", "--shape=1,3,4,4", "--weight=3,3,3,3"], ["doubled_conv2d: reference", "256 pixels"]),
        (["upfirdn2d", "--shape=1,3,4,4", "--option=f=[1,3,3,1]", "--dtype=bf16", "--channels-last"], ["upfirdn2d: "]),
        (["minibatch_stddev", "--shape=4,3,4,4"], ["minibatch_stddev: reference"]),
    ],
    ids=lambda value: value[0],
)
def test_one_call_is_explained(arguments, lines, capsys):
    if native.WHY_NO_CPU is not None:
        pytest.skip(native.WHY_NO_CPU)
    assert not info.main(["--call", *arguments])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= info.WIDTH
    flat = " ".join(text.split())
    assert all(line in flat for line in lines), text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["conv2d"], "--call: want --shape, the shape of x"),
        (["conv2d", "--shape=1,2,3,3"], "missing 1 required positional argument: 'w'; --weight, --tensor and --option"),
        (["bias_act", "--shape=1,2", "--option=act=gelu"], "act must be one of linear"),
        (["bias_act", "--shape=1,x"], "want sides with commas between them, as 8,64,32,32, got '1,x'"),
        (["bias_act", "--shape=1,2", "--option=lrelu"], "want NAME=VALUE, got 'lrelu'"),
        (["bias_act", "--shape=1,2", "--device=cuda:99"], "device: want a GPU that PyTorch sees"),
        (["bias_act", "--check", "--device=tpu"], "device: want auto, cpu, cuda or cuda:N, got 'tpu'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_call_is_an_error_in_a_line(arguments, sentence, capsys):
    try:
        code = info.main(["--call", *arguments])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert sentence in capsys.readouterr().err


def test_a_missing_backend_has_its_reason_and_its_remedy(monkeypatch):
    reason = "gan_engine._C is not built (" + "a long reason " * 20 + ")"
    monkeypatch.setattr(native, "WHY_NO_CPU", reason)
    monkeypatch.setattr(native.cpu, "module", None)
    monkeypatch.setitem(backends.MISSING, "cpu", reason)
    monkeypatch.setitem(backends.MISSING, "triton", 'triton is not installed (pip install "gan-engine[gpu]")')
    monkeypatch.setattr(info, "_version", lambda name: "missing" if name == "triton" else "1.0")
    text = info.report()
    assert max(map(len, text.splitlines())) <= info.WIDTH
    assert cells("bias_act", "cpu")["reference"] == "chosen"
    assert "a long reason" in text
    assert "_C: a C++17 compiler" in text
    assert 'triton: pip install triton, or "gan-engine[gpu]"' in text


def test_a_module_for_another_python_is_named(tmp_path, monkeypatch):
    (tmp_path / "system").mkdir()
    monkeypatch.setattr(native, "__file__", str(tmp_path / "system/native.py"))
    monkeypatch.setattr(native, "NOT_BUILT", {})
    monkeypatch.setattr(native.importlib, "import_module", lambda name: exec(f"raise ModuleNotFoundError({name!r})"))
    own = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    (tmp_path / "_C.cpython-310-x86_64-linux-gnu.so").touch()
    want = f"gan_engine._C is not built: want {own} for this Python, got _C.cpython-310-x86_64-linux-gnu.so: install"
    assert native._load("_C")[1].startswith(want)
    assert "for this Python" not in native._load("_C_cuda")[1]
    (tmp_path / own).touch()  # something else stands against it
    assert "for this Python" not in native._load("_C")[1]


def test_a_backend_that_was_asked_for_and_refuses_is_no_crash(monkeypatch):
    refused = next((name for name in backends.ORDER if backends.refusal("bias_act", name, torch.empty(1))), None)
    if refused is None:
        pytest.skip("every backend runs here")
    monkeypatch.setenv("GAN_ENGINE_BACKEND", refused)
    with backends.use(refused):
        assert "chosen" not in cells("bias_act", "cpu").values()
        assert f"GAN_ENGINE_BACKEND={refused} asks for that backend" in info.report()


@pytest.mark.parametrize("module", ["torch", "gan_engine._build_info", "gan_engine.system.native", "gan_engine.ops"])
def test_a_part_that_cannot_be_imported_is_named(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    if module != "torch":
        package, _, name = module.rpartition(".")
        monkeypatch.delattr(sys.modules[package], name, raising=False)
    text = info.report()
    assert text.startswith("gan_engine ")
    assert module == "gan_engine._build_info" or (module in text and "cannot be imported" in text)


def test_a_triton_that_is_broken_leaves_the_rest_working(tmp_path):
    package = tmp_path / "triton"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('libfoo.so.1: no such file')")
    code = "import torch; from gan_engine import backends, ops; print(ops.bias_act(torch.ones(1)), backends.MISSING)"
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "triton is installed but cannot be imported: ImportError: libfoo.so.1: no such file" in run.stdout


def test_a_triton_that_is_too_old_is_refused(monkeypatch):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton, "__version__", "2.1.0")
    monkeypatch.setattr(backends, "INTERPRET", True)
    assert backends._why_no_triton() == "needs triton >= 3.6, and 2.1.0 is installed"


def test_the_check_says_what_it_has_checked_and_what_not(monkeypatch):
    wrong = Kernels("mix", "cpu", "cpu", None, torch.float32)
    monkeypatch.setattr(self_check, "check_all", lambda device: [(wrong, "is off"), (wrong._replace(op="a"), None)])
    monkeypatch.setitem(backends.MISSING, "cpu", None)
    monkeypatch.setitem(backends.MISSING, "cuda", "was not built")
    text, right = info.check()
    assert not right and "cpu on cpu: a; in float32" in text and "mix on cpu: is off" in text
    assert "nothing of them was checked" in text and "  cuda: was not built" in text

    monkeypatch.setattr(self_check, "check_all", lambda device: [])
    text, right = info.check()
    assert right and text.startswith("Backends that cannot run here, so that nothing of them was checked:")
