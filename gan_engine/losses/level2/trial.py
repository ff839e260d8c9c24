"""Level 2 tried on a D: whether it holds shows when D runs on a traced tensor."""

import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses.level2.forward import RecordedForward
from gan_engine.losses.level2.refusals import NotPiecewiseLinear, remember
from gan_engine.losses.level2.snapshot import Snapshot
from gan_engine.losses.network import Network, why_refused
from gan_engine.losses.outputs import Picked, WrongOutput, check_batch, read_outputs


def refusal(D: Network, img: Tensor, c: Any = None, *, logits: Picked = None) -> str | None:
    """Why level 2 does not hold for D and a loss: a sentence that names the layer, or None if level 2 holds.

    Args:
        D: (img [N, ...], c) -> logits [N], or (img) -> logits where c is None. A D that torch.compile has made is
            refused too, and one that FSDP shards.
        img: [N, ...], images of the shape that the step will have. D runs once on them.
        c: handed on to D as it is.
        logits: picks the logits from what D returns, as in `backward_with_penalty`.

    Returns:
        The sentence, or None. It is the sentence of WrongOutput if no level takes what D returns. The buffers and
        attributes of modules and the states of PyTorch's random numbers are put back afterwards. The page
        docs/penalties.md says what to do about each sentence.
    """
    check_batch("img", img)
    if (reason := why_refused(D)) is not None:
        return reason
    before = Snapshot(D, img.device)
    try:
        RecordedForward(D, img, c, before, picked=logits)
    except (NotPiecewiseLinear, ValueError) as error:
        _end_frames(error)
        before.restore()
        return str(wrong_output(D, img, c, logits) or error)
    finally:
        before.restore()
    return None


def wrong_output(D: Network, img: Tensor, c: Any, picked: Picked) -> WrongOutput | None:
    """The error of every level for what D returns, or None. D runs without gradients, and is put back.

    The trial of level 2 may end before D returns. An error of D's own is left to the step.
    """
    before = Snapshot(D, img.device)
    try:
        with torch.no_grad(), before:
            returned = D(img) if c is None else D(img, c)
        read_outputs(returned, len(img), picked)
    except WrongOutput as wrong:
        return wrong
    except Exception:
        return None
    finally:
        before.restore()
    return None


def record_forward(
    D: Network, img: Tensor, c: Any = None, *, gains: Callable[[RecordedForward], bool] | None = None, **asked: Any
) -> RecordedForward | None:
    """RecordedForward(D, img, c, ...), or the error of it. An error leaves D as it was; a refusal is remembered.

    None, which leaves D as it was too and is remembered, where `gains` says that level 2 gains nothing by it.
    """
    before = Snapshot(D, img.device)
    try:
        recorded = RecordedForward(D, img, c, before, **asked)
    except BaseException as error:
        before.restore()
        if isinstance(error, NotPiecewiseLinear):
            _end_frames(error)
            remember(D, img, c, 1, **asked)
        raise
    if gains is None or gains(recorded):
        return recorded
    before.restore()
    remember(D, img, c, "small", **asked)
    return None


def _end_frames(error: BaseException | None) -> None:
    """Free what the calls that ended in `error` hold.

    torch.utils.checkpoint of PyTorch 2.11 is a generator there, which keeps its hooks in force until the generator is
    freed. The pass of level 1 would save its tensors under these hooks, and compute with traced tensors again.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        for frame, _ in traceback.walk_tb(error.__traceback__):
            _ = frame.f_locals  # a copy of what was read there before; Python < 3.13 empties the copy at the next read
        error = error.__cause__ or error.__context__
