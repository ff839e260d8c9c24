"""Level "aligned": a penalty from first derivatives alone, along D's own gradient.

Let S(x) = sum over n of D(x)[n] and g = dS/dx. P = mean(gamma / 2 * (|g| - centre)^2) depends on the parameters through
g alone. With t = dP/dg held fixed,

    dP/dparameters = d<g, t>/dparameters
                   = (dS/dparameters(x + e t) - dS/dparameters(x - e t)) / 2e + O(e^2)

t[n] lies along g[n]: Finlay and Oberman 2019, arXiv:1905.11468, take such a difference for robustness. An image whose
gradient is 0 does not move. One e serves all images: a batch norm, which ties images together, gets its gradient too.

The gradient of the loss is the sum over n of a[n] dD(x)[n]/dparameters, with a = dloss/dlogits at x. Two forms:

    both sides    pass 1: forward at x, and backward by the image alone, which gives g. Pass 2: forward at x + e t and
                  x - e t, and one backward pass, in which each side has the share a[n] / 2 of the loss. Where backward
                  passes must be whole, as with DDP, each side has its own.
    one side      pass 1 keeps its graph. Pass 2: forward at x + e t, and one backward pass of
                  sum of a[n] D(x)[n] + (S(x + e t) - S(x)) / e, which is right to O(e) and an eighth cheaper.
    apart         one side, where an image has many logits or there is no loss. Pass 1 gives dS/dparameters too, and
                  its graph goes backward again for the loss alone.

The shares of `one side` are a[n] - 1 / e. They lose digits of a[n], the same ones at every logit. Gradients of biases,
which are sums over all logits, lost half of the loss so where an image had 1,500 logits. Hence `apart`. With one logit,
only what shifts all logits alike, such as the last bias, loses them, where gamma |g| is large. `apart` would cure that
too, for one pass more.

Let a forward pass, a pass back to the image and one to the parameters cost 1 each. A difference in a random direction
is 6: both runs need all three. One side is 7, as D's own direction needs a pass back to the image before. Apart is 8
with a loss and 6 without. Both sides are 8.

The step: an image of the usual size and slope moves by h times its own size,

    both sides    h = 0.07 * (eps * P^(1/2))^(1/3)       e = h * R / T
    one side      h = 0.3 * (eps * P^(1/2))^(1/2)

eps is the spacing of the coarsest numbers that D computes with. P is how many logits an image has: S and what is
rounded off it grow as P, and |g| as its root. R is the root mean square of |x[n]|. T is the mean of
|t[n]|, weighted by |t[n]|^2. If l is the relative move that bends the gradient of D, the error is about
(h / l)^2 + eps / h, or h / l + 2 eps / h. It is least at h = (l^2 eps / 2)^(1/3), or (2 l eps)^(1/2): the rules fit
l = 0.026 and l = 0.045. l was 0.01 to 0.07 for the networks of tests/losses/test_aligned.py, small after training. One
side is for float32 and float64 alone, as its error in bfloat16 would be above a tenth.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gan_engine.losses import norms
from gan_engine.losses.by_autograd import detached, without_autocast
from gan_engine.losses.closed_ops import FasterOps
from gan_engine.losses.held_slopes import HeldSlopes, refuse_modules_with_kinks
from gan_engine.losses.network import Network, modules_of, why_compiled
from gan_engine.losses.outputs import Outputs, Picked, WrongOutput, check_batch, mean_loss, read_outputs, without_graph
from gan_engine.losses.step import total as total_of
from gan_engine.ops.gradient_penalty import mix, sum_of_squares

_BOTH_SIDES, _ONE_SIDE = 0.07, 0.3
_WANT = "D must return logits that depend on the image"


def backward_aligned(
    D: Network,
    img: Tensor,
    loss: Callable[[Any], Tensor] | None,
    gamma: Tensor,
    c: Any,
    centre: float,
    scale: float | Tensor,
    *,
    picked: Picked = None,
    further: bool = False,
    among: Collection[Tensor] | None = None,
) -> tuple[Any, Tensor]:
    """`backward_with_penalty` by a difference; gamma is [N]. Gives the logits and penalty [N].

    Each run of D begins with the same state and random numbers: a spectral norm has one weight, and dropout one mask.
    They end as the run at x and the loss left them. `further` moves images as far as makes the error twice as large.
    With `among`, only these tensors get gradients, and graphs from before the call, such as that of c, stay.
    """
    if len(img) == 0:
        raise ValueError(
            f'level "aligned" moves images along their gradients: want at least one, got {list(img.shape)}'
        )
    before, held = _State(D, img.device), _held_slopes(D)
    with torch.enable_grad():
        x = img.detach().requires_grad_()
        outputs = _outputs(D, x, c, held, picked)
        whole = _wants_whole_backward(D, outputs)
        if whole and isinstance(held, HeldSlopes):
            held.refuse_reentrant_checkpoints()
        eps = _spacing(img, outputs, held)
        one_side = eps <= torch.finfo(torch.float32).eps and not whole and isinstance(held, HeldSlopes)
        unit = torch.as_tensor(scale, dtype=gamma.dtype, device=img.device) / len(img)
        units = [unit] * len(outputs.logits)
        mean = _dot(outputs, units)  # times unit: safe in fp16
        apart = _learned_apart(mean, x) if one_side and (loss is None or not outputs.one_for_each_image) else []
        g, *at_x = _gradient_by_image(mean, [x, *apart], whole=whole)
        s = sum_of_squares(g) / unit.square()
        penalty = norms.penalty(s, centre)
        a, logits = _gradient_by_logits(loss, outputs, (gamma / 2 * penalty).mean(), scale)
        t_over_g = gamma.detach() if centre == 0 else gamma.detach() * (1 - centre / norms.norm(s))
        rounding = eps * outputs.of_each_image**0.5
        h = _ONE_SIDE * rounding ** (1 / 2) if one_side else _BOTH_SIDES * rounding ** (1 / 3)
        if further:
            h *= 2 if one_side else 2**0.5
        step, slope = _step(img, unit * t_over_g.abs() * s.sqrt(), h)
        after = _State(D, img.device)
        total = torch.zeros_like(unit)
        if one_side and not (apart and loss is None):
            total = _dot(outputs, a if apart else [each - slope for each in a])
        del outputs, mean  # and their graph, if the loss is not to go backward through it
        if apart:
            times = _power_of_two(slope / unit)
            slope, step = unit * times, 1 / (unit * torch.where(times > 0, times, 1))
            total = total - times * total_of((p * d).sum() for p, d in zip(apart, at_x) if d is not None)
        for side in (1,) if one_side else (1, -1):
            before.restore()
            moved = mix(img, g, torch.ones_like(s), side * step * t_over_g).requires_grad_(whole)
            shares = [slope if one_side else (each - unit * whole + side * slope) / 2 for each in a]
            total = total + _dot(_outputs(D, moved, c, held, picked), shares)
            if whole:  # each run goes backward before the next one: DDP writes buffers, which this one still needs
                _learn(total, x, whole=True, again=among is not None or side == 1)
                total = torch.zeros_like(unit)
        after.restore()
        _learn(total, x, whole=False, again=among is not None, among=among)
    return logits, penalty


def aligned_error(D: Network, img: Tensor, c: Any = None, *, centre: float = 0.0, logits: Picked = None) -> Tensor:
    """The relative error of level "aligned" for this D and these images, estimated from two steps: [].

    The error of the difference grows with h or h^2. The second step is 2 h or sqrt(2) h, so that both results differ by
    about as much as the first is off, and by rounding. An error that both share is not seen, such as weights in
    bfloat16.

    Args:
        D, img, c, centre, logits: as in `backward_with_penalty`.

    Returns:
        |G(second step) - G(h)| / |G(h)|, with the gradient G of the penalty by all parameters of D's modules. The
        `.grad` of parameters, buffers and random numbers are put back afterwards.

    Raises:
        RuntimeError, ValueError: as `backward_with_penalty` with level="aligned".
        ValueError: no parameter of D that learns was found.
    """
    check_batch("img", img)
    img = detached(img)
    learned = list({p: None for part in modules_of(D, held=True) for p in part.parameters() if p.requires_grad})
    if not learned:
        raise ValueError(
            "aligned_error: want a D with parameters that learn, got none: they are looked for in the modules of D, or "
            "in those that a function refers to by name"
        )
    before, kept, found = _State(D, img.device), [p.grad for p in learned], []
    gamma = torch.ones(len(img), dtype=torch.promote_types(img.dtype, torch.float32), device=img.device)
    try:
        for further in (False, True):
            for p in learned:
                p.grad = None
            before.restore()
            backward_aligned(D, img, None, gamma, c, centre, 1.0, picked=logits, further=further, among=learned)
            found.append([None if p.grad is None else p.grad.to(gamma.dtype) for p in learned])
    finally:
        before.restore()
        for p, grad in zip(learned, kept, strict=True):
            p.grad = grad
    first, second = ([grad for grad in grads if grad is not None] for grads in found)
    off = sum(((b - a).square().sum() for a, b in zip(first, second, strict=True)), gamma.new_zeros(()))
    return (off / sum((a.square().sum() for a in first), gamma.new_zeros(()))).sqrt()


def _outputs(D: Network, img: Tensor, c: Any, held: AbstractContextManager, picked: Picked) -> Outputs:
    # No mode enters compiled code.
    with FasterOps() if isinstance(held, HeldSlopes) else nullcontext(), held:
        returned = D(img) if c is None else D(img, c)
        outputs = read_outputs(returned, len(img), picked)
    if img.requires_grad and not all(logits.requires_grad for logits in outputs.logits):
        raise WrongOutput(f"{_WANT}, got some that have no gradient")
    return outputs


def _dot(outputs: Outputs, weights: list[Tensor]) -> Tensor:
    """[], the sum of weight * logit; a weight is [], or of the shape of its logits."""
    return total_of((logits.to(weight.dtype) * weight).sum() for logits, weight in zip(outputs.logits, weights))


def _gradient_by_image(total: Tensor, of: list[Tensor], *, whole: bool) -> list[Tensor]:
    """d total / d each of the tensors; the first is x, the image, and only that may not be None.

    `whole` adds gradients of parameters to .grad. The graph stays: a part of it may be from before the call, such as
    that of c, and serves the passes beside x too.
    """
    found: list[Any] = [None]
    if whole and total.requires_grad:
        total.backward(retain_graph=True)
        found = [of[0].grad]
    elif total.requires_grad:
        found = list(torch.autograd.grad(total, of, retain_graph=True, allow_unused=True))
    if found[0] is None:
        raise WrongOutput(f"{_WANT}, got some that no gradient leads back from")
    return found


def _learn(total: Tensor, x: Tensor, *, whole: bool, again: bool, among: Collection[Tensor] | None = None) -> None:
    """Add d total / d parameters to their .grad, if D learns anything. x, the image, needs no gradient once more."""
    only = None if among is None else {id(p) for p in among}
    if learned := [leaf for leaf in _leaves(total) if leaf is not x and (only is None or id(leaf) in only)]:
        total.backward(inputs=None if whole else learned, retain_graph=again)


def _learned_apart(y: Tensor, x: Tensor) -> list[Tensor]:
    """The tensors that D learns; none where hooks would see the first of two shares of a gradient, or it is sparse."""
    leaves = list({id(leaf): leaf for leaf in _leaves(y) if leaf is not x}.values())
    embeds = any(node.name().startswith("EmbeddingBackward") for node in _graph(y))
    return [] if embeds or any(leaf._backward_hooks for leaf in leaves) else leaves


def _gradient_by_logits(
    loss: Callable[[Any], Tensor] | None, outputs: Outputs, penalty: Tensor, scale: float | Tensor
) -> tuple[list[Tensor], Any]:
    """a = scale * d mean(loss(logits)) / dlogits, in the shapes of the logits; and the logits as the loss gets them.

    All else that the loss and `penalty` read gets its gradient.
    """
    leaves = [logits.detach().to(penalty.dtype).requires_grad_() for logits in outputs.logits]
    logits, total = outputs._replace(logits=leaves).for_loss(penalty.dtype), penalty
    with without_autocast(penalty):
        if loss is not None:
            total = total + mean_loss(loss, logits)
        if total.requires_grad:
            (total * scale).backward()
    return [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves], without_graph(logits)


def _spacing(img: Tensor, outputs: Outputs, held: AbstractContextManager) -> float:
    """eps of the coarsest numbers that D computes with, as far as images, logits, weights, calls and the modes show."""
    dtypes = [img.dtype, *(logits.dtype for logits in outputs.logits)]
    dtypes += {leaf.dtype for logits in outputs.logits for leaf in _leaves(logits)}
    dtypes += held.dtypes if isinstance(held, HeldSlopes) else ()
    device = img.device.type
    if torch.is_autocast_enabled(device):
        dtypes.append(torch.get_autocast_dtype(device))
    if device == "cuda" and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32):
        dtypes.append(torch.float16)  # TF32 has its mantissa
    return max(torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point or dtype.is_complex)


def _step(img: Tensor, t: Tensor, h: float) -> tuple[Tensor, Tensor]:
    """e [] and 1 / e [] for |t[n]| [N]. Where all t are 0 no image moves, and both are as good as 0."""
    largest = t.amax()
    q = t / torch.where(largest > 0, largest, 1)  # no cube of q underflows
    T = largest * q.pow(3).sum() / torch.where(largest > 0, q.square().sum(), 1)
    R = sum_of_squares(img).mean().sqrt()
    R = torch.where(R > 0, R, (img.numel() / len(img)) ** 0.5)  # black images: as if their root mean square were 1
    return h * R / torch.where(largest > 0, T, 1), T / (h * R)


def _power_of_two(x: Tensor) -> Tensor:
    """The power of two that is next to x []; 0, NaN and infinity stay.

    Sums of logits times it are rounded as sums of the logits are.
    """
    mantissa, exponent = torch.frexp(x)
    exponent = torch.where(mantissa > 0.5**0.5, exponent, exponent - 1)
    return torch.where((x > 0) & x.isfinite(), torch.ldexp(torch.ones_like(x), exponent), x)


class _State:
    """What a run of D may change, and what the next run begins with: PyTorch's random numbers and D's modules.

    Of each module: the buffers, and the tensors and numbers in attributes of D's own classes, whether a run writes to
    them or replaces them; and the parameters whose `.data` a run replaces.
    """

    def __init__(self, D: Network, device: torch.device) -> None:
        self.slots: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.values: list[tuple[Tensor, Tensor]] = []
        modules = modules_of(D, held=True)
        for part in modules:
            self._keep(part._buffers)
            if type(part).__module__.partition(".")[0] != "torch":
                self._keep(vars(part))
        sharded = any(_is_one_of(part, _SHARDED) for part in modules)  # they replace data themselves
        learned = [] if sharded else [p for part in modules for p in part._parameters.values()]
        self.data = [(p, p.data) for p in learned if p is not None and not is_lazy(p) and type(p.data) is Tensor]
        self.device = device if device.type == "cuda" else None
        self.random = torch.get_rng_state(), self.device and torch.cuda.get_rng_state(device)

    def _keep(self, place: dict[str, Any]) -> None:
        kept = {name: value for name, value in place.items() if _is_state(value)}
        if isinstance(place, dict):  # TorchScript has no dict
            self.slots.append((place, kept))
        self.values += [(value, value.detach().clone()) for value in kept.values() if isinstance(value, Tensor)]

    def restore(self) -> None:
        for place, kept in self.slots:
            for name in [name for name, value in place.items() if _is_state(value) and name not in kept]:
                del place[name]
            place.update(kept)
        for value, values in self.values:
            # PyTorch does not count a write through .data: the pass at the other side is still to go backward.
            value.data.copy_(values)
        for p, data in self.data:
            if p.data_ptr() != data.data_ptr():
                p.data = data
        torch.set_rng_state(self.random[0])
        if self.device is not None:
            torch.cuda.set_rng_state(self.random[1], self.device)


def _is_state(value: Any) -> bool:
    return not is_lazy(value) if isinstance(value, Tensor) else isinstance(value, (int, float, complex))


def _held_slopes(D: Network) -> AbstractContextManager:
    """What keeps D at the sides of its kinks where it is at x."""
    modules = modules_of(D, held=True)
    if why_compiled(D, held=True) is None and not any(isinstance(part, nn.DataParallel) for part in modules):
        return HeldSlopes()
    refuse_modules_with_kinks(modules)  # no mode of Python sees what compiled code and other threads call
    return nullcontext()


# Their gradients are collected when a whole backward pass has reached the parameters.
_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}
_PARALLEL = {"DistributedDataParallel", *_SHARDED}


def _is_one_of(part: nn.Module, names: Collection[str]) -> bool:
    return any(base.__name__ in names for base in type(part).__mro__)


def _wants_whole_backward(D: Network, outputs: Outputs) -> bool:
    """True if torch.autograd.grad cannot take the gradient by the image alone."""
    if any(_is_one_of(part, _PARALLEL) for part in modules_of(D, held=True)):
        return True
    # use_reentrant=True
    return any(node.name().startswith("CheckpointFunctionBackward") for y in outputs.logits for node in _graph(y))


def _leaves(y: Tensor) -> list[Tensor]:
    return [node.variable for node in _graph(y) if hasattr(node, "variable")]


def _graph(y: Tensor) -> Iterator[torch.autograd.graph.Node]:
    """The nodes that a backward pass of y visits."""
    waiting, seen = [y.grad_fn], {None}
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
            yield node
