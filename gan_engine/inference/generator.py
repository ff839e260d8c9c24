"""A trained generator, read from a checkpoint: `gan_engine.load` is `load` of this module."""

import inspect
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gan_engine import models
from gan_engine.runs import run_state
from gan_engine.system import checkpoint, outside
from gan_engine.system.checkpoint import CheckpointError
from gan_engine.system.devices import choose_device
from gan_engine.system.names import nearest


class TrainedGenerator(nn.Module):
    """The averaged generator of a run, in eval mode and without gradients; calling it calls `network`.

    Attributes:
        network: G_ema, the Generator of its family.
        config: the sizes of the network.
        class_names: the names of the classes, if the run had classes with names.
        path: the checkpoint.
        bits: of a value in the images that the run has learnt from, 8 or 16.
    """

    def __init__(self, network: nn.Module, class_names: tuple[str, ...], path: Path, bits: int = 8) -> None:
        super().__init__()
        self.network, self.bits = network, bits
        self.config, self.class_names, self.path = network.config, class_names, path
        self.eval().requires_grad_(False)

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        return self.network(*inputs, **options)

    @property
    def device(self) -> torch.device:
        """The device of the network and of the images that it draws."""
        return next(self.network.parameters()).device

    def sample(
        self,
        num: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        class_: str | int | None = None,
        classes: Sequence[str | int] | None = None,
        truncation: float = 1,
        batch: int = 64,
    ) -> Tensor:
        """img [num, C, H, W] in [-1, 1], float32, on `device`; volumes are [num, 1, R, R, R], and points [num, 2]

        `python -m gan_engine.generate` draws the same pictures from the same seed and classes.

        Args:
            num: number of images. None: the number of `seeds` or `classes`.
            seed: seed of the noise. Image i of a seed does not depend on `num` and `batch`, up to rounding.
            seeds: a seed for each image, instead of `seed`; each gives its first image.
            class_: the class of all images, by its name or its number.
            classes: the class of each image. None: each row of a square grid has the next class.
            truncation: factor for the distance of every w from the mean, for families that have it (stylegan2 and 3).
            batch: images per pass.

        Raises ValueError for a generator that starts from pictures, for numbers that do not agree, and for classes or
        truncation that the generator lacks.
        """
        self.require_noise()
        num = _agreed(num, seeds=seeds, classes=classes)
        if batch < 1:
            raise ValueError(f"batch: want at least 1, got {batch}")
        if seeds is not None and seed:
            raise ValueError("seed: want either seed, of all images, or seeds, of each, got both")
        if class_ is not None and classes is not None:
            raise ValueError("class_: want either class_, of all images, or classes, of each, got both")
        numbers = self.classes(num, class_) if classes is None else [self.class_number(wanted) for wanted in classes]
        options = self.truncated(truncation)
        source = seed if seeds is None else list(seeds)
        drawn = images(self.network, num, seed=source, classes=numbers, batch=batch, **options)
        img = torch.cat([img.float() for img in drawn])
        return img if img.ndim == 2 else img.clamp(-1, 1)

    def require_noise(self) -> None:
        """Raises ValueError for a generator that starts from pictures; it names the command for such a generator."""
        declared, family = models.capabilities(self.config), models.family(self.config)
        if not declared.from_noise:
            raise ValueError(
                f"{self.path}: want a generator that starts from noise, got {family}, which does not: it makes "
                f"pictures of pictures by python -m gan_engine.{declared.command}, or by G(source), source in [-1, 1]"
            )

    def class_number(self, wanted: str | int) -> int:
        """The number of a class that is given by its name or its number. Raises ValueError for an unknown class."""
        c_dim, names = self.config.c_dim, self.class_names
        if not c_dim:
            raise ValueError(f"class: this generator was trained without classes, got {wanted!r}")
        if wanted in names:
            return names.index(wanted)
        if str(wanted).isdecimal() and int(wanted) < c_dim:
            return int(wanted)
        among = f" or one of {', '.join(names)}" if names else ""
        hint = nearest(str(wanted), names)
        raise ValueError(f"class: want a number from 0 to {c_dim - 1}{among}, got {wanted!r}{hint}")

    def classes(self, num: int, wanted: str | int | None = None, *, columns: int | None = None) -> list[int] | None:
        """The class of each of `num` images: `wanted`, or else every row of a grid of `columns` has the next class.

        Returns None for a generator without classes. `columns` None is a square grid.
        """
        if wanted is not None:
            return [self.class_number(wanted)] * num
        if not self.config.c_dim:
            return None
        columns = columns or math.ceil(math.sqrt(num))
        return [i // columns % self.config.c_dim for i in range(num)]

    def truncated(self, truncation: float) -> dict[str, float]:
        """The options of the network for this truncation. Raises ValueError if the network has no truncation."""
        if not math.isfinite(truncation):
            raise ValueError(f"truncation: want a finite number, got {truncation}")
        if truncation == 1:
            return {}
        if "truncation" not in inspect.signature(self.network.forward).parameters:
            raise ValueError(f"truncation: {models.family(self.config)} has none, got {truncation:g}")
        return {"truncation": truncation}


def load(path: str | Path, device: str | torch.device = "auto", *, best: bool = False) -> TrainedGenerator:
    """The averaged generator of a run.

        G = gan_engine.load("runs/dcgan-1")
        img = G.sample(16, seed=0)                   # [16, C, H, W] in [-1, 1]

    G(z, c) draws from your own noise z [N, G.config.z_dim] and, if it has classes, one-hot c [N, G.config.c_dim].

    Args:
        path: a checkpoint, a .safetensors of `python -m gan_engine.convert`, or a run directory, whose newest intact
            checkpoint is used.
        device: cpu, cuda or cuda:N. auto: the first GPU if there is one.
        best: take the checkpoint of the run that measured best in training (--eval-kimg).

    Raises:
        CheckpointError: there is no intact checkpoint, or this version cannot build its generator.
        ValueError: an unknown device; a .safetensors, and its package is missing.
    """
    device = choose_device(str(device))
    path = checkpoint.find(path, best=best)
    return from_state(checkpoint.load(path), path).to(device)


def from_state(state: dict[str, Any], path: Path) -> TrainedGenerator:
    """Like `load`, on the CPU, from the `state` that was read from `path`."""
    checkpoint.require(state, ("model", "G_ema"), path)
    outside.require(state.get("config"), path)
    try:
        config = models.from_dict(state["model"])
        with _NoLargerThan(_largest(state["G_ema"])):  # sizes that do not fit take no memory
            G = models.FAMILIES[models.family(config)].Generator(config)
        run_state.check(state["G_ema"], G.state_dict(), "G_ema", path)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its generator does not fit this version of gan_engine: {error}") from error
    run_state.check_finite(state["G_ema"], "G_ema", path)
    G.load_state_dict(state["G_ema"])
    return TrainedGenerator(G, tuple(run_state.class_names(state, path)), path, run_state.bits(state))


def _largest(weights: Any) -> int:
    """The number of elements of the largest weight, but at least 1024 for filters, which no checkpoint holds."""
    tensors = weights.values() if isinstance(weights, dict) else ()
    return max([1024, *(x.numel() for x in tensors if isinstance(x, Tensor))])


class _NoLargerThan(TorchFunctionMode):
    """Refuses to make a tensor of more than `most` elements before its memory is allocated."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.empty, torch.zeros, torch.ones, torch.full, torch.randn):
            size = kwargs.get("size", args[0] if args and isinstance(args[0], Sequence) else args)
            if math.prod(size) > self.most:
                raise ValueError(f"want tensors of at most {self.most:,} elements, as in the file, got {list(size)}")
        return func(*args, **kwargs)


def images(
    G: nn.Module,
    num: int,
    *,
    seed: int | Sequence[int] = 0,
    classes: list[int] | None = None,
    batch: int = 64,
    rank: int = 0,
    size: int = 1,
    **options: float,
) -> Iterator[Tensor]:
    """`num` images of G in batches [at most `batch`, C, H, W] in [-1, 1], on G's device.

    Args:
        G: a generator that starts from noise, in eval mode.
        num: number of images.
        seed: seed of the noise, or a seed for each image. Noise is drawn on the CPU, one image after the other.
        classes: the class of each image, for a generator with classes.
        batch: images per pass.
        rank, size: one of `size` processes makes the batches i with i % size = rank alone.
        options: options of G in its family, such as truncation.
    """
    sources = _Sources(num, seed)
    for i in range(0, num, batch):
        z, c = sources.latents(G, min(batch, num - i), None if classes is None else classes[i : i + batch])
        if i // batch % size != rank:
            continue
        with torch.no_grad():
            img = G(z, c, **options)
        yield img


def latents(
    G: nn.Module, num: int, *, seed: int | Sequence[int] = 0, classes: list[int] | None = None
) -> tuple[Tensor, Tensor | None]:
    """The noise z [num, z_dim] and classes c [num, c_dim] or None of `images`, on G's device.

    Raises ValueError for seeds outside [0, 2^63), and for a number of seeds that is not `num`.
    """
    return _Sources(num, seed).latents(G, num, classes)


class _Sources:
    """The random generators of the noise: one of all images, or one for each image. Raises as `latents` does."""

    def __init__(self, num: int, seed: int | Sequence[int]) -> None:
        seeds = [operator.index(number) for number in (seed if isinstance(seed, Sequence) else [seed])]
        for number in seeds:
            if not 0 <= number < 2**63:
                raise ValueError(f"seed: want 0 to 2^63 - 1, got {number}")
        if isinstance(seed, Sequence) and len(seeds) != num:
            raise ValueError(f"seed: want one, or one for each of {num} images, got {len(seeds)}")
        made = (torch.Generator().manual_seed(number) for number in seeds)
        self._next = made if isinstance(seed, Sequence) else itertools.repeat(next(made))

    def latents(self, G: nn.Module, num: int, classes: list[int] | None) -> tuple[Tensor, Tensor | None]:
        """The noise and the classes of the next `num` images."""
        device = next(G.parameters()).device
        z = torch.stack([torch.randn(G.config.z_dim, generator=next(self._next)) for _ in range(num)])
        return z.to(device), None if classes is None else torch.eye(G.config.c_dim)[classes].to(device)


def _agreed(num: int | None, **lists: Sequence | None) -> int:
    """The number of images: `num` and the lengths of the lists must agree. Raises ValueError if they do not."""
    for name, entries in lists.items():
        if entries is not None and (isinstance(entries, str) or not hasattr(entries, "__len__")):
            raise ValueError(f"{name}: want a list with an entry for each image, got {entries!r}")
    if num is not None and not isinstance(num, Integral):
        raise ValueError(f"num: want a whole number, got {num!r}")
    asked = {"num": num} | {name: len(entries) for name, entries in lists.items() if entries is not None}
    numbers = {value for value in asked.values() if value is not None}
    if not numbers:
        raise ValueError("num: want a number of images, or seeds or classes, one for each; got none")
    if len(numbers) > 1:
        got = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
        raise ValueError(f"num: want one number of images, got {got}")
    (num,) = numbers
    if num < 1:
        raise ValueError(f"num: want at least 1, got {num}")
    return num
