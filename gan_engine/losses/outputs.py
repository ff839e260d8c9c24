"""Checks of what D, G and a loss return to a penalty, with the sentences of its errors."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


class WrongOutput(ValueError):
    """A network returned something that has no penalty."""


def check_logits(logits: Any, n: int) -> None:
    """Raise WrongOutput unless `logits` is a floating-point tensor with one logit for each of n images."""
    fits = isinstance(logits, Tensor) and logits.shape[:1] == (n,) and logits.numel() == n
    if not fits or not logits.dtype.is_floating_point:
        raise WrongOutput(
            f"D must return logits [N] = [{n}], got {_described(logits)}: "
            "want a floating-point tensor of one logit for each image, [N] or [N, 1]"
        )


def check_images(img: Any, n: int) -> None:
    """Raise WrongOutput unless `img` is a floating-point tensor [n, C, H, W]."""
    fits = isinstance(img, Tensor) and img.ndim == 4 and img.shape[0] == n
    if not fits or not img.dtype.is_floating_point:
        raise WrongOutput(f"G must return images [N, C, H, W] with N = {n}, in floating point, got {_described(img)}")


def mean_loss(loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """mean(loss(logits)), or ValueError where the loss has more than one dimension."""
    values = loss(logits)
    if values.ndim > 1:  # logits [N] with targets [N, 1] make [N, N]: each with each
        raise ValueError(f"loss must return [M] for logits [N] = {list(logits.shape)}, got {list(values.shape)}")
    return values.mean()


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{list(value.shape)}" + ("" if value.dtype.is_floating_point else f" of {value.dtype}")
