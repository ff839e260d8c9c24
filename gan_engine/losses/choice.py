"""Level None: the level that is fastest for a D. It is found before the first step of D, and remembered.

The first step takes the level of all later ones. A run that goes on from a checkpoint then makes the same bits.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.losses.by_autograd import in_autocast
from gan_engine.losses.closed_ops import ClosedOps
from gan_engine.losses.known import Known, asked, known, module_of
from gan_engine.losses.level2 import refusals
from gan_engine.losses.level2.forward import RecordedForward
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.snapshot import Snapshot
from gan_engine.losses.level2.trial import record_forward, wrong_output
from gan_engine.losses.network import Network, why_refused
from gan_engine.losses.outputs import Picked, check_batch
from gan_engine.ops.thresholds import TABLE

Chosen = Literal[1, 2, "autograd"]


def _no_gain(backend: str, x: Tensor, products: float | None) -> str | None:
    """A rule: `products` are the multiply-adds of D, for each function that it calls."""
    few = TABLE["few products at level 2"]
    return few.sentence if products is not None and x.device.type == "cpu" and products < few.number else None


# "pytorch" is level 2, and "reference" plain autograd.
backends.register("level2", has=("pytorch",), no_gain=_no_gain)


def chosen(
    D: Network, img: Tensor, c: Any, *, seen: Known | None, with_loss: bool = True, picked: Picked = None
) -> tuple[Chosen, RecordedForward | None]:
    """The level that None stands for, and the recorded forward pass where it is level 2.

    A D that a trial of level 2 has run on is put back to what it was, if another level is chosen. `seen` is what is
    known of D.
    """
    step = asked(img, with_loss=with_loss, picked=picked, autocast=in_autocast(img))
    if seen is not None and step in seen.small:
        return "autograd", None
    options: dict[str, Any] = {"with_loss": with_loss, "picked": picked}
    instead: refusals.Instead | None = refusals.level_instead(D, img, c, **options)
    recorded = None
    if instead is None:
        try:
            recorded = record_forward(D, img, c, gains=_gains, **options)
            instead = None if recorded is not None else "small"
        except NotPiecewiseLinear:
            instead = _after_refusal(D, img, c, seen=seen, **options)
    if seen is not None and instead == "small":
        seen.small.add(step)
    return "autograd" if instead == "small" else 2 if instead is None else instead, recorded


def _after_refusal(
    D: Network, img: Tensor, c: Any, *, seen: Known | None, with_loss: bool, picked: Picked
) -> refusals.Instead:
    """1, or "autograd" where no function of D gains by level 1, which is remembered.

    Level 1 keeps a step without a loss, where PyTorch's functions would send zeros through all layers. A D of few
    linear layers, all of torch.nn, then counts as small: its steps look at less of its state.
    """
    ops = _watched(D, img, c, closed=True) if with_loss else None
    if ops is None or ops.gained:
        return 1
    refusals.remember(D, img, c, "autograd", with_loss=with_loss, picked=picked)
    few = _FUNCTIONS * TABLE["few products at level 2"].number
    if seen is not None and seen.of_pytorch and img.ndim == 2 and _products(D, img) < few:
        seen.small.add(asked(img, with_loss=True, picked=picked, autocast=in_autocast(img)))
    return "autograd"


_FUNCTIONS = 10  # that a refused D is taken to call: nobody has counted them, as its trial has ended at one of them


def _products(D: Network, img: Tensor) -> int:
    """The most multiply-adds that the linear layers of D make of img [N, F], if each has its own weight."""
    net = module_of(D)
    return 0 if net is None else len(img) * sum(p.numel() for p in net.parameters())


def _watched(D: Network, img: Tensor, c: Any, *, closed: bool) -> ClosedOps | None:
    """The ops that have seen D run on img, without gradients. D is put back. None where D cannot run so."""
    before = Snapshot(D, img.device)
    try:
        # A parallel D would wait for a backward pass of each run with gradients.
        with torch.no_grad(), before, ClosedOps(closed=closed) as ops:
            D(img) if c is None else D(img, c)
    except Exception:  # the step tells an error that is D's own
        return None
    finally:
        before.restore()
    return ops


def level_of(D: Network, img: Tensor, c: Any = None, *, with_loss: bool = True, logits: Picked = None) -> Chosen:
    """The level that None is for steps like this one: 2, 1 or "autograd". D runs on `img`, and is put back.

    Raises RuntimeError for a D that torch.compile has made or FSDP shards, and WrongOutput for a D that returns no
    logits. All three refuse them.
    """
    check_batch("img", img)
    if (reason := why_refused(D)) is not None:
        raise RuntimeError(reason)
    before = Snapshot(D, img.device)
    try:
        level = chosen(D, img.detach(), c, seen=known(D), with_loss=with_loss, picked=logits)[0]
    finally:
        before.restore()
    if level != 2 and (wrong := wrong_output(D, img.detach(), c, logits)) is not None:
        raise wrong
    return level


def settle(D: Network, img: Tensor, c: Any, step: tuple, *, seen: Known, automatic: bool, with_loss: bool) -> None:
    """Find out, before the first step like this one, whether it is left to autograd, and whether D calls attention.

    `step` is what `asked` says of it. D runs on `img`, and is put back.
    """
    seen.settled.add((step, automatic))
    if automatic and level_of(D, img, c, with_loss=with_loss) != "autograd":
        return
    ops = None if seen.without_attention else _watched(D, img, c, closed=False)
    if ops is not None and not ops.attended:
        seen.saw_no_attention()


def _gains(recorded: RecordedForward) -> bool:
    return backends.choose("level2", recorded.img, None, recorded.products_of_a_step) != "reference"
