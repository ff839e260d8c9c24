"""Objectives of translations: the adversarial loss, and the distance of an image from its target.

Discriminators that judge patches give logits [N, P]. The terms [N] are means over the patches.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.losses.adversarial import of_each_image
from gan_engine.losses.objective import Batch, GanObjective, Judged
from gan_engine.metrics.perceptual import PerceptualDistance
from gan_engine.metrics.similarity import l1


class PairedObjective(GanObjective):
    """The target is known: G(source) shall look real, and be the target (Isola et al. 2017, arXiv:1611.07004).

    It trains G(source) and D(img, source) -> logits [N, P]. G's configuration has the weights. The terms of G are G, L1
    and perceptual, the distance in the features of a classifier. `content` is L1 alone, which G can learn before D
    takes part.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.perceptual = None
        if self.G.config.perceptual_weight:
            self.perceptual = PerceptualDistance().to(next(self.G.parameters()).device)

    def discriminator(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            gen_img = self.G(batch.source)
        fake, real = (self.D(img, batch.source).float() for img in (gen_img, batch.real_img))
        self.observe("logits/fake", fake.detach())
        self.observe("logits/real", real.detach())
        return {"D": of_each_image(self.loss.discriminator, fake, real)}

    def generator(self, batch: Batch) -> dict[str, Tensor]:
        config, gen_img = self.G.config, self.G(batch.source)
        fake, real = self.D(gen_img, batch.source).float(), None
        if self.loss.generator_reads_real:
            real = self.D(batch.real_img, batch.source).float()
        terms = {
            "G": config.adversarial_weight * of_each_image(self.loss.generator, fake, real),
            "L1": config.l1_weight * l1(gen_img, batch.real_img),
        }
        if self.perceptual is not None:
            terms["perceptual"] = config.perceptual_weight * self.perceptual(gen_img, batch.real_img)
        return terms

    def judged(self, batch: Batch) -> list[Judged]:
        gen_img = self.G(batch.source)
        fake, real = (self.D(img, batch.source).float() for img in (gen_img, batch.real_img))
        return [Judged("", gen_img, batch.real_img, fake, real)]

    def content(self, batch: Batch) -> dict[str, Tensor]:
        return {"L1": self.G.config.l1_weight * l1(self.G(batch.source), batch.real_img)}

    def rows(self, G: torch.nn.Module, batch: Batch) -> list[Tensor]:
        """Sources, images of G and targets, each [N, C, H, W]: the rows of a grid of samples."""
        target = batch.real_img
        source = F.interpolate(batch.source, target.shape[2:], mode="nearest")
        return [source.expand_as(target), G(batch.source), target]


class CycleObjective(GanObjective):
    """No target is known: an image shall look real, and lead back to its source (Zhu et al. 2017, arXiv:1703.10593).

    It trains G with the directions A2B and B2A, and D with the kinds A and B. A batch has images of A as `source` and
    images of B as `real_img`. G's configuration has the weights. identity_weight asks a generator to leave images of
    its target's kind as they are (section 5.2). D sees generated images from a pool, so that it does not forget older
    ones (Shrivastava et al. 2017, arXiv:1612.07828).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pools = {kind: Pool(self.G.config.pool_size) for kind in "AB"}

    def discriminator(self, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for kind, real_img, other, direction in self._kinds(batch):
            with torch.no_grad():
                gen_img = self.pools[kind].exchange(self.G(other, direction), self.rng)
            fake, real = (self.D(img, kind).float() for img in (gen_img, real_img))
            self.observe(f"logits/fake/{kind}", fake.detach())
            self.observe(f"logits/real/{kind}", real.detach())
            terms[f"D/{kind}"] = of_each_image(self.loss.discriminator, fake, real)
        return terms

    def generator(self, batch: Batch) -> dict[str, Tensor]:
        config, terms = self.G.config, {}
        for kind, real_img, other, direction in self._kinds(batch):
            gen_img = self.G(other, direction)
            fake, real = self.D(gen_img, kind).float(), None
            if self.loss.generator_reads_real:
                real = self.D(real_img, kind).float()
            back = self.G(gen_img, direction[::-1])
            terms[f"G/{kind}"] = config.adversarial_weight * of_each_image(self.loss.generator, fake, real)
            terms[f"cycle/{direction}"] = config.cycle_weight * l1(back, other)
            if config.identity_weight:
                weight = config.cycle_weight * config.identity_weight
                terms[f"identity/{kind}"] = weight * l1(self.G(real_img, direction), real_img)
        return terms

    def judged(self, batch: Batch) -> list[Judged]:
        found = []
        for kind, real_img, other, direction in self._kinds(batch):
            gen_img = self.G(other, direction)
            fake, real = (self.D(img, kind).float() for img in (gen_img, real_img))
            found.append(Judged(f"/{kind}", gen_img, real_img, fake, real))
        return found

    def rows(self, G: torch.nn.Module, batch: Batch) -> list[Tensor]:
        """Images of A, their translations, images of B, and their translations, each [N, C, H, W]."""
        return [batch.source, G(batch.source), batch.real_img, G(batch.real_img, "B2A")]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"pools": {kind: pool.kept() for kind, pool in self.pools.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for kind, pool in self.pools.items():
            pool.images = state["pools"][kind]

    def tensors(self) -> list[Tensor]:
        return [*super().tensors(), *(tensor for pool in self.pools.values() for tensor in pool.tensors())]

    def _kinds(self, batch: Batch) -> list[tuple[str, Tensor, Tensor, str]]:
        """(kind, its real images, images of the other kind, direction from the other kind to this kind)"""
        return [("B", batch.real_img, batch.source, "A2B"), ("A", batch.source, batch.real_img, "B2A")]


class Pool:
    """Up to `size` images that were generated before. A pool that is not full keeps every new image.

    Attributes:
        images: [size, C, H, W] with `filled`, an int64 [] beside it on a GPU; a list of [C, H, W] on a CPU, and as long
            as the pool is empty.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] | Tensor = []
        self.filled: Tensor | None = None

    def exchange(self, images: Tensor, rng: torch.Generator | None) -> Tensor:
        """images [N, C, H, W], each exchanged for a random image of the pool with probability 1/2

        An image that comes before the pool is full is returned as it is. `rng` draws on a CPU, and the default
        generator of the images' device on a GPU, which never waits for the host.
        """
        if not self.size:
            return images
        if images.device.type != "cpu":
            return torch.cat([self._exchange_on_gpu(part) for part in images.split(self.size)])
        out = []
        for img in images:
            if len(self.images) < self.size:
                self.images.append(img.clone())
            elif torch.rand((), generator=rng) < 0.5:
                i = int(torch.randint(self.size, (), generator=rng))
                img, self.images[i] = self.images[i].to(img), img.clone()
            out.append(img)
        return torch.stack(out)

    def _exchange_on_gpu(self, images: Tensor) -> Tensor:
        """`exchange` of at most `size` images, which all meet other images of the pool."""
        pool, num, device = self._on_gpu(images), len(images), images.device
        filling = self.filled < self.size
        at_random = torch.rand(self.size, device=device).topk(num).indices
        slots = torch.where(filling, (self.filled + torch.arange(num, device=device)) % self.size, at_random)
        kept = pool.index_select(0, slots)
        exchanged = (~filling & (torch.rand(num, device=device) < 0.5))[:, None, None, None]
        pool.index_copy_(0, slots, torch.where(exchanged | filling, images, kept).to(pool.dtype))
        self.filled.add_(num).clamp_(max=self.size)
        return torch.where(exchanged, kept, images)

    def _on_gpu(self, images: Tensor) -> Tensor:
        """The pool as one tensor, which is made of the list of a checkpoint before the first exchange."""
        if isinstance(self.images, list):
            pool = images.new_zeros(self.size, *images.shape[1:])
            for place, img in zip(pool, self.images, strict=False):
                place.copy_(img)
            self.filled = torch.full((), min(len(self.images), self.size), device=images.device)
            self.images = pool
        return self.images

    def tensors(self) -> list[Tensor]:
        """What an exchange changes on a GPU."""
        return [self.images, self.filled] if isinstance(self.images, Tensor) else []

    def kept(self) -> list[Tensor]:
        """The images, each [C, H, W]. The host waits for a GPU."""
        return [*self.images[: int(self.filled)].clone()] if isinstance(self.images, Tensor) else self.images
