"""The pages say what is there: links lead somewhere, the reference is complete, and docstrings fit their functions."""

import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gan_engine.adversarial
import gan_engine.layers
import gan_engine.losses.penalties
from benchmarks import gallery
from benchmarks import page as tables
from gan_engine import ops
from gan_engine.ops.thresholds import TABLE

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "gan_engine" / "losses").rglob("*.md"))


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as code hosts and the site make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.is_relative_to(ROOT) and found.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(found), f"{target}: no such heading"


def test_every_page_is_reached_from_the_readme():
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)\s#]+)", without_code(page.read_text()))
        todo += [(page.parent / link).resolve() for link in links if ":" not in link]
    left = {str(page.relative_to(ROOT)) for page in PAGES if page not in seen and "api" not in page.parts}
    assert not left


def test_the_gallery_is_the_page_that_its_program_writes():
    assert gallery.PAGE.format(num=gallery.NUM) in (ROOT / "docs" / "gallery" / "README.md").read_text()


def slower(summary: str) -> list[str]:
    """Every comparison of a summary of benchmarks that we lose, as a row of the table in docs/performance.md."""
    rows: list[str] = []
    op, columns = "", []
    for line in summary.splitlines():
        if not line.startswith(" "):
            op = line
        elif line.startswith("  sample "):
            columns = list(re.finditer(r"\S+( \S+)*", line))
        elif "x <" in line:
            sample, dtype, mode, malloc, *_ = re.split(r"\s{2,}", line.strip())
            # A column ends where its head ends, and may be empty.
            cells = {head[0]: line[before.end() : head.end()].strip() for before, head in itertools.pairwise(columns)}
            lost = [f"{cells[name][:-3]} ({name[3:]})" for name in cells if cells[name].endswith("x <")]
            rows.append(f"| {op} | {sample} | {dtype} | {mode} | {malloc} | {', '.join(lost)} |")
    return rows


def test_performance_shows_every_row_that_we_lose():
    page = (ROOT / "docs" / "performance.md").read_text()
    lost = [row for path in (ROOT / "benchmarks" / "results").glob("*-thread*.txt") for row in slower(path.read_text())]
    assert len(lost) > 20
    assert not [row for row in lost if row not in page]


def test_performance_has_the_tables_that_its_program_writes():
    page = (ROOT / "docs" / "performance.md").read_text()
    assert len(tables.MARKS.findall(page)) == page.count("<!-- table: ") and tables.page() == page


def test_the_reference_names_every_operator():
    page = (ROOT / "docs" / "api" / "ops.md").read_text()
    assert not [name for name in ops.__all__ if not re.search(rf"\b{name}\b", page)]


def public_functions() -> Iterator[tuple[str, object]]:
    for name in ops.__all__:
        yield f"ops.{name}", getattr(ops, name)
    for module in (gan_engine.losses.penalties, gan_engine.layers, gan_engine.adversarial):
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_") and callable(value):
                yield f"{module.__name__.removeprefix('gan_engine.')}.{name}", value


PUBLIC = dict(public_functions())


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings_name_the_arguments_of_their_function(name):
    """Names may share a line: "up, down: ..."."""
    text = inspect.getdoc(PUBLIC[name]) or ""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE)
    named = re.findall(r"^ {4}([\w*][\w*, ]*):", section[1], re.MULTILINE) if section else []
    named = [argument.strip(" *") for line in named for argument in line.split(",")]
    assert set(named) <= set(inspect.signature(PUBLIC[name]).parameters)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_functions_are_annotated(name):
    """The types that a type checker of another project reads; py.typed says that it may."""
    function = vars(PUBLIC[name]).get("__init__", lambda: None) if inspect.isclass(PUBLIC[name]) else PUBLIC[name]
    signature = inspect.signature(function)
    bare = [p.name for p in signature.parameters.values() if p.name != "self" and p.annotation is p.empty]
    assert not bare


def test_the_pages_show_every_threshold_of_the_chooser():
    backends = (ROOT / "docs" / "backends.md").read_text()
    performance = (ROOT / "docs" / "performance-kernels.md").read_text()
    for name, row in TABLE.items():
        assert f"| {name} | `{row.op}` | `{row.backend}` | `{row.instead}` | {row.sentence} |" in backends
        assert f"| {name} | {row.measured} |" in performance
