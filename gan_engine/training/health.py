"""The readings of a run while it trains: what G draws, how D judges it, and how large weights and gradients are.

A reading is taken every config.health_kimg, and not in each step. `gan_engine.training.alarms` says what it means.
"""

import functools
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.config import Config
from gan_engine.data import ImageSet, Sampler, to_float
from gan_engine.losses.adversarial import Adversarial
from gan_engine.losses.objective import Batch, GanObjective, Judged
from gan_engine.metrics import classifier
from gan_engine.system.devices import upload
from gan_engine.system.random_state import rng_state, set_rng_state
from gan_engine.training.batches import Batches
from gan_engine.training.classes import FEWEST_IMAGES, Classes
from gan_engine.training.networks import Networks
from gan_engine.training.precision import Precision

PREFIX = "health/"
FIRST_SIZE = f"{PREFIX}first_size/"  # and G or D: the norm of the weights where the history begins
IMAGES = 64  # of a reading, or as many as a pass has if a pass has more
SHARE = 32  # a reading is due after this many images of training for each of its own: see `interval`
WINDOW = 8  # readings over which classes are counted: one of 64 images may lack a class by chance

Reading = dict[str, float]


class Health:
    """Takes the readings of a run, in its first process. They change nothing about what is learnt.

    The networks are in training mode, as they see each other in a step. Their buffers and the random generators are
    as they were when a reading is over. Noise is drawn from the seed and the number of images shown, so it is new in
    each reading: classes are then counted over several readings.

    Args:
        data: the images that the run learns from.
        held_out: images that it does not learn from, or None.

    """

    def __init__(
        self,
        config: Config,
        data: ImageSet,
        held_out: ImageSet | None,
        networks: Networks,
        objective: GanObjective,
        batches: Batches,
        precision: Precision,
    ) -> None:
        self.config, self.networks, self.objective, self.batches = config, networks, objective, batches
        self.precision, self.device, self.loss = precision, batches.device, objective.loss
        self.size, self.num = _sizes(config, batches.processes.size)
        self.data, self.held_out = data, held_out
        self.seen = _batch(config, data, batches, self.num)
        self.unseen = None if held_out is None else _batch(config, held_out, batches, self.num)
        self.spreads: dict[str, float] = {}  # of the images of the data, for each pair of networks
        self.begin({})
        self.classes: Classes | None = None
        self.counts: deque[Tensor] = deque(maxlen=WINDOW)

    def begin(self, first: Reading) -> None:
        """Begin a history with the weights of now, or go on with one, which has noted their `first` sizes."""
        self.begins = not first
        norms = {FIRST_SIZE + name: norm for name, norm in self._norms().items()}
        self.first_sizes: dict[str, Tensor | float] = norms | first

    @torch.no_grad()
    def read(self, nimg: int, means: dict[str, float]) -> Reading:
        """Numbers by name, "health/diversity". `means` are those of the steps since the last report."""
        found: Reading = {}
        with self._kept():
            sides = self._judged(self.seen, nimg)
            for side in sides:
                found |= {name + side.name: value for name, value in self._of_side(side).items()}
            if self.unseen is not None:
                for seen, unseen in zip(sides, self._judged(self.unseen, nimg), strict=True):
                    found["overfitting" + seen.name] = signs(seen.real, unseen.real)
        norms = self._norms()
        for name in ("G", "D"):
            found[f"growth/{name}"] = float(norms[name] / self.first_sizes[FIRST_SIZE + name])
            if (gradient := means.get(f"grad_norm/{name}")) is not None:
                found[f"gradient/{name}"] = gradient
        first = {name: float(size) for name, size in self.first_sizes.items()} if self.begins else {}
        self.begins = False
        return {PREFIX + name: value for name, value in found.items()} | first

    def _of_side(self, side: Judged) -> Reading:
        gen = features(side.gen_img)
        if side.name not in self.spreads:
            self.spreads[side.name] = max(spread(features(side.real_img)), 1e-12)
        found = {
            "diversity": spread(gen) / self.spreads[side.name],
            "separation": signs(side.real, side.fake),
            "gap": float(side.real.mean() - side.fake.mean()),
            **slopes(self.loss, side.fake, side.real),
        }
        if not side.name and self.data.num_classes > 1:
            found |= self._rarest_class(gen)
        return found

    def _judged(self, batch: Batch, nimg: int) -> list[Judged]:
        """What the objective makes of `batch` with new noise, in passes of the size of a run."""
        rng = torch.Generator().manual_seed((self.config.seed * 1_000_003 + nimg) % 2**63)
        z = upload(torch.randn(len(batch.real_img), self.config.model.z_dim, generator=rng), self.device)
        batch, parts = batch._replace(z=z), []
        for i in range(0, len(batch.real_img), self.size):
            part = Batch(*(None if values is None else values[i : i + self.size] for values in batch))
            with self.precision.autocast():
                parts.append(self.objective.judged(part))
        return [
            Judged(sides[0].name, *(torch.cat(values).float() for values in zip(*(s[1:] for s in sides), strict=True)))
            for sides in zip(*parts, strict=True)
        ]

    def _rarest_class(self, gen: Tensor) -> Reading:
        """The least share of a class among generated images, over its share in the data, both of images that count.

        The images are those of the last WINDOW readings. Classes that are not told apart are left out, and so are those
        of which so many readings hold too few images. The first reading also counts all classes, and those judged.
        """
        found: Reading = {}
        if begins := self.classes is None:
            self.classes = Classes(self.data, lambda img: features(to_float(img.to(self.device))))
        of_reading = self.classes.expected * len(gen)
        judged = self.classes.known & (of_reading * WINDOW >= FEWEST_IMAGES)
        if begins:
            found = {"classes_judged": int(judged.sum()), "classes_of_data": len(judged)}
        self.counts.append(self.classes.count(gen))
        if not judged.any():
            return found
        counted = torch.stack(tuple(self.counts)).sum(0)
        shares = torch.where(judged, counted / (of_reading * len(self.counts)), torch.inf)
        rarest, usual = int(shares.argmin()), float(shares[judged].median())
        found |= {"rarest_class": float(shares[rarest]), "usual_class": usual, "class": rarest}
        return found | {"classes_counted": len(self.counts)}

    def _norms(self) -> dict[str, Tensor]:
        nets = {"G": self.networks.G, "D": self.networks.D}
        return {
            name: torch.nn.utils.get_total_norm([p.detach() for p in self.networks.parameters[net]])
            for name, net in nets.items()
        }

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Inside, passes change neither buffers nor random generators for good."""
        buffers = [*self.networks.G.buffers(), *self.networks.D.buffers()]
        kept, state = [buffer.clone() for buffer in buffers], rng_state(self.device)
        try:
            yield
        finally:
            set_rng_state(state, self.device)
            for buffer, value in zip(buffers, kept, strict=True):
                buffer.copy_(value)  # CUDA graphs hold its address


def interval(config: Config, processes: int) -> float:
    """Images from one reading to the next, for a run that asks for readings."""
    return max(1000 * config.health_kimg, SHARE * _sizes(config, processes)[1])


def _sizes(config: Config, processes: int) -> tuple[int, int]:
    """The images of a pass in training, and of a reading, which has whole passes."""
    size = min(config.batch_gpu or config.batch_size, config.batch_size // processes)
    return size, max(size, IMAGES // size * size)


def _batch(config: Config, data: ImageSet, batches: Batches, num: int) -> Batch:
    """`num` images of `data` with their classes and sources; the noise is missing still."""
    sampler = Sampler(data, num, seed=config.seed)
    img, c = next(sampler)
    img = batches.laid_out(img.to(batches.device))
    source = None if data.source is None else Sampler(data.source, num, seed=config.seed)
    z = torch.zeros(num, 0, device=batches.device)
    c = c.to(batches.device) if config.conditional and c is not None else None
    source = batches.source(img, source)
    return Batch(img, z, c, None if source is None else source.to(batches.device))


@functools.cache
def _garments(device: torch.device) -> classifier.Classifier:
    return classifier.load_classifier(device)


def features(img: Tensor) -> Tensor:
    """img [N, C, H, W] or [N, C, X, Y, Z] -> [N, d]: the garments' classifier for grey 32x32, else pooled pixels

    Points [N, 2] are their own features.
    """
    if img.ndim == 2:
        return img
    if img.shape[1:] == (1, 32, 32):
        return _garments(img.device)(img)[0]
    pool = F.adaptive_avg_pool2d if img.ndim == 4 else F.adaptive_avg_pool3d
    return pool(img, tuple(min(8, side) for side in img.shape[2:])).flatten(1)


def spread(values: Tensor) -> float:
    """The mean distance of two of N values [N, d]."""
    return float(F.pdist(values).mean())


def signs(a: Tensor, b: Tensor) -> float:
    """The mean of sign(a_i - b_j) over all pairs: 1 if all of `a` are larger than all of `b`, 0 if they are alike.

    This is Somers' D, 2 AUC - 1. It has no unit, so it means the same for every adversarial loss.
    """
    return float((a.flatten()[:, None] - b.flatten()[None]).sign().mean())


def slopes(loss: Adversarial, fake: Tensor, real: Tensor) -> Reading:
    """The mean absolute derivative of the losses of D and G with respect to a logit."""
    fake, real = (values.flatten().detach().requires_grad_() for values in (fake, real))
    with torch.enable_grad():
        of_D = torch.autograd.grad(loss.discriminator(fake, real).sum(), (fake, real), allow_unused=True)
        (of_G,) = torch.autograd.grad(loss.generator(fake, real if loss.generator_reads_real else None).sum(), fake)
    of_D = [slope for slope in of_D if slope is not None]
    return {"slope/D": float(torch.cat(of_D).abs().mean()), "slope/G": float(of_G.abs().mean())}
