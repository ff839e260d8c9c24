"""The recipes of CONTRIBUTING work: each is done in a copy of the package, which is then used."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recipes import RECIPES, Edit

ROOT = Path(__file__).parents[2]


def apply(edit: Edit, root: Path) -> None:
    file = root / edit.path
    if edit.anchor is None:
        assert not file.exists(), f"{edit.path} is no new file"
        file.write_text(edit.text.lstrip("\n"))
        return
    lines = file.read_text().split("\n")
    at = [i for i, line in enumerate(lines) if line.startswith(edit.anchor)]
    assert len(at) == 1, f"{edit.path}: want one line that begins with {edit.anchor!r}, got {len(at)}"
    before = edit.text.endswith("\n\n")  # a function, in front of what the anchor begins
    lines.insert(at[0] + (not before), edit.text.strip("\n") + "\n\n" * before)
    file.unlink()  # a link to the file of the repository
    file.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A copy of the package in which every recipe is done."""
    root = tmp_path_factory.mktemp("recipes")
    leave_out = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(ROOT / "gan_engine", root / "gan_engine", copy_function=os.symlink, ignore=leave_out)
    (root / "gan_engine" / "kernels").symlink_to(ROOT / "kernels")
    (root / "tests" / "losses").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "losses" / "test_adversarial.py", root / "tests" / "losses")
    for edit in (edit for edits in RECIPES.values() for edit in edits):
        apply(edit, root)
    (root / "ink.txt").write_text("\n".join(["#.#.#.#.", ".#.#.#.#"] * 4 * 4))
    return root


def call(root: Path, *words: str) -> str:
    return run(root, "-m", "gan_engine", *words)


def run(root: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_loss_a_family_data_a_metric_and_a_command_by_the_recipes(root):
    flags = ("--data", "ink.txt", "--loss", "chi_squared", "--out", "run", "--device", "cpu", "--precision", "fp32")
    call(root, "train", "drawer", *flags)
    assert re.search(r"^dark of the data +0.5000$", call(root, "evaluate", "run", "--num", "8"), re.MULTILINE)
    assert call(root, "count", "run").split() == ["320"]  # 8x8 pixels of 4 weights and a bias each


def test_the_tests_of_losses_hold_for_the_loss_of_the_recipe(root):
    run(root, "-m", "pytest", "-q", "--rootdir", str(root), "tests/losses/test_adversarial.py")


def test_a_penalty_rule_by_its_recipe(root):
    code = """if True:
        import torch
        from gan_engine.losses import penalties
        print(penalties.refusal(lambda img: img.abs().flatten(1).sum(1), torch.ones(2, 1, 4, 4)))
    """
    assert run(root, "-c", code).split() == ["None"]


@pytest.mark.parametrize("heading", RECIPES)
def test_the_table_counts_the_files_of_a_recipe(heading):
    edits = RECIPES[heading]
    new, edited = ({e.path for e in edits if (e.anchor is None) == is_new} for is_new in (True, False))
    anchor = heading.lower().replace(" ", "-")
    assert f"(#{anchor}) | {len(new)} | {len(edited)} |" in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("heading", RECIPES)
def test_a_recipe_names_every_file_that_it_touches(heading):
    section = (ROOT / "CONTRIBUTING.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    named = {re.sub(r"<\w+>", "*", path) for path in re.findall(r"`((?:gan_engine|tests)/[^`:]*)[^`]*`", section)}
    for edit in RECIPES[heading]:
        assert any(Path(edit.path).match(pattern) or edit.path.startswith(pattern) for pattern in named), edit.path
