"""The only module that imports torchvision. Import this module inside functions: it takes about two seconds."""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError as error:
    # The default torchvision wheel is built for CUDA. Its operators cannot be loaded with a CPU-only torch, and the
    # import stops with "operator torchvision::nms does not exist". Declaring the two missing operators is enough for
    # the parts written in Python (data sets, transforms). The operators have no code, so calling them still fails.
    if "torchvision::nms" not in str(error):
        raise
    _operators = torch.library.Library("torchvision", "FRAGMENT")  # keep it: the declarations end with this object
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision import datasets

__all__ = ["datasets"]
