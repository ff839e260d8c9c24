"""The examples of `gan_engine.adversarial` have the losses of the trainer, bit for bit, in each framework."""

import ast
import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from torch import Tensor

from gan_engine.training.trainer import Trainer
from tests.training.runs import CPU, MLP, toy

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES, PAGE = DOCS / "examples", DOCS / "adversarial.md"
CONFIG = dataclasses.replace(MLP, loss="relativistic", r1_gamma=1.0, penalty_interval=4, lr=2e-4, betas=(0.5, 0.99))
STEPS = 50


@pytest.fixture
def example(monkeypatch) -> Callable:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for name in [name for name in sys.modules if name.startswith("adversarial_")]:
        del sys.modules[name]


def new_trainer(folder: Path) -> Trainer:
    return Trainer(CONFIG, toy(16, 1, "image"), device=CPU, run_dir=folder)


def parts_of_example(folder: Path) -> tuple:
    """G, D, real images and noise of a trainer that has taken no step."""
    trainer = new_trainer(folder)
    images: Iterator[Tensor] = (img for img, *_ in iter(trainer.batches.images, None))
    return trainer.G, trainer.D, islice(images, STEPS), trainer.batches.noise


@pytest.fixture(scope="module")
def curve(tmp_path_factory) -> list[dict[str, float]]:
    """The losses of the trainer in each step."""
    trainer, found = new_trainer(tmp_path_factory.mktemp("run")), []
    for _ in range(STEPS):
        trainer.step()
        means = trainer.read_means()
        names = {"D": "loss/D", "G": "loss/G", "r1": "loss/r1", "logits/real": "logits/real"}
        found.append({name: means[mean] for name, mean in names.items() if mean in means})
    assert sum("r1" in step for step in found) == -(-STEPS // CONFIG.penalty_interval)
    return found


def assert_equal(got: list[dict[str, float]], want: list[dict[str, float]]) -> None:
    assert len(got) == STEPS
    for step, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        assert {name: ours[name] for name in theirs} == theirs, step
        assert ("r1" in ours) == ("r1" in theirs)


def test_the_page_runs_and_prints_the_parts_that_it_shows(capsys):
    page, names = PAGE.read_text(), {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.S | re.M):
        exec(block, names)
    printed = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines()]
    shown = [ast.literal_eval(line) for line in re.findall(r"^\{'D'.*\}$", page, re.M)]
    assert len(shown) == 4
    for ours, theirs in zip(printed, shown, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-3)


def skip_without(package: str) -> None:
    try:
        importlib.import_module(package)
    except (
        Exception
    ) as error:  # not installed; or a package of its own, such as a torchvision of another PyTorch, fails
        pytest.skip(f"{package} cannot be imported: {error}")


def test_the_plain_loop(example, tmp_path, curve):
    loop = example("adversarial_loop")
    assert_equal(list(loop.train(*parts_of_example(tmp_path))), curve)


@pytest.mark.parametrize("package", ["accelerate", "lightning"])
def test_a_missing_framework_is_told_with_what_installs_it(example, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        example(f"adversarial_{package}")
    assert str(ended.value).startswith(f"error: this example needs {package} (")
    assert str(ended.value).endswith(f"Install it: pip install -c constraints.txt {package}")


def test_accelerate(example, tmp_path, curve):
    skip_without("accelerate")
    train = example("adversarial_accelerate").train
    assert_equal(list(train(*parts_of_example(tmp_path), cpu=True)), curve)


def test_lightning(example, tmp_path, curve):
    skip_without("lightning")
    found: list[dict[str, float]] = []
    given = parts_of_example(tmp_path)
    example("adversarial_lightning").train(*given, lambda index, parts: found.append(parts), accelerator="cpu")
    assert_equal(found, curve)
