"""What does not fit in a plug-in is refused in one sentence, before a run begins."""

import re
from pathlib import Path

import pytest

from gan_engine import generate, models, plugins, presets, train
from gan_engine.losses.adversarial import LOSSES, Adversarial
from gan_engine.plugins import PluginError
from gan_engine.system import checkpoint
from tests.plugin_files import EXAMPLE, TINY, alone, plugin, refused  # noqa: F401


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


def test_classes_for_a_family_without_are_refused(capsys):
    err = refused(train.main, [*TINY, "--plugin", str(EXAMPLE), "--conditional"], capsys)
    assert "conditional: want False for spots, whose networks read no classes, got True" in err
