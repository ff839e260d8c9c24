"""A whole step of D with R1, and of a WGAN-GP critic, in every way that there is to compute it.

A step is the gradients of mean(softplus(-D(img))) + gamma / 2 * mean(|dD/dimg|^2) by the parameters:

    ours        backward_with_penalty, level 2 and level 1
    eager       autograd.grad(create_graph=True) and backward, on PyTorch's own activations
    compile     the whole step compiled, in the two ways in which torch.compile differentiates twice
    APT         the penalty as a difference, |D(img) - D(img + noise)|^2 (Lin et al. 2025, arXiv:2501.08316): not exact,
                and without a second gradient
    plain step  the loss without a penalty, as the floor

All networks and images are channels_last: every network here is faster in that layout.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from benchmarks.discriminators import R3GAN, convolutions, dcgan
from gan_engine import backends
from gan_engine.losses.penalties import backward_with_penalty, between

GAMMA = 1.0

# The imports of torch.compile warn of deprecated parts of PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

SAMPLES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "5x64 8x64x32x32": (lambda: convolutions(64, 5), (8, 64, 32, 32)),
    "dcgan 16x3x64x64": (lambda: dcgan(64), (16, 3, 64, 64)),
    "r3gan 8x3x64x64": (lambda: R3GAN(), (8, 3, 64, 64)),
}


def loss(logits: Tensor) -> Tensor:
    return F.softplus(-logits)


def made(sample: str, device: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = SAMPLES[sample]
    D = make().to(device, memory_format=torch.channels_last)
    return D, torch.randn(shape, device=device).to(memory_format=torch.channels_last)


def cleared(D: nn.Module, step: Callable[[], object]) -> Callable[[], object]:
    def call() -> None:
        D.zero_grad(set_to_none=True)
        step()

    return call


def on_pytorch(step: Callable[[], object]) -> Callable[[], object]:
    def call() -> object:
        with backends.use("reference"):
            return step()

    return call


def total(D: Callable[[Tensor], Tensor], img: Tensor) -> Tensor:
    logits = D(img)
    (g,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    return loss(logits).mean() + GAMMA / 2 * g.square().sum((1, 2, 3)).mean()


def with_func_grad(D: nn.Module, img: Tensor) -> Callable[[], dict[str, Tensor]]:
    params = {name: p.detach() for name, p in D.named_parameters()}

    def total(params: dict[str, Tensor], img: Tensor) -> Tensor:
        def of_image(img: Tensor) -> tuple[Tensor, Tensor]:
            logits = torch.func.functional_call(D, params, (img,))
            return logits.sum(), logits

        g, logits = torch.func.grad(of_image, has_aux=True)(img)
        return loss(logits).mean() + GAMMA / 2 * g.square().sum((1, 2, 3)).mean()

    compiled = torch.compile(torch.func.grad(total), fullgraph=True, dynamic=False)
    return lambda: compiled(params, img)


def with_traced_autograd(D: nn.Module, img: Tensor) -> Callable[[], dict[str, Tensor]]:
    params = dict(D.named_parameters())

    def step(img: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(total(D, img), list(params.values()), allow_unused=True)

    compiled = torch.compile(step, fullgraph=True, dynamic=False)
    img = img.detach().requires_grad_()

    def call() -> dict[str, Tensor]:
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            return dict(zip(params, compiled(img)))

    return call


def approximated(D: nn.Module, img: Tensor, sigma: float = 0.01) -> None:
    logits, moved = D(torch.cat([img, img + sigma * torch.randn_like(img)])).chunk(2)
    (loss(logits).mean() + GAMMA / 2 * ((moved - logits) / sigma).square().mean()).backward()


def relative_error(D: nn.Module, step: Callable[[], object], truth: dict[str, Tensor]) -> float:
    """|gradients - truth| / |truth| over all parameters; the gradients are what `step` returns or leaves in .grad."""
    found = step()
    if found is None:
        found = {name: p.grad for name, p in D.named_parameters()}
    off = sum((found[name].double() - want).square().sum() for name, want in truth.items())
    return float((off / sum(want.square().sum() for want in truth.values())).sqrt())


@pytest.mark.parametrize("sample", SAMPLES)
def test_r1_step(sample: str, malloc: str, session, benchmark) -> None:
    D, img = made(sample, session.device)
    of_level = lambda level: lambda: backward_with_penalty(D, img, loss, gamma=GAMMA, level=level)  # noqa: E731
    torch.compiler.reset()
    by_role = {
        "ours": {f"level {level}": cleared(D, of_level(level)) for level in (2, 1)},
        "eager": {"eager": on_pytorch(cleared(D, lambda: total(D, img.detach().requires_grad_()).backward()))},
        "compile": {
            "compile func.grad": on_pytorch(with_func_grad(D, img)),
            "compile trace_autograd_ops": on_pytorch(with_traced_autograd(D, img)),
        },
        "peer": {"APT": on_pytorch(cleared(D, lambda: approximated(D, img)))},
        "floor": {"plain step": on_pytorch(cleared(D, lambda: loss(D(img)).mean().backward()))},
    }
    measure("R1 step", sample, malloc, session, benchmark, D, by_role, exact=("ours", "eager", "compile"))


@pytest.mark.parametrize("sample", SAMPLES)
def test_wgan_gp_step(sample: str, malloc: str, session, benchmark) -> None:
    """A critic's whole step: real and generated images, and the penalty between them."""
    D, real = made(sample, session.device)
    fake = torch.randn_like(real)
    x = between(real, fake)

    def main() -> None:
        (D(fake).mean() - D(real).mean()).backward()

    def eager() -> None:
        point = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(D(point).sum(), point, create_graph=True)
        penalty = 10 * (g.flatten(1).norm(dim=1) - 1).square()
        (D(fake).mean() - D(real).mean() + penalty.mean()).backward()

    def ours(level: int) -> None:
        backward_with_penalty(D, x, None, gamma=20.0, centre=1.0, level=level)
        main()

    by_role = {
        "ours": {f"level {level}": cleared(D, lambda level=level: ours(level)) for level in (2, 1)},
        "eager": {"eager": on_pytorch(cleared(D, eager))},
        "floor": {"plain step": on_pytorch(cleared(D, main))},
    }
    measure("WGAN-GP step", sample, malloc, session, benchmark, D, by_role, exact=("ours", "eager"))


def measure(op, sample, malloc, session, benchmark, D, by_role, *, exact: tuple[str, ...]) -> None:
    """Time the steps. An `exact` role whose gradients differ from those of eager by 1e-3 gets an error, and no time."""
    by_role["eager"]["eager"]()
    truth = {name: p.grad.double() for name, p in D.named_parameters() if p.grad is not None}
    errors = {}
    for role in exact:
        for name, step in by_role[role].items():
            try:
                off = relative_error(D, step, truth)
            except (TorchDynamoException, torch.OutOfMemoryError):
                continue  # torch.compile cannot take the step, or the device cannot hold it; `compare` says why
            if not off < 1e-3:
                errors[name] = f"gradients are {off:.1e} off"
    roles = {name: role for role, steps in by_role.items() for name in steps}
    calls = {name: step for steps in by_role.values() for name, step in steps.items()}
    case = {"op": op, "sample": sample, "dtype": "fp32", "mode": "step", "malloc": malloc}
    timings = session.compare(case, roles, calls, errors)
    benchmark.group = op
    benchmark.extra_info.update(case, medians_ms={name: t.median for name, t in timings.items() if t.ms})
    benchmark.pedantic(lambda: None)
    failed = {name: timings[name].error for name in by_role["ours"] if timings[name].error}
    assert not failed, failed
