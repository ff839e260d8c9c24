"""nn.Conv2d and nn.ConvTranspose2d, on the backend that the chooser finds for each call."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.ops import convolution


class Conv2d(nn.Conv2d):
    """nn.Conv2d, on the backend that the chooser finds for each call"""

    def forward(self, input: Tensor) -> Tensor:
        # An attribute of a module takes 0.8 us to find where it is a parameter, and an entry of the dict 0.04 us.
        parameters: Any = self._parameters
        try:
            weight, bias = parameters["weight"], parameters["bias"]
        except KeyError:  # pruning, weight norm and parametrizations hold other parameters, and compute these two
            weight, bias = self.weight, self.bias
        return self._conv_forward(input, weight, bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        if isinstance(padding, str):
            return super()._conv_forward(input, weight, bias)
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0
        stride: Any = self.stride
        dilation: Any = self.dilation
        return convolution.conv2d(input, weight, bias, stride, padding, dilation, self.groups)


class ConvTranspose2d(nn.ConvTranspose2d):
    """nn.ConvTranspose2d, on the backend that the chooser finds for each call"""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        sizes: Any = (output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation)
        output_padding: Any = tuple(self._output_padding(input, *sizes))
        options: Any = (self.stride, self.padding, output_padding, self.groups, self.dilation)
        return convolution.conv_transpose2d(input, self.weight, self.bias, *options)
