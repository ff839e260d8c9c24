"""A penalty in one thread changes nothing for the other threads: it sets no switch of the process."""

import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gan_engine.losses import penalties
from gan_engine.ops import conv2d


class Meeting(torch.autograd.Function):
    """Runs `work` in another thread, in the middle of the pass that `during` names, and waits for its end."""

    work: Callable[[], None]
    during: str

    @classmethod
    def meet(cls, now: str) -> None:
        if now == cls.during:
            thread = threading.Thread(target=cls.work)
            thread.start()
            thread.join()

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        Meeting.meet("forward")
        return x.clone()

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:
        Meeting.meet("backward")
        return dy.clone()


def discriminator() -> nn.Module:
    class D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Linear(144, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.leaky_relu(torch.tanh(Meeting.apply(self.conv(x))), 0.2).flatten(1))

    torch.manual_seed(0)
    return D().double()


IMG = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PENALTIES = {
    "r1": lambda D: penalties.r1(D, IMG),
    "wgan_gp": lambda D: penalties.wgan_gp(D, IMG, -IMG),
    "level 1": lambda D: penalties.backward_with_penalty(D, IMG, None, gamma=1.0, level=1),
    "path_length": lambda D: penalties.path_length(lambda x: D(x)[:, :, None, None], IMG, torch.zeros(()).double()),
}


def own_convolution(found: dict) -> None:
    w = torch.ones(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    b = torch.ones(4, dtype=torch.float64, requires_grad=True)
    x = IMG.clone().requires_grad_()
    conv2d(x, w, b).square().sum().backward()
    found.update(x=x.grad, w=w.grad, b=b.grad)


def plain_functions(found: dict) -> None:
    x = IMG.clone().requires_grad_()
    y = F.leaky_relu(F.conv2d(x, torch.ones(4, 3, 3, 3, dtype=torch.float64)), 0.2)
    found.update(y=y.detach(), node=torch.tensor("LeakyRelu" in y.grad_fn.name()))


def fused_attention(found: dict) -> None:
    q = IMG.flatten(2).requires_grad_()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        y = F.scaled_dot_product_attention(q[None], q[None], q[None])
    found.update(y=y.detach(), node=torch.tensor("Flash" in y.grad_fn.name()))


def penalty_of_its_own(found: dict) -> None:
    D = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Tanh(), nn.Flatten(), nn.Linear(144, 1)).double()
    with torch.no_grad():
        for p in D.parameters():
            p.copy_(torch.linspace(-1, 1, p.numel()).reshape(p.shape))
    penalties.backward_with_penalty(D, IMG, None, gamma=1.0, level=1)
    found.update({name: p.grad for name, p in D.named_parameters() if p.grad is not None})


@pytest.mark.parametrize("other", [own_convolution, plain_functions, fused_attention, penalty_of_its_own])
@pytest.mark.parametrize("during", ["forward", "backward"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_another_thread_computes_what_it_computes_alone(
    penalty: str, during: str, other: Callable, monkeypatch: pytest.MonkeyPatch
):
    alone, beside = {}, {}
    other(alone)
    monkeypatch.setattr(Meeting, "work", lambda: other(beside), raising=False)
    monkeypatch.setattr(Meeting, "during", during, raising=False)
    PENALTIES[penalty](discriminator())
    assert all(value.any() for value in alone.values())
    torch.testing.assert_close(beside, alone)


def test_threads_that_train_at_once_get_the_gradients_of_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Meeting, "during", "never", raising=False)
    networks, ready = [discriminator() for _ in range(4)], threading.Barrier(3)

    def train(D: nn.Module) -> None:
        ready.wait()
        for _ in range(20):
            penalties.r1(D, IMG).sum().backward()
            conv2d(IMG, D.conv.weight, D.conv.bias).square().sum().backward()

    threads = [threading.Thread(target=train, args=(D,)) for D in networks[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ready = threading.Barrier(1)
    train(networks[3])
    want = {name: p.grad for name, p in networks[3].named_parameters() if p.grad is not None}
    for D in networks[:3]:
        torch.testing.assert_close({name: p.grad for name, p in D.named_parameters() if p.grad is not None}, want)
