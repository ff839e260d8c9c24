"""Gradients of a piecewise linear discriminator, by parameters, of a loss and a penalty on its input gradient at once.

On an image x[n] a network of convolutions, leaky ReLUs, sums and the like is an affine map: with the slopes M[l] that
the activations take there,

    h[0] = x                    h[l] = M[l] (W[l] h[l-1] + b[l])             logit = W h + b              (forward)

and M[l] does not change in a neighbourhood. So the gradient of the logit by what goes into M[l],

    delta[l] = M[l] W[l+1]' delta[l+1]                                       g = W[1]' delta[1]           (backward)

depends on the weights but not on the biases, and is linear in each weight. Let P be a penalty on g, dP/dg[n] = t[n],
and A a loss, dA/dlogit[n] = a[n]. Pushed forward through the same affine map, with every bias times a[n],

    u[0] = t[n] + a[n] x[n]     u[l] = M[l] (W[l] u[l-1] + a[n] b[l])                                     (tangent)

(where a unit is clamped, the a[n]-fold of its limit). u carries all that the gradients of A + P still need:

    d(A + P)/dW[l] = sum over n of delta[l] u[l-1]'                 d(A + P)/db[l] = sum over n of a[n] delta[l]

That is one more product, of the kind that every weight gradient is: four passes of convolutions for loss and penalty
together, where differentiating g by autograd takes six. The result is exact. Of the activations nothing is kept but
the signs; of the gradients, delta, until its weight has been served. Tangents go no further than to the last weight.

A network that is linear up to a curved tail (minibatch-stddev, say) gains nothing from being split: how g changes with
the tail's input is a second gradient to send back through the trunk, beside delta, which makes it six passes again.
Measured: six passes of the trunk of StyleGAN2's discriminator, taken one by one, make 604 ms, and level 1 takes 606 for
it (64x64, channel_base 4096, batch 8, fp32, one thread, 2026-11).

The network is not rewritten. D runs as it is, on a tensor that meets every torch function on its way: what is linear
per sample is recorded, what is piecewise linear runs on `bias_act`, and what is neither is refused. Whatever D computes
without the image (spectral norms, scaled weights, embeddings of classes) is left to autograd, and takes its gradient
from here at the end.
"""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_backward_hooks, _global_backward_pre_hooks

from gan_engine.losses.level2.rules import Value
from gan_engine.losses.level2.tape import Gradients, NotPiecewiseLinear, Tape, sole_readers, version
from gan_engine.losses.outputs import WrongOutput, check_logits


class Pass:
    """The forward pass of D on img [N, ...], and what follows from it. D runs inside `around`.

    Raises:
        NotPiecewiseLinear: level two does not hold for D.
        ValueError: D does not return a logit for each image.
    """

    def __init__(self, D: Callable[..., Tensor], img: Tensor, c: Any, around: AbstractContextManager) -> None:
        self.img = img.detach()
        self._version = version(self.img)
        tape = Tape(len(img))
        try:
            end, value = _run(D, self.img, c, tape, around)
        except (NotPiecewiseLinear, WrongOutput, torch.OutOfMemoryError):
            raise
        except Exception as error:  # D's own fault, or that of a part which takes no such tensor: level 1 will tell
            raise NotPiecewiseLinear(f"{_layer(error, D)}it raised {_one_line(error)}") from error
        self._end = {end: torch.ones_like(value)}
        self._steps = tape.needed(end)
        if (written := self._written_to(offsets=True)) is not None:
            raise NotPiecewiseLinear(f"D writes to a tensor {list(written.shape)} that it has computed with before")
        self.logits = value.detach().flatten().to(torch.promote_types(img.dtype, torch.float32))

    def input_gradient(self) -> Tensor:
        """g [N, ...], the gradient of logit n by image n. Once."""
        deltas, owned = self._end, set()
        for step in reversed(self._steps):
            given = [deltas.pop(slot, None) for slot in step.results]
            if all(delta is None for delta in given):
                continue
            found = step.backward(given, owned.issuperset(step.results))
            for slot, delta in zip(step.sources, found, strict=True):
                if delta is None:
                    continue
                before = deltas.get(slot)
                if before is None:
                    deltas[slot] = delta
                elif slot in owned:
                    before += delta
                else:
                    deltas[slot] = delta.add_(before) if step.owns_gradient else before + delta
                if step.owns_gradient or before is not None:
                    owned.add(slot)
        return deltas[0] if 0 in deltas else torch.zeros_like(self.img)

    def learned(self, *, with_loss: bool) -> list[Tensor]:
        """The parameters of which `gradients` gives gradients, once `input_gradient` has run; with a loss, offsets too.

        A parameter here is what D takes as one: a leaf, or what D computes from leaves without the image.
        """
        found: dict[int, Tensor] = {}
        for step in self._steps:
            if step.delta is not None:
                weights, offsets = step.learned()
                found |= {id(t): t for t in (weights + offsets if with_loss else weights)}
        return list(found.values())

    def gradients(self, u: dict[int, Tensor], a: Tensor | None) -> Gradients:
        """The gradients of the parameters, for u[0] [N, ...] = t + a x and a [N] as above. Once.

        u is {0: u[0]}, and the tangents that follow go through it; each is freed where it has last been read. Where
        there is no loss, a is None, and the biases have no gradient.
        """
        if (written := self._written_to(offsets=a is not None)) is not None:
            raise RuntimeError(
                f"backward_with_penalty: the loss, or a pass of D in it, wrote to a tensor {list(written.shape)} that "
                "D had computed with: want one that stays as it is until the call returns, or level=1"
            )
        grads = Gradients()
        steps, self._steps = self._steps, []
        reading = [step for step in steps if step.reads_sources]
        last = {slot: step for step in reading for slot in step.sources}
        sole = sole_readers(reading)
        owned = {slot for step in steps if step.owns_result for slot in step.results if slot in sole}
        for step in steps:
            sources = [u[slot] for slot in step.sources] if step.reads_sources else []
            for slot in {slot for slot in step.sources if last.get(slot) is step}:
                del u[slot]
            results = step.tangent(sources, a, owned.issuperset(step.sources), grads)
            if step.wanted:
                u |= {slot: v for slot, v in zip(step.results, results, strict=True) if slot in last}
        return grads

    def _written_to(self, *, offsets: bool) -> Tensor | None:
        """A tensor that `gradients` reads and that has been written to since D read it; None if there is none."""
        if version(self.img) != self._version:
            return self.img
        return next((t for step in self._steps if (t := step.written_to(offsets=offsets)) is not None), None)


def _run(
    D: Callable[..., Tensor], img: Tensor, c: Any, tape: Tape, around: AbstractContextManager
) -> tuple[int, Tensor]:
    """The slot and the value of the logits that D makes of img, all on the tape."""
    x = Value(img, tape)
    x.shared = True
    try:
        if _global_backward_hooks or _global_backward_pre_hooks:
            raise NotPiecewiseLinear("a backward hook of all modules, which only autograd calls, is registered")
        with torch.enable_grad(), around:
            logits = D(x) if c is None else D(x, c)
        check_logits(logits, len(img))
        if not isinstance(logits, Value):
            raise NotPiecewiseLinear("D returned logits that were not computed from the image by functions of PyTorch")
        end, value = logits.slot, logits.value
    except NotPiecewiseLinear as refusal:
        raise NotPiecewiseLinear(f"{_layer(refusal, D)}{refusal}") from None
    del x, logits
    _check_none_is_kept(D, tape)
    return end, value


def _check_none_is_kept(D: Callable, tape: Tape) -> None:
    """Refuse a D that keeps an activation: there is no graph by which a loss could be differentiated by it."""
    if all(ref() is None for ref in tape.values):
        return
    gc.collect()  # a cycle of references keeps them too
    if any(ref() is not None for ref in tape.values):
        keepers = D.named_modules() if isinstance(D, nn.Module) else ()
        kept = [name for name, module in keepers if any(isinstance(v, Value) for v in vars(module).values())]
        who = f"{kept[0] or 'D'} keeps" if kept else "D, or a hook of it, keeps"
        raise NotPiecewiseLinear(f"{who} an activation after its forward pass")


def _one_line(error: Exception) -> str:
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {text}"


def _layer(error: Exception, D: Callable) -> str:
    """The innermost module that was running when `error` was raised: "name (Type): ", or "" if there is none."""
    names = {module: name for name, module in D.named_modules()} if isinstance(D, nn.Module) else {}
    found = ""
    traceback = error.__traceback__
    while traceback is not None:
        module = traceback.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module) and module in names:
            found = f"{names[module] or 'D'} ({type(module).__name__}): "
        traceback = traceback.tb_next
    return found
