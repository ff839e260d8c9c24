"""Fixtures that the tests of the transforms share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def images():
    """images(n, channels, size, dtype) [n, channels, size, size] in [-1, 1]; `size` may be (H, W)"""

    def drawn(n=8, channels=3, size=16, dtype=torch.float32):
        return torch.rand(n, channels, *((size, size) if isinstance(size, int) else size), dtype=dtype) * 2 - 1

    return drawn
