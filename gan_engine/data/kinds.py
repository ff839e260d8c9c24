"""The kinds of data, one row each. A row says what a set of this kind holds.

A new kind is a row in KINDS, its readers in `sources.READERS`, and a function in `toy.DRAW`. A family trains on it by
`Config.data_kind`.
"""

from dataclasses import dataclass

from gan_engine.data.image_set import ImageSet, describe
from gan_engine.system.pixels import BITS, COLOURS
from gan_engine.system.resolution import Resolution, height_width


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The facts about all data of one kind."""

    axes: int = 2
    """Number of sides: 2 for images, 3 for volumes, 0 for points."""
    channels: tuple[int, ...] = COLOURS
    """The channels that a picture may have: grey, RGB, RGBA. Voxels are occupied or empty; a point has x and y."""
    bits: tuple[int, ...] = (8,)
    """The bits that a value may have."""
    has_source: bool = False
    """True if the set has a second set, `ImageSet.source`, with the inputs of a translation."""
    paired: bool = False
    """True if image i of `source` belongs to image i."""
    contents: str
    """The contents of a set, for messages: "single images"."""
    folder_with: str = ""
    """The words after "a folder" in messages: " with A and B"."""

    @property
    def unpaired(self) -> bool:
        """True if there is a source, and its images belong to no image in particular."""
        return self.has_source and not self.paired

    @property
    def has_colours(self) -> bool:
        """True if images may be grey or in colour."""
        return len(self.channels) > 1

    def sides(self, resolution: Resolution) -> list[int]:
        """[H, W] of an image, [X, Y, Z] of a volume, [] of a point."""
        return list(height_width(resolution)) if self.axes == 2 else [height_width(resolution)[0]] * self.axes


KINDS: dict[str, Kind] = {
    "image": Kind(bits=BITS, contents="single images"),
    "patches": Kind(contents="patches"),  # images are cut into patches of the resolution, and not resized
    "pairs": Kind(bits=BITS, has_source=True, paired=True, contents="pairs", folder_with=" with A and B"),
    "unpaired": Kind(bits=BITS, has_source=True, contents="unpaired images", folder_with=" with trainA and trainB"),
    "voxels": Kind(axes=3, channels=(1,), contents="voxels", folder_with=" of volumes"),
    "points": Kind(axes=0, channels=(2,), contents="points"),
}


MADE = {0: "points", 2: "images", 3: "volumes"}
"""{number of sides: the word for the results of a generator}"""


def kind_of(name: str) -> Kind:
    """The row of `name` in KINDS. Raises ValueError if there is none."""
    if name not in KINDS:
        raise ValueError(f"kind: want one of {', '.join(KINDS)}, got {name!r}")
    return KINDS[name]


def check_kind(data: ImageSet, name: str, *, family: str) -> None:
    """Raise ValueError if `data` are not of the kind `name`, on which `family` trains."""
    kind, want = kind_of(name), None
    if kind.has_source and (data.source is None or kind.paired > data.paired):
        want = f"{name} of images"
    elif data.images.ndim - 2 != kind.axes:
        want = MADE[kind.axes]
    if want is not None:
        raise ValueError(f"data: want {want} for {family}, got {describe(data)}")
