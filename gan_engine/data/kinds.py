"""Kinds of data, a row each: what a source holds, and what a network that trains on it must expect."""

from dataclasses import dataclass

from gan_engine.data.image_set import ImageSet, describe


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is true of all data of one kind. `KINDS` has the names."""

    axes: int = 2
    """Sides of an image: 2, or 3 of a volume."""
    has_source: bool = False
    """Whether a second set of images, `ImageSet.source`, is there for a translation to start from."""
    paired: bool = False
    """Whether image i of `source` belongs to image i."""
    contents: str
    """What a set consists of, for messages."""
    folder_with: str = ""
    """What follows the words "a folder" in messages."""

    @property
    def unpaired(self) -> bool:
        """Whether nothing says which image of `source` belongs to an image."""
        return self.has_source and not self.paired

    @property
    def has_colours(self) -> bool:
        """Whether an image may be grey or in colour. A voxel is occupied or empty."""
        return self.axes == 2

    def sides(self, resolution: int) -> list[int]:
        """[H, W] of an image, [X, Y, Z] of a volume"""
        return [resolution] * self.axes


KINDS: dict[str, Kind] = {
    "image": Kind(contents="single images"),
    "patches": Kind(contents="patches"),  # images are cut into squares of the resolution, and not resized
    "pairs": Kind(has_source=True, paired=True, contents="pairs", folder_with=" with A and B"),
    "unpaired": Kind(has_source=True, contents="unpaired images", folder_with=" with trainA and trainB"),
    "voxels": Kind(axes=3, contents="voxels", folder_with=" of volumes"),
}


def kind_of(name: str) -> Kind:
    """The row of `name`. Raises ValueError where KINDS has no such name."""
    if name not in KINDS:
        raise ValueError(f"kind: want one of {', '.join(KINDS)}, got {name!r}")
    return KINDS[name]


def check_kind(data: ImageSet, name: str, *, family: str) -> None:
    """Raises ValueError where `data` are not of the kind `name`, which `family` trains on."""
    kind, want = kind_of(name), None
    if kind.has_source and (data.source is None or kind.paired > data.paired):
        want = f"{name} of images"
    elif data.images.ndim - 2 != kind.axes:
        want = "volumes" if kind.axes == 3 else "images"
    if want is not None:
        raise ValueError(f"data: want {want} for {family}, got {describe(data)}")
