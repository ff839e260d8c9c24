"""`conv2d_resample`"""

from typing import Any

from torch import Tensor

from gan_engine.compat.arguments import fir, integer
from gan_engine.compat.stylegan.conv2d_gradfix import conv2d, conv_transpose2d
from gan_engine.compat.stylegan.upfirdn2d import _get_filter_size, _parse_padding


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Any = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """y = down(filter(conv(filter(up(x)), w))), where only an `up` and a `down` above 1 bring a filter f

    Args:
        x: [N, I, H, W].
        w: [O, I / groups, kh, kw] in the dtype of x.
        f: [taps] or [taps, taps], from `setup_filter`; None is [1].
        up, down: factors of the image's size. `up` has a gain of up^2.
        padding: of the upsampled image, beside what keeps the filters centred.
        groups: as in a convolution.
        flip_weight: True correlates, as torch.nn.functional.conv2d does; False convolves.
        flip_filter: as in `upfirdn2d`.

    Returns:
        y: [N, O, H', W'].

    Gradients: every order in x and w.
    """
    up, down, groups = integer(up), integer(down), integer(groups)
    if min(up, down) < 1:
        raise ValueError(f"conv2d_resample: up and down must be at least 1, got {up} and {down}")
    (kh, kw), (fw, fh) = map(int, w.shape[2:]), _get_filter_size(f)
    sides = list(_parse_padding(padding))
    for factor, before, behind in ((up, up - 1, up), (down, 1 - down, down)):
        if factor > 1:
            added = ((fw + before) // 2, (fw - behind) // 2, (fh + before) // 2, (fh - behind) // 2)
            sides = [a + b for a, b in zip(sides, added)]
    if _is_symmetric(sides) and up == down == 1:
        return conv2d(x, _turned(w, not flip_weight), padding=(sides[2], sides[0]), groups=groups)
    if up > 1:
        if (kh, kw) == (1, 1):  # fewer pixels pass the convolution before than behind
            y = fir(conv2d(x, w, groups=groups), f, up, 1, sides, flip_filter, up**2)
        else:
            y = conv_transpose2d(x, _transposed(_turned(w, flip_weight), groups), stride=up, groups=groups)
            # The transposed convolution leaves a rim of k - 1, less the zeros behind the last pixel.
            sides = [s + d for s, d in zip(sides, (1 - kw, up - kw, 1 - kh, up - kh))]
            y = fir(y, f, 1, 1, sides, flip_filter, up**2)
        return fir(y, f, 1, down, 0, flip_filter) if down > 1 else y
    if (kh, kw) == (1, 1) and down > 1:
        return conv2d(fir(x, f, 1, down, sides, flip_filter), w, groups=groups)
    x = fir(x, f if down > 1 else None, 1, 1, sides, flip_filter)
    return conv2d(x, _turned(w, not flip_weight), stride=down, groups=groups)


def _is_symmetric(sides: list[int]) -> bool:
    """True if a convolution can do the padding itself."""
    return sides[0] == sides[1] >= 0 and sides[2] == sides[3] >= 0


def _turned(w: Tensor, turn: bool) -> Tensor:
    """w with its taps in reverse order, if `turn`"""
    return w.flip([2, 3]) if turn and w.shape[2:].numel() > 1 else w


def _transposed(w: Tensor, groups: int) -> Tensor:
    """[I, O / groups, kh, kw] out of [O, I / groups, kh, kw]"""
    o, i, kh, kw = w.shape
    if groups == 1:
        return w.transpose(0, 1)
    return w.reshape(groups, o // groups, i, kh, kw).transpose(1, 2).reshape(groups * i, o // groups, kh, kw)
