"""A step of D with R1 where D is not piecewise linear: level "aligned" beside exact levels and a random direction.

    ours             backward_with_penalty: level "aligned", and level 1
    eager            autograd.grad(create_graph=True) and backward, attention on PyTorch's math kernel
    random direction |D(img) - D(img + noise)|^2 (Lin et al. 2025, arXiv:2501.08316) in one batch
    plain step       the loss without a penalty, as the floor

extra_info["errors"] has the relative error of the gradients of the penalty, from autograd in float64.
"""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.curved_discriminators import ViT, batch_norms, group_norms, mlp
from benchmarks.test_penalties import GAMMA, approximated, cleared, loss, on_pytorch, total
from gan_engine.losses.penalties import backward_with_penalty

SAMPLES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vit 16x3x32x32": (lambda: ViT(96, 3), 16),
    "group norms 16x3x32x32": (lambda: group_norms(64), 16),
    "dcgan batch norms 16x3x32x32": (lambda: batch_norms(64), 16),
    "mlp 256x3x32x32": (lambda: mlp(512), 256),
}


def made(sample: str, device: str, steps: int = 10) -> tuple[nn.Module, Tensor]:
    """A D that has learnt for a few steps, and images."""
    torch.manual_seed(0)
    make, n = SAMPLES[sample]
    D, img = make().to(device), F.interpolate(torch.randn(n, 3, 8, 8, device=device), 32, mode="bicubic").tanh()
    optimizer = torch.optim.Adam(D.parameters(), 2e-4, betas=(0.5, 0.99))
    for _ in range(steps):
        optimizer.zero_grad()
        (F.softplus(D(torch.randn_like(img))).mean() + loss(D(img)).mean()).backward()
        optimizer.step()
    return D, img


def gradients(D: nn.Module, step: Callable[[], object]) -> Tensor:
    D.zero_grad(set_to_none=True)
    step()
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in D.parameters()]
    return torch.cat([g.double().flatten() for g in found])


def random_direction(D: nn.Module, img: Tensor, sigma: float = 0.01) -> None:
    logits, moved = D(torch.cat([img, img + sigma * torch.randn_like(img)])).float().chunk(2)
    (GAMMA / 2 * ((moved - logits) / sigma).square().mean()).backward()


def errors(D: nn.Module, img: Tensor) -> dict[str, float]:
    """The relative errors of the gradients of R1 by itself."""
    exact = copy.deepcopy(D).double()
    penalty = lambda D, img, level: backward_with_penalty(D, img, None, gamma=GAMMA, level=level)  # noqa: E731
    want = gradients(exact, lambda: penalty(exact, img.double(), "autograd"))
    steps = {
        "aligned": lambda: penalty(D, img, "aligned"),
        "level 1": lambda: penalty(D, img, 1),
        "random direction": lambda: random_direction(D, img),
    }
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        for name, step in steps.items():
            with torch.autocast(img.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                got = gradients(D, step)
            found[f"{name}, {str(dtype).removeprefix('torch.')}"] = float((got - want).norm() / want.norm())
    return found


@pytest.mark.parametrize("sample", SAMPLES)
def test_aligned_step(sample: str, malloc: str, session, benchmark) -> None:
    D, img = made(sample, session.device)

    def eager() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            total(D, img.detach().requires_grad_()).backward()

    of_level = lambda level: cleared(  # noqa: E731
        D, lambda: backward_with_penalty(D, img, loss, gamma=GAMMA, level=level)
    )
    steps = {
        "aligned": ("ours", of_level("aligned")),
        "level 1": ("ours", of_level(1)),
        "eager": ("eager", on_pytorch(cleared(D, eager))),
        "random direction": ("peer", on_pytorch(cleared(D, lambda: approximated(D, img)))),
        "plain step": ("floor", on_pytorch(cleared(D, lambda: loss(D(img)).mean().backward()))),
    }
    off = errors(D, img)
    wrong = {} if off["aligned, float32"] < 1e-2 else {"aligned": f"gradients are {off['aligned, float32']:.1e} off"}
    case = {"op": "R1 step, first order", "sample": sample, "dtype": "fp32", "mode": "step", "malloc": malloc}
    roles, calls = ({name: step[i] for name, step in steps.items()} for i in range(2))
    timings = session.compare(case, roles, calls, wrong)
    benchmark.group = case["op"]
    medians = {name: t.median for name, t in timings.items() if t.ms}
    benchmark.extra_info.update(case, medians_ms=medians, errors={name: float(f"{e:.2g}") for name, e in off.items()})
    benchmark.pedantic(lambda: None)
    assert not wrong, wrong
