"""The arguments of a convolution, as all its maps take them."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class ConvolutionArguments(NamedTuple):
    """The arguments that torch.convolution and torch.ops.aten.convolution_backward have in common, in their order."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @classmethod
    def from_conv(
        cls, dims: int, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
    ) -> "ConvolutionArguments":
        """Read the arguments of torch.nn.functional.conv1d, 2d and 3d."""
        stride, padding, dilation = (per_side(value, dims) for value in (stride, padding, dilation))
        return cls(stride, padding, dilation, False, (0,) * dims, groups)

    @classmethod
    def from_conv_transpose(
        cls, dims: int, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1
    ) -> "ConvolutionArguments":
        """Read the arguments of torch.nn.functional.conv_transpose1d, 2d and 3d."""
        stride, padding, dilation = (per_side(value, dims) for value in (stride, padding, dilation))
        return cls(stride, padding, dilation, True, per_side(output_padding, dims), groups)

    def output_size(self, size: Sequence[int], kernel_size: Sequence[int]) -> list[int]:
        """[H', W'] of y for [H, W] of x, without dilation."""
        sides = zip(size, kernel_size, self.stride, self.padding, self.output_padding, strict=True)
        if self.transposed:
            return [(n - 1) * stride - 2 * padding + k + rest for n, k, stride, padding, rest in sides]
        return [(n + 2 * padding - k) // stride + 1 for n, k, stride, padding, _ in sides]


def per_side(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """A number for each of `dims` sides of an image; PyTorch takes one number for all sides."""
    if isinstance(value, int):
        return (value,) * dims
    values = tuple(value)
    return values * dims if len(values) == 1 else values
