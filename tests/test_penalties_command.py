"""python -m gan_engine.penalties check: the level of a discriminator, its error and its time."""

import copy
import functools
from collections.abc import Callable

import pytest
import torch
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
    assert 'way out    level="aligned" has a step for this D: it needs first derivatives alone' in said


def test_no_way_out_is_told_where_first_derivatives_do_not_help(capsys):
    status, said = called(capsys, "no_gradient")
    assert (status, "no step    ValueError: " in said, "way out" in said) == (1, True, False)


def no_gradient() -> Callable[[Tensor], Tensor]:
    layer = nn.Linear(3, 1)
    return lambda x: layer(x.detach().mean((2, 3)))


class Scales(nn.Module):
    """Two lists of layers that end in their logits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 3)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        h = self.first(x)
        return [[h, self.last(h)], [h, self.last(h).relu()]]


def ends(out: list[list[Tensor]]) -> list[Tensor]:
    return [layers[-1] for layers in out]


def test_logits_are_picked(capsys):
    status, said = called(capsys, "Scales")
    assert (status, "no step    WrongOutput: D must return logits [N] = [4], got a list of a list of" in said) == (
        1,
        True,
    )
    assert "way out    --logits MODULE:FUNCTION stands for logits=, and --pack M for pack=" in said
    status, said = called(capsys, "Scales", "--logits", f"{__name__}:ends")
    assert (status, "refused    D returns several logits for each image" in said) == (0, True)
    assert max(float(line.split()[-3]) for line in said.splitlines() if line.startswith("error")) < 1e-5


class OfPacks(nn.Module):
    """Joins packs of 5 rows by itself, as the D of CTGAN does."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(20, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.view(-1, 20))


def test_packs(capsys):
    check = ["check", f"{__name__}:OfPacks", "--shape", "40,4", "--seconds", "0"]
    assert penalties.main(check) == 1
    said = capsys.readouterr().out
    assert "got [8, 1]: " in said
    assert "One logit for every 5 images: pack=5 of gan_engine.adversarial.Adversarial joins so many" in said
    assert penalties.main([*check, "--pack", "5"]) == 0
    said = capsys.readouterr().out
    assert max(float(line.split()[-3]) for line in said.splitlines() if line.startswith("error")) < 1e-5


def of_dict(out: Tensor) -> Tensor:
    return {"logits": out}["q"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--pack", "0"), "--pack: want a number, at least 1, got 0"),
        (("--pack", "3"), "pack: N must be a multiple of 3 in [N, C, ...], got [4, 3, 8, 8]"),
        (("--logits", "ends"), "want --logits MODULE:FUNCTION, got ends"),
        (("--logits", ":ends"), "want --logits MODULE:FUNCTION, got :ends"),
        (("--logits", f"{__name__}:"), f"want --logits MODULE:FUNCTION, got {__name__}:"),
        (("--logits", f"{__name__}:of_dict"), f"--logits {__name__}:of_dict raised KeyError: 'q'. It was given "),
        (("--logits", f"{__name__}:nowhere"), f"--logits {__name__}:nowhere: module "),
        (("--logits", f"{__name__}:FEW"), "want a function of what D returns, got a str"),
    ],
)
def test_a_wrong_pack_and_wrong_logits_are_said(capsys, flags, sentence):
    assert penalties.main(["check", f"{__name__}:straight", "--shape", "4,3,8,8", *flags]) == 2
    assert sentence in capsys.readouterr().err


def function() -> Callable[[Tensor], Tensor]:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Flatten(), nn.LazyLinear(1)]
    return lambda x: functools.reduce(lambda x, layer: layer(x), layers, x)


def empty_function() -> Callable[[Tensor], Tensor]:
    return functools.partial(torch.mean, dim=(1, 2, 3))


def test_a_function_is_compared_as_a_module_is(capsys):
    status, said = called(capsys, "function")
    assert (status, "refused    batch_norm ties samples together in training" in said) == (0, True)
    assert max(float(line.split()[-3]) for line in said.splitlines() if line.startswith("error")) < 1e-5


def test_the_check_leaves_no_trace():
    D = normed()
    before = copy.deepcopy(D.state_dict())
    with penalties._in_float64(D):
        assert {value.dtype for value in D.state_dict().values()} == {torch.float64, torch.int64}
        assert not isinstance(penalties._gradients(D, torch.randn(4, 3, 8, 8).double(), None, 1), str)
    after = D.state_dict()
    assert all(value.dtype == before[name].dtype and value.equal(before[name]) for name, value in after.items())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("three", "want a torch.nn.Module, got a int"),
        ("empty_function", "or a function that names its modules, got a partial in which no module was found"),
    ],
)
def test_what_is_no_discriminator_is_refused(capsys, name, sentence):
    assert penalties.main(["check", f"{__name__}:{name}"]) == 2
    assert f"error: {__name__}:{name}: " in (err := capsys.readouterr().err) and sentence in err


def three() -> int:
    return 3


def test_a_wrong_shape_is_one_line(capsys):
    status = penalties.main(["check", f"{__name__}:fixed", "--shape", "4,3,9,9"])
    error = capsys.readouterr().err
    assert (status, error.count("\n")) == (2, 1)
    assert "fixed raised RuntimeError: mat1 and mat2 shapes cannot be multiplied" in error
    assert "given images [4, 3, 9, 9]: --shape sets their shape, and --classes K gives classes" in error
    assert penalties.main(["check", f"{__name__}:Projected", "--shape", "4,3,8,8"]) == 2
    assert "missing 1 required positional argument: 'c'. It was given images [4" in capsys.readouterr().err
    assert penalties.main(["check", f"{__name__}:Picky", "--shape", "4,3,8,8"]) == 2
    assert "Picky raised RuntimeError: no such sides. It was given images [4" in capsys.readouterr().err


class Picky(nn.Module):
    def forward(self, img):
        raise RuntimeError("no such sides.")


def fixed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 1))


@pytest.mark.parametrize("name", ["nowhere", "nowhere:D", f"{__name__}:missing", f"{__name__}:called"])
def test_a_wrong_name_is_said(capsys, name):
    assert penalties.main(["check", name]) == 2
    assert name in capsys.readouterr().err


def test_a_missing_gpu_is_said_before_the_discriminator_is_made(capsys):
    assert penalties.main(["check", "nowhere:D", "--device", "cuda:99"]) == 2
    assert "error: device: want a GPU that PyTorch sees (" in capsys.readouterr().err
