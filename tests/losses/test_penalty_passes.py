"""Steps with a penalty cost the convolution passes and the memory that their level promises."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.discriminators import convolutions
from benchmarks.timing import peak_tensor_mib
from gan_engine import backends
from gan_engine.losses import by_autograd, penalties
from gan_engine.losses.penalties import backward_with_penalty
from tests.losses.discriminators import DISCRIMINATORS, seeded
from tests.losses.networks import softplus


class Multiplications(TorchDispatchMode):
    """Counts the multiplications of convolutions: forward, and backward by the image and by the weight.

    A count of calls would mislead: PyTorch differentiates a grouped convolution twice by one call for each group.
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
def test_convolution_passes_per_layer(name: str, monkeypatch):
    monkeypatch.setattr(by_autograd, "FEW", 0)  # which keeps a pass of few numbers
    make, shape = DISCRIMINATORS[name]
    D, img = seeded(make), torch.randn(2, *shape)
    count = lambda step: passes(D, img, step)  # noqa: E731
    step = lambda level, loss: count(lambda: backward_with_penalty(D, img, loss, gamma=1.0, level=level))  # noqa: E731

    # A step without a penalty spares the gradient by the image. Every step spares the tangent of a last convolution.
    assert 2.5 < count(lambda: softplus(D(img)).mean().backward()) < 3
    last = count(lambda: D[-2](torch.zeros(2, 32, 4, 4))) if name == "dcgan" else 0
    assert step(2, softplus) == pytest.approx(4 - last, rel=1e-12)
    assert step(2, None) == pytest.approx(4 - last, rel=1e-12)
    assert 3.99 < step(1, None) <= 4
    assert 3.99 < count(lambda: penalties.r1(D, img).mean().backward()) <= 4
    # Nobody reads the gradient of the loss by the image. A residual block pools the image for its shortcut, and a hook
    # of the pooled image could read that.
    first = count(lambda: next(m for m in D.modules() if isinstance(m, nn.Conv2d))(img)) if name != "resnet" else 0
    assert step(1, softplus) == pytest.approx(6 - first, rel=1e-12)
    with backends.use("reference"):  # PyTorch sends zeros through all layers
        assert step("autograd", softplus) == pytest.approx(6 - first, rel=1e-12)
        assert 5.5 < step("autograd", None) <= 6


def test_the_tangent_ends_at_the_last_weight():
    D, img = seeded(convolutions, 8, 4), torch.randn(2, 8, 12, 12)
    step = lambda: backward_with_penalty(D, img, softplus, gamma=1.0, level=2)  # noqa: E731
    assert passes(D, img, step) == 4 - 1 / 4
    for layer in list(D)[2:]:
        layer.requires_grad_(False)
    assert passes(D, img, step) == 2 + 1 / 4


def test_level_2_needs_no_more_memory_than_a_step_without_a_penalty():
    D = seeded(convolutions, 32, 6).to(memory_format=torch.channels_last)
    img = torch.randn(8, 32, 64, 64).to(memory_format=torch.channels_last)

    def regularised() -> None:
        D.zero_grad(set_to_none=True)
        backward_with_penalty(D, img, softplus, gamma=1.0, level=2)

    def unregularised() -> None:
        D.zero_grad(set_to_none=True)
        softplus(D(img)).mean().backward()

    regularised(), unregularised()
    assert peak_tensor_mib(regularised) < 1.1 * peak_tensor_mib(unregularised)
