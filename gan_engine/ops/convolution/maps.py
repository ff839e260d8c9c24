"""The three maps of a convolution, each by the fastest code that there is for the call.

<y, F(x, w)> = <x, D(y, w)> = <w, W(x, y)>: F is the forward pass, D the gradient by the image, W the gradient by the
weight. Each map is an op of its own for the chooser. Their backends:

    cpu         float32 images: minimal filtering (winograd.py); kernels for 1x1 convolutions of few channels
                (pointwise.py); or PyTorch's kernels in the layout that is the faster
                bfloat16 images: the same in float32, where that is faster (gan_engine/system/bfloat16.py)
    pytorch     PyTorch's kernels, in the layout that the tensors have
    reference   the same kernels; a convolution as a whole is then differentiated by PyTorch

PyTorch's kernels for a convolution with a stride, or a transposed one, are faster in one memory layout than in the
other: y and dx in channels_last, and the gradient by the weight in contiguous memory (256 -> 256 channels, 3x3, stride
2, 32x32 from or to 65x65, batch 8, AVX-512, one thread, milliseconds, 2026-11):

                       y     dx    dweight
    contiguous         72    76    64
    channels_last      52    46    89

A change of layout costs less than the difference: `relayout` moves those 34 MB in 6 ms.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.convolution import forms, pointwise, winograd
from gan_engine.ops.convolution.arguments import ConvolutionArguments
from gan_engine.ops.convolution.relayout import in_layout
from gan_engine.ops.kernel_op import layout
from gan_engine.ops.thresholds import TABLE
from gan_engine.system import bfloat16

# The ways to compute a map: the number of a form of minimal filtering, or one of these.
RELAYOUTS = -1  # PyTorch's kernels, in the layout that is faster
PYTORCH = -2
IN_FLOAT32 = -3  # the map of float32 copies of bfloat16 tensors, rounded
POINTWISE = -4
UNDECIDED = -5

BFLOAT16_TIME = bfloat16.on_cpu().time  # of PyTorch's kernels in bfloat16; float32 takes 1
CONVERSION = bfloat16.conversion()  # of an element; a product of PyTorch's kernels in float32 takes 1


# PyTorch's kernels for CPUs without bfloat16, but for AVX-512, round partial sums of the gradient by the weight. Its
# relative error is 3.5e-3 with AVX2, and 1.6e-3 from float32 copies (64 channels, 3x3). An emulated Neoverse N1 has
# 2.3e-3 and 1.7e-3 (64 to 48 channels, 1x1; PyTorch 2.13, 2026-11).
ROUNDS_SUMS = bfloat16.on_cpu().how == "in software" and torch.backends.cpu.get_cpu_capability() != "AVX512"


class MapRequest:
    """A call of a map as the chooser's rules read it: its tensors, its arguments, and its form, looked for once.

    `search` is the function of forms.py for the map, which takes `tensors` and the arguments. The first of the tensors
    and `weight` are those whose sizes decide about layouts.
    """

    # One is made for every call.
    __slots__ = "_arguments", "_fastest", "_found", "autocast", "search", "tensors", "weight"

    def __init__(
        self,
        search: Callable[..., forms.Found],
        tensors: tuple[Tensor, Tensor, Tensor | None],
        weight: Tensor,
        arguments: ConvolutionArguments | tuple[Callable[..., ConvolutionArguments], tuple],
    ) -> None:
        self.search, self.tensors, self.weight, self._arguments = search, tensors, weight, arguments
        self.autocast: torch.dtype | None = None  # to which PyTorch casts the tensors before it computes with them
        self._found: forms.Found | None = None
        self._fastest: int | None = None

    @property
    def arguments(self) -> ConvolutionArguments:
        """Given, or read from (function, options) when they are asked for: a call with few channels never asks."""
        if not isinstance(self._arguments, ConvolutionArguments):
            read, options = self._arguments
            self._arguments = read(2, *options)
        return self._arguments

    def form(self) -> forms.Found:
        """The number of the fastest form of minimal filtering, None if there is none, and its share of the time."""
        if self._found is None:
            self._found = forms.found(self.search, *self.tensors, self.arguments)
        return self._found

    def images_of(self, dtype: torch.dtype) -> bool:
        """Whether the map is computed of images, weights and a bias of this dtype."""
        if self.autocast is None and self.tensors[0].dtype != dtype:  # the answer for most calls
            return False
        first, second, third = self.tensors
        if first.ndim != 4 or self.weight.ndim != 4:
            return False
        if self.autocast is not None:
            return self.autocast == dtype and all(t is None or t.dtype != torch.float64 for t in self.tensors)
        return second.dtype == dtype and (third is None or third.dtype == dtype)

    def in_float32(self) -> "MapRequest":
        """The same map of float32 copies. A third tensor that is no bias lends its shape and layout alone."""
        first, second, third = self.tensors
        a, b = first.float(), second.float()
        c = third
        if third is not None:
            c = third.float() if third.ndim == 1 else torch.empty_like(third, dtype=torch.float32)
        weight = c if c is not None and self.weight is third else b
        return MapRequest(self.search, (a, b, c), weight, self.arguments)

    def is_pointwise(self) -> bool:
        """Whether our kernels for 1x1 convolutions of few channels compute the map of float32 images."""
        if not 1 <= min(self.weight.shape[:2]) <= pointwise.MOST_FEW or 0 in self.tensors[0].shape:
            return False
        return pointwise.fits(self.weight, self.arguments) and self._channels_fit()

    def _channels_fit(self) -> bool:
        """Whether the images, and a bias on the CPU, have the channels of the weight."""
        first, second, third = self.tensors
        o, i = self.weight.shape[:2]
        if self.search is forms.for_forward:
            return first.shape[1] == i and (third is None or (third.is_cpu and third.shape == (o,)))
        if self.search is forms.for_image_gradient:
            return first.shape[1] == o
        return second.ndim == 4 and first.shape[1] == i and second.shape[1] == o

    def pointwise_gains(self) -> bool:
        """Whether those kernels gain more than the call costs."""
        n, _, h, w = self.tensors[0].shape
        return n * h * w * max(self.weight.shape[:2]) >= TABLE["few elements of a 1x1 convolution"].number

    def layouts_gain(self) -> bool:
        """Whether PyTorch's kernels gain more by their faster layout than changing it costs."""
        fewest = TABLE["few channels for layouts"].number
        return max(self.arguments.stride) > 1 and min(self.weight.shape[:2]) >= fewest and forms.costs().layouts

    def float32_gains(self) -> bool:
        """Whether a map of bfloat16 images is faster in float32, with what the conversions cost, or more exact.

        The unit of time is PyTorch's kernel in float32. The gradient by the weight always gains where PyTorch's kernel
        rounds partial sums: it gains exactness.
        """
        if self.search is forms.for_weight_gradient and ROUNDS_SUMS:
            return True
        (n, _, h, w), (a, b, kh, kw), stride = self.tensors[0].shape, self.weight.shape, self.arguments.stride
        taps = kh * kw / (stride[0] * stride[1])
        converting = CONVERSION * ((1 / a + 1 / b) / taps + 1 / max(1, n * h * w)) if min(a, b) else 0
        _, share = self.form()
        return min(share, 1) + converting < TABLE["small gain"].number * BFLOAT16_TIME

    def way(self, backend: str) -> int:
        """How `backend` computes the map."""
        if backend == "cpu" and self.images_of(torch.bfloat16):
            return IN_FLOAT32 if self.float32_gains() else PYTORCH
        if backend != "cpu" or not self.images_of(torch.float32):
            return PYTORCH
        fastest = self.fastest_way()
        if fastest != PYTORCH:
            return fastest
        # Whether our kernels, a form or the layouts gain anything or not, a request by name takes them where there are
        # any.
        if self.is_pointwise():
            return POINTWISE
        form, _ = self.form()
        if form is not None:
            return form
        return RELAYOUTS if max(self.arguments.stride) > 1 else PYTORCH

    def fastest_way(self) -> int:
        """The fastest way to compute a map of float32 images on the backend "cpu"."""
        if self._fastest is None:
            self._fastest = self._find_fastest()
        return self._fastest

    def _find_fastest(self) -> int:
        if self.is_pointwise() and self.pointwise_gains():
            return POINTWISE
        form, share = self.form()
        if form is not None and share < TABLE["small gain"].number:
            return form
        return RELAYOUTS if self.layouts_gain() else PYTORCH


_SLOWER_IN_FLOAT32 = "on this CPU the call is no faster in float32 than PyTorch's kernels are in bfloat16"


def _no_faster_way(request: MapRequest) -> str:
    """Why neither minimal filtering nor another layout makes the call faster."""
    if forms.WHY_NOT is not None:
        return forms.WHY_NOT
    reasons = [TABLE["small gain"].sentence]
    if max(request.arguments.stride) > 1:
        reasons.append(TABLE["few channels for layouts"].sentence)
    return "; ".join(reasons)


def _refuse(x: Tensor, request: MapRequest | None) -> str | None:
    if request is None or request.weight.device.type == "cpu":
        return None
    return f"takes cpu tensors, not a weight on {request.weight.device.type}"


def _no_gain(backend: str, x: Tensor, request: MapRequest | None) -> str | None:
    if backend != "cpu" or request is None:
        return None
    if (request.autocast or x.dtype) is torch.bfloat16 and request.images_of(torch.bfloat16):
        return None if request.float32_gains() else _SLOWER_IN_FLOAT32
    # Attributes of a parameter take longer than those of a plain tensor.
    shape, few = request.weight.shape, TABLE["few channels"]
    if len(shape) == 4 and shape[2] == shape[3] == 1 and request.images_of(torch.float32) and request.is_pointwise():
        return None if request.pointwise_gains() else TABLE["few elements of a 1x1 convolution"].sentence
    if len(shape) < 2 or shape[0] < few.number or shape[1] < few.number:
        return few.sentence
    if not request.images_of(torch.float32):
        return "has code of its own for float32 and bfloat16 images [N, I, H, W]; the rest are PyTorch's kernels"
    return _no_faster_way(request) if request.fastest_way() == PYTORCH else None


for _op in ("conv2d", "conv_transpose2d", "conv2d_image_gradient", "conv2d_weight_gradient"):
    backends.register(_op, has=("cpu", "pytorch"), refuse={"cpu": _refuse}, no_gain=_no_gain)


def forward_request(x: Tensor, w: Tensor, b: Tensor | None, arguments: ConvolutionArguments) -> MapRequest:
    return MapRequest(forms.for_forward, (x, w, b), w, arguments)


def forward_op(arguments: ConvolutionArguments) -> str:
    """The name of the forward pass in the chooser."""
    return "conv_transpose2d" if arguments.transposed else "conv2d"


def forward(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    arguments: ConvolutionArguments,
    backend: str | None = None,
    way: int = UNDECIDED,
) -> Tensor:
    """y = F(x, w) + b, in the layout that PyTorch gives it: channels_last if x or w is"""
    request = forward_request(x, w, b, arguments)
    return _computed(
        _forward, request, _chosen_way(forward_op(arguments), request, backend) if way == UNDECIDED else way
    )


def image_gradient(
    dy: Tensor, w: Tensor, like: Tensor, arguments: ConvolutionArguments, backend: str | None = None
) -> Tensor:
    """dx = D(dy, w), in the shape and layout of `like`, whose numbers are not read"""
    request = MapRequest(forms.for_image_gradient, (dy, w, like), w, arguments)
    return _computed(_image_gradient, request, _chosen_way("conv2d_image_gradient", request, backend))


def weight_gradient(
    x: Tensor, dy: Tensor, like: Tensor, arguments: ConvolutionArguments, backend: str | None = None
) -> Tensor:
    """dw = W(x, dy), in the shape and layout of `like`, whose numbers are not read"""
    request = MapRequest(forms.for_weight_gradient, (x, dy, like), like, arguments)
    return _computed(_weight_gradient, request, _chosen_way("conv2d_weight_gradient", request, backend))


def _chosen_way(op: str, request: MapRequest, backend: str | None) -> int:
    return request.way(backends.choose(op, request.tensors[0], backend, request))


def _computed(compute: Callable[..., Tensor], request: MapRequest, way: int) -> Tensor:
    """The map in the given way. In float32, bfloat16 tensors become copies, and the result is rounded once."""
    if way != IN_FLOAT32:
        return compute(*request.tensors, request.arguments, way)
    copies = request.in_float32()
    with torch.autocast("cpu", enabled=False):  # autocast would round the copies
        y = compute(*copies.tensors, copies.arguments, copies.fastest_way())
    return y.to(request.tensors[0].dtype)


# The maps in a way that is a form of minimal filtering, POINTWISE, RELAYOUTS or PYTORCH.


def _forward(x: Tensor, w: Tensor, b: Tensor | None, arguments: ConvolutionArguments, way: int) -> Tensor:
    if way >= 0:
        return winograd.forward(x, w, b, arguments, way)
    if way == POINTWISE:
        return pointwise.forward(x, w, b)
    if way == PYTORCH:
        return torch.convolution(x, w, b, *arguments)
    last = torch.channels_last in (layout(x), layout(w))
    return in_layout(torch.convolution(in_layout(x, True), w, b, *arguments), last)


def _image_gradient(dy: Tensor, w: Tensor, like: Tensor, arguments: ConvolutionArguments, way: int) -> Tensor:
    if way >= 0:
        return winograd.image_gradient(dy, w, like, arguments, way)
    if way == POINTWISE:
        return pointwise.image_gradient(dy, w, like)
    if way == PYTORCH:
        return _gradients_by_pytorch(dy, like, w, arguments, (True, False, False))[0]
    last = torch.empty_like(like, memory_format=torch.channels_last)
    dx = _gradients_by_pytorch(in_layout(dy, True), last, w, arguments, (True, False, False))[0]
    return in_layout(dx, layout(like) == torch.channels_last)


def _weight_gradient(x: Tensor, dy: Tensor, like: Tensor, arguments: ConvolutionArguments, way: int) -> Tensor:
    if way >= 0:
        return winograd.weight_gradient(x, dy, like, arguments, way)
    if way == POINTWISE:
        return pointwise.weight_gradient(x, dy, like)
    if way == PYTORCH and not _oversteps(like, arguments):
        return _gradients_by_pytorch(dy, x, like, arguments, (False, True, False))[1]
    contiguous = torch.empty_like(like, memory_format=torch.contiguous_format)
    dw = _gradients_by_pytorch(in_layout(dy, False), in_layout(x, False), contiguous, arguments, (False, True, False))[
        1
    ]
    return in_layout(dw, layout(like) == torch.channels_last)


def _oversteps(w: Tensor, arguments: ConvolutionArguments) -> bool:
    """Whether PyTorch's kernel for the gradient by w writes beyond its memory if x is in channels_last, on a CPU.

    It does for 1x1 kernels with a stride, of fewer than 8 channels with AVX2, and of fewer than 16 with AVX-512
    (github.com/uxlfoundation/oneDNN/issues/6035; PyTorch 2.13).
    """
    return w.device.type == "cpu" and w.shape[2:] == (1, 1) and max(arguments.stride) > 1 and w.shape[1] < 16


def _gradients_by_pytorch(
    dy: Tensor, x: Tensor, w: Tensor, arguments: ConvolutionArguments, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of <F(x, w) + b, dy> by x, w and b"""
    return torch.ops.aten.convolution_backward(dy, x, w, None, *arguments, wanted)
