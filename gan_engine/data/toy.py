"""Drawn data, so that everything can be tried without a file. `DRAW` has one function for each kind of data.

Images are in colour if `channels` is None.
"""

import math

import torch
from torch import Tensor

from gan_engine.data import gaussians
from gan_engine.data.image_set import ImageSet, empty_images
from gan_engine.system.resolution import Resolution, height_width

SHAPES = {
    # Signed distance to the edge in units of the shape's radius, negative inside. x, y [..., H, W]: coordinates of the
    # pixels relative to the shape's centre and rotation.
    "disc": lambda x, y: (x**2 + y**2).sqrt() - 1,
    "square": lambda x, y: torch.maximum(x.abs(), y.abs()) - 0.8,
    "triangle": lambda x, y: torch.stack([y, 0.75**0.5 * x - y / 2, -(0.75**0.5) * x - y / 2]).amax(0) - 0.5,
    "cross": lambda x, y: torch.minimum(_box(x, y, 1.0, 0.3), _box(x, y, 0.3, 1.0)),
    "ring": lambda x, y: ((x**2 + y**2).sqrt() - 0.8).abs() - 0.2,
}


def shapes(*, resolution: Resolution, channels: int | None, seed: int) -> ImageSet:
    """One antialiased shape in each image; label = shape. Place, size, angle and the two colours are random.

    The set has 256 to 4,096 images, fewer at a high resolution, so that it takes about a second to make.
    """
    channels = channels or 3
    height, width = height_width(resolution)
    short = min(height, width)
    num = min(4096, max(256, 2**24 // (height * width)))
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num, *shape, 1, 1, generator=generator)

    radius = uniform(0.35, 0.7)  # unit of radius, centre and pixel coordinates: half the shorter side of the picture
    centre_x, centre_y = (side / short * uniform(-0.25, 0.25) for side in (width, height))
    angle = uniform(0, 2 * math.pi)
    background, foreground = uniform(0, 100, channels), uniform(155, 255, channels)
    labels = torch.randint(len(SHAPES), (num,), generator=generator)

    images = empty_images("toy", num, channels, resolution)
    columns, rows = ((torch.arange(side) + 0.5) * (2 / short) - side / short for side in (width, height))
    for label, distance in enumerate(SHAPES.values()):
        for chosen in (labels == label).nonzero().flatten().split(64):
            x, y = columns - centre_x[chosen], rows[:, None] - centre_y[chosen]
            cos, sin, r = angle[chosen].cos(), angle[chosen].sin(), radius[chosen]
            d = distance((cos * x + sin * y) / r, (cos * y - sin * x) / r) * r
            coverage = (0.5 - d * short / 2).clamp(0, 1)[:, None]
            images[chosen] = torch.lerp(background[chosen], foreground[chosen], coverage).round().to(torch.uint8)
    return ImageSet("toy", images, labels, tuple(SHAPES))


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


# Colour and grey value of each shape in `pairs`.
_PALETTE = torch.tensor([[230, 60, 50], [60, 180, 80], [70, 110, 230], [240, 200, 60], [190, 90, 210]])
_GREYS = torch.tensor([[250], [210], [170], [130], [90]])


def pairs(*, resolution: Resolution, channels: int | None, seed: int) -> ImageSet:
    """A is the white silhouette of a shape on black. B is the same shape in the colour of its class."""
    channels = channels or 3
    drawn = shapes(resolution=resolution, channels=1, seed=seed)
    low, high = drawn.images.flatten(1).aminmax(dim=1)
    low, high = (edge[:, None, None, None].float() for edge in (low, high))
    coverage = (drawn.images.float() - low) / (high - low)
    paint = (_PALETTE if channels == 3 else _GREYS)[drawn.labels][:, :, None, None]
    silhouette = (255 * coverage).round().byte().expand(-1, channels, -1, -1).contiguous()
    painted = torch.lerp(torch.tensor(30.0), paint.float(), coverage).round().byte()
    return ImageSet("toy", painted, source=ImageSet("toy", silhouette), paired=True)


def unpaired(*, resolution: Resolution, channels: int | None, seed: int) -> ImageSet:
    """Silhouettes A and painted shapes B as in `pairs`, but of different shapes."""
    a, b = (pairs(resolution=resolution, channels=channels, seed=side_seed) for side_seed in (seed, seed + 1))
    return ImageSet("toy", b.images, source=a.source)


# True where a solid occupies the point x, y, z [n, R, R, R] in [-1, 1]; y points upwards. Its sizes a, b, c
# [n, 1, 1, 1] are in [0.35, 0.9], and its thickness t [n, 1, 1, 1] is in [0.12, 0.2].
SOLIDS = {
    "sphere": lambda x, y, z, a, b, c, t: x**2 + y**2 + z**2 < a**2,
    "box": lambda x, y, z, a, b, c, t: _within(x, y, z, a, b, c),
    "cylinder": lambda x, y, z, a, b, c, t: (x**2 + z**2 < a**2) & (y.abs() < b),
    "torus": lambda x, y, z, a, b, c, t: ((x**2 + z**2).sqrt() - 0.1 - 2 * a / 3) ** 2 + y**2 < t**2,
    "table": lambda x, y, z, a, b, c, t: _within(x, y, z, a, b, c) & ((y > b - t) | _legs(x, z, a, c, t)),
    "chair": lambda x, y, z, a, b, c, t: (
        _within(x, y, z, a, 0.9, c) & ((y.abs() < t / 2) | ((y < 0) & _legs(x, z, a, c, t)) | ((y > 0) & (z < t - c)))
    ),
}


def _within(x: Tensor, y: Tensor, z: Tensor, a: Tensor, b: Tensor | float, c: Tensor) -> Tensor:
    return (x.abs() < a) & (y.abs() < b) & (z.abs() < c)


def _legs(x: Tensor, z: Tensor, a: Tensor, c: Tensor, t: Tensor) -> Tensor:
    """True in four upright square legs at the corners."""
    return (x.abs() > a - t) & (z.abs() > c - t)


def voxels(*, resolution: int, channels: int | None, seed: int) -> ImageSet:
    """One of SOLIDS in each volume; label = solid. Its sizes are random.

    The set has 2,048 volumes, or fewer at a high resolution.
    """
    num = min(2048, 2**28 // resolution**3)
    generator = torch.Generator().manual_seed(seed)
    sizes = 0.35 + 0.55 * torch.rand(3, num, 1, 1, 1, generator=generator)
    thickness = 0.12 + 0.08 * torch.rand(num, 1, 1, 1, generator=generator)
    thickness = thickness.clamp(min=2.1 / resolution)  # at least one voxel, which is 2 / resolution wide
    labels = torch.randint(len(SOLIDS), (num,), generator=generator)

    images = empty_images("toy", num, 1, resolution, dims=3)
    axis = (torch.arange(resolution) + 0.5) * (2 / resolution) - 1
    x, y, z = axis[:, None, None], axis[:, None], axis
    for label, occupied in enumerate(SOLIDS.values()):
        for chosen in (labels == label).nonzero().flatten().split(64):
            images[chosen] = occupied(x, y, z, *sizes[:, chosen], thickness[chosen])[:, None].byte() * 255
    return ImageSet("toy", images, labels, tuple(SOLIDS))


DRAW = {
    **{"image": shapes, "patches": shapes, "pairs": pairs, "unpaired": unpaired},
    **{"voxels": voxels, "points": gaussians.ring},
}
