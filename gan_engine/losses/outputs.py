"""What D, G and a loss return to a penalty: how it is read, and the sentences of its errors.

D, or `logits=` of what D returns, gives one of these:

    tensor                      logits: [N] or [N, 1], one for each image; [N, P], [N, 1, ...] or [N, ..., 1], one for
                                each patch. `logits=` may give any [N, ...]
    list of such tensors        logits of several discriminators or scales
    (logits, features)          a tensor and a list of features; or a list, and a list with a list for each of them
    list of (logits, features)  the same, one pair for each discriminator or scale
    dict                        "logits", and "features" if there are any; other entries are left aside

A tuple of tensors is refused, as it may be scales, or logits beside something else: logits=list reads it as scales.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Logits = Tensor | list[Tensor]
Picked = Callable[[Any], Any] | None  # `logits=`: from what D returns to what the rule reads


class WrongOutput(ValueError):
    """A network returned something that has no penalty."""


class Outputs(NamedTuple):
    """What D has returned for N images.

    `logits` has a tensor [N, ...] for each discriminator or scale, and `features` a tensor for each layer of each of
    them. `single` is true where D returned a tensor of logits, and no list.
    """

    logits: list[Tensor]
    features: list[Tensor]
    single: bool

    @property
    def one_for_each_image(self) -> bool:
        return self.single and self.logits[0].numel() == len(self.logits[0])

    @property
    def of_each_image(self) -> float:
        """How many logits an image has."""
        return sum(logits.numel() / len(logits) for logits in self.logits)

    def for_loss(self, dtype: torch.dtype) -> Logits:
        """The logits as a loss gets them: in `dtype`, [N] where there is one for each image, else in D's own shape.

        The result is a list where D returned a list.
        """
        return _wide(self.logits[0], dtype) if self.single else [_wide(each, dtype) for each in self.logits]


def read_outputs(returned: Any, n: int, picked: Picked = None) -> Outputs:
    """Read what D has returned for n images, as the module says. Raises WrongOutput where no rule fits."""
    single = picked is None and isinstance(returned, Tensor) and returned.shape in ((n,), (n, 1))
    if single and returned.dtype.is_floating_point:  # as most networks return them
        return Outputs([returned], [], True)
    if picked is not None and not callable(picked):
        raise ValueError(f"logits= must be a function of what D returns, got {described(picked)}")
    given = returned if picked is None else picked(returned)
    logits, features = _logits_and_features(given)
    single = not isinstance(logits, list)
    pairs = [(logits, features)] if single else [_logits_and_features(each) for each in logits]
    found = [each for each, _ in pairs]
    fits = found and all(_are_logits(each, n, certain=picked is not None) for each in found)
    if not fits:
        if picked is not None:
            raise WrongOutput(
                f"logits= must pick logits [N] = [{n}] or [N, ...] in floating point, or a list of such tensors, got "
                f"{described(given)} from D's {described(returned)}"
            )
        raise WrongOutput(
            f"D must return logits [N] = [{n}], got {described(given)}: want a floating-point tensor [N], [N, P] or "
            "[N, 1, ...] of one logit for each image or patch, a list of such tensors, (logits, [features]), or a dict "
            "with logits; else logits= picks them, as logits=lambda out: out[0] does, or logits=list for scales in a "
            f"tuple{_if_packed(given, n)}"
        )
    layers = [] if single else list(_tensors(features))
    return Outputs(found, [*layers, *(layer for _, each in pairs for layer in _tensors(each))], single)


def check_batch(name: str, img: Any) -> None:
    """Raise ValueError unless `img` is a floating-point tensor [N, ...]."""
    if not isinstance(img, Tensor) or img.ndim == 0 or not img.dtype.is_floating_point:
        raise ValueError(f"{name} must be a tensor [N, ...] in floating point, got {described(img)}")


def _wide(logits: Tensor, dtype: torch.dtype) -> Tensor:
    x = logits.flatten() if logits.ndim > 1 and logits.numel() == len(logits) else logits
    return x if x.dtype == dtype else x.to(dtype)


def without_graph(logits: Logits) -> Logits:
    return logits.detach() if isinstance(logits, Tensor) else [each.detach() for each in logits]


def check_images(img: Any, n: int) -> None:
    """Raise WrongOutput unless `img` is a floating-point tensor [n, C, H, W]."""
    fits = isinstance(img, Tensor) and img.ndim == 4 and img.shape[0] == n
    if not fits or not img.dtype.is_floating_point:
        raise WrongOutput(f"G must return images [N, C, H, W] with N = {n}, in floating point, got {described(img)}")


def mean_loss(loss: Callable[[Any], Tensor], logits: Logits) -> Tensor:
    """mean(loss(logits)), or ValueError where the loss has other dimensions than [], [M] and those of the logits."""
    values = loss(logits)
    check_values(values, logits)
    return values.mean() if values.ndim > 0 else values


def check_values(values: Tensor, logits: Logits) -> None:
    """Raise ValueError unless a loss of logits with a gradient has a gradient, and dimensions that fit.

    They are [] or [M], or there is a value for each logit.
    """
    each = [logits] if isinstance(logits, Tensor) else logits
    if isinstance(values, Tensor) and not values.requires_grad and any(x.requires_grad for x in each):
        raise ValueError(
            f"loss must depend on the logits, got {described(values)} without a gradient: want no detach() or "
            "torch.no_grad() in it"
        )
    check_numbers(values)
    # logits [N] with targets [N, 1] make [N, N]: each with each
    if values.ndim > 1 and all(values.shape[1:] != x.shape[1:] for x in each):
        shapes = ", ".join(str(list(x.shape)) for x in each)
        want = (
            "[M] for logits [N] =" if isinstance(logits, Tensor) and logits.ndim == 1 else "[M], or [M, ...] for logits"
        )
        raise ValueError(f"loss must return {want} {shapes}, got {list(values.shape)}")


def check_numbers(values: Any) -> None:
    """Raise ValueError unless what a loss has returned is a floating-point tensor."""
    if not isinstance(values, Tensor):
        raise ValueError(f"loss must return a tensor, got {described(values)}")
    if not values.dtype.is_floating_point:
        raise ValueError(f"loss must return numbers in floating point, got {described(values)}")


def _logits_and_features(given: Any) -> tuple[Any, Any]:
    """(logits, features) of a pair or a mapping; (given, ()) of anything else, which is logits or wrong."""
    if isinstance(given, Mapping) and "logits" in given:
        return given["logits"], given.get("features", ())
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], list | tuple):
        logits, features = given
        nested = all(isinstance(each, list | tuple) for each in features)
        if isinstance(logits, Tensor) or (isinstance(logits, list) and nested and len(features) == len(logits)):
            return logits, features
    return given, ()


def _are_logits(given: Any, n: int, *, certain: bool) -> bool:
    """True for a floating-point tensor [n, ...]. Several channels are an image or features, unless it is `certain`."""
    if not isinstance(given, Tensor) or not given.dtype.is_floating_point:
        return False
    fits = given.shape[:1] == (n,) and given.numel() >= n
    return fits and (certain or given.ndim < 3 or 1 in (given.shape[1], given.shape[-1]))


def _if_packed(given: Any, n: int) -> str:
    """The end of the sentence where D seems to judge several images at once."""
    if not isinstance(given, Tensor) or given.ndim == 0 or not 1 < len(given) < n or n % len(given):
        return ""
    each = n // len(given)
    return f". One logit for every {each} images: pack={each} of gan_engine.adversarial.Adversarial joins so many"


def _tensors(features: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and mappings, in their order."""
    if isinstance(features, Tensor):
        yield features
    elif isinstance(features, Mapping | list | tuple):
        for each in features.values() if isinstance(features, Mapping) else features:
            yield from _tensors(each)


def described(value: Any) -> str:
    """What came, in an error: the shape of a tensor, and the type of all else."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)}" + ("" if value.dtype.is_floating_point else f" of {value.dtype}")
    name = f"a {type(value).__name__}"
    if isinstance(value, Mapping):
        return f"{name} with {', '.join(map(repr, value)) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"{name} of {', '.join(map(described, value)) or 'nothing'}"
    return name
