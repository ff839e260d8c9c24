"""Gradient penalties: R1, R2, WGAN-GP, DRAGAN and path length, and a step that takes loss and penalty together.

`r1`, `wgan_gp` and the others are differentiable [N] from which a loss can be made as from any other term. A penalty of
weight w that is due every k-th step only counts k w in that step: lazy regularisation (Karras et al. 2020,
arXiv:1912.04958, appendix B), which has R1 due every 16th step and path lengths every 4th.

`backward_with_penalty` is a whole step of D, of which autograd needs six passes of convolutions for each layer and a
piecewise linear D four (see piecewise_linear.py). Its levels:

    2           exact gradients by the tangent pass; for a piecewise linear D, refused with a reason for others
    1           autograd over ops that are closed under differentiation: nothing undefined is computed as zeros, and
                second gradients of convolutions run on the kernels of the first. For any D that autograd can
                differentiate twice.
    "autograd"  D as it is, but for attention

Levels 1 and "autograd" compute scaled_dot_product_attention by PyTorch's math kernel, since its fused kernels have no
second gradient. D may use torch.utils.checkpoint with use_reentrant=False; its regions run again as they ran first.

Penalties square, sum and take roots in float32 (float64 for float64), with an eps in every root.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from gan_engine.losses.closed_ops import ClosedOps
from gan_engine.losses.level2.piecewise_linear import NotPiecewiseLinear, Pass
from gan_engine.losses.level2.trial import Network, attempt, compiled, is_refused
from gan_engine.losses.level2.trial import refusal as refusal  # for callers of this module
from gan_engine.losses.outputs import check_images, check_logits
from gan_engine.ops.gradient_penalty import interpolate, mix, sum_of_squares

Level = Literal[1, 2, "autograd"]

_EPS = 1e-12


def r1(D: Network, img: Tensor, c: Tensor | None = None) -> Tensor:
    """P[n] = |dD(img[n])/dimg[n]|^2 at real images   # Mescheder et al. 2018, arXiv:1801.04406, equation 9

    Args:
        D: (img [N, ...], c) -> logits [N], or (img) -> logits where c is None.
        img: [N, ...], real images.
        c: classes, handed on to D.

    Returns:
        [N], to be weighted by gamma / 2 (10 / 2 in the paper). D runs outside autocast; casts of its own stand.

    Raises:
        RuntimeError: D is compiled by torch.compile, of which the second gradient is lost; torch.inference_mode() is in
            force; D uses checkpoints of PyTorch with use_reentrant=True, which refuse torch.autograd.grad.
        ValueError: D does not return one logit for each image, [N] or [N, 1], or the logits do not depend on the image.

    Gradients: every order that D has, in the parameters of D.
    """
    _check_not_compiled(D)
    img = _detached(img).requires_grad_()
    with torch.enable_grad(), _no_autocast(img):
        return sum_of_squares(_logits_and_gradient(D, img, c, closed=True)[1])


def r2(D: Network, img: Tensor, c: Tensor | None = None) -> Tensor:
    """P[n] = |dD(img[n])/dimg[n]|^2 at generated images   # Mescheder et al. 2018, equation 10; as `r1` otherwise"""
    return r1(D, img, c)


def wgan_gp(
    D: Network, real: Tensor, fake: Tensor, c: Tensor | None = None, *, generator: torch.Generator | None = None
) -> Tensor:
    """P[n] = (|dD(x[n])/dx[n]| - 1)^2, x[n] between real[n] and fake[n]   # Gulrajani et al. 2017, arXiv:1704.00028

    Args:
        D, c: as in `r1`.
        real, fake: [N, ...] of one shape; x is drawn uniformly from the line between them.
        generator: of the random numbers.

    Returns:
        [N], to be weighted by lambda (10 in the paper).

    Gradients: every order that D has, in the parameters of D; at a gradient of 0 they are 0.
    """
    return _one_centred(D, between(real, fake, generator=generator), c)


def dragan(
    D: Network, real: Tensor, c: Tensor | None = None, *, spread: float = 0.5, generator: torch.Generator | None = None
) -> Tensor:
    """P[n] = (|dD(x[n])/dx[n]| - 1)^2, x[n] around real[n]   # Kodali et al. 2017, arXiv:1705.07215

    As `wgan_gp`, weight included, with x between real and real + spread * std(real) * U, U uniform in [0, 1).
    """
    return _one_centred(D, around(real, spread=spread, generator=generator), c)


def path_length(
    G: Network,
    ws: Tensor,
    mean: Tensor,
    *,
    decay: float = 0.99,
    generator: torch.Generator | None = None,
    level: Level | None = None,
) -> Tensor:
    """P[n] = (|J[n]' y[n]| - a)^2 with J = dG/dws and y ~ N(0, 1 / (H W))   # Karras et al. 2020, equation 4

    Args:
        G: ws [N, num_ws, w_dim] or [N, w_dim] -> img [N, C, H, W].
        ws: the latents; the squares are summed over w_dim and averaged over num_ws.
        mean: [], float32, the running mean a of the lengths. It is updated in place, and is part of a checkpoint.
        decay: how much of a an update keeps.
        generator: of the random numbers.
        level: None or 1, or "autograd", as in `backward_with_penalty`; there is no level 2 of this.

    Returns:
        [N], to be weighted by pl_weight (2 in the paper, every 4th step).

    Raises:
        RuntimeError: as in `r1`, of G.
        ValueError: G does not return images [N, C, H, W] that depend on ws.

    Gradients: every order that G has, in the parameters of G and in ws.
    """
    _check_not_compiled(G)
    if level not in (None, 1, "autograd"):
        raise ValueError(f'path_length: level must be 1, "autograd" or None, got {level!r}')
    with torch.autocast(ws.device.type, enabled=False), torch.enable_grad():
        ws = ws if ws.requires_grad else _detached(ws).requires_grad_()
        with ClosedOps(closed=level != "autograd"):
            img = G(ws)
        check_images(img, len(ws))
        device = generator.device if generator else img.device
        y = torch.randn(img.shape, generator=generator, dtype=img.dtype, device=device)
        y = y.to(img) / (img.shape[2] * img.shape[3]) ** 0.5
        g = _gradient(img, ws, y, "G must return images that depend on ws")
        num_ws = ws.shape[1] if ws.ndim == 3 else 1
        lengths = (sum_of_squares(g) / num_ws + _EPS).sqrt()
        mean.lerp_(lengths.detach().mean().to(mean.dtype), 1 - decay)
        return (lengths - mean.clone()).square()


def between(real: Tensor, fake: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Where `wgan_gp` takes the gradient: eps * real + (1 - eps) * fake, eps [N] uniform in [0, 1)."""
    eps = torch.rand(len(real), generator=generator, device=generator.device if generator else real.device)
    with torch.no_grad():
        return interpolate(real, fake, eps.to(real.device))


def around(real: Tensor, *, spread: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """Where `dragan` takes the gradient: real + eps * spread * std(real) * U."""
    real = real.detach()
    noise = torch.rand(real.shape, generator=generator, device=generator.device if generator else real.device)
    moved = real + spread * real.std() * noise.to(real)
    return between(real, moved.to(real.dtype), generator=generator)


def backward_with_penalty(
    D: Network,
    img: Tensor,
    loss: Callable[[Tensor], Tensor] | None,
    *,
    gamma: float | Tensor,
    c: Any = None,
    level: Level | None = None,
    centre: float = 0.0,
    scale: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor]:
    """Add the gradients of mean(loss(logits)) + mean(gamma / 2 * (|dD/dimg| - centre)^2) to .grad of D's parameters.

    With centre = 0 this is R1 (or R2), and gamma multiplies |g|^2 / 2; with centre = 1 and gamma = 2 lambda, at
    images from `between`, it is WGAN-GP. R1 and R2 under a relativistic loss, in one call:

        both = torch.cat([real_img, gen_img])
        pairs = lambda logits: softplus(logits[N:] - logits[:N])
        backward_with_penalty(D, both, pairs, gamma=2 * gamma)     # the mean over both is half of the sum of means

    Args:
        D: (img [N, ...], c) -> logits [N], or (img) -> logits where c is None; logits [N, 1] become [N].
        img: [N, ...]; no gradient goes back into it.
        loss: logits [N] in float32 -> [M], of which the mean is taken; None: the penalty alone. It may depend on D
            once more and on anything else; all that requires gradients has them as after one `backward()` of the sum.
        gamma: the weight, or one for each image [N].
        c: handed on to D, whatever it is; None: D is called with the images alone.
        level: 2, 1 or "autograd", see above; None is 2, or 1 where D refuses 2. A D that refuses is put back to what
            it was before, and the refusal is remembered for as long as D stays as it is (`trial.is_refused`).
        centre: the norm that the penalty pulls to.
        scale: factor of all gradients, for loss scaling in fp16: scaler.scale(torch.ones(())).

    Returns:
        logits [N] and penalty [N], (|dD/dimg| - centre)^2 without its weight, in float32; no graph is left.

    Autocast around the call holds for D; what is computed on its logits and gradients is float32.

    Raises:
        NotPiecewiseLinear: level 2 was asked for and does not hold; the sentence names the layer.
        RuntimeError: as in `r1`; at level 2 also that the loss wrote to images, weights or biases that D computed with.
        ValueError: D does not return one logit for each image, [N] or [N, 1], or the logits do not depend on the image,
            or loss returns more dimensions than one.
    """
    if level not in (None, 1, 2, "autograd"):
        raise ValueError(f'backward_with_penalty: level must be 2, 1, "autograd" or None, got {level!r}')
    _check_not_compiled(D)
    img = _detached(img)
    wide = torch.promote_types(img.dtype, torch.float32)
    gamma = torch.as_tensor(gamma, dtype=wide, device=img.device).expand(len(img))
    if level == 2 or (level is None and not is_refused(D, img, c)):
        try:
            done = attempt(D, img, c)
        except NotPiecewiseLinear:
            if level == 2:
                raise
        else:
            return _by_tangents(done, img, loss, gamma, centre, scale)
    return _by_autograd(D, img, loss, gamma, c, centre, scale, closed=level != "autograd")


class _Step:
    """What is left of level 2 where the gradient by the image is known: a node of autograd over D's parameters.

    As the node is part of the graph of the loss, that graph may depend on whatever it likes, and autograd hands each
    parameter its whole gradient, once.
    """

    def __init__(self, done: Pass, img: Tensor, gamma: Tensor, centre: float) -> None:
        device = img.device.type
        self.autocast = torch.autocast(
            device, dtype=torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device)
        )
        self.done, self.img, self.gamma = done, img, gamma
        self.g: Tensor | None = done.input_gradient()
        s = sum_of_squares(self.g)
        self.penalty, self.coefficient = _value_and_direction(s, gamma.detach() / len(img), centre)

    def node(self, *, with_loss: bool) -> tuple[Tensor, Tensor]:
        """The logits [N], and mean(gamma / 2 * penalty) []."""
        learned = self.done.learned(with_loss=with_loss)
        self.order, self.with_loss = [id(t) for t in learned], with_loss
        start = torch.empty((), requires_grad=True)  # for a D of which nothing is learned
        return _Penalised.apply(self, self.gamma, start, *learned)

    def gradients(self, a: Tensor | None, d: Tensor) -> list[Tensor | None]:
        """Those of the parameters, for the gradients a [N] by the logits and d [] by the mean penalty. Once."""
        if self.g is None:
            raise RuntimeError("backward_with_penalty: its graph is for one backward pass, which it runs itself")
        with self.autocast:
            coefficient = self.coefficient * d
            a = torch.zeros_like(coefficient) if a is None else a
            u = {0: mix(self.img, self.g, a, coefficient)}
            self.g = None  # its memory is needed
            found = self.done.gradients(u, a if self.with_loss else None)
        return [found.pop(i) for i in self.order]


class _Penalised(torch.autograd.Function):
    """The node of a `_Step`."""

    @staticmethod
    def forward(ctx: Any, step: _Step, gamma: Tensor, start: Tensor, *learned: Tensor) -> tuple[Tensor, Tensor]:
        ctx.step = step
        ctx.set_materialize_grads(False)
        return step.done.logits.clone(), (gamma / 2 * step.penalty).mean()

    @staticmethod
    def backward(ctx: Any, a: Tensor | None, d: Tensor | None) -> tuple:
        step = ctx.step
        if d is None:
            raise RuntimeError("backward_with_penalty: gradients of logits by parameters are not for its loss to take")
        by_gamma = step.penalty * d / (2 * len(step.penalty)) if ctx.needs_input_grad[1] else None
        return None, by_gamma, None, *step.gradients(a, d)


def _by_tangents(done: Pass, img, loss, gamma, centre, scale) -> tuple[Tensor, Tensor]:
    step = _Step(done, img, gamma, centre)
    with torch.enable_grad(), _no_autocast(img):
        logits, total = step.node(with_loss=loss is not None)
        if loss is not None:
            node = logits.grad_fn
            value = _mean(loss, logits)
            if not _reaches(value, node):  # offsets have no gradient then
                _, total = step.node(with_loss=False)
            total = value + total
        (total * scale).backward()
    return done.logits, step.penalty


def _reaches(t: Tensor, end: torch.autograd.graph.Node) -> bool:
    """Whether the graph of t leads to the node `end`."""
    waiting, seen = [t.grad_fn], {None}
    while waiting:
        node = waiting.pop()
        if node is end:
            return True
        if node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return False


def _mean(loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    values = loss(logits)
    if values.ndim > 1:  # as of logits [N] and targets [N, 1], each with each
        raise ValueError(f"loss must return [M] for logits [N] = {list(logits.shape)}, got {list(values.shape)}")
    return values.mean()


def _value_and_direction(s: Tensor, weight: Tensor, centre: float) -> tuple[Tensor, Tensor]:
    """p [N] and t [N] with dP/dg[n] = t[n] g[n], for s = |g|^2, p = (|g| - centre)^2 and P = sum of weight / 2 * p."""
    if centre == 0:
        return s, weight
    norm = (s + _EPS).sqrt()
    return (norm - centre).square(), weight * (1 - centre / norm)


def _by_autograd(D, img, loss, gamma, c, centre, scale, *, closed: bool) -> tuple[Tensor, Tensor]:
    img.requires_grad_()
    with torch.enable_grad():
        logits, g = _logits_and_gradient(D, img, c, closed=closed)
        logits = logits.flatten().to(gamma.dtype)
        with _no_autocast(img):
            s = sum_of_squares(g) if closed else g.to(gamma.dtype).square().flatten(1).sum(1)
            penalty = s if centre == 0 else ((s + _EPS).sqrt() - centre).square()
            total = (gamma / 2 * penalty).mean()
            if loss is not None:
                total = total + _mean(loss, logits)
        total = total * scale
        if total.requires_grad:  # else nothing of D is learned
            total.backward()
    return logits.detach(), penalty.detach()


def _logits_and_gradient(D: Network, img: Tensor, c: Tensor | None, *, closed: bool) -> tuple[Tensor, Tensor]:
    with ClosedOps(closed=closed):
        logits = D(img) if c is None else D(img, c)
    check_logits(logits, len(img))
    return logits, _gradient(logits.sum(), img, None, "D must return logits that depend on the image")


def _gradient(y: Tensor, x: Tensor, dy: Tensor | None, want: str) -> Tensor:
    """The gradient of y by x with a graph of its own, or ValueError that says `want`"""
    if y.requires_grad:
        (g,) = torch.autograd.grad(y, x, dy, create_graph=True, allow_unused=True)
        if g is not None:
            return g
    raise ValueError(f"{want}, got some that no gradient leads back from")


def _detached(x: Tensor) -> Tensor:
    """x without its graph; what torch.inference_mode() made is copied, as gradients cannot be recorded for it"""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "a penalty is made of gradients, which torch.inference_mode() does not record: "
            "want the call outside of that mode (torch.no_grad() may be in force)"
        )
    return x.clone() if x.is_inference() else x.detach()


def _one_centred(D: Network, x: Tensor, c: Tensor | None) -> Tensor:
    with torch.enable_grad():
        return ((r1(D, x, c) + _EPS).sqrt() - 1).square()


def _no_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _check_not_compiled(net: Network) -> None:
    """Refuse what torch.compile has made, unless the penalty itself is being compiled with it."""
    if not torch.compiler.is_compiling() and (reason := compiled(net)) is not None:
        raise RuntimeError(reason)
