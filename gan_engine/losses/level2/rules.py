"""Which functions level 2 knows: a table of rules, to which anybody can add one.

A rule says what a function does with activations, in functions that level 2 knows already. Slopes and selections are
read from `x.value`, the tensor that the traced tensor x stands for:

    from gan_engine.losses.level2.rules import rule

    @rule("frac")                                # torch.frac(x) and x.frac()
    def fraction(function, x):
        return x - x.value.trunc()

A rule must give the value of the function, and be linear in x for each sample by itself while the slopes stay as they
are. A function that is linear in x needs no rule of its own:

    from gan_engine.losses.level2.linear import linear

    rule("cumulative_trapezoid")(linear)         # a function of PyTorch, along dimensions other than 0
    rule(torch.ops.my_library.blur)(linear)      # an operator of torch.library

A Python function of your own needs a rule only if it hides what it computes, as an autograd.Function does.
`gan_engine.ops.linear_per_sample` declares such a function where it is defined.

A function of PyTorch is known by its name, so that all spellings of it (torch.add, Tensor.add, x + y) meet one rule.
Any other function is known by itself. Values that D computes without the image meet no rule: autograd differentiates
them.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from gan_engine.losses.level2.refusals import forget_all
from gan_engine.ops.linear_per_sample import is_linear_per_sample, linear_per_sample

# A function in the table: the name of a function of PyTorch, or any other function itself.
Key = str | Callable


class Rule(NamedTuple):
    run: Callable  # (function, *args, **kwargs) -> what the function returns, with traced tensors
    in_place: bool  # the rule also serves the function's form in place


RULES: dict[Key, Rule] = {}


def rule(*functions: Key, in_place: bool = False) -> Callable[[Callable], Callable]:
    """A decorator: what it decorates is the rule for `functions`.

    Args:
        functions: names of functions of PyTorch, without the underscore of their form in place; other functions as
            they are, operators of torch.library among them. The Python functions must hand over to their arguments
            (torch.overrides.handle_torch_function), else no rule is asked.
        in_place: the form in place (x.relu_(), F.relu(x, inplace=True)) is served too. The rule returns the new value,
            and x stands for it afterwards.

    The rule is called as rule(function, *args, **kwargs) with the arguments of the call. It returns what the function
    would, with traced tensors, or raises NotPiecewiseLinear with a sentence.
    """

    def add(run: Callable) -> Callable:
        for function in functions:
            RULES[function if isinstance(function, str) else described(function).key] = Rule(run, in_place)
        forget_all()
        return run

    return add


def rule_for(key: Key) -> Rule | None:
    return RULES.get(key) or (RULES[linear_per_sample] if is_linear_per_sample(key) else None)


class Described(NamedTuple):
    """A function that was called with traced tensors."""

    key: Key
    name: str  # as messages have it, without the underscore of the form in place
    in_place: bool


@functools.lru_cache(maxsize=512)
def described(function: Callable) -> Described:
    operator = getattr(function, "_opoverload", function)  # of torch.library.custom_op
    operator = getattr(operator, "overloadpacket", operator)
    name, in_place = getattr(operator, "__name__", str(operator)), False
    if name == "__get__":  # of a property of tensors, such as x.shape
        name = operator.__self__.__name__
    elif not name.endswith("__"):
        name, in_place = name.rstrip("_"), name.endswith("_")
    module = getattr(operator, "__module__", None) or "torch"  # methods of tensors name no module
    if _is_of_pytorch(module):
        return Described(name, name, in_place)
    return Described(operator, f"{module.removeprefix('torch._ops.')}.{name}", in_place)


def _is_of_pytorch(module: str) -> bool:
    if module.startswith("torch._ops."):  # the operators of a library, of which PyTorch's own is aten
        return module == "torch._ops.aten"
    return module.partition(".")[0] == "torch"


# Properties of a traced tensor that may be asked for without reading its numbers.
PROPERTIES = {
    *("shape", "size", "ndim", "dim", "ndimension", "numel", "nelement", "__len__", "stride", "is_contiguous"),
    *("dtype", "is_floating_point", "is_complex", "element_size", "device", "get_device", "layout"),
    *("itemsize", "nbytes", "storage_offset"),
    *("is_cuda", "is_cpu", "is_mps", "is_sparse", "is_quantized", "is_mkldnn", "is_nested", "is_leaf"),
}

# Why a function of PyTorch has no rule: the end of the sentence that begins with its name.
CURVED, NEW_SLOPES = "is curved: its slope changes with the image", "draws new slopes at every pass"
WHY_NOT = {
    "batch_norm": "ties samples together in training; a spectral norm does not",
    **dict.fromkeys(
        ("instance_norm", "layer_norm", "group_norm", "rms_norm", "normalize"),
        "divides by the size of its own input, which is curved; a spectral norm is not",
    ),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean", "norm", "square"), CURVED),
    "sigmoid": f"{CURVED}; the losses take logits without a sigmoid",
    **dict.fromkeys(
        ("tanh", "silu", "gelu", "elu", "selu", "celu", "softplus", "mish", "hardswish", "glu"),
        f"{CURVED}; leaky_relu has straight pieces",
    ),
    **dict.fromkeys(("softmax", "log_softmax", "scaled_dot_product_attention", "exp", "sqrt", "pow"), CURVED),
    **dict.fromkeys(("gru", "lstm", "rnn_tanh", "gru_cell", "lstm_cell", "rnn_tanh_cell"), CURVED),
    **dict.fromkeys(("alpha_dropout", "feature_alpha_dropout", "fractional_max_pool2d"), NEW_SLOPES),
    **dict.fromkeys(
        ("__bool__", "__float__", "__int__", "__index__", "item", "tolist", "numpy"),
        "lets the image decide what is computed",
    ),
    **dict.fromkeys(("detach", "data"), "cuts a gradient"),
    **dict.fromkeys(
        ("register_hook", "retain_grad", "grad_fn", "grad"), "is for a backward pass of autograd, and there is none"
    ),
}


def why_not(function: Described) -> str:
    return f"{function.name} {WHY_NOT.get(function.key, 'is not known to be piecewise linear')}"
