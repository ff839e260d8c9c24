"""The self-check: before the kernels of an op run on a device, samples of the op compare them with the reference.

`backends.choose` asks at the first use of the kernels of an op, on a device and in a dtype. Samples of the op then run
on the kernels, and on PyTorch's operators in float64: values, gradients, and gradients of gradients. A kernel that
differs is refused, with a sentence that says where. What has passed is kept on disk for the next process, by device,
driver, versions and build. GAN_ENGINE_CHECK=0 turns all of this off.

The check runs in a thread of its own. Modes, transforms, autocast, graphs and gradients belong to threads, so the check
neither sees nor changes those of the caller. It locks nothing: two threads that come first both check. One case is
different: a backward pass on a GPU runs in a thread that the check would wait for, so there the check runs in it.
"""

import contextlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

from gan_engine import backends
from gan_engine.backends import Kernels
from gan_engine.ops.kernel_op import wide
from gan_engine.ops.one_node import constant
from gan_engine.system import cpu, passed

if TYPE_CHECKING:
    from gan_engine.ops.samples import Sample

T = TypeVar("T")

# The ops whose samples show that the kernels of an op are right, where these are not the samples of the op alone.
SHOWN_BY = {
    "biased": ("bias_act",),
    "normed": ("norm_act",),
    "gradient_penalty": ("sum_of_squares", "mix"),
    "upfirdn2d_act": ("upfirdn2d", "scale_bias_act", "upfirdn2d_act"),
    "filtered_lrelu": ("bias_act", "upfirdn2d", "scale_bias_act", "upfirdn2d_act", "filtered_lrelu"),
    "alias_free_activation": ("upfirdn2d", "alias_free_activation"),
    "modulated_conv2d": ("upfirdn2d", "scale_bias_act", "upfirdn2d_act"),
    "upsample_conv2d": ("bias_act", "upfirdn2d", "scale_bias_act", "upfirdn2d_act"),
    "downsample_conv2d": ("bias_act", "upfirdn2d"),
    "conv_transpose2d": ("conv2d",),
    "conv2d_image_gradient": ("conv2d",),
    "conv2d_weight_gradient": ("conv2d",),
}

# An error may be so many units of rounding of the op's dtype, and of the dtype in which it computes, of the largest
# number of its order. The errors of all samples on CPUs come to a third of that at most. A property test compares with
# the errors of PyTorch in several draws instead, which takes twenty times as long.
ROUNDINGS, SUMS = 8, 32
_DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}


# What the samples of an op have shown: a sentence, or None where its kernels are right.
_found: dict[Kernels, str | None] = {}


class _NotNow(Exception):
    """A check is not possible inside of what this thread does."""


@constant
def may_run(op: str, backend: str, device: str, number: int | None, dtype: torch.dtype) -> bool:
    """Whether the kernels of `op` are right there; False too where they are not checked and cannot be."""
    kernels = Kernels(op, backend, device, number, dtype)
    if backends.is_trusting():
        return True
    if kernels not in backends.wrong:
        if os.environ.get("GAN_ENGINE_CHECK") == "0":
            backends.right.add(kernels)
            return True
        try:
            sentence = why_wrong(kernels)
        except _NotNow:
            return False
        if sentence is not None:
            warnings.warn(f"{op} does not run on {backend}, and may be slow: {sentence}", stacklevel=6)
    return kernels not in backends.wrong


backends.at_first_use(may_run)
constant(backends.is_exporting)


def why_wrong(kernels: Kernels) -> str | None:
    """What samples show of these kernels, in a sentence; None if they are right. The chooser is told.

    Samples run if this process and the file know nothing of them.
    """
    for shown in _shown_by(kernels):
        if shown not in _found:
            if _is_known(shown):
                _found[shown] = None
            else:
                _checked(shown)
        if (sentence := _found[shown]) is not None:
            backends.right.discard(kernels)
            backends.wrong[kernels] = sentence
            return sentence
    backends.wrong.pop(kernels, None)
    backends.right.add(kernels)
    return None


def check_all(place: torch.device) -> Iterator[tuple[Kernels, str | None]]:
    """Check all kernels that can run on a device, whatever is known of them. Yields what `why_wrong` says of each."""
    again = set()
    for op, backend, dtype in itertools.product(backends.ops(), backends.KERNELS, _DTYPES):
        with backends.trusted():  # a kernel that was found wrong is checked too
            refused = backends.refusal(op, backend, torch.empty(1, device=place, dtype=dtype))
        if refused is None:
            kernels = Kernels(op, backend, place.type, place.index, dtype)
            for shown in _shown_by(kernels):
                if shown not in again:
                    again.add(shown)
                    _checked(shown)
            yield kernels, why_wrong(kernels)


def _shown_by(kernels: Kernels) -> list[Kernels]:
    """The kernels whose samples show that these are right. An op that has none on the backend runs on others there."""
    ops = SHOWN_BY.get(kernels.op, (kernels.op,))
    if kernels.backend == "triton":  # runs it as the ops before it, and rounds between them
        ops = tuple(op for op in ops if op not in ("upfirdn2d_act", "filtered_lrelu", "alias_free_activation"))
    return [kernels._replace(op=op) for op in ops if backends.has(op, kernels.backend)]


def _name(kernels: Kernels) -> str:
    return f"{kernels.op} {_DTYPES[kernels.dtype]}"


def _place(kernels: Kernels) -> torch.device:
    return torch.device(kernels.device) if kernels.number is None else torch.device(kernels.device, kernels.number)


def _is_known(kernels: Kernels) -> bool:
    return _name(kernels) in passed.names(passed.machine(kernels.backend, _place(kernels)))


def _checked(kernels: Kernels) -> str | None:
    """What the samples show. It is recorded: first for this process, then on disk."""
    place = _place(kernels)
    _found[kernels] = _apart(lambda: _first_difference(kernels, place), place)
    if _found[kernels] is None:
        passed.keep(passed.machine(kernels.backend, place), _name(kernels))
    return _found[kernels]


def _first_difference(kernels: Kernels, place: torch.device) -> str | None:
    for sample in _samples(kernels):
        if (difference := _difference(kernels, sample, place)) is not None:
            name = torch.cuda.get_device_name(place) if place.type == "cuda" else cpu.model()
            what = f"{kernels.op}, sample {sample.name}, {_DTYPES[kernels.dtype]}"
            sentence = f"failed the check on {name}: {what}: {difference}"
            _require_a_gpu_that_goes_on(place, f"{kernels.op} on {kernels.backend} {sentence}")
            return sentence
    return None


def _require_a_gpu_that_goes_on(place: torch.device, sentence: str) -> None:
    """Raise RuntimeError if a kernel has left the GPU unusable for this process, as by writing outside of memory.

    Every later call of CUDA would fail, and the check would blame the kernels that come next.
    """
    if place.type != "cuda":
        return
    try:
        torch.cuda.synchronize(place)
    except RuntimeError as error:
        raise RuntimeError(
            f"{sentence}; the GPU takes no more work from this process. GAN_ENGINE_BACKEND=reference runs without our "
            "kernels"
        ) from error


def _samples(kernels: Kernels) -> list["Sample"]:
    from gan_engine.ops.samples import CHECKED

    if kernels.op not in CHECKED:
        return []
    op = CHECKED[kernels.op]
    if kernels.backend == "triton":
        return list(op.triton)
    if kernels.backend == "cuda" and op.cuda:
        return list(op.cuda)
    tiny = [sample for sample in op.tiny if sample.elements]
    if kernels.op == "conv2d" and kernels.dtype not in (torch.float32, torch.bfloat16):
        return tiny  # the others are PyTorch's
    return [*tiny, *op.larger]


def _difference(kernels: Kernels, sample: "Sample", place: torch.device) -> str | None:
    """What the kernels get wrong of a sample."""
    from gan_engine.ops.samples import CHECKED, doubled, orders

    op, backend, *_, dtype = kernels
    tensors = sample.tensors(dtype)
    is_long = op == "conv2d" and sample in CHECKED[op].larger  # in float64
    exact = tensors if is_long else doubled(tensors)
    try:
        wanted = {name: t.double() for name, t in orders(CHECKED[op].eager, exact, **sample.options).items()}
        found = orders(CHECKED[op].function, sample.tensors(dtype, place), backend=backend, **sample.options)
        got = {name: t.cpu().double() for name, t in found.items()}
    except (torch.OutOfMemoryError, MemoryError):
        raise  # says nothing about the kernels
    except Exception as error:  # whatever a compiler or a driver raises, or autograd in a process that was forked
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    largest: dict[str, float] = {}  # number of each order
    for name, want in wanted.items():
        largest[_order(name)] = max(largest.get(_order(name), 0.0), float(want.abs().max()))
    for name, want in wanted.items():
        scale = max(largest[_order(name)], max(largest.values()) / 16)
        allowed = scale * (ROUNDINGS * torch.finfo(dtype).eps + SUMS * torch.finfo(wide(dtype)).eps)
        off = float((got[name] - want).abs().max())
        if not off <= allowed:
            what = f"the {_order(name)} by {name.partition('_')[2]}" if "_" in name else "the value"
            return f"{what} is off by {off:.2g} where {allowed:.2g} is allowed"
    return None


def _order(name: str) -> str:
    return {"y": "value", "d": "gradient", "dd": "second gradient"}[name.partition("_")[0]]


def _apart(work: Callable[[], T], place: torch.device) -> T:
    """The result of `work`, which neither sees nor changes the modes, transforms and gradients of this thread."""
    on_gpu = place.type == "cuda"
    if on_gpu and torch.cuda.is_current_stream_capturing():
        raise _NotNow
    if not (on_gpu and torch._C._current_graph_task_id() != -1):
        with ThreadPoolExecutor(1) as threads:
            try:
                checked = threads.submit(_plainly, work, place)
            except RuntimeError as error:  # Python is ending, and starts no threads
                raise _NotNow from error
            return checked.result()
    # A backward pass of a GPU: the thread that computes gradients there may be this one.
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        raise _NotNow
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        torch._C.DisableTorchFunction(),
    ):
        return _plainly(work, place)


def _plainly(work: Callable[[], T], place: torch.device) -> T:
    with backends.trusted(), torch.cuda.device(place) if place.type == "cuda" else contextlib.nullcontext():
        return work()
