"""The sizes of a foreign StyleGAN2, found from its weights."""

from torch import Tensor

from gan_engine.models import stylegan2
from gan_engine.weights.layout import LayoutError


def channels(widths: dict[int, int], what: str) -> dict[str, int]:
    """`channel_base` and `channel_max` for the feature maps at each resolution. Raises LayoutError if none fit."""
    most = max(widths.values())
    base = max(resolution * width for resolution, width in widths.items() if width < most or resolution == max(widths))
    for resolution, width in widths.items():
        if width != min(base // resolution, most):
            raise LayoutError(
                f"{what}: want min(base / resolution, {most}) feature maps at every resolution, as with base {base} "
                f"{min(base // resolution, most)} at {resolution}x{resolution}, got {width}"
            )
    return {"channel_base": base, "channel_max": most}


def require_squares(const: Tensor, what: str) -> None:
    """Raises LayoutError for a generator of rectangles, by the constant [..., H, W] that its images begin with."""
    if (sides := tuple(const.shape[-2:])) != (4, 4):
        got = "x".join(map(str, sides))
        raise LayoutError(
            f"{what}: want a network of square images, which begin with 4x4 pixels, got one that begins with {got}: "
            "rectangles of other programs are not converted"
        )


def config(what: str, **fields: object) -> stylegan2.Config:
    """Raises LayoutError where our network cannot have such sizes."""
    try:
        return stylegan2.Config(**fields)
    except ValueError as error:
        raise LayoutError(f"{what}: our stylegan2 cannot hold it: {error}") from error
