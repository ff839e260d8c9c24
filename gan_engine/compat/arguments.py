"""What all faces share: arguments of other libraries as the operators take them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from gan_engine import ops
from gan_engine.ops.fir import as_pair, as_sides, outer_root
from gan_engine.ops.kernel_op import layout
from gan_engine.ops.upfirdn2d import upfirdn2d_ref

_BACKENDS = {"cuda": None, "ref": "reference"}


class _Root(NamedTuple):
    """What was read from a filter [taps, taps]."""

    taps: Tensor | None  # whose outer product the filter is
    version: int
    address: int
    numbers: Tensor | None  # of a filter on the CPU, a copy


_roots: Any = WeakIdKeyDictionary()  # of each filter


def backend_of(impl: str) -> str | None:
    """The backend that StyleGAN's argument `impl` asks for: "ref" is the definition, and "cuda" whatever is fastest."""
    if impl not in _BACKENDS:
        raise ValueError(f"impl: want 'cuda' or 'ref', got {impl!r}")
    return _BACKENDS[impl]


def numbers(value: Any) -> int | list[int]:
    """An integer or a list of integers, out of Python's, numpy's or a tensor's."""
    if isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1:
        return [integer(v) for v in value]
    return integer(value)


def integer(value: Any) -> int:
    whole = int(value)
    if whole != value:
        raise ValueError(f"factors, paddings and dimensions: want integers, got {value!r}")
    return whole


def number(value: Any) -> float | None:
    return None if value is None else float(value)


def fir(
    x: Tensor,
    f: Tensor | None,
    up: Any = 1,
    down: Any = 1,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1,
    backend: str | None = None,
) -> Tensor:
    """gan_engine.ops.upfirdn2d of a filter in any dtype, as buffers of a network in half or double precision are.

    A filter in float64 keeps its digits for an x in float64: PyTorch's operators compute it. A filter [taps, taps] that
    is an outer product runs as two passes of taps for other x, to the precision of float32.
    """
    up, down, padding = numbers(up), numbers(down), numbers(padding)
    if f is not None and x.dtype == f.dtype == torch.float64:
        pairs: dict[str, Any] = {"up": as_pair(up, "up"), "down": as_pair(down, "down"), "padding": as_sides(padding)}
        return upfirdn2d_ref(x, f, **pairs, flip_filter=flip_filter, gain=float(gain))
    f = filter_for(x, f)
    options: dict[str, Any] = {"up": up, "down": down, "padding": padding, "flip_filter": bool(flip_filter)}
    return ops.upfirdn2d(x, f, **options, gain=float(gain), backend=backend)


def filter_for(x: Tensor, f: Tensor | None) -> Tensor | None:
    """f as an operator takes it beside x: float32, and as taps where that changes no digit of x"""
    return None if f is None else (f if x.dtype == torch.float64 else _factored(f)).float()


def _factored(f: Tensor) -> Tensor:
    """The taps whose outer product f is, or f itself. Each filter is looked at once, and again when it changes."""
    # This comes first: torch.compile cannot trace is_inference.
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return f
    if f.ndim != 2 or f.numel() == 0 or f.requires_grad or f.is_inference():  # inference mode gives no version
        return f
    if type(f) not in (Tensor, nn.Parameter):  # a fake tensor has no numbers
        return f
    known = _roots.get(f)
    if known is None or not _is_the_same(f, known):
        taps = outer_root(f.detach().to("cpu", torch.float64))
        taps = None if taps is None else taps.to(f.device, torch.float32)
        known = _roots[f] = _Root(taps, f._version, f.data_ptr(), f.detach().clone() if f.is_cpu else None)
    return f if known.taps is None else known.taps


def _is_the_same(f: Tensor, known: _Root) -> bool:
    """Whether the filter has not changed. What `f.data` or numpy wrote into it is seen on the CPU alone."""
    if not f.is_cpu:
        return (f._version, f.data_ptr()) == (known.version, known.address)
    return known.numbers is not None and known.numbers.dtype == f.dtype and torch.equal(known.numbers, f)


def modulated(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    f: Tensor | None,
    *,
    noise: Tensor | None,
    flip_weight: bool,
    **options: Any,
) -> Tensor:
    """gan_engine.ops.modulated_conv2d of a filter and tensors in any dtype, and noise [N, 1, H', W'] or [H', W'].

    `flip_weight=False` convolves. A filter without `up` and `down` is not read.
    """
    f = None if options["up"] == options["down"] else filter_for(x, f)
    weight, styles = fitting(weight, x), fitting(styles, x)
    if noise is not None:
        noise = fitting(noise.reshape((1,) * (4 - noise.ndim) + noise.shape), x)
    weight = weight if flip_weight or weight.shape[2:].numel() == 1 else weight.flip([2, 3])
    return in_layout_of(ops.modulated_conv2d(x, weight, styles, f=f, noise=noise, **options), x, weight)


def in_layout_of(y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """y in the layout that PyTorch's convolution gives it: channels_last if x or the weight is, else contiguous.

    Our transposed convolutions leave channels_last.
    """
    return y if torch.channels_last in (layout(x), layout(weight)) else y.contiguous()


def fitting(t: Tensor, x: Tensor) -> Tensor:
    """t in a dtype that an operator takes beside x"""
    return t if t.dtype in (x.dtype, torch.float32) else t.to(x.dtype)


def leaky(x: Tensor, bias: Tensor | None, negative_slope: float, scale: float) -> Tensor:
    """scale * leaky_relu(x + bias along dimension 1, negative_slope)"""
    bias = None if bias is None else fitting(bias, x)
    return ops.bias_act(x, bias, act="lrelu", alpha=float(negative_slope), gain=float(scale))


class LeakyReLU(nn.Module):
    """y [N, C, ...] = scale * leaky_relu(x + bias [C], negative_slope); without a bias, `bias` is None"""

    def __init__(self, channels: int, bias: bool = True, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.negative_slope, self.scale = negative_slope, scale

    def forward(self, input: Tensor) -> Tensor:
        return leaky(input, self.bias, self.negative_slope, self.scale)
