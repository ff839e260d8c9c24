"""Three embedded garments as the red, green and blue of one image: 1,000 modes, one for each triple of classes.

Stacked MNIST (Metz et al. 2017, arXiv:1611.02163, section 3.3.1) with the garments in the place of digits. The metric
`modes` counts the modes that a generator covers.
"""

import itertools
from pathlib import Path

import torch

from gan_engine.data.arrays import FASHION_CLASSES, load_fashion_mnist
from gan_engine.data.image_set import DataError, ImageSet, empty_images
from gan_engine.system.resolution import Resolution

NAME = "stacked"
SEED = 0  # of the draw: all runs learn from the same images
PER_MODE = 50  # images of each mode
MODES = tuple(" + ".join(triple) for triple in itertools.product(FASHION_CLASSES, repeat=3))


def load_stacked(root: Path, *, resolution: Resolution, channels: int | None) -> ImageSet:
    """uint8 [50,000, 3, R, R] with 50 images of each mode, in random order.

    The label of an image is 100 r + 10 g + b, where r, g and b are the classes of its red, green and blue. Each channel
    is drawn from the 1,000 garments of its class, with replacement and from a fixed seed. `root` is not used.

    Raises DataError for 1 channel.
    """
    if channels == 1:
        raise DataError(f"{NAME}: want 3 channels, one for each garment, got 1")
    garments = load_fashion_mnist(root, resolution=resolution, channels=1)
    members = torch.stack([(garments.labels == k).nonzero().flatten() for k in range(len(FASHION_CLASSES))])
    generator = torch.Generator().manual_seed(SEED)
    labels = torch.arange(len(MODES)).repeat(PER_MODE)[torch.randperm(len(MODES) * PER_MODE, generator=generator)]
    images = empty_images(NAME, len(labels), 3, resolution)
    for channel, classes in enumerate((labels // 100, labels // 10 % 10, labels % 10)):
        drawn = torch.randint(members.shape[1], (len(labels),), generator=generator)
        images[:, channel] = garments.images[members[classes, drawn], 0]
    return ImageSet(NAME, images, labels, MODES)
