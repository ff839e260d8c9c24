"""The only module that imports torchvision. Others take what they need from here, inside functions: the import costs
about two seconds."""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError as error:
    # The ordinary torchvision wheel is built for CUDA: beside a CPU-only torch its operators cannot be loaded, and the
    # import stops with "operator torchvision::nms does not exist" when it registers shapes for them. Declaring the two
    # operators it asks for (no kernels: calling them still fails) lets the parts written in Python work: data sets,
    # transforms.
    if "torchvision::nms" not in str(error):
        raise
    _operators = torch.library.Library("torchvision", "FRAGMENT")  # the declarations live as long as this object
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision import datasets

__all__ = ["datasets"]
