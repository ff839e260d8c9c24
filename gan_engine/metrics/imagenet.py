"""Features of photographs: the whole EfficientNet-Lite0, whose weights the extra "perceptual" installs.

It is the network of metrics.perceptual with its last stages: 1,280 features, and logits of the 1,000 classes of
ImageNet. Distances in its features compare generators with one another. They are no FIDs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.metrics.perceptual import Block, Layer, PerceptualDistance, read_weights

_STRIDES = (2, 1, 1, 1, 1)  # of the blocks 11 to 15, which the perceptual distance leaves out
SMALL, LARGE = (
    112,
    224,
)  # the network has learnt from images of 224x224; a quarter of the pixels takes a quarter of the time


class Photographs(nn.Module):
    """images uint8 [N, 1 or 3, H, W] -> features [N, 1280], logits [N, 1000]

    Images are resized to 112x112 if both sides are at most 112, else to 224x224 (bilinear, antialiased).

    Raises ValueError where the package with the weights is not installed, and for images with other channels.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, *sides = shape
        if channels not in (1, 3):
            raise ValueError(f"imagenet: want images with 1 or 3 channels, got {channels}")
        self.side = SMALL if max(sides) <= SMALL else LARGE
        self.name = f"imagenet{self.side}"
        self.about = (
            f"EfficientNet-Lite0 of ImageNet, 1,280 features of images of 8 bits, "
            f"resized to {self.side}x{self.side} (bilinear, antialiased)"
        )
        weights = read_weights()
        self.trunk = PerceptualDistance()
        self.blocks = nn.Sequential(*(Block(weights, i, stride) for i, stride in enumerate(_STRIDES, 11)))
        self.head = Layer(weights, "_conv_head", "_bn1")
        for name in ("weight", "bias"):
            self.register_buffer(name, weights[f"_fc.{name}"])

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.float()
        if list(x.shape[2:]) != [self.side, self.side]:
            x = F.interpolate(x, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True)
        x = self.blocks(self.trunk.features(x / 127.5 - 1)[-1])
        features = F.relu6(self.head(x)).mean((2, 3))
        return features, F.linear(features, self.weight, self.bias)
