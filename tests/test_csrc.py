"""Comments of the C++ and Triton sources: the Python files and pages that they name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("csrc", "kernels") for path in (ROOT / folder).rglob("*.[chp]*") if path.is_file())


@pytest.mark.parametrize("source", [path for path in SOURCES if "__pycache__" not in path.parts], ids=lambda p: p.name)
def test_files_that_a_comment_names_exist(source):
    text = re.sub(r"\n *(//|#) *", " ", source.read_text())
    named = re.findall(r"\b(?:gan_engine|docs|csrc)/[\w/]+\.(?:py|md|h|cpp)", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"{source.relative_to(ROOT)} names files that do not exist: {', '.join(missing)}"
