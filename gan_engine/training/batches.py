"""The batches of a run: real images in turn, noise, and the images that G translates."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gan_engine.config import Config
from gan_engine.data import ImageSet, Sampler
from gan_engine.losses.objective import Batch
from gan_engine.system.devices import upload
from gan_engine.training.distributed import Processes
from gan_engine.training.networks import Networks


class Batches:
    """One process's part of every batch, on its device and in the layout of the networks.

    Noise is drawn on the CPU: the same numbers on every device, in a state that is easily kept. Every process draws
    the noise of the whole batch and keeps its part.

    Attributes:
        sampler: gives the real images.
        source_sampler: gives the images that G translates, for data that have some.
    """

    def __init__(
        self, config: Config, data: ImageSet, networks: Networks, *, device: torch.device, processes: Processes
    ) -> None:
        self.config, self.networks, self.device, self.processes = config, networks, device, processes
        self.layout = networks.layout
        self.z_generator = torch.Generator().manual_seed(config.seed)
        images = config.batch_size // processes.size
        options = {"rank": processes.rank, "world_size": processes.size, "device": device, "mirror": config.mirror}
        self.sampler = Sampler(data, images, seed=config.seed, **options)
        if not config.conditional:
            self.sampler.labels = None  # one-hot classes take four launches on a GPU
        self.source_sampler = None
        if data.source is not None:
            # Two samplers with one seed give the same order, which keeps pairs together.
            seed = config.seed if data.paired else config.seed + 1
            self.source_sampler = Sampler(data.source, images, seed=seed, **options)

    def images(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The next real_img, c and source, as in Batch."""
        real_img, c = next(self.sampler)
        real_img = self.laid_out(real_img)
        return real_img, c if self.config.conditional else None, self.source(real_img, self.source_sampler)

    def with_noise(self, real_img: Tensor, c: Tensor | None, source: Tensor | None) -> Batch:
        """A batch of these images, with noise that no other batch has."""
        return Batch(real_img, self.noise(len(real_img)), c, source)

    def noise(self, num: int) -> Tensor:
        """z [num, z_dim]"""
        rank, size = self.processes.rank, self.processes.size
        z = torch.randn(num * size, self.config.model.z_dim, generator=self.z_generator)
        return upload(z[rank::size], self.device)

    def source(self, real_img: Tensor, sampler: Sampler | None) -> Tensor | None:
        """The images that G translates: those of `sampler`, or what G.source_of makes of the real ones, or None."""
        if sampler is not None:
            return self.laid_out(next(sampler)[0])
        G = self.networks.G
        return self.laid_out(G.source_of(real_img)) if hasattr(G, "source_of") else None

    def laid_out(self, img: Tensor) -> Tensor:
        """Images in the layout of the networks.

        Strides of images of one channel fit both layouts. PyTorch gives what it computes from the usual ones the
        contiguous layout. Blocks of a residual network then change layouts among themselves: 8 ms of 83 in a step of
        R3GAN's D with penalties (32x32, AVX2, one thread, AMD EPYC, 2026-12). From the strides given here PyTorch
        computes in channels_last. Volumes keep their strides.
        """
        img = img.contiguous(memory_format=self.layout)
        if self.layout == torch.channels_last and img.shape[1] == 1:
            _, _, height, width = img.shape
            img = img.as_strided(img.shape, (height * width, 1, width, 1))
        return img

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """The batch in passes of batch_gpu images. Batch norms see one pass at a time."""
        size = self.config.batch_gpu or len(batch.real_img)
        for i in range(0, len(batch.real_img), size):
            yield Batch(*(None if values is None else values[i : i + size] for values in batch))

    def state_dict(self) -> dict[str, Any]:
        return {
            "z_generator": self.z_generator.get_state(),
            "sampler": self.sampler.state_dict(),
            "source_sampler": None if self.source_sampler is None else self.source_sampler.state_dict(),
        }

    def load_samplers(self, state: dict[str, Any]) -> None:
        """Raises ValueError where the state was saved over other data."""
        self.sampler.load_state_dict(state["sampler"])
        if self.source_sampler is not None:
            self.source_sampler.load_state_dict(state["source_sampler"])
