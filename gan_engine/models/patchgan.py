"""The PatchGAN of pix2pix (Isola et al. 2017, arXiv:1611.07004, section 3.2.2) and CycleGAN, in both families.

It judges every patch of an image by itself: its logits [N, P] are of P patches that overlap, 70x70 pixels each with
three halvings. A loss is of every logit, and the terms [N] of an objective are means over the patches.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from gan_engine.activated import biased
from gan_engine.layers import Conv2d, InstanceNorm2d, Weights

MIN_RESOLUTION = 32  # of images, which leaves 2x2 patches


class PatchDiscriminator(nn.Module):
    """img [N, C, H, W] -> logits [N, P], higher is more real

    Convolutions 4x4 with `width`, 2, 4 and 8 times as many feature maps; the first three have the stride 2. All but the
    first and the last have an instance norm, where pix2pix has the batch norm of batches of one image.
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
        """The convolutions with their norms, but for that of the logits; --freeze-d counts them, from the image on."""
        return [(self.first, self.bias), *zip(self.convs, self.norms, strict=True)]


def init(module: nn.Module) -> None:
    """Weights N(0, 0.02^2), scales of the norms 1, biases 0 (section 6.2 of pix2pix, 7.1 of CycleGAN)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | Weights):
        nn.init.normal_(module.weight, 0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
