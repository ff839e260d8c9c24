"""A discriminator with what public networks return, and steps of `gan_engine.adversarial` by autograd alone."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.adversarial import Adversarial
from gan_engine.losses.adversarial import LOSSES

N = 6
SHAPES = ["one", "patches", "scales", "features", "scales and features"]
PENALTIES = {
    "none": {},
    "r1": {"r1": 2.0},
    "r1 and r2": {"r1": 2.0, "r2": 3.0},
    "gp": {"gp": 5.0},
    "all": {"r1": 2.0, "r2": 3.0, "gp": 5.0},
}


class Discriminator(nn.Module):
    """Two patch discriminators of [N, C, 8, 8], for a class if it is given; `shape` says what is returned."""

    def __init__(self, shape: str, act: type[nn.Module] = nn.Tanh, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.ModuleList(nn.Conv2d(channels, 4, 3, padding=1) for _ in range(2))
        self.last = nn.ModuleList(nn.Conv2d(4, 1, 3) for _ in range(2))
        self.of_class = nn.Embedding(3, 4)
        self.shape, self.act = shape, act()
        self.double()

    def forward(self, img: Tensor, label: Tensor | None = None) -> Any:
        features = [first(x) for first, x in zip(self.first, (img, F.avg_pool2d(img, 2)), strict=True)]
        if label is not None:
            features = [h + self.of_class(label)[:, :, None, None] for h in features]
        features = [self.act(h) for h in features]
        logits = [last(h) for last, h in zip(self.last, features, strict=True)]
        return {
            "one": logits[0].mean((1, 2, 3)),
            "patches": logits[0],
            "scales": logits,
            "features": (logits[0], [features[0]]),
            "scales and features": (logits, [[h] for h in features]),
        }[self.shape]


class Read(NamedTuple):
    logits: list[Tensor]
    features: list[Tensor]


def read(D: Discriminator, img: Tensor, label: Tensor | None = None) -> Read:
    """What D returns, read by its shape and not by the rule."""
    out = D(img, label)
    if D.shape in ("one", "patches"):
        return Read([out], [])
    if D.shape == "scales":
        return Read(out, [])
    return Read([out[0]], out[1]) if D.shape == "features" else Read(out[0], [h for (h,) in out[1]])


def images(seed: int, n: int = N) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def side(function: Any, fake: list[Tensor], real: list[Tensor] | list[None]) -> Tensor:
    return sum(function(f, r).mean() for f, r in zip(fake, real, strict=True))


def squared_norm(D: Discriminator, img: Tensor, label: Tensor | None) -> Tensor:
    x = img.detach().clone().requires_grad_()
    total = sum(each.sum() for each in read(D, x, label).logits)
    return torch.autograd.grad(total, x, create_graph=True)[0].square().flatten(1).sum(1)


def d_terms(
    D: Discriminator, loss: str, real: Tensor, fake: Tensor, *, r1=0.0, r2=0.0, gp=0.0, label: Tensor | None = None
) -> dict[str, Tensor]:
    """The weighted means that d_step adds the gradients of."""
    adversarial = side(LOSSES[loss].discriminator, read(D, fake, label).logits, read(D, real, label).logits)
    terms = {"D": adversarial}
    if gp:
        eps = torch.rand(len(real), generator=torch.Generator().manual_seed(5))[:, None, None, None].double()
        norm = (squared_norm(D, eps * real + (1 - eps) * fake, label) + 1e-12).sqrt()
        terms["gp"] = gp * (norm - 1).square().mean()
    for name, gamma, img in (("r1", r1, real), ("r2", r2, fake)):
        if gamma:
            terms[name] = gamma / 2 * squared_norm(D, img, label).mean()
    return terms


def gradients(D: nn.Module) -> list[Tensor]:
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in D.parameters()]
    D.zero_grad(set_to_none=True)
    return grads


def step_of_share(rank: int, size: int) -> list[list[Tensor]]:
    """The gradients of D in one of `size` processes, under DistributedDataParallel and for a group; of all in one."""
    D, share = Discriminator("patches"), slice(rank * N // size, (rank + 1) * N // size)
    given = [(D, None)]
    if size > 1:
        given = [(nn.parallel.DistributedDataParallel(D), None), (D, torch.distributed.group.WORLD)]
    found = []
    for net, group in given:
        Adversarial(net, "relativistic", r1=2.0, group=group).d_step(images(1)[share], images(2)[share])
        found.append(gradients(D))
    return found


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
