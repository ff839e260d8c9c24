"""python -m gan_engine.penalties check: the level of a discriminator, its error and its time."""

import pytest
from torch import Tensor, nn

from gan_engine import penalties
from gan_engine.ops.thresholds import TABLE

FEW = "few products at level 2"


def straight() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(1))


def normed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))


def no_second_gradient() -> nn.Module:
    return nn.Sequential(nn.Hardsigmoid(), nn.Softmax(1), nn.Flatten(), nn.LazyLinear(1))


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 3)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return (x.mean((2, 3)) * self.embed(c)).sum(1)


def called(capsys: pytest.CaptureFixture, name: str, *flags: str) -> tuple[int, str]:
    status = penalties.main(["check", f"{__name__}:{name}", "--shape", "4,3,8,8", "--seconds", "0", *flags])
    return status, capsys.readouterr().out


def test_level_2_is_told_with_its_error_and_time(capsys, monkeypatch):
    monkeypatch.setitem(TABLE, FEW, TABLE[FEW]._replace(number=0))
    status, said = called(capsys, "straight")
    assert status == 0
    assert said.startswith("level      2 (level=None)\nerror      level 2 ")
    errors = [float(line.split()[-3]) for line in said.splitlines() if line.startswith("error")]
    assert len(errors) == 3
    assert max(errors) < 1e-5
    assert "time       level None" in said


def test_a_small_network_is_told_that_plain_autograd_is_the_fastest(capsys):
    status, said = called(capsys, "straight")
    assert (status, said.startswith(f"level      autograd (level=None)\nsmall      {TABLE[FEW].sentence}\n")) == (
        0,
        True,
    )
    assert "error      level 2 " in said


def test_the_refused_layer_is_named(capsys):
    status, said = called(capsys, "normed")
    assert (status, "refused    1 (BatchNorm2d): batch_norm ties samples" in said) == (0, True)


def test_classes_are_handed_on(capsys):
    assert called(capsys, "Projected", "--classes", "3")[0] == 0


def test_a_network_without_a_second_gradient_is_told(capsys):
    status, said = called(capsys, "no_second_gradient")
    assert status == 1
    assert "no step    RuntimeError: derivative for aten::hardsigmoid_backward is not implemented" in said


@pytest.mark.parametrize("name", ["nowhere", "nowhere:D", f"{__name__}:missing", f"{__name__}:called"])
def test_a_wrong_name_is_said(capsys, name):
    assert penalties.main(["check", name]) == 2
    assert name in capsys.readouterr().err


def test_a_missing_gpu_is_said_before_the_discriminator_is_made(capsys):
    assert penalties.main(["check", "nowhere:D", "--device", "cuda:99"]) == 2
    assert "error: device: want a GPU that PyTorch sees (" in capsys.readouterr().err
