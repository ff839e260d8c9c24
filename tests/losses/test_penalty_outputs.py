"""Wrong outputs of D and G, and modes without gradients: a penalty is right, or an error says what is wanted."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan_engine.losses import penalties
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.outputs import WrongOutput
from gan_engine.ops.thresholds import TABLE
from tests.losses.conftest import FEW
from tests.losses.networks import STEPS, Lambda, around, gradients, images, softplus

WRONG = {
    "tuple": lambda y: (y, y),
    "list in a list": lambda y: [[y, y]],
    "empty list": lambda y: [],
    "dict": lambda y: {"scores": y},
    "list and flat features": lambda y: ([y, y], [y, y]),
    "a scale without images": lambda y: [y, y[:1]],
    "a detached scale": lambda y: [y, y.detach()],
    "None": lambda y: None,
    "number": lambda y: float(y.sum()),
    "row": lambda y: y.reshape(1, -1),
    "features": lambda y: y[:, :, None].expand(-1, 2, 3),
    "scalar": lambda y: y.sum(),
    "integers": lambda y: y.round().int(),
    "detached": lambda y: y.detach(),
    "constants": lambda y: torch.ones_like(y, requires_grad=True) * 2,
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_logit_for_each_image_is_refused(step: str, wrong: str):
    D = nn.Sequential(around(nn.Tanh()), Lambda(WRONG[wrong]))
    D.register_parameter("extra", nn.Parameter(torch.ones(())))
    with pytest.raises(ValueError, match="D must return logits"):
        STEPS[step](D, images())


class Packs(nn.Module):
    """One logit for two samples, which it joins by itself: level 2 refuses the join before D returns."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 8), activation, nn.Linear(8, 1))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(x.reshape(len(x) // 2, -1))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()])
def test_a_D_that_packs_by_itself_gets_one_answer(activation: nn.Module):
    D, x = Packs(activation), torch.randn(8, 6)
    want = r"D must return logits \[N\] = \[8\], got \[4, 1\].*pack=2 of gan_engine.adversarial"
    assert re.match(want, penalties.refusal(D, x))
    with pytest.raises(WrongOutput, match=want):
        penalties.level_of(D, x)
    assert D.calls == 0
    for level in (None, 2, 1, "autograd", "aligned"):
        with pytest.raises(WrongOutput, match=want):
            penalties.backward_with_penalty(D, x, softplus, gamma=1.0, level=level)


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda img: (img, 1), "got a tuple"),
        (lambda img: {"img": img}, "got a dict"),
        (lambda img: img[:, 0], r"got \[3, 4, 4\]"),
        (lambda img: img[:1], r"got \[1, 1, 4, 4\]"),
        (lambda img: img.byte(), r"got \[3, 1, 4, 4\] of torch.uint8"),
        (lambda img: img.detach(), "that depend on ws"),
    ],
)
def test_what_is_no_image_is_refused(wrong: Callable, got: str):
    G = nn.Sequential(nn.Linear(6, 16), nn.Unflatten(1, (1, 4, 4)), Lambda(wrong))
    mean = torch.ones(())
    with pytest.raises(ValueError, match=f"G must return images .*{got}"):
        penalties.path_length(G, torch.randn(3, 6), mean)
    assert mean == 1


@pytest.mark.parametrize("step", STEPS)
def test_no_grad_and_inference_mode(step: str):
    D, img = around(nn.Tanh(), nn.LeakyReLU(0.2)), images()
    run = STEPS[step]
    want = gradients(D, lambda: run(D, img))
    with torch.no_grad():
        got = gradients(D, lambda: run(D, img))
    torch.testing.assert_close(got, want)
    with torch.inference_mode():
        made = img.clone()
        with pytest.raises(RuntimeError, match=r"torch\.inference_mode\(\) does not record"):
            run(D, made)
    torch.testing.assert_close(gradients(D, lambda: run(D, made)), want)  # images that were made there are images


def test_path_lengths_where_gradients_are_off():
    G = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4)))
    with torch.inference_mode():
        ws = torch.randn(3, 6)
        with pytest.raises(RuntimeError, match=r"torch\.inference_mode\(\) does not record"):
            penalties.path_length(G, ws, torch.zeros(()))
    with torch.no_grad():
        penalty = penalties.path_length(G, ws, torch.zeros(()))
    penalty.sum().backward()
    assert G[0].weight.grad.any()


@pytest.mark.parametrize("level", [1, 2, "autograd"])
def test_a_discriminator_that_learns_nothing_is_no_error(level):
    D = nn.Sequential(nn.Conv2d(3, 1, 8), nn.Flatten(0)).double().requires_grad_(False)
    _, penalty = penalties.backward_with_penalty(D, images(), None, gamma=1.0, level=level)
    torch.testing.assert_close(penalty, D[0].weight.square().sum().expand(4))


@pytest.mark.parametrize("small", [False, True])
def test_a_loss_that_returns_no_tensor_is_refused(small):
    D, img = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.Tanh()), torch.randn(3, 1, 2, 2)
    for _ in range(3):
        with pytest.raises(ValueError, match="loss must return a tensor, got a float"):
            penalties.backward_with_penalty(D, img, lambda logits: 3.0, gamma=1.0, level="autograd" if small else None)
        penalties.backward_with_penalty(D, img, lambda logits: logits, gamma=1.0, level="autograd" if small else None)


@pytest.mark.parametrize("level", [None, 1, 2, "autograd", "aligned"])
def test_weights_of_another_number_of_images_are_refused(level):
    D, img = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), torch.randn(5, 1, 2, 2)
    with pytest.raises(ValueError, match=r"gamma must be a number, or one for each image \[5\], got \[3\]"):
        penalties.backward_with_penalty(D, img, None, gamma=torch.ones(3), level=level)


def test_the_level_of_a_D_whose_logits_are_picked():
    D, img = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.randn(5, 1, 2, 2)
    assert penalties.level_of(D, img, logits=lambda out: out[:, :1]) in (2, "autograd")


@pytest.mark.parametrize("level", [None, 1, 2, "autograd", "aligned", "small"])
def test_a_loss_without_a_gradient_is_refused(level, monkeypatch):
    if level == "small":
        monkeypatch.setitem(TABLE, FEW, TABLE[FEW]._replace(number=float("inf")))
    options = {"gamma": 1.0, "level": None if level == "small" else level}
    D, img = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.LeakyReLU()), torch.randn(3, 1, 2, 2)
    weight = torch.ones((), requires_grad=True)
    for _ in range(2):
        for loss in (lambda logits: softplus(logits).detach(), torch.no_grad()(softplus), lambda logits: logits.long()):
            with pytest.raises(ValueError, match=r"loss must depend on the logits, got \[3\].* without a gradient"):
                penalties.backward_with_penalty(D, img, loss, **options)
        penalties.backward_with_penalty(D, img, lambda logits: weight.square(), **options)
        penalties.backward_with_penalty(D, img, None, **options)
    with pytest.raises(ValueError, match=r"loss must return numbers in floating point, got \[3\] of torch.complex"):
        penalties.backward_with_penalty(D, img, lambda logits: torch.complex(logits, logits), **options)


@pytest.mark.parametrize("level", [None, 1, 2, "autograd", "aligned"])
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"gamma": "1"}, "gamma must be a number, or a tensor of one for each image, got a str"),
        ({"centre": None}, "centre must be a number, got a NoneType"),
        ({"scale": torch.ones(3)}, r"scale must be a number, got \[3\]"),
        ({"scale": np.ones(3)}, "scale must be a number, got a ndarray"),
        ({"scale": torch.tensor(1j)}, r"scale must be a number, got \[\] of torch.complex64"),
        ({"centre": torch.ones((), requires_grad=True)}, r"centre must be a number, got \[\] that requires a gradient"),
        ({"scale": float("inf")}, "scale must be a finite number, got inf"),
        ({"centre": float("nan")}, "centre must be a finite number, got nan"),
        ({"gamma": float("nan")}, "gamma must be a finite number, at least 0, got nan"),
        ({"gamma": float("inf")}, "gamma must be a finite number, at least 0, got inf"),
        ({"gamma": -1.0}, "gamma must be a finite number, at least 0, got -1.0"),
        ({"gamma": -1}, "gamma must be a finite number, at least 0, got -1"),
        ({"gamma": np.ones(3)}, "gamma must be a number, or a tensor of one for each image, got a ndarray"),
        ({"gamma": torch.ones(3) * 1j}, r"gamma must be a number, or a tensor .*, got \[3\] of torch.complex64"),
        ({"loss": "hinge"}, "loss must be a function of the logits, or None, got a str"),
        ({"img": [1.0]}, r"img must be a tensor \[N, ...\] in floating point, got a list"),
        ({"img": torch.ones(3, 1, 2, 2).byte()}, r"img must be a tensor .*, got \[3, 1, 2, 2\] of torch.uint8"),
        ({"img": torch.ones(())}, r"img must be a tensor .*, got \[\]"),
        ({"D": None}, "the network must be a module or a function, got a NoneType"),
        ({"D": nn.Linear}, "the network must be a module or a function, got the class Linear"),
        ({"logits": "last"}, "logits= must be a function of what D returns, got a str"),
    ],
)
def test_an_argument_of_another_type_is_refused(given, sentence, level):
    D, img = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), torch.randn(3, 1, 2, 2)
    with pytest.raises((ValueError, NotPiecewiseLinear), match=sentence):
        penalties.backward_with_penalty(**{"D": D, "img": img, "loss": softplus, "gamma": 1.0, "level": level, **given})


@pytest.mark.parametrize("generator", [0, 5, np.random.default_rng(0), torch.Generator])
def test_a_generator_that_is_not_of_pytorch_is_refused(generator):
    D, G, img, mean = nn.Linear(4, 1), nn.Unflatten(1, (1, 2, 2)), torch.randn(3, 4), torch.ones(())
    for call in (
        lambda: penalties.between(img, img, generator=generator),
        lambda: penalties.around(img, generator=generator),
        lambda: penalties.wgan_gp(D, img, img, generator=generator),
        lambda: penalties.dragan(D, img, generator=generator),
        lambda: penalties.path_length(G, img, mean, generator=generator),
    ):
        with pytest.raises(ValueError, match=r"generator must be a torch.Generator, .* or None, got a \w+ of \w+"):
            call()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ws": torch.ones(0, 4)}, r"path_length: want at least one latent, got \[0, 4\]"),
        ({"mean": 1.0}, r"mean must be a tensor \[\] in floating point, got a float"),
        ({"mean": torch.ones(3)}, r"mean must be a tensor \[\] in floating point, got \[3\]"),
        ({"mean": torch.ones((), dtype=torch.int64)}, r"mean must be a tensor .*, got \[\] of torch.int64"),
        ({"decay": float("nan")}, "decay must be a number from 0 to 1, got nan"),
        ({"decay": 1.5}, "decay must be a number from 0 to 1, got 1.5"),
        ({"decay": "0.99"}, "decay must be a number from 0 to 1, got '0.99'"),
    ],
)
def test_an_argument_of_path_lengths_that_would_spoil_their_mean_is_refused(given, sentence):
    mean = torch.ones(())
    with pytest.raises(ValueError, match=sentence):
        penalties.path_length(**{"G": nn.Unflatten(1, (1, 2, 2)), "ws": torch.ones(3, 4), "mean": mean, **given})
    assert mean == 1


@pytest.mark.parametrize(
    ("spread", "sentence"),
    [
        (float("nan"), "spread must be a finite number, got nan"),
        (None, "spread must be a number, got a NoneType"),
        (torch.ones(3), r"spread must be a number, got \[3\]"),
    ],
)
def test_a_spread_that_is_no_number_is_refused(spread, sentence):
    for call in (
        lambda img: penalties.dragan(nn.Linear(4, 1), img, spread=spread),
        lambda img: penalties.around(img, spread=spread),
    ):
        with pytest.raises(ValueError, match=sentence):
            call(torch.randn(3, 4))


def test_images_of_another_type_are_refused_by_all_functions():
    D, img = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), torch.ones(3, 1, 2, 2).byte()
    for call in (penalties.r1, penalties.dragan, penalties.refusal, penalties.level_of, penalties.aligned_error):
        with pytest.raises(ValueError, match=r"must be a tensor \[N, ...\] in floating point"):
            call(D, img)
    with pytest.raises(ValueError, match="fake must be a tensor"):
        penalties.between(img.float(), img)
    with pytest.raises(
        ValueError, match=r'level "aligned" moves images along their gradients: want .*, got \[0, 1, 2, 2\]'
    ):
        penalties.backward_with_penalty(D, img[:0].float(), None, gamma=1.0, level="aligned")
