"""What `gan_engine.adversarial` refuses, before anything is learnt, and what it lets pass."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.adversarial import Adversarial
from gan_engine.losses.adversarial import LOSSES
from gan_engine.ops.thresholds import TABLE
from tests.adversarial_steps import PENALTIES, Discriminator, close, d_terms, gradients, images
from tests.losses.conftest import FEW


def test_what_does_not_fit_is_one_sentence():
    D, fake = Discriminator("patches"), images(2)
    for options, sentence in (
        ({"loss": "hinged"}, "loss must be one of nonsaturating, .* got 'hinged'"),
        ({"loss": (fake, fake)}, "or a gan_engine.losses.adversarial.Adversarial of two functions, got a tuple"),
        ({"loss": LOSSES["hinge"]._replace(discriminator=None)}, "of two functions, got a Adversarial of a function"),
        ({"r1": -1.0}, "r1 must be a finite number, at least 0, got -1"),
        ({"gp": "1"}, "gp must be a finite number, at least 0, got '1'"),
        ({"feature_matching": math.inf}, "feature_matching must be a finite number, at least 0, got inf"),
        ({"penalty_interval": 0}, "penalty_interval must be a whole number, at least 1, got 0"),
        ({"penalty_interval": 1.5}, "penalty_interval must be a whole number, at least 1, got 1.5"),
        ({"pack": 2.5}, "pack must be a whole number, at least 1, got 2.5"),
        ({"level": 7}, 'level must be 2, 1, "autograd", "aligned" or None, got 7'),
        ({"r1": math.nan}, "r1 must be a finite number, at least 0, got nan"),
        ({"r2": torch.ones(2)}, r"r2 must be a finite number, at least 0, got tensor\(\[1., 1.\]\)"),
        ({"gp": np.ones(2)}, r"gp must be a finite number, at least 0, got array\(\[1., 1.\]\)"),
        ({"penalty_interval": torch.tensor([2, 3])}, r"penalty_interval must be a whole number, .* got tensor\(\[2, 3"),
        ({"loss": OfTwoFunctions()}, "of two functions, got a OfTwoFunctions"),
        ({"scaler": True}, "scaler must be a torch.amp.GradScaler or None, got a bool"),
        ({"scaler": torch.amp.GradScaler}, "scaler must be a torch.amp.GradScaler or None, got a type"),
        ({"generator": 0}, "Adversarial: generator must be a torch.Generator, .* or None, got a int"),
        (
            {"generator": nn.Linear(2, 2)},
            "generator must be a torch.Generator, .* got a Linear of torch.nn.modules.linear",
        ),
        ({"group": "nccl"}, "group must be a torch.distributed.ProcessGroup, .* or None, got a str"),
        ({"group": torch.distributed.GroupMember.NON_GROUP_MEMBER}, "returns to its members alone, or None, got a int"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Adversarial(D, **options)
    with pytest.raises(ValueError, match="D must be a module or a function, got a type"):
        Adversarial(Discriminator)
    with pytest.raises(ValueError, match=r"compares generated with real images: want g_terms\(fake, real\)"):
        Adversarial(D, "relativistic").g_terms(fake)
    with pytest.raises(ValueError, match="g_terms: feature matching compares generated with real images"):
        Adversarial(D, "hinge", feature_matching=1.0).g_terms(fake)
    with pytest.raises(ValueError, match="feature_matching wants features, D returned logits alone"):
        Adversarial(D, feature_matching=1.0).g_terms(fake, fake)
    with pytest.raises(ValueError, match=r"D must return logits \[N\] = \[6\], got a tuple of"):
        Adversarial(lambda img: (D(img), D(img))).d_step(fake, fake)
    with pytest.raises(ValueError, match="d_step: want as many real as generated samples, got 4 and 2"):
        Adversarial(D, r1=1.0, r2=1.0).d_step(images(1, 4), images(2, 2))  # their halves would mix both
    for options in ({"r2": 1.0}, {"gp": 1.0}):
        with pytest.raises(ValueError, match=r"of one shape, got \[6, 3, 8, 8\] and \[6, 3, 6, 6\]"):
            Adversarial(D, **options).d_step(fake, fake[:, :, :6, :6])
    with pytest.raises(ValueError, match=r"d_step: real must be a tensor \[N, ...\] in .*, got a ndarray"):
        Adversarial(D).d_step(fake.numpy(), fake)
    for options, samples in (("hinge", (None,)), ("relativistic", (fake, fake.numpy()))):
        with pytest.raises(ValueError, match=r"g_terms: (fake|real) must be a tensor \[N, ...\] in .*, got a"):
            Adversarial(D, options).g_terms(*samples)
    with pytest.raises(ValueError, match="scale must be a number, got a NoneType"):
        Adversarial(D).d_step(fake, fake, scale=None)
    with pytest.raises(ValueError, match="g_terms: want as many real as generated samples, got 1 and 6"):
        Adversarial(D, "relativistic").g_terms(fake, fake[:1])  # it would be compared with all
    with pytest.raises(ValueError, match="d_step: want real in floating point, as fake is, got torch"):
        Adversarial(D).d_step(fake.byte(), fake)
    with pytest.raises(ValueError, match="features of the same shapes, got"):
        Adversarial(Discriminator("features"), feature_matching=1.0).g_terms(fake, images(1, 3))
    for scale in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"scale must be a finite number, got {scale}"):
            Adversarial(D).d_step(fake, fake, scale=scale)
    with pytest.raises(
        ValueError, match=r"logits= must pick logits \[N\] = \[6\] .*, got a NoneType from D's \[6, 1, 6"
    ):
        Adversarial(D, logits=lambda out: None).d_step(fake, fake)


class OfTwoFunctions:
    generator = staticmethod(LOSSES["hinge"].generator)
    discriminator = staticmethod(LOSSES["hinge"].discriminator)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (images(1)[:0], r"must have at least one sample, got \[0, 3, 8, 8\]"),
        (torch.ones(()), r"must be a tensor \[N, ...\] in floating point or integers, got \[\]"),
        (images(1) * 1j, r"must be a tensor \[N, .* in floating point or integers, got \[6, .* of torch.complex128"),
    ],
    ids=["empty", "scalar", "complex"],
)
@pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)
def test_samples_that_have_no_mean_are_refused_before_anything_is_computed(wrong: Tensor, sentence: str, options: dict):
    def D(img: Tensor) -> Tensor:
        raise AssertionError("D ran")

    game = Adversarial(D, "relativistic", **options)
    for call in (
        lambda: game.d_step(wrong, wrong),
        lambda: game.d_step(images(1), wrong),
        lambda: game.g_terms(wrong, images(1)),
        lambda: game.g_terms(images(1), wrong),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
    assert game.state_dict() == {"steps": 0}


def test_weights_may_be_tensors_of_one_number():
    for options in ({"r1": 2.0, "r2": 3.0}, {"gp": 5.0}):
        found = []
        for given in (options, {name: torch.tensor([weight]) for name, weight in options.items()}):
            D = Discriminator("patches")
            game = Adversarial(D, "hinge", generator=torch.Generator().manual_seed(5), **given)
            parts = game.d_step(images(1), images(2))
            found.append((parts, gradients(D)))
        close(found[1], found[0])


@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
@pytest.mark.parametrize("small", [False, True])
def test_logits_of_other_shapes_for_real_than_for_generated_samples_are_refused(small: bool, loss: str, monkeypatch):
    """6 logits of [6] beside [6, 1, 6, 6] would be spread over a side of the patches."""
    monkeypatch.setitem(TABLE, FEW, TABLE[FEW]._replace(number=math.inf if small else 0))
    real, fake = images(1), images(2)[:, :, :3, :3]
    patches = nn.Conv2d(3, 1, 3).double()
    one_list = lambda img: [patches(img)] if img.shape[2] == 8 else patches(img)  # noqa: E731
    for D, got in ((patches, r"\[6\] and \[6, 1, 6, 6\]"), (one_list, r"\[6\] and a list of \[6, 1, 6, 6\]")):
        for options in ({}, {"r1": 1.0}):
            game = Adversarial(D, loss, **options)
            for _ in range(2):
                with pytest.raises(ValueError, match=f"D must return logits of the same shapes .*, got {got}"):
                    game.d_step(real, fake)
        if loss == "relativistic":
            with pytest.raises(ValueError, match=f"D must return logits of the same shapes .*, got {got}"):
                game.g_terms(fake, real)
    counted = []

    def scales(img: Tensor) -> list[Tensor]:
        counted.append(img)
        return [patches(img)] * (1 + len(counted) % 2)

    with pytest.raises(ValueError, match=r"of the same shapes .*, got a list of \[.*\], \[.*\] and a list of \["):
        Adversarial(scales, loss).d_step(real, real)


@pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("level", [None, "autograd"])
@pytest.mark.parametrize("shape", ["one", "scales"])
def test_a_side_of_a_loss_that_returns_no_numbers_is_refused(shape: str, level: Any, options: dict):
    D, real, fake = Discriminator(shape, nn.LeakyReLU), images(1), images(2)
    for side, sentence in (
        (lambda fake, real: None, "loss must return a tensor, got a NoneType"),
        (lambda fake, real: 1.0, "loss must return a tensor, got a float"),
        (lambda fake, real: fake.long(), "loss must return numbers in floating point, got .* of torch.int64"),
        (lambda fake, real: fake * 1j, "loss must return numbers in floating point, got .* of torch.complex128"),
    ):
        row = LOSSES["hinge"]._replace(generator=side, discriminator=side)
        with pytest.raises(ValueError, match=sentence):
            Adversarial(D, row, level=level, **options).d_step(real, fake)
        with pytest.raises(ValueError, match=sentence):
            Adversarial(D, row).g_terms(fake)


@pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("small", [False, True])
def test_a_side_of_a_loss_may_leave_the_logits_out(small: bool, options: dict, monkeypatch):
    """As where G learns by feature matching alone, and D by its penalties."""
    monkeypatch.setitem(TABLE, FEW, TABLE[FEW]._replace(number=math.inf if small else 0))
    D, fake = Discriminator("one", nn.LeakyReLU), images(2)
    nothing = LOSSES["hinge"]._replace(
        generator=lambda fake, real: torch.zeros_like(fake), discriminator=lambda fake, real: torch.zeros_like(fake)
    )
    Adversarial(D, nothing, **options).d_step(fake, fake)
    assert any(p.grad is not None for p in D.parameters()) == bool(options)
    assert not Adversarial(D, nothing).g_terms(fake.clone().requires_grad_())["G"].any()


def raw_weights(img: Tensor, weights: dict[str, Tensor]) -> Tensor:
    return F.conv2d(img, weights["w"]).mean((1, 2, 3))


class Counted(Discriminator):
    """Counts its runs in a buffer."""

    def __init__(self, shape: str, act: type[nn.Module] = nn.LeakyReLU) -> None:
        super().__init__(shape, act)
        self.register_buffer("runs", torch.zeros((), dtype=torch.long))

    def forward(self, img: Tensor, label: Tensor | None = None) -> Any:
        self.runs += 1
        return super().forward(img, label)


@pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)
def test_a_D_that_would_learn_nothing_is_refused_and_put_back(options: dict):
    real, fake, of_class = images(1), images(2), torch.zeros(1, dtype=torch.long)
    D = Counted("one")
    weights = {"w": torch.ones(1, 3, 3, 3, dtype=torch.float64)}
    hidden = lambda img, held=[[[[D]]]]: held[0][0][0][0](img)  # noqa: E731  too deep to be found
    forms = (
        D,
        D.forward,
        lambda img: D(img),
        partial(D, label=of_class),
        hidden,
        partial(raw_weights, weights=weights),
    )
    for form in forms:
        for each in (D, weights["w"]):
            each.requires_grad_(False)
        game = Adversarial(form, "hinge", **options)
        for _ in range(2):
            with pytest.raises(ValueError, match=r"d_step: D would learn nothing, .* want D.requires_grad_\(True\)"):
                game.d_step(real, fake)
        assert (int(D.runs), game.steps) == (0, 0)
        weights["w"].requires_grad_()
        D.last.requires_grad_(True)  # the others are frozen, on purpose
        game.d_step(real, fake)
        learnt = [weights["w"]] if form is forms[-1] else list(D.last[0].parameters())
        assert all(w.grad is not None for w in learnt) and D.first[0].weight.grad is None
        D.runs.zero_()
        D.zero_grad()


def test_a_D_may_learn_by_tensors_that_are_no_parameters():
    D = Discriminator("one").requires_grad_(False)
    weights = {name: p.detach().clone().requires_grad_() for name, p in D.named_parameters()}
    Adversarial(lambda img: torch.func.functional_call(D, weights, img), "hinge", r1=1.0).d_step(images(1), images(2))
    assert weights["last.0.weight"].grad is not None


def test_a_compiled_D_that_would_learn_nothing_is_refused():
    D = torch.compile(Discriminator("one"), backend="eager")
    game = Adversarial(D, "hinge", feature_matching=1.0)
    D.requires_grad_(False)
    with pytest.raises(ValueError, match="D would learn nothing"):
        game.d_step(images(1), images(2))


class FrozenBackbone(nn.Module):
    """Learns by a head that is in a list, and so is none of its modules."""

    def __init__(self, *, hook: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(3 * 8 * 8, 4).double().requires_grad_(False)
        self.heads = [nn.Linear(4, 1).double()]
        if hook:
            self.backbone.register_full_backward_hook(lambda *_: None)

    def forward(self, img: Tensor) -> Tensor:
        COUNTED.append(img)
        return self.heads[0](F.leaky_relu(self.backbone(img.flatten(1))))


COUNTED: list[Tensor] = []  # outside of D, which is put back after a trial


def as_it_is(D: nn.Module) -> Any:
    return D


def compiled(D: nn.Module) -> Any:
    return torch.compile(D, backend="eager")


@pytest.mark.parametrize(
    ("hook", "form", "options"),
    [*((hook, as_it_is, each) for hook in (False, True) for each in PENALTIES.values()), (False, compiled, {})],
)
def test_a_D_that_learns_by_parameters_that_are_not_found(hook: bool, form: Any, options: dict):
    D = FrozenBackbone(hook=hook)
    game = Adversarial(form(D), "hinge", **options)
    game.d_step(images(1), images(2))
    assert D.heads[0].weight.grad is not None and D.backbone.weight.grad is None


@pytest.mark.parametrize("in_module", [False, True])
def test_D_is_tried_in_the_first_step_alone(in_module: bool):
    D = FrozenBackbone(hook=False)
    if in_module:
        D.add_module("head", D.heads[0])
    game, runs = Adversarial(D, "hinge"), []
    for _ in range(3):
        COUNTED.clear()
        game.d_step(images(1), images(2))
        runs.append(len(COUNTED))
    assert runs == ([2, 2, 2] if in_module else [3, 2, 2])
    if in_module:
        D.requires_grad_(False)
        with pytest.raises(ValueError, match="D would learn nothing"):
            game.d_step(images(1), images(2))


@pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)
def test_a_D_that_cannot_be_tried_is_judged_in_its_step(options: dict):
    """A trial refuses a backward hook. The step has R2 in one batch with real samples, and shows nothing."""
    D = FrozenBackbone(hook=True)
    game = Adversarial(D, "hinge", feature_matching=1.0, **options)
    for _ in range(2):
        if "r2" in options:
            game.d_step(images(1), images(2))
        else:
            with pytest.raises(ValueError, match="d_step: feature_matching wants features"):
                game.d_step(images(1), images(2))
    with pytest.raises(ValueError, match="g_terms: feature_matching wants features"):
        game.g_terms(images(2), images(1))
    if "r2" not in options:
        D.heads[0].requires_grad_(False)
        with pytest.raises(ValueError, match="D would learn nothing"):
            Adversarial(D, "hinge", **options).d_step(images(1), images(2))


@pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)
def test_a_D_without_features_is_refused_before_anything_is_learnt(options: dict):
    real, fake = images(1), images(2)
    for shape in ("one", "scales"):
        D = Counted(shape)
        game = Adversarial(D, "hinge", feature_matching=1.0, **options)
        with pytest.raises(ValueError, match=r"d_step: feature_matching wants features, .*: \(logits, \[features\]\)"):
            game.d_step(real, fake)
        assert (int(D.runs), game.steps) == (0, 0) and all(p.grad is None for p in D.parameters())
    found = []
    for weight in (0.0, 1.0):
        D = Counted("scales and features")
        game = Adversarial(D, "hinge", feature_matching=weight, generator=torch.Generator().manual_seed(5), **options)
        game.d_step(real, fake)
        found.append((gradients(D), D.runs))
    close(found[1], found[0])  # a step is the same where D was looked at before it


@pytest.mark.parametrize("options", [{}, {"r1": 2.0}])
def test_real_samples_of_another_shape_than_generated_ones(options: dict):
    D, real, fake = Discriminator("one", nn.LeakyReLU), images(1), images(2)[:, :, :6, :6]
    sum(d_terms(D, "relativistic", real, fake, **options).values()).backward()
    wanted = gradients(D)
    Adversarial(D, "relativistic", **options).d_step(real, fake)
    close(gradients(D), wanted)


@pytest.mark.parametrize(
    "state", [{}, {"step": 3}, *({"steps": n} for n in ("3", -1, 1.5, math.nan, math.inf)), None, [3]]
)
def test_a_state_of_another_form_is_refused(state):
    game = Adversarial(Discriminator("one"))
    with pytest.raises(ValueError, match=r'load_state_dict: want \{"steps": whole number\} of state_dict\(\), got '):
        game.load_state_dict(state)
    game.load_state_dict({"steps": 3})
    assert game.state_dict() == {"steps": 3}


@pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)
def test_inference_mode(options: dict):
    D = Discriminator("one", nn.LeakyReLU)
    game = Adversarial(D, **options)
    with torch.inference_mode():
        made = images(1)
        with pytest.raises(RuntimeError, match=r"torch\.inference_mode\(\) does not record"):
            game.d_step(made, made)
    game.d_step(made, made)
    assert all(p.grad is not None for p in D.first[0].parameters())
