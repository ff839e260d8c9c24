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


def rooms() -> list[set[str]]:
    """The rooms of the table in docs/architecture.md, from those that import nothing upwards."""
    section = (ROOT / "docs" / "architecture.md").read_text().split("\n## Arrows")[1].split("\n## ")[0]
    return [set(re.findall(r"`([\w.]+)`", row.split("|")[1])) for row in re.findall(r"^\| `.*$", section, re.M)]


def modules() -> dict[str, Path]:
    """Python files by their name within the package. Its own __init__ imports nothing before it is called."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ("kernels", "_build_info", "__init__"):
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(name: str, known: dict[str, Path]) -> set[str]:
    """The modules that a module imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(known[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    found = {each.removeprefix("gan_engine.") for each in found if each.startswith("gan_engine.")}
    # `from a import b` means the module a.b, if there is such a module, and else a.
    inner = {each for each in found if each in known}
    return {each for each in inner if not any(other.startswith(f"{each}.") for other in inner)} - {name}


def room(name: str) -> str:
    return name.partition(".")[0]


def test_every_room_is_in_the_table_of_arrows():
    named = set().union(*rooms())
    assert {room(name) for name in modules()} == named


def test_imports_between_rooms_go_one_way():
    place = {name: number for number, row in enumerate(rooms()) for name in row}
    known = modules()
    wrong = [
        f"{name} imports {each}"
        for name in known
        for each in imports(name, known)
        if room(each) != room(name) and place[room(each)] >= place[room(name)]
    ]
    assert not wrong


def test_modules_import_in_no_circle():
    known = modules()
    left = {name: imports(name, known) for name in known}
    while free := [name for name, wanted in left.items() if not wanted & left.keys()]:
        for name in free:
            del left[name]
    assert not left
