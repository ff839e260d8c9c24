"""One rule teaches level 2 a function: its step is then exactly the step of the formula."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.losses import penalties
from gan_engine.losses.level2 import rules
from gan_engine.losses.level2.linear import linear
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import rule
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.ops.linear_per_sample import linear_per_sample
from tests.losses.networks import around, conv, gradients, images, softplus, written_out


@pytest.fixture(autouse=True)
def rules_are_put_back(monkeypatch):
    monkeypatch.setattr(rules, "RULES", dict(rules.RULES))


def assert_level_2_is_exact(D: nn.Module) -> None:
    assert penalties.refusal(D, images()) is None
    got = gradients(D, lambda: backward_with_penalty(D, images(), softplus, gamma=3.0, level=2))
    torch.testing.assert_close(
        got, gradients(D, lambda: written_out(D, images(), softplus, gamma=3.0)), rtol=1e-10, atol=1e-13
    )


def teach_frac() -> None:
    @rule("frac", in_place=True)
    def fraction(function, x):
        return x - x.value.trunc()


def teach_fmod() -> None:
    @rule("fmod", "remainder")
    def rest(function, x, *args, **kwargs):
        return x + (function(x.value, *args, **kwargs) - x.value)


def teach_cummax() -> None:
    @rule("cummax")
    def running_maximum(function, x, dim):
        _, index = pair = function(x.value, dim)
        return type(pair)((linear(lambda v: v.gather(dim, index), x), index))


def teach_trapezoid() -> None:
    rule("cumulative_trapezoid")(linear)


@torch.library.custom_op("gan_engine_tests::relu", mutates_args=())
def tripled(x: Tensor) -> Tensor:
    """It has the name of a function of PyTorch, but computes something else."""
    return 3 * x


tripled.register_autograd(lambda ctx, dy: 3 * dy)


class Blurred(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x + x.roll(1, 2)

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:
        return dy + dy.roll(-1, 2)


@linear_per_sample
def blur(x: Tensor, weight: Tensor | None = None) -> Tensor:
    y = Blurred.apply(x)
    return y if weight is None else y * weight


TAPS = torch.tensor([[0.1, 0.4, -0.3]] * 3, dtype=torch.float64).expand(4, 1, 3, 3).contiguous()


@linear_per_sample
def filtered(x: Tensor) -> Tensor:
    return F.conv2d(x, TAPS, padding=1, groups=4)  # constants that are no argument


class Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        taps = TAPS.flip(2)  # made inside
        ctx.save_for_backward(taps)
        return F.conv2d(x, taps, padding=1, groups=4)

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:
        return F.conv_transpose2d(dy, ctx.saved_tensors[0], padding=1, groups=4)


class BlurredByWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return blur(F.leaky_relu(x, 0.2), self.weight)


TAUGHT = {
    "frac": (teach_frac, lambda: torch.frac),
    "frac in place": (teach_frac, lambda: lambda x: (x * 1).frac_()),
    "fmod": (teach_fmod, lambda: lambda x: torch.fmod(x, 0.7)),
    "running maximum": (teach_cummax, lambda: lambda x: x.cummax(2)[0]),
    "trapezoid": (teach_trapezoid, lambda: lambda x: torch.cumulative_trapezoid(x, dim=2)),
    "operator of a library": (lambda: rule(torch.ops.gan_engine_tests.relu)(linear), lambda: tripled),
    "the same by its definition": (lambda: rule(tripled)(linear), lambda: torch.ops.gan_engine_tests.relu),
}


@pytest.mark.parametrize("name", TAUGHT)
def test_a_rule_is_all_that_a_function_needs(name: str):
    teach, layer = TAUGHT[name]
    D = around(layer(), conv(), nn.LeakyReLU(0.2), conv())
    with pytest.raises(NotPiecewiseLinear, match="is not known to be piecewise linear"):
        backward_with_penalty(D, images(), softplus, gamma=3.0, level=2)
    teach()
    assert_level_2_is_exact(D)


def test_a_function_that_is_declared_linear_needs_no_rule():
    assert_level_2_is_exact(around(BlurredByWeight(), blur, conv(), nn.LeakyReLU(0.2)))


@pytest.mark.parametrize(
    "function", [filtered, linear_per_sample(lambda x: Filter.apply(x))], ids=["a global", "made inside"]
)
def test_a_declared_function_may_save_constants_that_are_no_argument(function: Callable):
    assert_level_2_is_exact(around(conv(), nn.LeakyReLU(0.2), function, conv()))


def test_an_operator_of_a_library_is_not_taken_for_the_function_of_its_name():
    for called in (tripled, torch.ops.gan_engine_tests.relu, torch.ops.gan_engine_tests.relu.default):
        assert "gan_engine_tests.relu is not known" in penalties.refusal(around(called), images())


@pytest.mark.parametrize(
    "called", [torch.ops.aten.relu, torch.ops.aten.relu.default, torch.relu], ids=["packet", "overload", "function"]
)
def test_an_operator_of_pytorch_meets_the_rule_of_its_function(called: Callable):
    assert_level_2_is_exact(around(called, conv(), called))


def test_a_new_rule_ends_the_memory_of_refusals(monkeypatch: pytest.MonkeyPatch):
    D = around(torch.frac, conv())
    backward_with_penalty(D, images(), softplus, gamma=3.0)
    teach_frac()
    monkeypatch.setattr(penalties, "backward_by_autograd", None)
    backward_with_penalty(D, images(), softplus, gamma=3.0)
