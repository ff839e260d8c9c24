"""What the tests of ops share."""

import pytest

from gan_engine.ops import resample_conv2d
from gan_engine.ops.convolution import passes, winograd


@pytest.fixture(autouse=True)
def whatever_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of the samples are tiny; they are resampled as larger ones are, and convolved as of more channels."""
    monkeypatch.setattr(passes, "FEWEST_MIXED", winograd.FEWEST_CHANNELS)
    for mode in resample_conv2d.FEWEST_PIXELS:
        monkeypatch.setitem(resample_conv2d.FEWEST_PIXELS, mode, 0)
