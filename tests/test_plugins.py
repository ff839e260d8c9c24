"""The parts that a plug-in adds are trained, drawn and gone on with like all else."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gan_engine
from gan_engine import evaluate, generate, plugins, train, translate, upscale
from gan_engine.data import DataConfig, DataError, load
from gan_engine.losses.adversarial import LOSSES
from gan_engine.system import checkpoint
from tests.plugin_files import EXAMPLE, TINY, alone, forget, plugin, refused  # noqa: F401


def weights(run):
    state = checkpoint.load(checkpoint.find(run))
    return {f"{net}.{k}": v for net in ("G", "D", "G_ema") for k, v in state[net].items()}


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
    assert "frozen     1 block of D, 2,056 parameters" in capsys.readouterr().out
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


def test_data_and_objectives_that_draw_from_python_and_numpy_follow_the_seed(capsys):
    code = EXAMPLE.read_text()
    code = code.replace("import sys\n", "import random\nimport sys\n\nimport numpy as np\n")
    code = code.replace(
        "generator=torch.Generator().manual_seed(0)) - 0.5",
        "generator=torch.Generator().manual_seed(random.getrandbits(30) + np.random.randint(2**30))) - 0.5",
    )
    code = code.replace('"G": self', '"drawn": torch.tensor(random.random() + np.random.rand()), "G": self')
    named, found = ["--plugin", plugin(code=code)], {}
    for run, seed in ("a", 3), ("b", 3), ("c", 4):
        random.seed(len(found))  # as a process begins: with other numbers each time
        np.random.seed(len(found))
        assert train.main([*TINY, *named, "--seed", str(seed), "--out", run, "--metrics-kimg", "0.032"]) == 0
        rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
        drawn = [row["loss/drawn"] for row in rows if "loss/drawn" in row]
        found[run] = checkpoint.load(checkpoint.find(run))["sampler"]["sha256"], drawn
    assert found["a"] == found["b"] and len(set(found["a"][1])) > 1
    assert found["a"][0] != found["c"][0] and found["a"][1][0] != found["c"][1][0]
    random.seed(9)
    assert train.main(["--resume", "a", "--kimg", "0.128", *named]) == 0
    assert evaluate.main(["a", "--num", "8", "--metrics", "fid", "--device", "cpu", *named]) == 0
    capsys.readouterr()


def test_a_new_process_takes_plugins():
    assert train.main([*TINY, "--plugin", str(EXAMPLE), "--out", "run"]) == 0
    command = [sys.executable, "-m", "gan_engine.generate", "run", "--out", "out", "--num", "1", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLE.parents[2])}
    drawn = subprocess.run([*command, "--plugin", str(EXAMPLE)], env=environment, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    with Image.open("out/000000.png") as picture:
        assert np.asarray(picture).shape == (16, 16)
