"""The map of the house is right: files and functions that pages name exist, and imports go one way."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gan_engine"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted(PACKAGE.joinpath("losses").rglob("*.md"))
CODE = re.compile(r"`([\w/.-]+\.(?:py|cpp|cu|h|md|toml))(?::([\w.]+))?`")


def named(page: Path) -> Iterator[tuple[str, str | None]]:
    """The files that a page names in backquotes, and the definition behind a colon: `ops/x.py:f`."""
    for path, definition in CODE.findall(page.read_text()):
        if "/" in path:
            yield path, definition or None


def found(path: str, page: Path) -> Path | None:
    """A path is that of the repository, of the package, or stands beside the page."""
    return next((base / path for base in (ROOT, PACKAGE, page.parent) if (base / path).is_file()), None)


def definitions(path: Path) -> set[str]:
    """Functions and classes, and Class.method, of a Python file; whatever is followed by a bracket in C++."""
    if path.suffix != ".py":
        return set(re.findall(r"(\w+)\s*[({]", path.read_text()))
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_functions_that_a_page_names_exist(page):
    for path, definition in named(page):
        file = found(path, page)
        assert file is not None, f"{path}: no such file"
        assert definition is None or definition in definitions(file), f"{path} has no {definition}"
