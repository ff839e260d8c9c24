"""The networks of these tests are small, and level None would leave all of them to plain autograd."""

import pytest

from gan_engine.ops.thresholds import TABLE

FEW = "few products at level 2"
FEW_OF_A_NORM = "few elements of a norm at level 1"


@pytest.fixture(autouse=True)
def level_2_for_small_networks(monkeypatch):
    """Level None is level 2 for networks of any size."""
    monkeypatch.setitem(TABLE, FEW, TABLE[FEW]._replace(number=0))


@pytest.fixture
def small_norms_on_norm_act(monkeypatch):
    """Level 1 runs norms of any size on norm_act."""
    monkeypatch.setitem(TABLE, FEW_OF_A_NORM, TABLE[FEW_OF_A_NORM]._replace(number=0))
