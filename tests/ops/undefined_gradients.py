"""The second order of scale_bias_act and upfirdn2d_act: which gradients it leaves undefined."""

import torch
from torch import Tensor


def assert_undefined_gradients_stay_undefined(y: Tensor, tensors: dict[str, Tensor]) -> None:
    """b and noise have no second order; x and scale have a second order only through each other. All depend on dy."""
    dy = torch.randn_like(y).requires_grad_()
    first = dict(zip(tensors, torch.autograd.grad(y, tensors.values(), dy, create_graph=True), strict=True))

    def second(*names: str) -> set[str]:
        """The inputs by which the sum of the squared gradients by `names` has a gradient."""
        total = sum(first[name].square().sum() for name in names)
        found = torch.autograd.grad(total, [*tensors.values(), dy], retain_graph=True, allow_unused=True)
        return {name for name, g in zip([*tensors, "dy"], found, strict=True) if g is not None}

    assert second("b", "noise") == {"dy"}
    assert second("x") == {"scale", "dy"}
    assert second("scale") == {"x", "dy"}
