"""The forward pass of D, recorded on a tape, and the two passes over the tape that follow.

README.md in this folder has the formulas whose letters stand here. D is not rewritten: it runs as it is, on a traced
tensor. Autograd does what D computes without the image (spectral norms, scaled weights, embeddings of classes). It
takes the gradients of those tensors from here.
"""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_backward_hooks, _global_backward_pre_hooks

from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import CURVED
from gan_engine.losses.level2.tape import Gradients, Step, Tape, behind, only_readers, write_count
from gan_engine.losses.level2.traced_tensor import TracedTensor
from gan_engine.losses.outputs import Outputs, Picked, WrongOutput, read_outputs, without_graph


class RecordedForward:
    """The forward pass of D on img [N, ...], and the passes over its tape. D runs inside of `context`.

    Raises:
        NotPiecewiseLinear: level 2 does not hold for D.
        ValueError: D does not return logits.
    """

    def __init__(
        self,
        D: Callable[..., Tensor],
        img: Tensor,
        c: Any,
        context: AbstractContextManager,
        *,
        with_loss: bool = True,
        picked: Picked = None,
    ) -> None:
        self.img = img.detach()
        self._img_write_count = write_count(self.img)
        tape = Tape(len(img))
        try:
            slots, outputs = _run(D, self.img, c, tape, context, picked, with_loss)
        except (NotPiecewiseLinear, WrongOutput, torch.OutOfMemoryError):
            raise
        except Exception as error:  # D's own fault, or of a part that cannot take a traced tensor: level 1 will tell
            raise NotPiecewiseLinear(f"{_layer_of(error, D)[0]}it raised {_one_line(error)}") from error
        self._deltas: dict[int, Tensor] = {}
        for slot, logits in zip(slots, outputs.logits, strict=True):  # two logits may be one tensor
            self._deltas[slot] = torch.full_like(logits, slots.count(slot))
        self.products_of_a_step = tape.products / max(1, len(tape.steps))
        self._steps = tape.steps_behind(slots)
        self._parts = _parts(self._steps, slots) if with_loss else [self._steps]
        if (written := self._tensor_written_to(offsets=True)) is not None:
            raise NotPiecewiseLinear(f"D writes to a tensor {list(written.shape)} that it has computed with before")
        self.logits = without_graph(outputs.for_loss(torch.promote_types(img.dtype, torch.float32)))

    def input_gradient(self) -> Tensor:
        """g [N, ...], the gradient of logit n by image n. Can be called once."""
        deltas, fresh = self._deltas, set()
        for step in reversed(self._steps):
            by_results = [deltas.pop(slot, None) for slot in step.results]
            if all(delta is None for delta in by_results):
                continue
            by_sources = step.backward(by_results, fresh.issuperset(step.results))
            for slot, delta in zip(step.sources, by_sources, strict=True):
                if delta is not None:
                    _add(deltas, fresh, slot, delta, step)
        return deltas[0] if 0 in deltas else torch.zeros_like(self.img)

    def learned(self, *, with_loss: bool) -> list[Tensor]:
        """The tensors that `parameter_gradients` gives gradients of, once `input_gradient` has run.

        They are the weights of the steps, and with a loss the offsets too. Each is a parameter of D, or a tensor that D
        computes from its parameters without the image.
        """
        found: dict[int, Tensor] = {}
        for step in self._steps:
            if step.delta is not None:
                weights, offsets = step.learned()
                found |= {id(t): t for t in (weights + offsets if with_loss else weights)}
        return list(found.values())

    def parameter_gradients(self, start: Callable[[int], Tensor], a: list[Tensor] | None) -> Gradients:
        """The gradients of loss + penalty by the tensors of `learned`. Can be called once.

        Args:
            start: k -> u[0] [N, ...] = t + a[k] x, the tangent that goes through the layers behind logit k.
            a: for each logit [N], the gradient of the loss by it. None: there is no loss, and offsets have no gradient.
        """
        if (written := self._tensor_written_to(offsets=a is not None)) is not None:
            raise RuntimeError(
                f"backward_with_penalty: the loss, or a pass of D in it, wrote to a tensor {list(written.shape)} that "
                "D had computed with: want one that stays as it is until the call returns, or level=1"
            )
        grads = Gradients()
        parts, self._steps, self._parts = self._parts if a is not None else [self._steps], [], []
        for k, steps in enumerate(parts):
            _push(steps, {0: start(k)}, None if a is None else a[k], grads)
        return grads

    def _tensor_written_to(self, *, offsets: bool) -> Tensor | None:
        """A tensor that `parameter_gradients` reads and that has been written to since D read it, or None."""
        if write_count(self.img) != self._img_write_count:
            return self.img
        written = (step.tensor_written_to(offsets=offsets) for step in self._steps)
        return next((tensor for tensor in written if tensor is not None), None)


_BUT = "the penalty alone (loss=None), or the mean of the logits, has level 2"
_MANY_LOGITS = f"D returns several logits for each image, and the gradient of a loss differs between them; {_BUT}"
_SHARED = (
    "D returns several logits for each image that share a layer with weights, and the gradient of a loss differs "
    f"between them; {_BUT}"
)


def _parts(steps: list[Step], slots: list[int]) -> list[list[Step]]:
    """For each logit, the steps that it depends on. Refuse logits that share a step with something to learn."""
    parts = [behind(steps, [slot]) for slot in slots] if len(slots) > 1 else [steps]
    learning = [step for part in parts for step in part if any(step.learned())]
    if len(set(map(id, learning))) < len(learning):
        raise NotPiecewiseLinear(_SHARED)
    return parts


def _push(steps: list[Step], tangents: dict[int, Tensor], a: Tensor | None, grads: Gradients) -> None:
    """Push `tangents` {0: u[0]} through `steps`, and add the gradients. Each tangent is freed by its last reader."""
    reading = [step for step in steps if step.reads_tangents]
    last_reader = {slot: step for step in reading for slot in step.sources}
    sole = only_readers(reading)
    fresh = {slot for step in steps if step.result_is_fresh for slot in step.results if slot in sole}
    for step in steps:
        sources = [tangents[slot] for slot in step.sources] if step.reads_tangents else []
        for slot in {slot for slot in step.sources if last_reader.get(slot) is step}:
            del tangents[slot]
        results = step.tangent(sources, a, fresh.issuperset(step.sources), grads)
        if step.needs_tangent:
            tangents |= {slot: u for slot, u in zip(step.results, results, strict=True) if slot in last_reader}


def _add(deltas: dict[int, Tensor], fresh: set[int], slot: int, delta: Tensor, step: Step) -> None:
    """Add `delta`, which `step` made, to the gradient in `slot`. Gradients in `fresh` slots may be written over."""
    before = deltas.get(slot)
    if before is None:
        deltas[slot] = delta
    elif slot in fresh:
        before += delta
    else:
        deltas[slot] = delta.add_(before) if step.gradient_is_fresh else before + delta
    if step.gradient_is_fresh or before is not None:
        fresh.add(slot)


def _run(
    D: Callable[..., Tensor],
    img: Tensor,
    c: Any,
    tape: Tape,
    context: AbstractContextManager,
    picked: Picked,
    with_loss: bool,
) -> tuple[list[int], Outputs]:
    """The slots and the values of the logits that D makes of img, with D's steps on the tape."""
    x = TracedTensor(img, tape)
    x.shares_memory = True
    try:
        if _global_backward_hooks or _global_backward_pre_hooks:
            raise NotPiecewiseLinear("a backward hook of all modules, which only autograd calls, is registered")
        with torch.enable_grad(), context:
            outputs = read_outputs(D(x) if c is None else D(x, c), len(img), picked)
        if not all(isinstance(logits, TracedTensor) for logits in outputs.logits):
            raise NotPiecewiseLinear("D returned logits that were not computed from the image by functions of PyTorch")
        if with_loss and any(logits.numel() != len(img) for logits in outputs.logits):
            raise NotPiecewiseLinear(_MANY_LOGITS)
        slots = [logits.slot for logits in outputs.logits]
        outputs = Outputs([logits.value for logits in outputs.logits], [], outputs.single)
    except NotPiecewiseLinear as refusal:
        layer, module = _layer_of(refusal, D)
        # This module is refused at a transpose, long before its softmax.
        why = f"attention {CURVED}" if isinstance(module, nn.MultiheadAttention) else refusal
        raise NotPiecewiseLinear(f"{layer}{why}") from None
    del x
    _refuse_kept_activations(D, tape)
    return slots, outputs


def _refuse_kept_activations(D: Callable, tape: Tape) -> None:
    """Refuse a D that keeps an activation. A loss may read that, and no graph leads back from it."""
    if all(ref() is None for ref in tape.traced):
        return
    gc.collect()  # a cycle of references may be all that keeps them
    if any(ref() is not None for ref in tape.traced):
        modules = D.named_modules() if isinstance(D, nn.Module) else ()
        keepers = [name for name, m in modules if any(isinstance(v, TracedTensor) for v in vars(m).values())]
        who = f"{keepers[0] or 'D'} keeps" if keepers else "D, or a hook of it, keeps"
        raise NotPiecewiseLinear(f"{who} an activation after its forward pass")


def _one_line(error: Exception) -> str:
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {text}"


def _layer_of(error: Exception, D: Callable) -> tuple[str, nn.Module | None]:
    """("name (Type): ", the innermost module of D that was running when `error` was raised), or ("", None)."""
    names = {module: name for name, module in D.named_modules()} if isinstance(D, nn.Module) else {}
    found: tuple[str, nn.Module | None] = "", None
    traceback = error.__traceback__
    while traceback is not None:
        module = traceback.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module) and module in names:
            found = f"{names[module] or 'D'} ({type(module).__name__}): ", module
        traceback = traceback.tb_next
    return found
