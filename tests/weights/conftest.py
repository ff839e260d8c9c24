"""A folder in which no file may run, and the modules whose names stand in the pickles of StyleGAN2-ADA."""

import sys
import types

import pytest

from tests.weights import pickles


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The working folder is empty; no test may leave what a pickle would make by running."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def persistence(monkeypatch):
    """Persistent(class_name, state) is pickled as an object of torch_utils.persistence."""
    members = {"torch_utils.persistence": pickles._reconstruct_persistent_obj, "dnnlib.util": pickles.EasyDict}
    for name in ("torch_utils", "dnnlib", *members):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for name, member in members.items():
        monkeypatch.setattr(member, "__module__", name)
        setattr(sys.modules[name], member.__name__, member)
    return pickles.Persistent
