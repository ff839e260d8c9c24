"""A run whose kernels are wrong says so in its first lines, and trains as on the reference."""

import dataclasses

import pytest

from gan_engine import backends, models
from gan_engine.runs.history import read_metrics
from gan_engine.system import native
from gan_engine.training.beginning import prepare
from gan_engine.training.distributed import ALONE
from gan_engine.training.trainer import Trainer
from tests.training.runs import CPU, DCGAN, PATHS, toy
from tests.wrong_kernels import damaged, nothing_known  # noqa: F401

pytestmark = pytest.mark.skipif(native.WHY_NO_CPU is not None, reason=str(native.WHY_NO_CPU))
KERNELS = ["bias_act", "norm_act", "pixel_norm", "sample_dot", "scale_bias_act", "upfirdn2d", "upfirdn2d_act"]


@pytest.fixture
def wrong_kernels(monkeypatch):
    """Kernels of csrc/cpu that write numbers 1.5 times too large."""

    def make() -> None:
        for name in KERNELS:
            monkeypatch.setattr(native.cpu, name, damaged(getattr(native.cpu, name)), raising=False)

    return make


def losses(config, run_dir) -> list[dict[str, float]]:
    data = toy(config.model.resolution, config.model.channels, models.data_kind(config.model))
    trainer = Trainer(config, data, device=CPU, run_dir=run_dir)
    trainer.run()
    return [{k: v for k, v in row.items() if k.startswith("loss/")} for row in read_metrics(run_dir)]


def test_a_run_with_wrong_kernels_is_that_of_the_reference(tmp_path, wrong_kernels, capsys):
    config = dataclasses.replace(PATHS, kimg=0.064, r1_gamma=1.0)
    with backends.use("reference"):
        want = losses(config, tmp_path / "reference")
    assert "refused" not in capsys.readouterr().out
    wrong_kernels()
    with pytest.warns(UserWarning, match="modulated_conv2d does not run on cpu, and may be slow: failed the check on"):
        got = losses(config, tmp_path / "wrong")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("refused    ")]
    assert any(line.startswith("refused    modulated_conv2d on cpu failed the check on ") for line in lines)
    assert all(", float32: the value is off by " in line for line in lines)
    assert len(got) == len(want) > 1
    for ours, theirs in zip(got, want, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_a_run_that_asks_for_a_wrong_backend_ends_before_it_begins(tmp_path, wrong_kernels):
    wrong_kernels()
    with backends.use("cpu"), pytest.raises(RuntimeError, match="'cpu' was asked for and cannot run: failed the check"):
        prepare(DCGAN, tmp_path / "run", device="cpu", processes=ALONE)
