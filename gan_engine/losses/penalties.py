"""Gradient penalties: R1, R2, WGAN-GP, DRAGAN and path lengths, and a step of D with its loss and its penalty at once.

`r1`, `r2`, `wgan_gp`, `dragan` and `path_length` are differentiable terms [N] for losses of your own. A term of weight
w that is due in every k-th step only counts k w in that step. That is lazy regularisation (Karras et al. 2020,
arXiv:1912.04958, appendix B): R1 in every 16th step and path lengths in every 4th.

`backward_with_penalty` is a whole step of D. Its levels say how the gradients are computed:

    2           in four passes over D, exactly, for a D that is piecewise linear. A sentence refuses any other D.
    1           by autograd, in six passes, on ops that are closed under differentiation. It makes no zeros where a
                gradient is undefined, and serves any D that autograd can differentiate twice.
    "autograd"  by autograd on the functions of PyTorch that D calls, but for attention.
    "aligned"   by a difference of D along its own gradient, which needs first derivatives alone. It is no exact level
                and never automatic: see aligned.py. Its error is about 0.1 % in float32 and 5 % in bfloat16;
                with hundreds of logits for each image, up to 1 % and 8 % in the networks measured.

scaled_dot_product_attention runs on PyTorch's math kernel at levels 1 and "autograd", because the fused kernels have no
second gradient. D may use torch.utils.checkpoint with use_reentrant=False: what runs again is what ran first.

Penalties square, sum and take roots in float32 (float64 for float64). docs/penalties.md explains the levels, the
refusals and the costs; level2/README.md explains how level 2 works.
"""

from collections.abc import Callable
from math import inf, isfinite
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from gan_engine.losses.aligned import aligned_error as aligned_error  # for callers of this module
from gan_engine.losses.aligned import backward_aligned
from gan_engine.losses.by_autograd import (
    backward_by_autograd,
    detached,
    gradient_with_graph,
    in_autocast,
    outputs_and_gradient,
    without_autocast,
)
from gan_engine.losses.choice import chosen
from gan_engine.losses.choice import level_of as level_of  # for callers of this module
from gan_engine.losses.closed_ops import ClosedOps
from gan_engine.losses.known import Known, asked, known
from gan_engine.losses.level2.backward import backward_by_tangents
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.trial import record_forward, wrong_output
from gan_engine.losses.level2.trial import refusal as refusal  # for callers of this module
from gan_engine.losses.network import Network, why_refused
from gan_engine.losses.norms import norm
from gan_engine.losses.outputs import Picked, check_batch, check_images, described
from gan_engine.losses.small import penalised_at_once
from gan_engine.ops.gradient_penalty import interpolate, sum_of_squares

Level = Literal[1, 2, "autograd", "aligned"]


def r1(D: Network, img: Tensor, c: Any = None, *, logits: Picked = None) -> Tensor:
    """P[n] = |dD(img[n])/dimg[n]|^2 at real images   # Mescheder et al. 2018, arXiv:1801.04406, equation 9

    Args:
        D: (img [N, ...], c) -> logits; (img) -> logits where c is None. D(img[n]) is the sum of the logits of image n,
            over its patches and over all discriminators or scales.
        img: [N, ...], real images.
        c: classes, handed on to D.
        logits: picks the logits from what D returns. None: the rule of gan_engine.losses.outputs finds them.

    Returns:
        P: [N], float32 (float64 for float64), to be weighted by gamma / 2 (10 / 2 in the paper). D runs outside of
        autocast; autocast that D itself turns on stays on.

    Raises:
        RuntimeError: torch.compile has made D, and its second gradient is lost; or FSDP shards D; or
            torch.inference_mode() is on; or D uses checkpoints of PyTorch with use_reentrant=True, which refuse
            torch.autograd.grad.
        ValueError: D does not return logits, or its logits do not depend on the images.

    Gradients: every order that D has, in the parameters of D. None in img.
    """
    refuse(D)
    check_batch("img", img)
    img = detached(img).requires_grad_()
    with torch.enable_grad(), without_autocast(img):
        return sum_of_squares(outputs_and_gradient(D, img, c, ops=ClosedOps(), picked=logits)[1])


def r2(D: Network, img: Tensor, c: Any = None, *, logits: Picked = None) -> Tensor:
    """P[n] = |dD(img[n])/dimg[n]|^2 at generated images   # Mescheder et al. 2018, equation 10

    Args, Returns, Raises and Gradients: as in `r1`, with generated images.
    """
    return r1(D, img, c, logits=logits)


def wgan_gp(
    D: Network,
    real: Tensor,
    fake: Tensor,
    c: Any = None,
    *,
    generator: torch.Generator | None = None,
    logits: Picked = None,
) -> Tensor:
    """P[n] = (|dD(x[n])/dx[n]| - 1)^2, x[n] between real[n] and fake[n]   # Gulrajani et al. 2017, arXiv:1704.00028

    Args:
        D, c, logits: as in `r1`.
        real, fake: [N, ...] of one shape and dtype. x is drawn uniformly from the line between them, by `between`.
        generator: draws the random numbers; None: PyTorch's default generator.

    Returns:
        P: [N], to be weighted by lambda (10 in the paper).

    Raises:
        RuntimeError, ValueError: as in `r1`.

    Gradients: every order that D has, in the parameters of D; at a gradient of 0 they are 0. None in real and fake.
    """
    return _one_centred(D, between(real, fake, generator=generator), c, logits)


def dragan(
    D: Network,
    real: Tensor,
    c: Any = None,
    *,
    spread: float = 0.5,
    generator: torch.Generator | None = None,
    logits: Picked = None,
) -> Tensor:
    """P[n] = (|dD(x[n])/dx[n]| - 1)^2, x[n] around real[n]   # Kodali et al. 2017, arXiv:1705.07215

    Args:
        D, c, generator, logits: as in `wgan_gp`.
        real: [N, ...]. x is drawn by `around`.
        spread: how far x is from real, in standard deviations of all numbers in `real`.

    Returns, Raises and Gradients: as in `wgan_gp`.
    """
    return _one_centred(D, around(real, spread=spread, generator=generator), c, logits)


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
        ws: the latents. The squares are summed over w_dim and averaged over num_ws.
        mean: [], float32, the running mean a of the lengths. It is updated in place, and belongs in a checkpoint.
        decay: the share of a that an update keeps, from 0 to 1.
        generator: draws y; None: PyTorch's default generator.
        level: 1 or "autograd", as in `backward_with_penalty`; None is 1. There is no level 2 of path lengths.

    Returns:
        P: [N], to be weighted by pl_weight (2 in the paper, in every 4th step).

    Raises:
        RuntimeError: as in `r1`, of G.
        ValueError: G does not return images [N, C, H, W] that depend on ws; no latents, whose mean would be NaN; or
            an argument of another type.

    Gradients: every order that G has, in the parameters of G and in ws.
    """
    refuse(G)
    check_batch("ws", ws)
    if level not in (None, 1, "autograd"):
        raise ValueError(f'path_length: level must be 1, "autograd" or None, got {level!r}')
    if len(ws) == 0:
        raise ValueError(f"path_length: want at least one latent, got {list(ws.shape)}")
    if not isinstance(mean, Tensor) or mean.numel() != 1 or not mean.dtype.is_floating_point:
        raise ValueError(f"path_length: mean must be a tensor [] in floating point, got {described(mean)}")
    if not (isinstance(decay, Real) and 0 <= decay <= 1):
        raise ValueError(f"path_length: decay must be a number from 0 to 1, got {decay!r}")
    check_generator("path_length", generator)
    with torch.autocast(ws.device.type, enabled=False), torch.enable_grad():
        ws = ws if ws.requires_grad else detached(ws).requires_grad_()
        with ClosedOps(closed=level != "autograd"):
            img = G(ws)
        check_images(img, len(ws))
        device = generator.device if generator else img.device
        y = torch.randn(img.shape, generator=generator, dtype=img.dtype, device=device)
        y = y.to(img) / (img.shape[2] * img.shape[3]) ** 0.5
        g = gradient_with_graph(img, ws, y, "G must return images that depend on ws")
        num_ws = ws.shape[1] if ws.ndim == 3 else 1
        lengths = norm(sum_of_squares(g) / num_ws)
        mean.lerp_(lengths.detach().mean().to(mean.dtype), 1 - decay)
        return (lengths - mean.clone()).square()


def between(real: Tensor, fake: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """x[n] = eps[n] * real[n] + (1 - eps[n]) * fake[n], where `wgan_gp` takes the gradient.

    Args:
        real, fake: [N, ...] of one shape and dtype.
        generator: draws eps [N], uniform in [0, 1); None: PyTorch's default generator.

    Returns:
        x: [N, ...] without a graph.
    """
    for name, img in ("real", real), ("fake", fake):
        check_batch(name, img)
    check_generator("between", generator)
    eps = torch.rand(len(real), generator=generator, device=generator.device if generator else real.device)
    eps = eps.to(real.device)
    with torch.no_grad():
        if real.dtype in (torch.float32, torch.float64) and fake.dtype == real.dtype and fake.shape == real.shape:
            return torch.lerp(fake, real, eps.to(real.dtype).view(-1, *[1] * (real.ndim - 1)))  # in one call
        return interpolate(real, fake, eps)


def around(real: Tensor, *, spread: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """x[n] = real[n] + (1 - eps[n]) * spread * std(real) * U[n], where `dragan` takes the gradient.

    Args:
        real: [N, ...]; std is that of all its numbers.
        generator: draws U [N, ...], then eps [N], both uniform in [0, 1); None: PyTorch's default generator.

    Returns:
        x: [N, ...] without a graph.
    """
    check_batch("real", real)
    check_factor("spread", spread)
    check_generator("around", generator)
    real = real.detach()
    noise = torch.rand(real.shape, generator=generator, device=generator.device if generator else real.device)
    moved = real + spread * real.std() * noise.to(real)
    return between(real, moved.to(real.dtype), generator=generator)


def backward_with_penalty(
    D: Network,
    img: Tensor,
    loss: Callable[[Any], Tensor] | None,
    *,
    gamma: float | Tensor,
    c: Any = None,
    level: Level | None = None,
    centre: float = 0.0,
    scale: float | Tensor = 1.0,
    logits: Picked = None,
) -> tuple[Tensor, Tensor]:
    """Add the gradients of mean(loss(logits)) + mean(gamma / 2 * (|dD/dimg| - centre)^2) to .grad of D's parameters.

    centre = 0 is R1 or R2. centre = 1 with gamma = 2 lambda, at images from `between`, is WGAN-GP.

    Args:
        D: (img [N, ...], c) -> logits; (img) -> logits where c is None. D(img[n]) in the penalty is the sum of the
            logits of image n, over its patches and over all discriminators or scales.
        img: [N, ...]. No gradient goes back into the images.
        loss: logits in float32 -> [M] or [], of which the mean is taken; None: the penalty alone. The logits are [N] if
            there is one for each image. Else they have D's own shape, and the loss may return a value for each. The
            loss gets a list where D returns a list. The loss may read D again, and anything else. All that requires
            gradients gets them, as from one `backward()` of the sum. A D that is frozen is no error: the loss may have
            parameters of its own.
        gamma: the weight, at least 0: a number, or a tensor of one for each image [N].
        c: handed on to D as it is. None: D is called with the images alone.
        level: 2, 1, "autograd" or "aligned", as the module says. None is 2, and 1 or "autograd" for a D that level 2
            refuses. Such a D is put back to what it was, and the answer is remembered while D stays the same.
        centre: the norm that the penalty pulls to.
        scale: a factor of all gradients, for loss scaling in fp16: scaler.scale(torch.ones(())).
        logits: picks the logits from what D returns. None: the rule of gan_engine.losses.outputs finds them.

    Returns:
        The logits as the loss gets them, and penalty [N] = (|dD/dimg| - centre)^2, without its weight; both in float32
        (float64 for float64) and without a graph. Autocast around the call holds for D alone.

    Raises:
        NotPiecewiseLinear: level=2 was asked for and does not hold. The sentence names the layer.
        RuntimeError: as in `r1`. At level 2 also: the loss wrote to images, weights or biases that D computed with. At
            level "aligned" only: inference mode, or activations with kinks that cannot be held.
        ValueError: D does not return logits; they do not depend on the images (all levels but 2); the loss returns
            neither [], [M] nor a value for each logit, or has no gradient; another level, or an argument of another
            type; a number that is not finite, or a negative gamma; no images at level "aligned". The numbers in tensors
            are not read: a GPU would wait.
    """
    check_level("backward_with_penalty", level)
    if loss is not None and not callable(loss):
        raise ValueError(f"loss must be a function of the logits, or None, got {described(loss)}")
    # One look at numbers as most steps have them: a look at each takes longer.
    usual = type(gamma) is type(centre) is type(scale) is float and gamma >= 0 and isfinite(gamma + centre + scale)
    if not usual:
        check_factor("centre", centre)
        check_factor("scale", scale, learned=True)
        if gamma.is_complex() if isinstance(gamma, Tensor) else not isinstance(gamma, Real):
            raise ValueError(f"gamma must be a number, or a tensor of one for each image, got {described(gamma)}")
        if not isinstance(gamma, Tensor) and not 0 <= gamma < inf:
            raise ValueError(f"gamma must be a finite number, at least 0, got {gamma!r}")
    seen = known(D)
    if level != "aligned" and (seen is None or seen.refused is not None):
        refuse(D, seen)
    check_batch("img", img)
    img = detached(img)
    plain = seen is not None and seen.without_attention and logits is None  # D runs on PyTorch's functions as they are
    at_once = plain and (usual or not (isinstance(scale, Tensor) and scale.requires_grad))
    if seen is not None and at_once and loss is not None and not isinstance(gamma, Tensor) and not in_autocast(img):
        step = asked(img, with_loss=True, picked=None, autocast=False) if level is None else None
        if level == "autograd" or step in seen.small:
            return penalised_at_once(D, c, img, loss, gamma, centre, scale)
    if isinstance(gamma, Tensor):
        if gamma.ndim > 0 and gamma.shape not in ((1,), (len(img),)):
            raise ValueError(f"gamma must be a number, or one for each image [{len(img)}], got {list(gamma.shape)}")
        gamma = gamma.to(img.device, torch.promote_types(img.dtype, torch.float32)).expand(len(img))
    with_loss, recorded = loss is not None, None
    if level is None:
        level, recorded = chosen(D, img, c, seen=seen, with_loss=with_loss, picked=logits)
    elif level == 2:
        try:
            recorded = record_forward(D, img, c, with_loss=with_loss, picked=logits)
        except NotPiecewiseLinear as refused:
            if (wrong := wrong_output(D, img, c, logits)) is not None:
                raise wrong from None
            raise NotPiecewiseLinear(f"{refused}. level=1 is exact for such a D") from refused
    if level in (1, "autograd"):
        ops = None if plain and level == "autograd" else ClosedOps(closed=level == 1)
        result = backward_by_autograd(D, img, loss, gamma, c, centre, scale, ops=ops, picked=logits)
        if seen is not None and ops is not None and logits is None and not ops.attended:
            seen.saw_no_attention()  # what picks the logits is not watched
        return result
    if not isinstance(gamma, Tensor):  # torch.tensor would copy to a GPU, and wait
        wide = torch.promote_types(img.dtype, torch.float32)
        gamma = torch.full((), gamma, device=img.device, dtype=wide).expand(len(img))
    if recorded is None:
        return backward_aligned(D, img, loss, gamma, c, centre, scale, picked=logits)
    return backward_by_tangents(recorded, loss, gamma, centre, scale)


def check_level(caller: str, level: Any) -> None:
    """Raise ValueError unless `level` is one of `backward_with_penalty`."""
    if level not in (None, 1, 2, "autograd", "aligned"):
        raise ValueError(f'{caller}: level must be 2, 1, "autograd", "aligned" or None, got {level!r}')


def check_factor(name: str, value: Any, *, learned: bool = False) -> None:
    """Raise ValueError unless `value` is a finite number or a tensor of one number, which is not read.

    A tensor that requires a gradient is refused, unless it may be `learned`.
    """
    if not is_number(value):
        raise ValueError(f"{name} must be a number, got {described(value)}")
    if not learned and isinstance(value, Tensor) and value.requires_grad:
        raise ValueError(f"{name} must be a number, got {described(value)} that requires a gradient: want detach()")
    if not isinstance(value, Tensor) and not isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")


def is_number(value: Any) -> bool:
    """True for a real number, and for a tensor of one."""
    return value.numel() == 1 and not value.is_complex() if isinstance(value, Tensor) else isinstance(value, Real)


def check_generator(caller: str, generator: Any) -> None:
    """Raise ValueError unless `generator` draws random numbers of PyTorch, or is None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(
            f"{caller}: generator must be a torch.Generator, which draws random numbers, or None, got "
            f"{described(generator)} of {type(generator).__module__}"
        )


def _one_centred(D: Network, x: Tensor, c: Any, logits: Picked) -> Tensor:
    with torch.enable_grad():
        return (norm(r1(D, x, c, logits=logits)) - 1).square()


def refuse(net: Network, seen: Known | None = None) -> None:
    """Refuse what torch.compile has made or FSDP shards, unless the penalty itself is being compiled with it."""
    if not torch.compiler.is_compiling():
        reason = why_refused(net) if seen is None else seen.refused
        if reason is not None:
            raise RuntimeError(reason)
