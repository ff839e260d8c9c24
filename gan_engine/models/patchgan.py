"""The PatchGAN, D of both pix2pix (Isola et al. 2017, arXiv:1611.07004, section 3.2.2) and CycleGAN.

It judges every patch of an image by itself. Its logits [N, P] are of P patches that overlap; three halvings give
patches of 70x70 pixels. Objectives compute a loss for every logit, and take means over the patches as terms [N].
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from gan_engine.activated import biased
from gan_engine.layers import Conv2d, InstanceNorm2d, Weights

MIN_RESOLUTION = 32  # an image of this side has 2x2 patches


class PatchDiscriminator(nn.Module):
    """img [N, C, H, W] -> logits [N, P], higher is more real

    Convolutions 4x4 with 1, 2, 4 and 8 times `width` feature maps, and one for the logits. The first three have the
    stride 2. All but the first and the last have an instance norm; pix2pix has a batch norm, over batches of one image.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.first = Conv2d(channels, width, 4, 2, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))
        self.convs = nn.ModuleList(
            Conv2d(i, o, 4, stride, 1, bias=False) for (i, o), stride in zip(pairwise(widths), (2, 2, 1), strict=True)
        )
        self.norms = nn.ModuleList(InstanceNorm2d(o, act="lrelu") for o in widths[1:])
        self.logit = Conv2d(widths[-1], 1, 4, 1, 1)
        self.apply(init)

    def forward(self, img: Tensor) -> Tensor:
        x = biased(self.first, img, self.bias, act="lrelu")
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x))
        return self.logit(x).flatten(1)

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The convolutions with their norms, except the convolution of the logits. --freeze-d counts from the image."""
        return [(self.first, self.bias), *zip(self.convs, self.norms, strict=True)]


def init(module: nn.Module) -> None:
    """Weights N(0, 0.02^2), scales of the norms 1, biases 0 (section 6.2 of pix2pix, 7.1 of CycleGAN)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | Weights):
        nn.init.normal_(module.weight, 0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
