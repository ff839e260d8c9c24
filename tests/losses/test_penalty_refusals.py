"""A layer that is not piecewise linear, or is compiled, is refused by name. Level 1 serves what level 2 refuses."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.discriminators import R3GAN, convolutions
from gan_engine.losses import penalties
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.ops import avg_pool2d, conv2d, minibatch_stddev
from tests.losses.networks import softplus


def step(D: nn.Module, img: Tensor, level: int | str | None) -> list[Tensor]:
    """The logits, the penalty and the gradients of a step."""
    D.zero_grad()
    found = backward_with_penalty(D, img, softplus, gamma=1.0, level=level)
    return [*found, *(p.grad.clone() for p in D.parameters())]


class MinibatchStd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return minibatch_stddev(x)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return -x if x.mean() > 0 else x


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.detach()


class NoGrad(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x * 2
        return x + y


class CrossBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.flip(0)


class Clamped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=x.flip(1))


class Running(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cummax(2).values


class Attention(nn.Module):
    def __init__(self, own: bool) -> None:
        super().__init__()
        self.attend = self.by_hand if own else nn.MultiheadAttention(6, 2, batch_first=True)

    @staticmethod
    def by_hand(x: Tensor, *_: Tensor) -> tuple[Tensor]:
        return ((x @ x.transpose(1, 2)).softmax(-1) @ x,)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)
        return self.attend(x, x, x)[0]


class OwnGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return 2 * dy


class OwnGradientByContext(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return 2 * dy


def test_what_turns_gradients_off_is_named():
    last, img = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)), torch.randn(4, 3, 2, 2)
    for function in (OwnGradient, OwnGradientByContext):
        reason = penalties.refusal(lambda x, f=function: last(f.apply(x)), img)
        assert reason == f"{function.__name__}, a torch.autograd.Function, has a gradient of its own"
    reason = penalties.refusal(lambda x: checkpoint(last, x, use_reentrant=True), img)
    assert reason == "it computes without gradients: torch.utils.checkpoint has use_reentrant=True"
    reason = penalties.refusal(nn.Sequential(RunningMean(), last), img)
    assert (
        reason
        == "0 (RunningMean): it computes without gradients: mean is called with gradients off, as under torch.no_grad()"
    )


class RunningMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean.lerp_(x.mean((0, 2, 3))[:, None, None], 0.01)
        return x - self.mean


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (nn.BatchNorm2d(4), r"^1 \(BatchNorm2d\): batch_norm ties samples together"),
        (nn.InstanceNorm2d(4), r"^1 \(InstanceNorm2d\): instance_norm divides by the size of its own input"),
        (nn.GroupNorm(2, 4), r"^1 \(GroupNorm\): group_norm divides"),
        (nn.LayerNorm([4, 6, 6]), r"^1 \(LayerNorm\): layer_norm divides"),
        (nn.Tanh(), r"^1 \(Tanh\): tanh is curved"),
        (nn.GELU(), r"^1 \(GELU\): gelu is curved"),
        (nn.SiLU(), r"^1 \(SiLU\): silu is curved"),
        (nn.Softmax(1), r"^1 \(Softmax\): softmax is curved"),
        (nn.AlphaDropout(0.5), r"^1 \(AlphaDropout\): alpha_dropout draws new slopes at every pass"),
        (Clamped(), r"^1 \(Clamped\): its limit depends on the image"),
        (Running(), r"^1 \(Running\): cummax is not known to be piecewise linear"),
        (MinibatchStd(), r"^1 \(MinibatchStd\): mean over dimension 0 ties samples together"),
        (Branch(), r"^1 \(Branch\): gt is not known|^1 \(Branch\): mean"),
        (Detached(), r"^1 \(Detached\): detach cuts a gradient"),
        (NoGrad(), r"^1 \(NoGrad\): it computes without gradients"),
        (CrossBatch(), r"^1 \(CrossBatch\): flip along dimension 0 ties samples together"),
        (nn.BatchNorm2d(4, track_running_stats=False).eval(), r"^1 \(BatchNorm2d\): batch_norm .* level=1 is exact"),
        (Attention(False), r"^1.attend \(MultiheadAttention\): attention is curved: its slope changes with the image"),
        (Attention(True), r"^1 \(Attention\): the product of two activations is not linear"),
        (Square(), r"^1 \(Square\): the product of two activations is not linear"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_not_piecewise_linear_is_refused_by_name_and_served_by_level_1(layer, sentence):
    D = nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.Flatten(), nn.LazyLinear(1), nn.Flatten(0)).double()
    img = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    D(img)
    with pytest.raises(NotPiecewiseLinear, match=sentence):
        backward_with_penalty(D, img, softplus, gamma=1.0, level=2)
    state = {name: values.clone() for name, values in D.state_dict().items()}
    assert penalties.refusal(D, img) is not None
    for name, values in D.state_dict().items():  # asking leaves no trace in running statistics
        assert torch.equal(values, state[name])
    torch.manual_seed(0)
    got = step(D, img, None)
    D.load_state_dict(state)
    torch.manual_seed(0)
    torch.testing.assert_close(got, step(D, img, "autograd"), rtol=1e-9, atol=1e-10)


def test_what_is_wrong_is_refused_with_want_and_got():
    D, img = convolutions(4, 1), torch.randn(2, 4, 8, 8)
    with pytest.raises(ValueError, match='level must be 2, 1, "autograd", "aligned" or None, got 3'):
        backward_with_penalty(D, img, None, gamma=1.0, level=3)
    features = nn.Conv2d(4, 3, 3)
    for level in (None, 2, 1, "autograd"):
        with pytest.raises(ValueError, match=r"D must return logits \[N\] = \[2\], got \[2, 3, 6, 6\]"):
            backward_with_penalty(features, img, None, gamma=1.0, level=level)
    column = torch.zeros(2, 1)
    for level in (2, 1, "autograd"):
        with pytest.raises(ValueError, match=r"loss must return \[M\] for logits \[N\] = \[2\], got \[2, 2\]"):
            backward_with_penalty(D, img, lambda logits: logits - column, gamma=1.0, level=level)


def compiled_forward():
    D = convolutions(4, 1)
    D.compile()
    return D


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.compile(convolutions(4, 1)),
        lambda: nn.Sequential(torch.compile(convolutions(4, 1))),
        lambda: torch.compile(convolutions(4, 1).forward),
        compiled_forward,
    ],
    ids=["module", "part of a module", "function", "in place"],
)
def test_a_compiled_discriminator_is_refused_with_the_fix(make):
    D, img = make(), torch.randn(2, 4, 8, 8)
    for call in (
        lambda: penalties.r1(D, img),
        lambda: penalties.wgan_gp(D, img, img),
        lambda: backward_with_penalty(D, img, None, gamma=1.0),
    ):
        with pytest.raises(RuntimeError, match=r"is compiled by torch.compile.* or compile the whole step"):
            call()


def test_the_fix_works():
    """A penalty inside the compiled function, with both gradients, is what it is in eager mode."""
    torch.manual_seed(0)
    D, img = R3GAN((8, 8), group=4), torch.randn(2, 3, 8, 8)
    params = {name: p.detach() for name, p in D.named_parameters()}

    def total(params: dict[str, Tensor], img: Tensor) -> Tensor:
        def logit_sum(img: Tensor) -> Tensor:
            return torch.func.functional_call(D, params, (img,)).sum()

        return torch.func.grad(logit_sum)(img).square().sum()

    torch._dynamo.reset()
    got = torch.compile(torch.func.grad(total), fullgraph=True, backend="aot_eager")(params, img)
    penalties.r1(D, img).sum().backward()
    for name, p in D.named_parameters():
        torch.testing.assert_close(got[name], torch.zeros_like(p) if p.grad is None else p.grad, rtol=1e-3, atol=1e-5)


class ActivationOfSlices(nn.Module):
    """An activation in place on some of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        F.relu(x[:, :4], inplace=True)
        return x.square().sum((1, 2, 3))


class Dynamic(nn.Module):
    """A convolution whose weights the image decides."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Linear(3, 4 * 3 * 9)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weight = self.weights(x.mean((2, 3))).reshape(n * 4, c, 3, 3)
        return F.conv2d(x.reshape(1, n * c, h, w), weight, groups=n).reshape(n, -1).sum(1)


@pytest.mark.parametrize("made", [ActivationOfSlices, Dynamic])
def test_level_1_holds_for_activations_on_slices_and_for_weights_from_the_image(made):
    D, img = made().double(), torch.randn(4, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(step(D, img, None), step(D, img, "autograd"))


@pytest.mark.parametrize("level", [1, 2])
def test_an_infinity_is_cut_off_by_relu_as_in_pytorch(level):
    D = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1, bias=False), nn.Flatten(0))
    with torch.no_grad():
        D[0].bias[0] = -float("inf")
    backward_with_penalty(D, torch.randn(3, 1, 2, 2), softplus, gamma=1.0, level=level)
    assert all(p.grad[1:].isfinite().all() for p in D[0].parameters())
    assert D[3].weight.grad.isfinite().all()


def test_a_refusal_after_the_trial_leads_to_level_1():
    class Changing(nn.Module):
        curved = False

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return (x.tanh() if self.curved else x).sum((1, 2, 3))

    D, img = Changing(), torch.randn(2, 1, 4, 4)
    backward_with_penalty(D, img, softplus, gamma=1.0)
    D.curved = True
    backward_with_penalty(D, img, softplus, gamma=1.0)
    with pytest.raises(NotPiecewiseLinear, match="tanh is curved"):
        backward_with_penalty(D, img, softplus, gamma=1.0, level=2)


def test_our_own_closed_ops_are_known_to_level_2():
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)

    def D(x: Tensor) -> Tensor:
        return avg_pool2d(F.relu(conv2d(x, weight, stride=2)), 2).sum((1, 2, 3))

    assert penalties.refusal(D, torch.randn(2, 3, 9, 9)) is None
