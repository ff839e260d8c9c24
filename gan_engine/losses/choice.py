"""Level None: the level that is fastest for a D. It is found in the first step of D, and remembered."""

from typing import Any, Literal

from torch import Tensor

from gan_engine import backends
from gan_engine.losses.known import Known, asked, known
from gan_engine.losses.level2 import refusals
from gan_engine.losses.level2.forward import RecordedForward
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.snapshot import Snapshot
from gan_engine.losses.level2.trial import record_forward
from gan_engine.losses.network import Network
from gan_engine.losses.outputs import Picked
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
    step = asked(img, with_loss=with_loss, picked=picked)
    if seen is not None and seen.small.get(step):
        return "autograd", None
    options: dict[str, Any] = {"with_loss": with_loss, "picked": picked}
    instead = refusals.level_instead(D, img, c, **options)
    recorded = None
    if instead is None:
        try:
            recorded = record_forward(D, img, c, gains=_gains, **options)
            instead = 2 if recorded is not None else "autograd"
        except NotPiecewiseLinear:
            instead = 1
    if seen is not None:
        seen.small[step] = instead == "autograd"
    return instead, recorded


def is_small(D: Network, img: Tensor, c: Any = None, *, with_loss: bool = True, picked: Picked = None) -> bool:
    """True if level None is autograd on the functions of PyTorch, because D does too little for level 2 to gain.

    The first call for images of a shape runs D once, and puts it back to what it was. False for functions, which no
    call could be remembered for.
    """
    seen, step = known(D), asked(img, with_loss=with_loss, picked=picked)
    if seen is None:
        return False
    if step not in seen.small:
        before = Snapshot(D, img.device)
        chosen(D, img, c, seen=seen, with_loss=with_loss, picked=picked)
        before.restore()
    return seen.small[step]


def _gains(recorded: RecordedForward) -> bool:
    return backends.choose("level2", recorded.img, None, recorded.products_of_a_step) != "reference"
