"""The parts that a plug-in adds are trained, drawn and gone on with like all else; what does not fit is one
sentence."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gan_engine
from gan_engine import config, evaluate, generate, models, plugins, presets, train, translate, upscale
from gan_engine.data import DataConfig, DataError, load
from gan_engine.losses.adversarial import LOSSES, Adversarial
from gan_engine.plugins import PluginError
from gan_engine.system import checkpoint

EXAMPLE = Path(__file__).parents[1] / "docs/examples/plugin.py"
TINY = [
    *("spots", "--kimg", "0.064", "--hidden", "8", "--precision", "fp32", "--device", "cpu"),
    *("--no-tensorboard", "--no-tune-malloc", "--seed", "3"),
]
LOSS = """
from gan_engine import plugins
from gan_engine.losses.adversarial import Adversarial
plugins.register_loss({name!r}, Adversarial(lambda fake, real: {g}, lambda fake, real: {d}, "nowhere"))
"""


def forget():
    """Like a new process, which has imported no plug-in."""
    for table, old in zip(plugins.TABLES, AT_FIRST, strict=True):
        table.clear()
        table.update(old)
    plugins._loaded.clear()
    config.declare()


AT_FIRST = [dict(table) for table in plugins.TABLES]


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    forget()


def plugin(file="mine.py", code=None, **loss):
    loss = {"name": "mine", "g": "-fake", "d": "fake - real"} | loss
    Path(file).write_text(LOSS.format(**loss) if code is None else code)
    return file


def weights(run):
    state = checkpoint.load(checkpoint.find(run))
    return {f"{net}.{k}": v for net in ("G", "D", "G_ema") for k, v in state[net].items()}


def refused(main, argv, capsys):
    """What is said of a wrong call."""
    capsys.readouterr()
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and err.startswith("error: "), err
    return err


# The example


def test_the_example_trains_draws_and_goes_on(capsys):
    named = ["--plugin", str(EXAMPLE)]
    assert train.main([*TINY, *named, "--loss", "pearson", "--out", "whole"]) == 0
    out = capsys.readouterr().out
    assert f"plug-in    {EXAMPLE}: family spots, objective spots, loss pearson, data spots" in out
    assert f"generate whole --out=whole/generated.png --plugin={EXAMPLE}" in out
    run = json.loads(Path("whole/run.json").read_text())
    assert run["config"]["plugin"] == [str(EXAMPLE)] and "--plugin" in run["starts"][0]["arguments"]
    assert run["config"]["outside"] == ["family spots", "objective spots", "loss pearson", "data spots"]
    rows = [json.loads(line) for line in Path("whole/metrics.jsonl").read_text().splitlines()]
    assert {"loss/D", "loss/G", "loss/dark"} <= rows[-1].keys()

    half = [*TINY, *named, "--loss", "pearson", "--out", "half", "--checkpoint-kimg", "0.032", "--keep", "9"]
    assert train.main(half) == 0
    forget()
    first = "half/checkpoints/kimg-000000.032.pt"
    assert train.main([*named, "--resume", first, "--out", "other"]) == 0
    ours, want = weights("other"), weights("whole")
    assert ours.keys() == want.keys() and all(torch.equal(ours[name], want[name]) for name in want)

    forget()
    assert generate.main(["other", *named, "--num", "4", "--out", "grid.png", "--device", "cpu"]) == 0
    with Image.open("grid.png") as picture:
        assert picture.size == (2 * 66 + 2, 2 * 66 + 2)
    assert gan_engine.load("other", "cpu").sample(2).shape == (2, 1, 16, 16)


def test_the_example_begins_with_weights_and_freezes(capsys):
    named = ["--plugin", str(EXAMPLE)]
    assert train.main([*TINY, *named, "--out", "old"]) == 0
    assert train.main([*TINY, *named, "--out", "new", "--init-from", "old", "--freeze-d", "1"]) == 0
    assert "frozen     1 blocks of D, 2,056 parameters" in capsys.readouterr().out
    old, new = weights("old"), weights("new")
    assert torch.equal(old["D.first.0.weight"], new["D.first.0.weight"])
    assert not torch.equal(old["D.logit.weight"], new["D.logit.weight"])


@pytest.mark.parametrize(
    ("main", "argv"),
    [
        (generate.main, ["run", "--out", "a.png"]),
        (evaluate.main, ["run"]),
        (translate.main, ["in.png", "out.png", "--checkpoint", "run"]),
        (upscale.main, ["in.png", "out.png", "--checkpoint", "run"]),
        (train.main, ["--resume", "run"]),
        (train.main, ["vanilla", "--data", "toy", "--init-from", "run"]),
    ],
    ids=["generate", "evaluate", "translate", "upscale", "resume", "init-from"],
)
def test_a_checkpoint_names_its_plugin_and_imports_nothing(main, argv, capsys):
    Path("run.py").write_text(EXAMPLE.read_text() + "\nfrom pathlib import Path\nPath('imported').touch()\n")
    Image.new("L", (16, 16)).save("in.png")
    assert train.main([*TINY, "--plugin", "run.py", "--out", "run"]) == 0
    forget()
    Path("imported").unlink()
    err = refused(main, argv, capsys)
    parts = "family spots, objective spots, data spots"
    assert f"its run has parts of plug-ins: {parts}; name the plug-ins again by --plugin run.py" in err
    assert not Path("imported").exists()


def test_a_plugin_may_have_moved_and_is_known_by_what_it_has(capsys):
    Path("here.py").write_text(EXAMPLE.read_text())
    assert train.main([*TINY, "--plugin", "here.py", "--out", "run"]) == 0
    forget()
    Path("elsewhere").mkdir()
    Path("here.py").rename("elsewhere/it is here.py")
    assert generate.main(["run", "--plugin", "elsewhere/it is here.py", "--out", "a.png", "--device", "cpu"]) == 0
    assert train.main(["--resume", "run", "--kimg", "0.096", "--plugin=elsewhere/it is here.py"]) == 0
    assert "--plugin='elsewhere/it is here.py'" in capsys.readouterr().out
    forget()
    assert "name the plug-ins again by --plugin 'elsewhere/it is here.py'" in refused(generate.main, ["run"], capsys)


def test_a_family_may_declare_what_it_can_do(capsys):
    declaration = "from gan_engine.models import Family\n\nFAMILY = Family(penalties=False, augmentation=False)\n\n\n"
    name = plugin(code=EXAMPLE.read_text().replace("@dataclass(frozen=True)", f"{declaration}@dataclass(frozen=True)"))
    err = refused(train.main, [*TINY, "--plugin", name, "--r1-gamma", "1"], capsys)
    assert "r1_gamma: want 0 for spots, whose objective has none, got 1" in err
    err = refused(train.main, [*TINY, "--plugin", name, "--augment", "ada"], capsys)
    assert "augment: want none for spots, whose objective has none, got ada" in err


# What is there to choose


def test_presets_and_losses_of_plugins_are_choices(capsys):
    assert train.main(["--list", "--plugin", str(EXAMPLE)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("spots")]
    assert "spots" in line and "1x16x16" in line and "17 k" in line
    with pytest.raises(SystemExit, match="0"):
        train.main(["spots", "--plugin", str(EXAMPLE), "--help"])
    shown = capsys.readouterr().out
    assert ",pearson}" in shown and "Width of the hidden layers" in shown
    forget()
    assert "want one of garments" in refused(train.main, ["spots"], capsys)
    assert "invalid choice 'pearson'" in refused(train.main, ["dcgan", "--loss", "pearson"], capsys)


def test_a_loss_alone_trains_a_family_that_is_there(capsys):
    argv = ["vanilla", "--data", "toy", "--res", "8", "--hidden", "8", "--kimg", "0.064", "--no-tensorboard"]
    first, second = plugin("first.py"), plugin("second.py", name="other")
    assert train.main([*argv, "--plugin", first, "--plugin", second, "--loss", "mine", "--out", "run"]) == 0
    record = json.loads(Path("run/run.json").read_text())["config"]
    assert record["plugin"] == ["first.py"] and record["outside"] == ["loss mine"]  # what the run has of them
    forget()
    assert "loss mine; name the plug-ins again by --plugin first.py" in refused(train.main, ["--resume", "run"], capsys)


def test_a_plugin_of_which_a_run_has_nothing_is_not_needed(capsys):
    argv = ["vanilla", "--data", "toy", "--res", "8", "--hidden", "8", "--kimg", "0.064", "--no-tensorboard"]
    assert train.main([*argv, "--plugin", plugin(), "--out", "run"]) == 0
    forget()
    assert generate.main(["run", "--out", "a.png", "--device", "cpu"]) == 0


def test_a_resumed_run_keeps_its_objective(capsys):
    argv = ["vanilla", "--data", "toy", "--res", "8", "--hidden", "8", "--kimg", "0.064", "--no-tensorboard"]
    assert train.main([*argv, "--out", "run"]) == 0
    code = """
from gan_engine import plugins
from gan_engine.losses.objective import GanObjective
class Mine(GanObjective):
    pass
plugins.register_objective("vanilla", Mine)
"""
    capsys.readouterr()
    assert train.main(["--resume", "run", "--kimg", "0.1", "--plugin", plugin(code=code)]) == 2
    assert "outside: the run has [], now ['objective vanilla']" in capsys.readouterr().err


def test_a_module_by_its_name(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    plugin("some_losses.py")
    plugins.load("some_losses", "some_losses")
    assert LOSSES["mine"].paper == "nowhere"
    del sys.modules["some_losses"]


def test_a_file_named_like_a_module_of_python_does_not_replace_it():
    plugins.load(plugin("random.py"))
    assert sys.modules["random"] is random and "mine" in LOSSES


def test_data_of_a_plugin_is_read_like_all_else():
    plugins.load(str(EXAMPLE))
    assert load(DataConfig("spots"), resolution=8, channels=3).images.shape == (1024, 3, 8, 8)
    assert load(DataConfig("spots"), resolution=8, channels=None).images.shape == (1024, 1, 8, 8)
    with pytest.raises(DataError, match=r"want toy, a folder with A and B, .*, got spots, which holds single images"):
        load(DataConfig("spots"), resolution=8, channels=3, kind="pairs")


# What does not fit


@pytest.mark.parametrize(
    ("name", "code", "want"),
    [
        ("nowhere.py", None, "plugin nowhere.py: want a Python file or a module, and there is no such file"),
        ("no_such_module", None, "plugin no_such_module: want a Python file, which ends in .py, or a module"),
        ("no.such.module", None, "plugin no.such.module: want a Python file, which ends in .py, or a module"),
        (
            "a.py",
            "import math\n1 / 0\n",
            r"plugin a.py: it failed when it was imported: ZeroDivisionError: .*a\.py:2\)",
        ),
        ("a.py", "def f(:\n", r"plugin a.py: it failed when it was imported: SyntaxError: invalid syntax \(.*line 1\)"),
        ("a.py", "raise ValueError('a\\nb')", r"it failed when it was imported: ValueError: a b \("),
        ("a.py", "import sys\nsys.exit('enough')", r"it failed when it was imported: SystemExit: enough \("),
        ("a.py", "import no_such_thing", r"ModuleNotFoundError: No module named 'no_such_thing' \(.*a\.py:1\)"),
        ("a.py", "", r"plugin a.py: it registers nothing; want a call of gan_engine\.plugins\.register_"),
        ("a.txt", "x = 1", r"plugin a.txt: want a Python file, which ends in \.py"),
        (".", None, "plugin .: want a Python file"),
    ],
)
def test_a_plugin_that_cannot_be_imported(name, code, want, capsys):
    if code is not None:
        plugin(name, code)
    before = [dict(table) for table in plugins.TABLES]
    with pytest.raises(PluginError, match=want):
        plugins.load(name)
    assert refused(train.main, [*TINY, "--plugin", name], capsys)
    assert [dict(table) for table in plugins.TABLES] == before


def test_a_plugin_that_fails_half_way_leaves_nothing(capsys):
    name = plugin(code=EXAMPLE.read_text() + "\nraise RuntimeError('late')\n")
    with pytest.raises(PluginError, match="RuntimeError: late"):
        plugins.load(name)
    assert "spots" not in presets.PRESETS and "spots" not in models.FAMILIES and "pearson" not in LOSSES
    assert "invalid choice 'pearson'" in refused(train.main, ["dcgan", "--loss", "pearson"], capsys)
    Path(name).write_text(EXAMPLE.read_text())
    plugins.load(name)
    assert "spots" in presets.PRESETS


def test_plugin_without_a_name_and_the_flag_alone(capsys):
    assert "plugin: want a Python file or a module, got nothing" in refused(train.main, [*TINY, "--plugin"], capsys)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"name": "hinge"}, "the loss hinge is there already, of gan_engine; want another name"),
        (
            {"d": "(fake - real).mean()"},
            r"the discriminator of the loss mine, on logits \[3\]: want \[3\], .*, got \[\]",
        ),
        ({"g": "fake[:, None]"}, r"the generator of the loss mine, on logits \[3\]: want \[3\], .*, got \[3, 1\]"),
        ({"g": "3.0"}, r"want \[3\], a value for each logit, got float"),
        ({"g": "-fake.detach()"}, "want finite values with a gradient, got tensor"),
        ({"d": "fake / 0"}, "want finite values with a gradient, got tensor"),
        (
            {"g": "fake - real"},
            r"the generator of the loss mine.*: TypeError: .*\(real is None, unless generator_reads_real\)",
        ),
        (
            {"code": "from gan_engine import plugins\nplugins.register_loss('mine', abs)"},
            "want an Adversarial, got builtin",
        ),
    ],
)
def test_a_loss_that_does_not_fit(change, want, capsys):
    name = plugin(**change)
    with pytest.raises(PluginError, match=f"plugin mine.py: .*{want}"):
        plugins.load(name)
    assert refused(train.main, ["vanilla", "--data", "toy", "--plugin", name], capsys)
    assert not Path("runs").exists()


def test_a_loss_for_patches_is_tried_on_patches(capsys):
    name = plugin(d="(fake - real).reshape(len(fake), -1).mean(1)")
    plugins.load(name)  # right for logits [N]
    argv = ["pix2pix", "--data", "toy", "--res", "32", "--width", "4", "--d-width", "4", "--plugin", name]
    assert "on logits [3, 2]: want [3, 2]" in refused(train.main, [*argv, "--loss", "mine"], capsys)


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        ("class Discriminator(", "class Judge(", "a family: want Discriminator in .*, and there is none"),
        (
            "], spots)",
            "], __import__('gan_engine.presets').presets.dcgan)",
            "the family dcgan is there already, of gan",
        ),
        ("@dataclass(frozen=True)", "@dataclass", "a family: want a frozen dataclass as its Config, got <class"),
        ('preset="spots"', 'preset="dots"', "the preset spots: want preset='spots' in its Config, got 'dots'"),
        (
            '    """Bright spots on black, 16x16: the example of a plug-in."""\n',
            "",
            "the preset spots: want a docstring",
        ),
        ("z_dim: int = 8", "noise: int = 8", "the preset spots: want z_dim in the Config of its family"),
        (
            "    c_dim = 0  # no classes",
            "    c_dim = 0\n    data_kind = 'pairs'",
            "want a family of image, patches, voxels, points, which have no source, got data_kind 'pairs'",
        ),
        (
            "    c_dim = 0  # no classes",
            "    c_dim = 0\n    data_kind = 'sounds'",
            "want a family of image, .*, got data_kind 'sounds'",
        ),
        (
            "@dataclass(frozen=True)",
            "FAMILY = {}\n\n\n@dataclass(frozen=True)",
            "want a gan_engine.models.Family as its FAMILY, got {}",
        ),
        (
            "@dataclass(frozen=True)",
            "from gan_engine.models import Family\n\nFAMILY = Family(command='translate')\n\n\n@dataclass(frozen=True)",
            "want command='generate' in its FAMILY, which gives G noise, got 'translate'",
        ),
        (
            "@dataclass(frozen=True)",
            "from gan_engine.models import Family\n\nFAMILY = Family(objective='chess')\n\n\n@dataclass(frozen=True)",
            "want an objective in its FAMILY, one of game, pyramid, .*, got 'chess'",
        ),
        (
            "@dataclass(frozen=True)",
            "from gan_engine.models import Family\n\nFAMILY = Family(objective='paired')\n\n\n@dataclass(frozen=True)",
            "the objective spots is there already, of gan_engine",
        ),
        (
            'register_objective("spots"',
            'register_objective("lapgan"',
            "the objective lapgan is there already, of gan_engine",
        ),
        (
            'register_objective("spots"',
            'register_objective("dots"',
            "an objective: want a family, one of vanilla, dcgan, .*, spots, got dots",
        ),
        (
            "SpotsObjective)\n\n\ndef",
            "int)\n\n\ndef",
            "the objective of spots: want a subclass of GanObjective, got <class 'int'>",
        ),
        ('register_data("spots", load_spots)', 'register_data("toy", load_spots)', "the data toy is there already"),
        ('("spots", load_spots)', '("spots", load_spots, kind="sounds")', "the data spots: want a kind, one of image"),
    ],
)
def test_a_family_that_does_not_fit(old, new, want):
    code = EXAMPLE.read_text()
    assert old in code
    with pytest.raises(PluginError, match=want):
        plugins.load(plugin(code=code.replace(old, new)))
    assert "spots" not in models.FAMILIES


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        (
            "        self.config = config\n        self.shape",
            "        self.shape",
            "the Generator of spots: want the Config",
        ),
        (".unflatten(1, self.shape)", "", r"the Generator of spots: want \[2, 1, 16, 16\] of \[2, 8\], got \[2, 256\]"),
        (".squeeze(1)", "", r"the Discriminator of spots: want \[2\] of \[2, 1, 16, 16\], got \[2, 1\]"),
        (
            "self.first(img.flatten(1))",
            "self.first(img)",
            r"the Discriminator of spots failed on \[2, 1, 16, 16\]: RuntimeError",
        ),
        ('return ImageSet("spots", ', "return (", "want an ImageSet from spots, of a plug-in, got Tensor"),
        (
            "resolution)\n    centre",
            "8)\n    centre",
            r"want images \[1024, 1, 16, 16\] from spots, of a plug-in, got \[1024, 1, 8, 8\]",
        ),
        (
            "    x = torch.linspace",
            "    y = torch.linspace",
            "data: spots, of a plug-in, failed: UnboundLocalError|NameError",
        ),
    ],
)
def test_networks_and_data_of_other_shapes_are_refused_before_the_training(old, new, want, capsys):
    code = EXAMPLE.read_text()
    assert old in code
    name = plugin(code=code.replace(old, new))
    argv = [flag for flag in TINY if flag not in ("--hidden", "8")]
    err = refused(train.main, [*argv, "--plugin", name, "--out", "run"], capsys)
    assert re.search(want, err), err
    assert not Path("run").exists()


def test_a_registration_without_a_plugin_is_of_its_module():
    plugins.register_loss("mine", Adversarial(lambda fake, real: -fake, lambda fake, real: fake - real, "nowhere"))
    assert plugins.REGISTERED["loss mine"] == __name__
    with pytest.raises(PluginError, match=f"the loss mine is there already, of {__name__}; want another name"):
        plugins.register_loss("mine", LOSSES["hinge"])


def test_what_a_file_says_of_plugins_is_text(capsys):
    """A stranger's checkpoint may name anything; it is shown so that it stays on its line, and in its word."""
    state = {"model": {"family": "x"}, "G_ema": {}, "config": {"outside": ["family x\n"], "plugin": ["a'b; rm x\n"]}}
    checkpoint.save("a.pt", state)
    err = refused(generate.main, ["a.pt"], capsys)
    assert r"family x\n; name the plug-ins again by --plugin $'a\x27b; rm x\x0a'" in err


def test_a_new_process_takes_plugins():
    assert train.main([*TINY, "--plugin", str(EXAMPLE), "--out", "run"]) == 0
    command = [sys.executable, "-m", "gan_engine.generate", "run", "--out", "out", "--num", "1", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLE.parents[2])}
    drawn = subprocess.run([*command, "--plugin", str(EXAMPLE)], env=environment, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    with Image.open("out/000000.png") as picture:
        assert np.asarray(picture).shape == (16, 16)


def test_classes_for_a_family_without_are_refused(capsys):
    err = refused(train.main, [*TINY, "--plugin", str(EXAMPLE), "--conditional"], capsys)
    assert "conditional: want False for spots, whose networks read no classes, got True" in err
