"""Adaptive discriminator augmentation (Karras et al. 2020, arXiv:2006.06676).

The transforms, their order and their ranges are those of appendix B there. Each is applied to each image with
probability p by itself, and an image for which none was drawn stays as it is, bit for bit.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_engine.augment import draw, geometry, values
from gan_engine.ops.kernel_op import layout, wide

GROUPS = ("blit", "geometry", "color", "filter", "noise", "cutout")
# The paper names a set of groups by their initials, in this order; bgc is the one that it recommends.
PIPES = {"".join(name[0] for name in GROUPS[: i + 1]): GROUPS[: i + 1] for i in range(len(GROUPS))}


class Ada:
    """The transforms, and the controller of their probability p.

    D overfits when its logits of real images are nearly all positive: r_t = mean of sign(D(real)) approaches 1
    (equation 1). Every `interval` minibatches p goes up by a small step if r_t is above `target`, else down: by so much
    that all the way from 0 to 1 takes `adjust_kimg`. p stays in [0, 1]; transforms leak into the generated images when
    p comes near 1, from 0.8 or so on (section 2.2), which is for the reader of the curve to see.

    Args:
        groups: a key of PIPES ("bgc"), or names of GROUPS with commas between ("blit,color").
        p: where the probability starts.
        target: of r_t.
        adjust_kimg: thousands of real images in which p can go from 0 to 1.
        interval: minibatches between two steps of p.
        total: adds a tensor up over all processes that train together, so that they have one p. `num_images` of
            `update` counts the images of all.

    What is drawn for an image comes from torch's global generator on the CPU, and the noise of an image from that of
    its device. p lives on the host, so that only images that were drawn are worked on: an `update` that is due waits
    for the device, once in `interval` minibatches.
    """

    def __init__(
        self,
        groups: str = "bgc",
        *,
        p: float = 0.0,
        target: float = 0.6,
        adjust_kimg: float = 500,
        interval: int = 4,
        total: Callable[[Tensor], Tensor] = lambda values: values,
    ) -> None:
        self.groups = PIPES.get(groups) or tuple(groups.split(","))
        if not set(self.groups) <= set(GROUPS):
            raise ValueError(
                f"Ada: groups must be one of {', '.join(PIPES)} or some of {', '.join(GROUPS)} with commas between, "
                f"got {groups!r}"
            )
        if not 0 <= p <= 1:
            raise ValueError(f"Ada: p must lie in [0, 1], got {p}")
        self.p, self.target, self.adjust_kimg, self.interval = float(p), target, adjust_kimg, interval
        self._total = total
        self._forget()

    def __call__(self, img: Tensor) -> Tensor:
        """img [N, C, H, W], H = W and C 1 or 3, in [-1, 1] -> the same shape, dtype and layout, computed in float32

        A grey image is treated as a colour image of three equal channels, of which the mean is taken.

        Gradients: every order in img, in which the transforms are affine.
        """
        if img.ndim != 4 or img.shape[2] != img.shape[3] or img.shape[1] not in (1, 3):
            raise ValueError(f"Ada: img must be [N, C, H, W] with H = W and C 1 or 3, got {list(img.shape)}")
        n, p, size = len(img), self.p, img.shape[2]
        with torch.autocast(img.device.type, enabled=False):
            y = img.to(wide(img.dtype))
            if not {"blit", "geometry"}.isdisjoint(self.groups):
                y = self._move(y)
            if "color" in self.groups:
                C = draw.colors(n, p)
                y = only(differs(C, 4), values.recolor, y, C)
            if "filter" in self.groups:
                g = draw.gains(n, p)
                y = only((g != 1).any(1), values.equalize, y, g)
            if "noise" in self.groups:
                sigma = draw.gated(p, 0.1 * torch.randn(n).abs(), 0)
                y = only(sigma != 0, values.add_noise, y, sigma)
            if "cutout" in self.groups:
                cut, centre = draw.gated(p, torch.ones(n), 0) != 0, torch.rand(2, n)
                y = only(cut, values.erase, y, *(values.rectangle(one, size) for one in centre))
        return y if y is img else y.to(img.dtype).contiguous(memory_format=layout(img))

    def _move(self, img: Tensor) -> Tensor:
        """Images that are only blitted are copied pixel by pixel; the others are warped, once for all transforms."""
        n, size = len(img), img.shape[2]
        moves = warps = torch.eye(3, dtype=torch.float64).expand(n, 3, 3)
        if "blit" in self.groups:
            moves = draw.blits(n, size, self.p)
        if "geometry" in self.groups:
            warps = draw.warpings(n, size, self.p)
        warped = differs(warps, 3)
        img = only(warped, geometry.warp, img, warps @ moves)
        return only(~warped & differs(moves, 3), geometry.blit, img, moves)

    # The controller

    def observe(self, logits: Tensor) -> None:
        """Take account of the logits of real images, as augmented for training. Nothing waits for the device."""
        self._signs = self._signs + logits.detach().float().sign().sum()
        self._count += logits.numel()

    def update(self, num_images: int) -> None:
        """To be called after each minibatch of `num_images` real images: p takes its step where one is due."""
        self._minibatches += 1
        self._images += num_images
        if self._minibatches < self.interval:
            return
        signs, count = self._total(torch.stack([self._signs, torch.full_like(self._signs, self._count)])).tolist()
        r_t = signs / max(count, 1)
        step = self._images / (1000 * self.adjust_kimg)
        self.p = min(max(self.p + step * ((r_t > self.target) - (r_t < self.target)), 0.0), 1.0)
        self._forget()

    def _forget(self) -> None:
        self._signs: Tensor = torch.zeros(())
        self._count = self._minibatches = self._images = 0

    def state_dict(self) -> dict[str, Any]:
        """p, and what was observed since its last step."""
        return {
            "p": self.p,
            "signs": self._signs,
            "count": self._count,
            "minibatches": self._minibatches,
            "images": self._images,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not 0 <= state["p"] <= 1:
            raise ValueError(f"Ada: p must lie in [0, 1], got {state['p']}")
        self.p, self._signs, self._count = state["p"], state["signs"], state["count"]
        self._minibatches, self._images = state["minibatches"], state["images"]


def differs(matrices: Tensor, size: int) -> Tensor:
    """Which of the matrices [N, size, size] are not the identity, bool [N]"""
    return (matrices != torch.eye(size, dtype=matrices.dtype)).any(2).any(1)


def only(chosen: Tensor, transform: Callable[..., Tensor], img: Tensor, *parameters: Tensor) -> Tensor:
    """`img` with transform(img, *parameters) in the place of the images that are `chosen`, bool [N] on the CPU."""
    if not chosen.any():
        return img
    if chosen.all():
        return transform(img, *parameters)
    index = chosen.nonzero()[:, 0]
    on_device = index.to(img.device)
    y = transform(img.index_select(0, on_device), *(each[index] for each in parameters))
    return img.index_copy(0, on_device, y)
