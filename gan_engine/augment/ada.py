"""Adaptive discriminator augmentation (Karras et al. 2020, arXiv:2006.06676).

The paper lists the transforms, their order and their ranges in appendix B. Each image gets each transform with
probability p, independently. An image that gets no transform stays the same, bit for bit.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_engine.augment import draw, geometry, values
from gan_engine.ops.kernel_op import layout, wide

GROUPS = ("blit", "geometry", "color", "filter", "noise", "cutout")
# The paper names a set of groups by their initials, in this order; it recommends bgc.
PIPES = {"".join(name[0] for name in GROUPS[: i + 1]): GROUPS[: i + 1] for i in range(len(GROUPS))}


class Ada:
    """The transforms, and the controller of their probability p.

    D overfits when its logits of real images are nearly all positive: r_t = mean of sign(D(real)) approaches 1
    (equation 1). p changes by one step every `interval` minibatches: up if r_t is above `target`, down if it is below.
    The way from 0 to 1 takes `adjust_kimg`. p stays in [0, 1]. Transforms leak into the generated images when p comes
    near 1, from about 0.8 on (section 2.2); watch the curve of p.

    Args:
        groups: a key of PIPES ("bgc"), or names of GROUPS with commas between ("blit,color").
        p: the probability at the start.
        target: the r_t to aim at.
        adjust_kimg: thousands of real images in which p can go from 0 to 1.
        interval: minibatches between two steps of p.
        total: sums a tensor over all processes that train together, so that they have one p. `num_images` of `update`
            counts the images of all processes.

    Raises:
        ValueError: unknown groups, or p outside of [0, 1].

    All numbers are drawn from torch's global generator of the device of the images, where p lies too, so that nothing
    waits for a GPU. A CPU computes only the images that get a transform. A GPU computes every transform of all images,
    and takes the results that were drawn.
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
        self.target, self.adjust_kimg, self.interval = target, adjust_kimg, interval
        self._p = torch.tensor(float(p), dtype=torch.float64)
        self._total = total
        self._reset()

    def __call__(self, img: Tensor) -> Tensor:
        """img [N, C, H, W], C 1, 3 or 4, in [-1, 1] -> the same shape, dtype and layout, computed in float32

        A grey image is treated as a colour image with three equal channels; the result is the mean of its channels.
        Transparency, the fourth channel, keeps its values when colours change.

        Gradients: every order in img. The transforms are affine in img.
        """
        if img.ndim != 4 or img.shape[1] not in (1, 3, 4):
            raise ValueError(f"Ada: img must be [N, C, H, W] with C 1, 3 or 4, got {list(img.shape)}")
        n, device = len(img), img.device
        p = self._p = self._p.to(device)
        with torch.autocast(img.device.type, enabled=False):
            y = img.to(wide(img.dtype))
            if not {"blit", "geometry"}.isdisjoint(self.groups):
                y = self._move(y)
            if "color" in self.groups:
                C = draw.colors(n, p, device)
                y = transform_chosen(not_identity(C, 4), values.recolor, y, C)
            if "filter" in self.groups:
                g = draw.band_gains(n, p, device)
                y = transform_chosen((g != 1).any(1), values.equalize, y, g)
            if "noise" in self.groups:
                sigma = draw.gated(p, 0.1 * torch.randn(n, device=device).abs(), 0)
                y = transform_chosen(sigma != 0, values.add_noise, y, sigma)
            if "cutout" in self.groups:
                cut = draw.gated(p, torch.ones(n, device=device), 0) != 0
                centre = torch.rand(2, n, device=device)
                columns, rows = map(values.rectangle, centre, img.shape[:1:-1])
                y = transform_chosen(cut, values.erase, y, columns, rows)
        return y if y is img else y.to(img.dtype).contiguous(memory_format=layout(img))

    def _move(self, img: Tensor) -> Tensor:
        """Images with blits only are copied pixel by pixel. The others are warped once, for all transforms together."""
        n, size, device = len(img), tuple(img.shape[2:]), img.device
        moves = warps = torch.eye(3, dtype=torch.float64, device=device).expand(n, 3, 3)
        if "blit" in self.groups:
            moves = draw.blits(n, size, self._p, device)
        if "geometry" in self.groups:
            warps = draw.warpings(n, size, self._p, device)
        warped = not_identity(warps, 3)
        img = transform_chosen(warped, geometry.warp, img, warps @ moves)
        return transform_chosen(~warped & not_identity(moves, 3), geometry.blit, img, moves)

    # The controller

    @property
    def p(self) -> float:
        """The probability. Reading it waits for the device."""
        return self._p.item()

    @p.setter
    def p(self, p: float) -> None:
        self._p.fill_(p)

    def observe(self, logits: Tensor) -> None:
        """Count the signs of the logits of real images, augmented as in training. Nothing waits for the device."""
        self.count(logits.detach().float().sign().sum(), logits.numel())

    def count(self, signs: Tensor, num: int) -> None:
        """Count the sum [] of the signs of `num` logits."""
        self._signs = self._signs + signs
        self._count += num

    def update(self, num_images: int) -> None:
        """Call this after each minibatch of `num_images` real images. Every `interval` calls p takes a step."""
        self._minibatches += 1
        self._images += num_images
        if self._minibatches < self.interval:
            return
        totals = torch.stack([self._signs, torch.full_like(self._signs, self._count)])
        signs, count = self._total(totals).double()
        r_t = signs / count.clamp(min=1)
        step = self._images / (1000 * self.adjust_kimg)
        self._p.add_(step * ((r_t > self.target).double() - (r_t < self.target).double())).clamp_(0, 1)
        self._reset()

    def _reset(self) -> None:
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


def not_identity(matrices: Tensor, size: int) -> Tensor:
    """bool [N]: which of the matrices [N, size, size] are not the identity"""
    return (matrices != torch.eye(size, dtype=matrices.dtype, device=matrices.device)).any(2).any(1)


def transform_chosen(chosen: Tensor, transform: Callable[..., Tensor], img: Tensor, *parameters: Tensor) -> Tensor:
    """y[n] = transform(img, *parameters)[n] if chosen[n], else img[n]; `chosen` is bool [N]"""
    if chosen.device.type != "cpu":  # the host does not wait for the GPU to know which
        return torch.where(chosen[:, None, None, None], transform(img, *parameters), img)
    if not chosen.any():
        return img
    if chosen.all():
        return transform(img, *parameters)
    index = chosen.nonzero()[:, 0]
    y = transform(img.index_select(0, index), *(parameter[index] for parameter in parameters))
    return img.index_copy(0, index, y)
