"""`gan_engine.info --call`: what runs one call of an op and its gradient, and why no backend before it does."""

import argparse
import ast
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_engine import backends, ops
from gan_engine.ops import convolution, setup_filter
from gan_engine.system.devices import choose_device

DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}
_OPS: dict[str, Callable[..., Tensor]] = {
    **{name: getattr(ops, name) for name in ops.__all__ if name in backends.ops()},
    "conv_transpose2d": convolution.conv_transpose2d,
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of a call."""
    group = parser.add_argument_group("one call", "what runs it forward and backward, and why")
    group.add_argument("--call", choices=sorted(_OPS), metavar="OP", help=f"one of {', '.join(sorted(_OPS))}")
    group.add_argument("--shape", type=_shape, metavar="N,C,H,W", help="the shape of x")
    group.add_argument("--weight", type=_shape, metavar="O,I,KH,KW", help="the shape of the weight, if there is one")
    group.add_argument(
        "--tensor", type=_named(_shape), action="append", default=[], metavar="NAME=SHAPE", help="another tensor"
    )
    group.add_argument(
        "--option",
        type=_named(_literal),
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another argument: act=lrelu, stride=2, f=[1,3,3,1]",
    )
    group.add_argument("--dtype", choices=DTYPES, default="fp32")
    group.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    group.add_argument("--channels-last", action="store_true", help="the layout of x and the weight")


def report(call: argparse.Namespace) -> list[str]:
    """The lines of the answer. Raises ValueError, with a sentence, for a call that does not fit."""
    if call.shape is None:
        raise ValueError("--call: want --shape, the shape of x, as 8,64,32,32")
    function, name = _OPS[call.call], call.call
    device = choose_device(call.device)
    given = {"x": call.shape, **dict(call.tensor)}
    if call.weight is not None:
        given["w" if "w" in inspect.signature(function).parameters else "weight"] = call.weight
    tensors = {key: _tensor(shape, call, device) for key, shape in given.items()}
    options = dict(call.option)
    if isinstance(options.get("f"), list):
        options["f"] = setup_filter(options["f"], device=device)
    try:
        with backends.watched() as choices:
            y = function(tensors.pop("x").requires_grad_(), **tensors, **options)
            if y.requires_grad:
                y.float().sum().backward()
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"--call {name}: {error}; --weight, --tensor and --option give arguments") from None
    what = ", ".join(f"{key} {list(shape)}" for key, shape in given.items())
    settings = "".join(f", {key}={value}" for key, value in call.option)
    layout = ", channels_last" if call.channels_last else ""
    return [
        f"{name} of {what}{settings}, {call.dtype}{layout} on {device}, forward and backward:",
        *_lines(choices),
    ]


def _lines(choices: list[backends.Choice]) -> list[str]:
    """Each op that was asked for, its backend, and the reasons against each backend before it."""
    lines = []
    for choice in {(c.op, c.backend): c for c in choices}.values():
        asked = ", named by the call, by the operator around it, or by the process" if choice.asked else ""
        lines.append(f"  {choice.op}: {choice.backend}{asked}")
        lines += [f"    not {backend}: {reason}" for backend, reason in choice.reasons.items()]
    return lines


def _tensor(shape: list[int], call: argparse.Namespace, device: torch.device) -> Tensor:
    x = torch.zeros(shape, dtype=DTYPES[call.dtype], device=device)
    if call.channels_last and x.ndim == 4:
        x = x.to(memory_format=torch.channels_last)
    return x.requires_grad_()


def _shape(text: str) -> list[int]:
    try:
        return [int(side) for side in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"want sides with commas between them, as 8,64,32,32, got {text!r}") from None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # a word, such as lrelu


def _named(read: Callable[[str], Any]) -> Callable[[str], tuple[str, Any]]:
    def named(text: str) -> tuple[str, Any]:
        name, equals, value = text.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"want NAME=VALUE, got {text!r}")
        return name, read(value)

    return named
