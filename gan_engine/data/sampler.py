"""Deal out the images of a set in random order, as batches for training."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.data.image_set import ImageSet, to_float
from gan_engine.system.devices import upload

# A set moves to the GPU as a whole if it takes at most this part of the GPU's free memory. The networks need the rest.
# A batch then costs only a small copy of indices to the GPU, for which nothing waits.
DEVICE_SHARE = 0.25


def hint_of_older_runs(data: ImageSet) -> str:
    """The end of a message that a run had other data: why that may be so, for images of 16 bits."""
    if data.bits != 16:
        return ""
    skipped = "colour and transparent pictures, which older versions skipped with --bits 16"
    return f"; {skipped}, are read now: if the run is older, move them away"


class Sampler:
    """Endless shuffled batches: img float32 [B, C, H, W] in [-1, 1], c float32 [B, num_classes] one-hot or None.

    Volumes are img [B, 1, X, Y, Z]. A flip mirrors the last side, of images and volumes alike.

    The images form one endless stream. Epoch e is a random permutation of the set, drawn from (seed, e), with a random
    bit for each image that decides its flip. Each image occurs exactly once in an epoch, and a batch may span two
    epochs. A step takes world_size * batch_size images from the stream and deals them out to the ranks.

    All ranks share one state: the seed and the position in the stream, counted in images. A resumed run therefore
    continues at the same image with any batch size and any number of ranks.
    """

    def __init__(
        self,
        data: ImageSet,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        mirror: bool = False,
    ):
        """batch_size: images of a batch on this rank. mirror: flip each image with probability 1/2."""
        if batch_size < 1:
            raise ValueError(f"Sampler: batch_size must be at least 1, got {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"Sampler: rank must lie in [0, world_size) = [0, {world_size}), got {rank}")
        self.batch_size, self.rank, self.world_size, self.mirror = batch_size, rank, world_size, mirror
        self.num_classes, self.data = data.num_classes, data
        self.device = torch.device(device)
        # PyTorch moves and flips int16, and not everywhere uint16, so the bytes of uint16 go under that name.
        stored = self.images = data.images.view(torch.int16) if data.bits == 16 else data.images
        self.labels = data.labels
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if data.images.nbytes <= DEVICE_SHARE * free:
                self.images = self.images.to(self.device)
                self.labels = None if data.labels is None else data.labels.to(self.device)
        self.seed = seed
        self.position = 0
        self._epoch_order: tuple[int, Tensor, Tensor] | None = None
        # A set on disk is read one batch ahead, while the networks work on the current batch.
        slow = data.on_disk and self.images is stored
        self._reader = ThreadPoolExecutor(1, "gan_engine-data") if slow else None
        self._ahead: Future[np.ndarray] | None = None

    def __iter__(self) -> "Sampler":
        return self

    def __next__(self) -> tuple[Tensor, Tensor | None]:
        index, flip = self._part_of_rank(self.position)
        index = upload(index, self.images.device)
        img = upload(self._read(index), self.device)
        self.position += self.world_size * self.batch_size
        if self.mirror:
            img = torch.where(upload(flip, self.device).view(-1, *[1] * (img.ndim - 1)), img.flip(-1), img)
        img = to_float(img.view(torch.uint16) if img.dtype == torch.int16 else img)
        if self.labels is None:
            return img, None
        return img, F.one_hot(upload(self.labels[index], self.device), self.num_classes).float()

    def _part_of_rank(self, position: int) -> tuple[Tensor, Tensor]:
        """This rank's part of the batch at `position`: image indices and flips."""
        index, flip = self._stream(position, self.world_size * self.batch_size)
        return index[self.rank :: self.world_size], flip[self.rank :: self.world_size]

    def _read(self, index: Tensor) -> Tensor:
        if self._reader is None:
            return self.images.index_select(0, index)  # 15 times as fast as images[index] on a CPU
        pixels = self.images.numpy()  # NumPy gathers with one thread, and leaves the others to the networks
        if self._ahead is None:
            self._ahead = self._reader.submit(pixels.__getitem__, index.numpy())
        img = torch.from_numpy(self._ahead.result())
        following, _ = self._part_of_rank(self.position + self.world_size * self.batch_size)
        self._ahead = self._reader.submit(pixels.__getitem__, following.numpy())
        return img

    def state_dict(self) -> dict[str, int | str]:
        return {
            "seed": self.seed,
            "position": self.position,
            "num_images": len(self.images),
            "sha256": self.data.sha256,
        }

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Continue the saved order. The saved seed replaces the seed of the constructor. Raises ValueError."""
        if state["num_images"] != len(self.images):
            raise ValueError(
                f"Sampler: want the {state['num_images']:,} images of the saved state, got {len(self.images):,}; "
                f"resume with the data of the first run{hint_of_older_runs(self.data)}"
            )
        if state["sha256"] != self.data.sha256:
            raise ValueError(
                f"Sampler: want the images and labels of the saved state (sha256 {state['sha256'][:12]}), got other "
                f"data in {self.data.name} (sha256 {self.data.sha256[:12]}); resume with the data of the first run"
                + hint_of_older_runs(self.data)
            )
        self.seed, self.position = state["seed"], state["position"]
        self._epoch_order = self._ahead = None

    def _stream(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Image indices int64 [count] and flips bool [count] at the positions [first, first + count) of the stream."""
        pieces = []
        while count > 0:
            epoch, offset = divmod(first, len(self.images))
            piece = [order[offset : offset + count] for order in self._epoch(epoch)]
            pieces.append(piece)
            first, count = first + len(piece[0]), count - len(piece[0])
        index, flip = map(torch.cat, zip(*pieces, strict=True))
        return index, flip

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The permutation int64 [N] and the flips bool [N] of an epoch, drawn on the CPU: the same for every device."""
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
            order = torch.randperm(len(self.images), generator=generator)
            flip = torch.rand(len(self.images), generator=generator) < 0.5
            self._epoch_order = (epoch, order, flip)
        return self._epoch_order[1:]
