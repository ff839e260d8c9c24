"""What tests of plug-ins share: files of plug-ins, and a process that has imported none at the start of each test."""

from pathlib import Path

import pytest

from gan_engine import config, plugins

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


def refused(main, argv, capsys):
    """What is said of a wrong call."""
    capsys.readouterr()
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and err.startswith("error: "), err
    return err
