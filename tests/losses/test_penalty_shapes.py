"""What public discriminators return, read by one rule: values and gradients against autograd in float64."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.losses import penalties
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.outputs import read_outputs
from tests.losses.networks import gradients, images


class Scales(nn.Module):
    """Two patch discriminators of images [N, 3, 8, 8]: their features, and their logits, which are patches."""

    def __init__(self, returned: Callable[..., Any], act: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.ModuleList(nn.Conv2d(3, 4, 3, padding=1) for _ in range(2))
        self.last = nn.ModuleList(nn.Conv2d(4, 1, 3) for _ in range(2))
        self.returned, self.act = returned, act
        self.double()

    def forward(self, img: Tensor) -> Any:
        features = [self.act(first(x)) for first, x in zip(self.first, (img, F.avg_pool2d(img, 2)), strict=True)]
        a, b = (last(h) for last, h in zip(self.last, features, strict=True))
        return self.returned(a, b, *features)


class Shape(NamedTuple):
    """What a D returns, the logits that the rule finds in it, and the shapes of the logits that a loss gets."""

    returned: Callable[..., Any]
    logits: Callable[[Any], list[Tensor]]
    for_loss: Any
    picked: Callable[[Any], Any] | None = None


PATCHES, SMALL = [4, 1, 6, 6], [4, 1, 2, 2]
SHAPES = {
    "one": Shape(lambda a, b, f, g: a.mean((1, 2, 3)), lambda out: [out], [4]),
    "column": Shape(lambda a, b, f, g: a.mean((2, 3)), lambda out: [out], [4]),
    "row of patches": Shape(lambda a, b, f, g: a.flatten(1), lambda out: [out], [4, 36]),
    "patches": Shape(lambda a, b, f, g: a, lambda out: [out], PATCHES),
    "tokens": Shape(lambda a, b, f, g: a.flatten(1)[:, :, None], lambda out: [out], [4, 36, 1]),
    "scales": Shape(lambda a, b, f, g: [a, b], lambda out: out, [PATCHES, SMALL]),
    "scales, one logit each": Shape(lambda a, b, f, g: [a.mean((2, 3)), b.mean((2, 3))], lambda out: out, [[4], [4]]),
    "a scale twice": Shape(lambda a, b, f, g: [a, a, b], lambda out: out, [PATCHES, PATCHES, SMALL]),
    "with features": Shape(lambda a, b, f, g: (a, [f]), lambda out: [out[0]], PATCHES),
    "scales and features": Shape(lambda a, b, f, g: ([a, b], [[f], [g]]), lambda out: out[0], [PATCHES, SMALL]),
    "pairs": Shape(lambda a, b, f, g: [(a, [f]), (b, [g])], lambda out: [out[0][0], out[1][0]], [PATCHES, SMALL]),
    "dict": Shape(lambda a, b, f, g: {"logits": a, "c": b}, lambda out: [out["logits"]], PATCHES),
    "picked": Shape(lambda a, b, f, g: (b, a), lambda out: [out[1]], PATCHES, lambda out: out[1]),
    "tuple": Shape(lambda a, b, f, g: (a, b), lambda out: list(out), [PATCHES, SMALL], list),
    "layers": Shape(
        lambda a, b, f, g: [[f, a], [g, b]],
        lambda out: [out[0][-1], out[1][-1]],
        [PATCHES, SMALL],
        lambda out: ([scale[-1] for scale in out], [scale[:-1] for scale in out]),
    ),
    "channels": Shape(lambda a, b, f, g: f, lambda out: [out], [4, 4, 8, 8], lambda out: out),
}
ACTIVATIONS = {"lrelu": nn.LeakyReLU(0.2), "tanh": nn.Tanh()}


def shapes_of(logits: Tensor | list[Tensor]) -> list:
    return list(logits.shape) if isinstance(logits, Tensor) else [list(x.shape) for x in logits]


def patch_loss(logits: Tensor | list[Tensor]) -> Tensor:
    """[N], from means over the patches, summed over scales"""
    each = [logits] if isinstance(logits, Tensor) else logits
    return sum(F.softplus(-x).flatten(1).mean(1) if x.ndim > 1 else F.softplus(-x) for x in each)


def written_out(D: nn.Module, img: Tensor, shape: Shape, *, with_loss: bool, centre: float) -> None:
    x = img.clone().requires_grad_()
    logits = shape.logits(D(x))
    (g,) = torch.autograd.grad(sum(each.sum() for each in logits), x, create_graph=True)
    s = g.square().flatten(1).sum(1)
    penalty = s if centre == 0 else ((s + 1e-12).sqrt() - centre).square()
    total = 1.5 * penalty.mean()
    if with_loss:
        total = total + patch_loss(logits).mean()
    total.backward()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_a_step_is_autograd_at_every_level(name: str, act: str):
    shape, img = SHAPES[name], images()
    D = Scales(shape.returned, ACTIVATIONS[act])
    one_logit_each = shape.for_loss in ([4], [[4], [4]])
    for with_loss in (True, False):
        want = gradients(D, lambda w=with_loss: written_out(D, img, shape, with_loss=w, centre=1.0))
        one_each = one_logit_each or not with_loss
        for level in (None, 1, "autograd", 2):
            options = {"gamma": 3.0, "level": level, "centre": 1.0, "logits": shape.picked}
            step = partial(penalties.backward_with_penalty, D, img, patch_loss if with_loss else None, **options)
            if level == 2 and not (one_each and act == "lrelu"):
                with pytest.raises(NotPiecewiseLinear, match=r"several logits|curved"):
                    step()
                continue
            torch.testing.assert_close(gradients(D, step), want, rtol=1e-9, atol=1e-11)
            logits, penalty = step()
            assert shapes_of(logits) == shape.for_loss
            assert penalty.shape == (4,)
    assert (penalties.refusal(D, img, logits=shape.picked) is None) == (one_logit_each and act == "lrelu")


@pytest.mark.parametrize("name", SHAPES)
def test_terms_are_autograd(name: str):
    shape, img = SHAPES[name], images()
    D = Scales(shape.returned, nn.Tanh())
    for term, centre in ((penalties.r1, 0), (penalties.r2, 0), (penalties.wgan_gp, 1), (penalties.dragan, 1)):
        given = (img, img) if term is penalties.wgan_gp else (img,)
        if term is penalties.dragan:
            term = lambda *args, **options: penalties.dragan(*args, spread=0.0, **options)  # noqa: E731
        got = gradients(D, lambda t=term, g=given: (1.5 * t(D, *g, logits=shape.picked)).mean().backward())
        want = gradients(D, lambda c=centre: written_out(D, img, shape, with_loss=False, centre=c))
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


def test_the_penalty_of_patches_is_the_gradient_of_their_sum():
    D, img = nn.Conv2d(1, 1, 1).double(), torch.randn(2, 1, 5, 5, dtype=torch.float64)
    _, penalty = penalties.backward_with_penalty(D, img, None, gamma=1.0)
    torch.testing.assert_close(penalty, 25 * D.weight.square().sum().expand(2))  # each pixel is its own patch
    mean = lambda out: out.mean((1, 2, 3))  # noqa: E731
    torch.testing.assert_close(penalties.r1(D, img, logits=mean), penalty / 25**2)
    assert penalties.refusal(D, img, logits=mean) is None  # one logit for each image: level 2, with a loss


def test_a_refusal_of_patches_with_a_loss_leaves_the_penalty_alone_at_level_2():
    D, img = Scales(SHAPES["patches"].returned, nn.LeakyReLU(0.2)), images()
    calls = []
    D.register_forward_pre_hook(lambda m, args: calls.append(type(args[0]).__name__))
    for loss in (patch_loss, None, patch_loss, None):
        penalties.backward_with_penalty(D, img, loss, gamma=1.0)
    watched = ["Tensor"]  # whether level 1 gains anything, before the first step
    assert calls == ["TracedTensor", *watched, "Tensor", "TracedTensor", "Tensor", "TracedTensor"]


def test_a_loss_may_give_a_value_for_each_patch_but_not_each_with_each():
    D, img = Scales(SHAPES["patches"].returned, nn.Tanh()), images()
    penalties.backward_with_penalty(D, img, lambda x: F.softplus(-x), gamma=1.0)
    with pytest.raises(
        ValueError, match=r"loss must return \[M\], or \[M, ...\] for logits \[4, 1, 6, 6\], got \[4, 4,"
    ):
        penalties.backward_with_penalty(D, img, lambda x: x - x[:, 0], gamma=1.0)


def test_features_are_read_with_the_logits():
    a, f, g = torch.zeros(4, 1, 6, 6), torch.zeros(4, 8, 6, 6), torch.zeros(4, 16, 3, 3)
    for given in (
        (a, [f, g]),
        ([a, a], [[f], (g,)]),
        [(a, [f]), (a, [g])],
        {"logits": a, "features": {"1": f, "2": g}},
    ):
        assert [x is y for x, y in zip(read_outputs(given, 4).features, (f, g), strict=True)] == [True, True]
    assert read_outputs([a, a], 4).features == []
    with pytest.raises(ValueError, match=r"got a tuple of \[4, 1, 6, 6\], \[4, 8, 6, 6\]: want .* logits=list"):
        read_outputs((a, f), 4)
