"""The code of docs/penalties.md runs as it stands there, and its table has every reason of a refusal."""

import re
from pathlib import Path

from gan_engine.losses.level2 import rules

PAGE = (Path(__file__).parents[3] / "docs" / "penalties.md").read_text()


def test_the_code_of_the_page_runs(monkeypatch, capsys):
    monkeypatch.setattr(rules, "RULES", dict(rules.RULES))
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    *sentences, error = capsys.readouterr().out.splitlines()
    assert sentences == [
        "None",
        "1 (Tanh): tanh is curved: its slope changes with the image; leaky_relu has straight pieces",
    ]
    assert re.fullmatch(r"tensor\(0\.00\d+\)", error)  # of level="aligned"
    assert all(p.grad is not None for p in names["D"].parameters())


def test_every_reason_stands_on_the_page():
    words = PAGE.replace("`", "")
    missing = {reason for reason in rules.WHY_NOT.values() if reason not in words}
    assert not missing - {"is for a backward pass of autograd, and there is none"}
    assert "is for a backward pass of autograd" in words


def test_every_file_of_level_2_stands_in_its_readme():
    room = Path(rules.__file__).parent
    missing = {file.name for file in room.glob("[!_]*.py")} - set(
        re.findall(r"`(\w+\.py)`", (room / "README.md").read_text())
    )
    assert not missing
