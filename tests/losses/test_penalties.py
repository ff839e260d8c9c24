"""Penalties: their formulas, their levels, and what backward_with_penalty refuses."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.discriminators import R3GAN, ResNet, dcgan, plain
from benchmarks.timing import peak_tensor_mib
from gan_engine import backends
from gan_engine.layers import DownsampleConv2d, EqualizedConv2d, EqualizedLinear, UpsampleConv2d
from gan_engine.losses import penalties
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.losses.piecewise_linear import NotPiecewiseLinear
from gan_engine.ops import avg_pool2d, conv2d, minibatch_stddev

LEVELS = [2, 1, "autograd"]


def softplus(logits: Tensor) -> Tensor:
    return F.softplus(-logits)


def seeded(make, *args, **kwargs):
    torch.manual_seed(0)
    return make(*args, **kwargs)


def of_our_layers() -> nn.Sequential:
    return nn.Sequential(
        EqualizedConv2d(3, 4, 3, act="lrelu", clamp=1),
        EqualizedConv2d(4, 32, 3, act="lrelu", resample="down"),
        EqualizedConv2d(32, 32, 3, act="lrelu", resample="up", taps=[1, 3, 3, 1]),
        EqualizedConv2d(32, 8, 3, act="lrelu", resample="down", taps=[1, 3, 3, 1]),
        DownsampleConv2d(8, 6, 1),
        UpsampleConv2d(6, 6, 3),
        nn.Flatten(),
        EqualizedLinear(6 * 16, 5, act="lrelu"),
        EqualizedLinear(5, 1),
        nn.Flatten(0),
    )


# Small ones of each shape, with images for them.
DISCRIMINATORS = {
    "plain": (lambda: plain(8, 3), (8, 12, 12)),
    "dcgan": (lambda: dcgan(4), (3, 64, 64)),
    "dcgan spectral norm": (lambda: dcgan(4, spectral_norm=True).eval(), (3, 64, 64)),
    "resnet": (lambda: ResNet(4), (3, 8, 8)),
    "r3gan": (lambda: R3GAN((8, 8), group=4), (3, 8, 8)),
    "our layers": (of_our_layers, (3, 8, 8)),
}


@pytest.fixture(params=DISCRIMINATORS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    make, shape = DISCRIMINATORS[request.param]
    return seeded(make), torch.randn(4, *shape)


def gradients(D: nn.Module, img: Tensor, loss=softplus, *, gamma: float = 3.0, **options) -> dict[str, Tensor]:
    """The gradients of backward_with_penalty by name, the logits and the penalty among them, in float64."""
    D.zero_grad(set_to_none=True)
    logits, penalty = backward_with_penalty(D, img, loss, gamma=gamma, **options)
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in D.named_parameters()}
    return {name: g.double() for name, g in {**found, "logits": logits, "penalty": penalty}.items()}


def written_out(D: nn.Module, img: Tensor, loss=softplus, *, gamma: float = 3.0, centre: float = 0.0) -> dict:
    """What backward_with_penalty promises, as a user would write it, in float64."""
    D, img = copy.deepcopy(D).double(), img.double().requires_grad_()
    logits = D(img)
    (g,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    norm = (g.flatten(1).square().sum(1) + 1e-12).sqrt() if centre else g.flatten(1).norm(dim=1)
    penalty = (norm - centre).square()
    total = gamma / 2 * penalty.mean() + (0 if loss is None else loss(logits).mean())
    grads = torch.autograd.grad(total, list(D.parameters()), allow_unused=True)
    found = {
        name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(D.named_parameters(), grads, strict=True)
    }
    return {**found, "logits": logits.detach(), "penalty": penalty.detach()}


def assert_close(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float) -> None:
    for name, w in want.items():
        assert (got[name] - w).norm() <= tolerance * w.norm() + 1e-12, name


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss", [softplus, None], ids=["with loss", "penalty alone"])
@pytest.mark.parametrize("centre", [0.0, 1.0])
@pytest.mark.usefixtures("poisoned_memory")
def test_every_level_is_what_is_written(case, level, loss, centre):
    D, img = case
    got = gradients(D.double(), img.double(), loss, level=level, centre=centre)
    assert_close(got, written_out(D, img, loss, centre=centre), 1e-9)


@pytest.mark.parametrize("loss", [softplus, None], ids=["with loss", "penalty alone"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 9)),
        (nn.Conv3d(4, 6, (1, 3, 2), padding=(0, 1, 1), bias=False), (4, 3, 4, 5)),
        (nn.Conv2d(4, 6, 3, padding="same", dilation=2), (4, 7, 6)),
        (nn.Conv2d(4, 6, 3, padding="valid", groups=2), (4, 7, 6)),
        (nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (4, 5)),
        (nn.ConvTranspose2d(4, 6, 3, 2, (1, 0), output_padding=(1, 0), groups=2, dilation=(1, 2)), (4, 5, 6)),
        (nn.ConvTranspose3d(4, 6, 2, stride=2, bias=False), (4, 2, 3, 2)),
    ],
    ids=str,
)
@pytest.mark.usefixtures("poisoned_memory")
def test_level_2_takes_convolutions_of_every_kind(layer, shape, loss):
    like = nn.Conv2d if "2d" in str(layer) else nn.Conv1d if "1d" in str(layer) else nn.Conv3d
    layers = [like(3, 4, 1), nn.LeakyReLU(0.2), layer, nn.ReLU(), nn.Flatten(), nn.LazyLinear(1), nn.Flatten(0)]
    D, img = nn.Sequential(*copy.deepcopy(layers)).double(), torch.randn(4, 3, *shape[1:], dtype=torch.float64)
    D(img)
    assert_close(gradients(D, img, loss, level=2), written_out(D, img, loss), 1e-10)


@pytest.mark.usefixtures("poisoned_memory")
def test_memory_that_others_show_is_not_written_over():
    """Activations that are read twice, before and after their masks, and through views."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            before = self.first(x)
            view = before.flatten(2)
            after = F.leaky_relu(before, 0.2)
            y = F.relu(self.second(after))
            z = F.relu(self.third(y) + after)
            return (view * 0.5 + z.flatten(2) + self.second(y).flatten(2)).sum((1, 2)) + before.sum((1, 2, 3))

    D, img = seeded(Shared).double(), torch.randn(3, 4, 6, 6, dtype=torch.float64)
    assert_close(gradients(D, img, level=2), written_out(D, img), 1e-10)


# Convolution passes


class Multiplications(TorchDispatchMode):
    """Counts those of convolutions: forward, and backward by data and by weights.

    Calls would not do: PyTorch differentiates a grouped convolution twice by one call for each group.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten.convolution:
            self.count += out.numel() * args[1][0].numel()
        if func.overloadpacket is torch.ops.aten.convolution_backward:
            self.count += sum(args[10][:2]) * args[0].numel() * args[2][0].numel()
        return out


def passes(D: nn.Module, img: Tensor, step) -> float:
    """The multiplications of `step` in units of those of D(img)."""
    counts = []
    for call in (step, lambda: D(img)):
        with Multiplications() as found:
            call()
        counts.append(found.count)
    return counts[0] / counts[1]


@pytest.mark.parametrize("name", ["dcgan", "resnet", "r3gan"])
def test_convolution_passes_per_layer(name: str):
    make, shape = DISCRIMINATORS[name]
    D, img = seeded(make), torch.randn(2, *shape)
    count = lambda step: passes(D, img, step)  # noqa: E731
    step = lambda level, loss: count(lambda: backward_with_penalty(D, img, loss, gamma=1.0, level=level))  # noqa: E731

    # A plain step does without the gradient by the image, and all do without the tangent of a last convolution.
    assert 2.5 < count(lambda: softplus(D(img)).mean().backward()) < 3
    last = count(lambda: D[-2](torch.zeros(2, 32, 4, 4))) if name == "dcgan" else 0
    assert step(2, softplus) == pytest.approx(4 - last, rel=1e-12)
    assert step(2, None) == pytest.approx(4 - last, rel=1e-12)
    assert 3.99 < step(1, None) <= 4
    assert 3.99 < count(lambda: penalties.r1(D, img).mean().backward()) <= 4
    assert 5.99 < step(1, softplus) <= 6
    with backends.use("reference"):  # the activations of PyTorch
        assert 5.99 < step("autograd", softplus) <= 6
        assert 5.5 < step("autograd", None) <= 6


def test_the_tangent_ends_at_the_last_weight():
    D, img = seeded(plain, 8, 4), torch.randn(2, 8, 12, 12)
    step = lambda: backward_with_penalty(D, img, softplus, gamma=1.0, level=2)  # noqa: E731
    assert passes(D, img, step) == 4 - 1 / 4
    for layer in list(D)[2:]:
        layer.requires_grad_(False)
    assert passes(D, img, step) == 2 + 1 / 4


def test_level_2_needs_no_more_memory_than_a_plain_step():
    D = seeded(plain, 32, 6).to(memory_format=torch.channels_last)
    img = torch.randn(8, 32, 64, 64).to(memory_format=torch.channels_last)

    def regularised() -> None:
        D.zero_grad(set_to_none=True)
        backward_with_penalty(D, img, softplus, gamma=1.0, level=2)

    def unregularised() -> None:
        D.zero_grad(set_to_none=True)
        softplus(D(img)).mean().backward()

    regularised(), unregularised()
    assert peak_tensor_mib(regularised) < 1.1 * peak_tensor_mib(unregularised)


# The plain forms


@pytest.fixture
def small() -> tuple[nn.Module, Tensor]:
    D = seeded(nn.Sequential, nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 1), nn.Flatten(0))
    return D.double(), torch.randn(5, 3, 8, 8, dtype=torch.float64)


def input_gradient(D: nn.Module, img: Tensor) -> Tensor:
    img = img.detach().requires_grad_()
    (g,) = torch.autograd.grad(D(img).sum(), img, create_graph=True)
    return g.flatten(1)


@pytest.mark.parametrize("function", [penalties.r1, penalties.r2])
def test_r1_and_r2(small, function):
    D, img = small
    torch.testing.assert_close(function(D, img), input_gradient(D, img).square().sum(1))


def test_wgan_gp_and_dragan(small):
    D, real = small
    fake = torch.randn_like(real)
    eps = torch.rand(5, generator=torch.Generator().manual_seed(3)).double()[:, None, None, None]
    want = (input_gradient(D, eps * real + (1 - eps) * fake).norm(dim=1) - 1).square()
    got = penalties.wgan_gp(D, real, fake, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(got, want)

    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(real.shape, generator=generator).double()
    eps = torch.rand(5, generator=generator).double()[:, None, None, None]
    x = real + (1 - eps) * 0.5 * real.std() * noise
    got = penalties.dragan(D, real, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(got, (input_gradient(D, x).norm(dim=1) - 1).square())


def test_path_length():
    G = seeded(nn.Sequential, nn.Linear(6, 3 * 4 * 4), nn.Tanh(), nn.Unflatten(-1, (3, 4, 4))).double()
    G_of_ws = lambda ws: G(ws.sum(1))  # noqa: E731
    ws, mean = torch.randn(5, 2, 6, dtype=torch.float64), torch.tensor(0.5)
    got = penalties.path_length(G_of_ws, ws, mean, generator=torch.Generator().manual_seed(1))
    y = torch.empty(5, 3, 4, 4, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(1)) / 4
    jacobian = torch.autograd.functional.jacobian(lambda w: (G_of_ws(w) * y).sum((1, 2, 3)).sum(), ws)
    lengths = jacobian.square().sum(2).mean(1).sqrt()
    assert mean.item() == pytest.approx(0.99 * 0.5 + 0.01 * lengths.mean().item())
    torch.testing.assert_close(got, (lengths - mean).square())
    got.mean().backward()
    assert all(p.grad.isfinite().all() for p in G[0].parameters())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("centre", [0.0, 1.0])
def test_a_gradient_of_zero_gives_no_nan(level, centre):
    D = plain(4, 2)
    for parameter in D.parameters():
        nn.init.zeros_(parameter)
    found = gradients(D, torch.randn(2, 4, 8, 8), centre=centre, level=level)
    assert all(values.isfinite().all() for values in found.values())


def test_zero_gradient_in_the_plain_forms():
    D, img = plain(4, 2), torch.randn(2, 4, 8, 8)
    for parameter in D.parameters():
        nn.init.zeros_(parameter)
    G = lambda ws: D[:-1](ws[:, :, None, None].expand(-1, -1, 8, 8))  # noqa: E731
    found = [penalties.r1(D, img), penalties.wgan_gp(D, img, -img), penalties.dragan(D, img)]
    found.append(penalties.path_length(G, img[:, :, 0, 0], torch.zeros(())))
    sum(penalty.mean() for penalty in found).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in D.parameters())


# What a step takes


@pytest.mark.parametrize("level", LEVELS)
def test_gradients_are_added_and_scaled(case, level):
    D, img = case
    once = gradients(D, img, level=level)
    backward_with_penalty(D, img, softplus, gamma=3.0, level=level, scale=torch.tensor(4.0))
    for name, p in D.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad.double(), 5 * once[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_frozen_parameters_get_no_gradient(case, level):
    D, img = case
    want = gradients(D, img, level=level)
    names = [name for name, _ in D.named_parameters()]
    for name, p in D.named_parameters():
        p.requires_grad_(name != names[0])
    got = gradients(D, img, level=level)
    assert not got.pop(names[0]).any()
    assert_close(got, {name: want[name] for name in got}, 1e-5)


@pytest.mark.parametrize("level", LEVELS)
def test_classes_reach_the_discriminator(level):
    D, img, c = seeded(ResNet, 8).double(), torch.randn(4, 3, 16, 16).double(), torch.tensor([1, 5, 1, 0])
    got = gradients(D, img, level=level, c=c)
    conditioned = seeded(ResNet, 8).double()
    forward = conditioned.forward
    conditioned.forward = lambda img: forward(img, c)
    want = gradients(conditioned, img, level="autograd")
    assert got["embed.weight"].abs().sum() > 0
    assert_close(got, want, 1e-10)


@pytest.mark.parametrize("level", LEVELS)
def test_a_weight_for_each_image_and_a_relativistic_loss(case, level):
    """R1 and R2 with weights of their own and a loss that pairs real and generated images, in one call."""
    D, real = case
    D, real = D.double(), real.double()
    fake = real.flip(0) * 0.5
    gammas = torch.tensor([2.0] * 4 + [6.0] * 4)
    got = gradients(D, torch.cat([real, fake]), lambda pair: F.softplus(pair[4:] - pair[:4]), gamma=gammas, level=level)
    D.zero_grad()
    pair = F.softplus(D(fake) - D(real)).mean()
    total = pair + 0.5 * penalties.r1(D, real).mean() + 1.5 * penalties.r2(D, fake).mean()
    total.backward()
    for name, p in D.named_parameters():
        torch.testing.assert_close(got[name], torch.zeros_like(p) if p.grad is None else p.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_is_as_exact_as_autograd_in_it(case, autocast, dtype):
    """In float16 the gradients are below its least number, and come through by the scale of the loss."""
    D, img = case
    img = img.to(memory_format=torch.channels_last)
    scale = 2.0**16 if dtype == torch.float16 else 1.0
    loss = lambda logits: softplus(logits) / scale  # noqa: E731
    truth = gradients(D, img, loss, gamma=3 / scale, level="autograd")
    error = {}
    for level in LEVELS:
        options = {"gamma": 3 / scale, "level": level, "scale": scale}
        if autocast:
            with torch.autocast("cpu", dtype):
                got = gradients(D, img, loss, **options)
        else:
            got = gradients(copy.deepcopy(D).to(dtype), img.to(dtype), loss, **options)
        got = {name: g / scale for name, g in got.items()}
        off = sum((got[name] - truth[name]).square().sum() for name, _ in D.named_parameters())
        error[level] = math.sqrt(off / sum(truth[name].square().sum() for name, _ in D.named_parameters()))
    assert error[2] <= 1.25 * error["autograd"] + 1e-3
    assert error[1] <= 1.25 * error["autograd"] + 1e-3


@pytest.mark.parametrize("level", [2, 1])
def test_fifty_steps_of_adam_end_where_those_of_autograd_do(level):
    D, img = seeded(dcgan, 4).double(), torch.randn(50, 4, 3, 64, 64, dtype=torch.float64)
    ends = []
    for each in (level, "autograd"):
        trained = copy.deepcopy(D)
        adam = torch.optim.Adam(trained.parameters(), lr=1e-3, betas=(0.5, 0.999))
        for batch in img:
            adam.zero_grad()
            backward_with_penalty(trained, batch, softplus, gamma=1.0, level=each)
            adam.step()
        ends.append(torch.nn.utils.parameters_to_vector(trained.parameters()))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-8, atol=1e-10)


# Refusals


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
        (nn.Dropout(0.5), r"^1 \(Dropout\): dropout draws new slopes at every pass"),
        (nn.MaxPool2d(2), r"^1 \(MaxPool2d\): max_pool2d is not known to be piecewise linear"),
        (MinibatchStd(), r"^1 \(MinibatchStd\): mean over dimension 0 ties samples together"),
        (Branch(), r"^1 \(Branch\): gt is not known|^1 \(Branch\): mean"),
        (Detached(), r"^1 \(Detached\): detach cuts a gradient"),
        (NoGrad(), r"^1 \(NoGrad\): it computes without gradients"),
        (CrossBatch(), r"^1 \(CrossBatch\): flip is not known"),
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
    got = gradients(D, img)
    D.load_state_dict(state)
    torch.manual_seed(0)
    assert_close(got, gradients(D, img, level="autograd"), 1e-9)


def test_what_is_wrong_is_refused_with_want_and_got():
    D, img = plain(4, 1), torch.randn(2, 4, 8, 8)
    with pytest.raises(ValueError, match='level must be 2, 1, "autograd" or None, got 3'):
        backward_with_penalty(D, img, None, gamma=1.0, level=3)
    patches = nn.Conv2d(4, 1, 3)
    with pytest.raises(NotPiecewiseLinear, match=r"D must return logits \[N\] = \[2\], got \[2, 1, 6, 6\]"):
        backward_with_penalty(patches, img, None, gamma=1.0, level=2)
    with pytest.raises(ValueError, match=r"D must return logits \[N\] = \[2\], got \[2, 1, 6, 6\]"):
        backward_with_penalty(patches, img, None, gamma=1.0)


def compiled_forward():
    D = plain(4, 1)
    D.compile()
    return D


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.compile(plain(4, 1)),
        lambda: nn.Sequential(torch.compile(plain(4, 1))),
        lambda: torch.compile(plain(4, 1).forward),
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
    D, img = seeded(R3GAN, (8, 8), group=4), torch.randn(2, 3, 8, 8)
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


class OfSlices(nn.Module):
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


@pytest.mark.parametrize("made", [OfSlices, Dynamic])
def test_level_1_holds_for_activations_on_slices_and_for_weights_from_the_image(made):
    D, img = made().double(), torch.randn(4, 3, 6, 6, dtype=torch.float64)
    grads = {}
    for level in (None, "autograd"):
        D.zero_grad()
        penalties.backward_with_penalty(D, img, softplus, gamma=1.0, level=level)
        grads[level] = [p.grad.clone() for p in D.parameters()]
    for got, want in zip(*grads.values(), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("level", [1, 2])
def test_an_infinity_is_cut_off_by_relu_as_in_pytorch(level):
    D = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1, bias=False), nn.Flatten(0))
    with torch.no_grad():
        D[0].bias[0] = -float("inf")
    penalties.backward_with_penalty(D, torch.randn(3, 1, 2, 2), softplus, gamma=1.0, level=level)
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
    penalties.backward_with_penalty(D, img, softplus, gamma=1.0)
    D.curved = True
    penalties.backward_with_penalty(D, img, softplus, gamma=1.0)
    with pytest.raises(NotPiecewiseLinear, match="tanh is curved"):
        penalties.backward_with_penalty(D, img, softplus, gamma=1.0, level=2)


def test_our_own_closed_ops_are_known_to_level_2():
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)

    def D(x: Tensor) -> Tensor:
        return avg_pool2d(F.relu(conv2d(x, weight, stride=2)), 2).sum((1, 2, 3))

    assert penalties.refusal(D, torch.randn(2, 3, 9, 9)) is None
