"""The declaration that a function is linear in its first argument, sample by sample."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

F = TypeVar("F", bound=Callable)


def linear_per_sample(function: F) -> F:
    """Declare that y = function(x, ...) is y[n] = A x[n] with one A for all samples, made of the other arguments.

    Args:
        function: x [N, ...] -> y [N, ...]. Autograd must be able to differentiate it by x, and by those of the other
            arguments that require gradients. It may be of any kind: an autograd.Function, or a call into C++.

    Returns:
        The same function, which hands over to tensors with a torch function of their own. Gradient penalties at level
        2 (gan_engine.losses.level2) take it into their tape.
    """

    @functools.wraps(function)
    def op(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if has_torch_function_unary(x):
            return handle_torch_function(op, (x,), x, *args, **kwargs)
        return function(x, *args, **kwargs)

    op.linear_per_sample = True  # type: ignore[attr-defined]
    return cast(F, op)


def is_linear_per_sample(function: Any) -> bool:
    return getattr(function, "linear_per_sample", False) is True
