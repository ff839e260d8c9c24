"""Kernels that are wrong on purpose, and a self-check that knows nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gan_engine import backends
from gan_engine.ops import self_check
from gan_engine.system import passed


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch, tmp_path: Path) -> Iterator[None]:
    """The self-check is on, and no kernel was checked before."""
    monkeypatch.setenv("GAN_ENGINE_CHECK", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    passed._say_once.cache_clear()
    forget()
    yield
    forget()


def forget() -> None:
    """Forget what this process knows; what is on disk stays."""
    for known in (backends.right, backends.wrong, self_check._found):
        known.clear()


def damaged(kernel: Callable, wrong_now: Callable[[], bool] = lambda: True) -> Callable:
    """`kernel`, whose floating point results are 1.5 times too large where `wrong_now` says so.

    The kernels of csrc/ and kernels/ write into tensors that they are given.
    """

    def run(*args):
        tensors = [t for t in args if isinstance(t, torch.Tensor) and t.is_floating_point()]
        before = [t.clone() for t in tensors]
        result = kernel(*args)
        if wrong_now():
            for t, old in zip(tensors, before, strict=True):
                if not torch.equal(t.nan_to_num(), old.nan_to_num()):
                    t.mul_(1.5)
        return result

    return run
