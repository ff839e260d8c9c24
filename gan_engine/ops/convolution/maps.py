"""The three maps of a convolution, each by the fastest code that there is for the call.

<y, F(x, w)> = <x, D(y, w)> = <w, W(x, y)>: F is the forward pass, D the gradient by the image, W the gradient by the
weight. Each map is an op of its own for the chooser. Their backends:

    cpu         float32 images: minimal filtering (winograd.py), or PyTorch's kernels in the layout that is the faster
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
from gan_engine.ops.convolution import forms, winograd
from gan_engine.ops.convolution.arguments import ConvolutionArguments
from gan_engine.ops.convolution.relayout import in_layout
from gan_engine.ops.kernel_op import layout
from gan_engine.ops.thresholds import TABLE

# The ways to compute a map: the number of a form of minimal filtering, or one of these.
RELAYOUTS = -1  # PyTorch's kernels, in the layout that is faster
PYTORCH = -2
UNDECIDED = -3


class MapRequest:
    """A call of a map as the chooser's rules read it: its tensors, its arguments, and its form, looked for once.

    `search` is the function of forms.py for the map, which takes `tensors` and the arguments. The first of the tensors
    and `weight` are those whose sizes decide about layouts.
    """

    autocast = False  # whether PyTorch casts the tensors before it computes with them
    _found: forms.Found | None = None

    def __init__(
        self,
        search: Callable[..., forms.Found],
        tensors: tuple[Tensor, Tensor, Tensor | None],
        weight: Tensor,
        arguments: ConvolutionArguments | Callable[[], ConvolutionArguments],
    ) -> None:
        self.search, self.tensors, self.weight, self._arguments = search, tensors, weight, arguments

    @property
    def arguments(self) -> ConvolutionArguments:
        """Given, or made when they are asked for: a call with few channels never asks."""
        if not isinstance(self._arguments, ConvolutionArguments):
            self._arguments = self._arguments()
        return self._arguments

    def form(self) -> forms.Found:
        """The number of the fastest form of minimal filtering, None if there is none, and whether it is faster."""
        if self._found is None:
            self._found = self.search(*self.tensors, self.arguments)
        return self._found

    def float32_images(self) -> bool:
        x, weight = self.tensors[0], self.weight
        return x.ndim == weight.ndim == 4 and x.dtype == weight.dtype == torch.float32

    def layouts_gain(self) -> bool:
        """Whether PyTorch's kernels gain more by their faster layout than changing it costs."""
        fewest = TABLE["few channels for layouts"].number
        return max(self.arguments.stride) > 1 and min(self.weight.shape[:2]) >= fewest

    def way(self, backend: str) -> int:
        """How `backend` computes the map."""
        if backend != "cpu" or not self.float32_images():
            return PYTORCH
        form, faster = self.form()
        if faster and form is not None:
            return form
        # Whether a form or the layouts gain anything or not, a request by name takes them where there are any.
        if self.layouts_gain() or (form is None and max(self.arguments.stride) > 1):
            return RELAYOUTS
        return PYTORCH if form is None else form


def _no_faster_way(request: MapRequest) -> str:
    """Why neither minimal filtering nor another layout makes the call faster."""
    if forms.WHY_NOT is not None:
        return forms.WHY_NOT
    reasons = [TABLE["small gain"].sentence]
    if max(request.arguments.stride) > 1:
        reasons.append(TABLE["few channels for layouts"].sentence)
    return "; ".join(reasons)


def _refuse(backend: str, x: Tensor, request: MapRequest | None) -> str | None:
    if backend != "cpu" or request is None or request.weight.device.type == "cpu":
        return None
    return f"takes cpu tensors, not a weight on {request.weight.device.type}"


def _no_gain(backend: str, x: Tensor, request: MapRequest | None) -> str | None:
    if backend != "cpu" or request is None:
        return None
    shape, few = request.weight.shape, TABLE["few channels"]
    if len(shape) < 2 or shape[0] < few.number or shape[1] < few.number:
        return few.sentence
    if request.autocast:
        return "autocast computes in half precision, which PyTorch's kernels do"
    if not request.float32_images():
        return "has code of its own for float32 images [N, I, H, W] alone; the rest are PyTorch's kernels"
    if request.form()[1] or request.layouts_gain():
        return None
    return _no_faster_way(request)


for _op in ("conv2d", "conv_transpose2d", "conv2d_image_gradient", "conv2d_weight_gradient"):
    backends.register(_op, has=("cpu", "pytorch"), refuse=_refuse, no_gain=_no_gain)


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
    if way == UNDECIDED:
        way = _chosen_way(forward_op(arguments), forward_request(x, w, b, arguments), backend)
    if way == PYTORCH:
        return torch.convolution(x, w, b, *arguments)
    if way != RELAYOUTS:
        return winograd.forward(x, w, b, arguments, way)
    last = torch.channels_last in (layout(x), layout(w))
    return in_layout(torch.convolution(in_layout(x, True), w, b, *arguments), last)


def image_gradient(
    dy: Tensor, w: Tensor, like: Tensor, arguments: ConvolutionArguments, backend: str | None = None
) -> Tensor:
    """dx = D(dy, w), in the shape and layout of `like`, whose numbers are not read"""
    request = MapRequest(forms.for_image_gradient, (dy, w, like), w, arguments)
    way = _chosen_way("conv2d_image_gradient", request, backend)
    if way >= 0:
        return winograd.image_gradient(dy, w, like, arguments, way)
    if way == PYTORCH:
        return _gradients_by_pytorch(dy, like, w, arguments, (True, False, False))[0]
    last = torch.empty_like(like, memory_format=torch.channels_last)
    dx = _gradients_by_pytorch(in_layout(dy, True), last, w, arguments, (True, False, False))[0]
    return in_layout(dx, layout(like) == torch.channels_last)


def weight_gradient(
    x: Tensor, dy: Tensor, like: Tensor, arguments: ConvolutionArguments, backend: str | None = None
) -> Tensor:
    """dw = W(x, dy), in the shape and layout of `like`, whose numbers are not read"""
    request = MapRequest(forms.for_weight_gradient, (x, dy, like), like, arguments)
    way = _chosen_way("conv2d_weight_gradient", request, backend)
    if way >= 0:
        return winograd.weight_gradient(x, dy, like, arguments, way)
    if way == PYTORCH:
        return _gradients_by_pytorch(dy, x, like, arguments, (False, True, False))[1]
    contiguous = torch.empty_like(like, memory_format=torch.contiguous_format)
    x, dy = in_layout(x, False), in_layout(dy, False)
    dw = _gradients_by_pytorch(dy, x, contiguous, arguments, (False, True, False))[1]
    return in_layout(dw, layout(like) == torch.channels_last)


def _chosen_way(op: str, request: MapRequest, backend: str | None) -> int:
    return request.way(backends.choose(op, request.tensors[0], backend, request))


def _gradients_by_pytorch(
    dy: Tensor, x: Tensor, w: Tensor, arguments: ConvolutionArguments, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of <F(x, w) + b, dy> by x, w and b"""
    return torch.ops.aten.convolution_backward(dy, x, w, None, *arguments, wanted)
