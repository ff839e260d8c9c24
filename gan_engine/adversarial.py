"""The adversarial half of a training program of your own: an auto-encoder, a vocoder, a network that enlarges images.

    game = Adversarial(D, "relativistic", r1=1.0, feature_matching=2.0)
    ...
    D_optimizer.zero_grad()
    parts = game.d_step(real, fake)  # adds to .grad of D; {"D": [], "r1": [], "logits/real": [], "logits/fake": []}
    D_optimizer.step()
    G_optimizer.zero_grad()
    (l1 + sum(game.g_terms(fake, real).values())).backward()
    G_optimizer.step()

The trainer of gan_engine computes its steps by the same functions, gan_engine.losses.game.
"""

import contextlib
from collections.abc import Iterator, Mapping
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gan_engine.losses.adversarial import LOSSES, of_each_image
from gan_engine.losses.adversarial import Adversarial as Sides
from gan_engine.losses.by_autograd import detached
from gan_engine.losses.game import Game, feature_matching
from gan_engine.losses.level2.snapshot import Snapshot
from gan_engine.losses.network import Network, parameters_of, why_refused
from gan_engine.losses.outputs import Outputs, Picked, described
from gan_engine.losses.penalties import Level, check_factor, check_generator, check_level, is_number


class Adversarial:
    """The steps of D against generated images, and the terms of G. It has no optimiser and no weights of its own.

    Args:
        D: (img [N, ...], **c) -> logits, with features for feature matching. docs/penalties.md says what D may return.
        loss: a name in gan_engine.losses.adversarial.LOSSES, or a row like those. Of patches it is the mean over an
            image, and of several discriminators or scales the sum.
        r1, r2: gamma of the penalties gamma / 2 * |dD/dimg|^2 at real and at generated images.
        gp: lambda of the WGAN-GP penalty lambda * (|dD/dimg| - 1)^2.
        penalty_interval: penalties are computed in every step of that number, and count as many times.
        feature_matching: the weight of sum over layers of mean |F(real) - F(fake)|, a term of G.
        level: of the penalties, as in gan_engine.losses.penalties.
        logits: picks the logits, and features, from what D returns.
        pack: D judges so many samples at once, joined in dimension 1 (PacGAN, Lin et al. 2018, arXiv:1712.04086).
        scaler: the loss scale of fp16. Gradients of D are multiplied by it; scaler.step(D_optimizer) divides them.
        generator: draws the points of WGAN-GP; None: PyTorch's default generator.
        group: processes of torch.distributed that average the gradients of D in `d_step`, each with its part of a
            batch. None: those of a D under DistributedDataParallel.

    Raises:
        ValueError: another loss, a negative weight, a number below 1, or an argument of another type.
    """

    def __init__(
        self,
        D: Network,
        loss: str | Sides = "nonsaturating",
        *,
        r1: float = 0,
        r2: float = 0,
        gp: float = 0,
        penalty_interval: int = 1,
        feature_matching: float = 0,
        level: Level | None = None,
        logits: Picked = None,
        pack: int = 1,
        scaler: torch.amp.GradScaler | None = None,
        generator: torch.Generator | None = None,
        group: Any = None,
    ) -> None:
        sides = LOSSES.get(loss) if isinstance(loss, str) else loss
        two = all(callable(getattr(sides, name, None)) for name in ("generator", "discriminator"))
        if sides is None or not two or not hasattr(sides, "generator_reads_real"):
            got = repr(loss) if isinstance(loss, str) else described(loss)
            raise ValueError(
                f"Adversarial: loss must be one of {', '.join(LOSSES)}, or a gan_engine.losses.adversarial.Adversarial "
                f"of two functions, got {got}"
            )
        check_level("Adversarial", level)
        if not callable(D) or isinstance(D, type):
            raise ValueError(f"Adversarial: D must be a module or a function, got {described(D)}")
        weights = {"r1": r1, "r2": r2, "gp": gp}
        for name, value in {**weights, "feature_matching": feature_matching}.items():
            if not (is_number(value) and 0 <= value < inf):
                raise ValueError(f"Adversarial: {name} must be a finite number, at least 0, got {value!r}")
        for name, value in ("penalty_interval", penalty_interval), ("pack", pack):
            if not _is_whole(value, at_least=1):
                raise ValueError(f"Adversarial: {name} must be a whole number, at least 1, got {value!r}")
        if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
            raise ValueError(f"Adversarial: scaler must be a torch.amp.GradScaler or None, got {described(scaler)}")
        check_generator("Adversarial", generator)
        if group is not None and not isinstance(group, getattr(torch.distributed, "ProcessGroup", ())):
            raise ValueError(
                "Adversarial: group must be a torch.distributed.ProcessGroup, which new_group() returns to its members "
                f"alone, or None, got {described(group)}"
            )
        self.D, self.group = D, group
        if isinstance(D, DistributedDataParallel):  # it takes one backward pass a step, and d_step has two
            self.D, self.group = D.module, D.process_group if group is None else group
        self.loss = sides
        self.weights = {name: float(weight) for name, weight in weights.items() if weight}
        self.penalty_interval, self.feature_matching = int(penalty_interval), float(feature_matching)
        self.level, self.logits, self.pack = level, logits, int(pack)
        self.scaler, self.generator = scaler, generator
        self.steps = 0  # of D, so far
        # Answers of `_parameters_learn` with which a D has made a step. Without features, True needs no look at D.
        self._passed: set[bool] = set() if self.feature_matching else {True}

    def d_step(self, real: Tensor, fake: Tensor, *, scale: float | Tensor = 1.0, **c: Any) -> dict[str, Tensor]:
        """Add the gradients of a step of D to .grad of its parameters.

        Autocast may be in force around the call. D runs in float32 where it is penalised.

        Args:
            real, fake: [N, ...]. No gradient goes back into `fake`. Without r2 and gp, real samples may have another
                shape than generated ones, if D returns logits of the same shapes for both.
            scale: a factor of all gradients, such as 1 / k for one of k passes.
            c: handed on to D.

        Returns:
            Means [] without a graph: the loss "D"; the weighted penalties "r1", "r2" and "gp" where they are due; and
            "logits/real" and "logits/fake". `scale` is in none of them.

        Raises:
            RuntimeError: torch.inference_mode() is on.
            ValueError: no samples, whose means would be NaN; other numbers of real than of generated samples, or
                integers beside generated floats; other shapes, where "r2" or "gp" joins both, or of their logits. Also
                where D would learn nothing, as no parameter of D requires a gradient; or where feature matching has a
                weight, and D returns no features with the arguments of this call.
                Both stay unseen with "r2" where D cannot be tried, as with a backward hook.
        """
        if type(scale) is not float or not isfinite(scale):
            check_factor("scale", scale)
        _check_samples("d_step", real=real, fake=fake)
        weights = {} if self.steps % self.penalty_interval else self.weights
        if real.shape != fake.shape:
            if real.shape[:1] != fake.shape[:1]:
                raise ValueError(f"d_step: want as many real as generated samples, got {len(real)} and {len(fake)}")
            if not weights.keys().isdisjoint(("r2", "gp")):
                got = f"{list(real.shape)} and {list(fake.shape)}"
                raise ValueError(f"d_step: r2 and gp want real and generated samples of one shape, got {got}")
        real, fake = detached(real), detached(fake)
        if fake.dtype != real.dtype:
            if fake.is_floating_point() and not real.is_floating_point():
                raise ValueError(f"d_step: want real in floating point, as fake is, got {real.dtype}")
            fake = fake.to(real.dtype)
        if self.pack != 1:
            real, fake = packed(real, self.pack), packed(fake, self.pack)
        if self.scaler is not None:
            scale = self.scaler.scale(torch.ones((), device=real.device)) * scale
        with _NOTHING if torch.is_grad_enabled() else torch.enable_grad():
            game = self._game(weights)
            learns = self._parameters_learn()
            if learns not in self._passed:
                game = self._judged(game, fake, c or None)
            fakes, reals, means = game.backward(real, fake, c or None, scale, means=True)
            self._passed.add(learns)
        if self.group is not None:
            _average(self.D, self.group)
        self.steps += 1
        for name, logits in ("logits/real", reals), ("logits/fake", fakes):
            means[name] = (
                logits.mean() if isinstance(logits, Tensor) else torch.cat([x.flatten() for x in logits]).mean()
            )
        return means

    def g_terms(self, fake: Tensor, real: Tensor | None = None, **c: Any) -> dict[str, Tensor]:
        """The terms of G, to be added to its loss: "G", and "features" with feature matching.

        D learns nothing from them, and computes no gradient of its weights. (A D with checkpoints of PyTorch must have
        requires_grad False until the backward pass has run.)

        Args:
            fake: [N, ...], with the graph of G.
            real: [N, ...], which relativistic losses and feature matching compare with.
            c: handed on to D.

        Returns:
            Means [], with a graph to `fake`. "features" has its weight.

        Raises:
            ValueError: no samples; or `real` or the features are wanted and there are none.
        """
        _check_samples("g_terms", fake=fake)
        reads_real = self.loss.generator_reads_real or bool(self.feature_matching)
        if real is None and reads_real:
            what = "this loss" if self.loss.generator_reads_real else "feature matching"
            raise ValueError(f"g_terms: {what} compares generated with real images: want g_terms(fake, real), got fake")
        if real is not None and reads_real:
            _check_samples("g_terms", real=real)
        if real is not None and self.loss.generator_reads_real and real.shape[:1] != fake.shape[:1]:
            raise ValueError(f"g_terms: want as many real as generated samples, got {len(real)} and {len(fake)}")
        game, given = self._game({}), c or None
        with _learning_nothing(self.D):
            of_fake = game.outputs(packed(fake, self.pack), given)
            with torch.no_grad():
                of_real = game.outputs(packed(real, self.pack), given) if real is not None and reads_real else None
        wide = torch.promote_types(fake.dtype, torch.float32)
        reals = of_real.for_loss(wide) if of_real is not None and self.loss.generator_reads_real else None
        terms = {"G": of_each_image(self.loss.generator, of_fake.for_loss(wide), reals).mean()}
        if self.feature_matching and of_real is not None:
            if not of_fake.features:
                raise _no_features("g_terms")
            terms["features"] = self.feature_matching * feature_matching(of_fake.features, of_real.features).mean()
        return terms

    def state_dict(self) -> dict[str, int]:
        """The number of steps so far, which says when penalties are due."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ValueError if `state` has not what `state_dict` returns."""
        steps: Any = state.get("steps") if isinstance(state, Mapping) else None
        if not _is_whole(steps, at_least=0):
            raise ValueError(f'load_state_dict: want {{"steps": whole number}} of state_dict(), got {state!r:.200}')
        self.steps = int(steps)

    def _parameters_learn(self) -> bool:
        """True if a parameter that is found in D requires a gradient."""
        found = self.D.parameters() if isinstance(self.D, nn.Module) else parameters_of(self.D, held=True)
        return any(p.requires_grad for p in found)

    def _judged(self, game: Game, fake: Tensor, c: Any) -> Game:
        """`game`, after `_judge` has seen what D returns. The step itself shows it for a D that cannot be tried."""
        outputs = _outputs_of_trial(game, fake, c)
        if outputs is None:
            return game._replace(judge=self._judge)
        self._judge(outputs)
        return game

    def _judge(self, outputs: Outputs) -> None:
        """Raise ValueError if D would learn nothing, or returns no features for feature matching.

        The logits tell, and not the parameters: D may learn by tensors that are no parameters, or that were not found.
        """
        if not any(logits.requires_grad for logits in outputs.logits):
            raise ValueError(
                "d_step: D would learn nothing, as none of its parameters requires a gradient: want "
                "D.requires_grad_(True) before the step; a D that stays as it is needs g_terms alone"
            )
        if self.feature_matching and not outputs.features:
            raise _no_features("d_step")

    def _game(self, weights: dict[str, float]) -> Game:
        options = self.penalty_interval, self.level, self.generator, self.logits
        return Game(self.D, self.loss, weights, *options)


def packed(img: Tensor, pack: int) -> Tensor:
    """[N / pack, pack * C, ...]"""
    if pack == 1:
        return img
    if img.ndim < 2 or len(img) % pack:
        raise ValueError(f"pack: N must be a multiple of {pack} in [N, C, ...], got {list(img.shape)}")
    return img.reshape(len(img) // pack, pack * img.shape[1], *img.shape[2:])


def _outputs_of_trial(game: Game, img: Tensor, c: Any) -> Outputs | None:
    """What D returns, which is put back. None for a D that is compiled or sharded, or that cannot run so."""
    if why_refused(game.D) is not None:
        return None
    before = Snapshot(game.D, img.device)
    try:
        with before:
            return game.outputs(img, c)
    except Exception:  # the step tells an error that is D's own
        return None
    finally:
        before.restore()


def _no_features(caller: str) -> ValueError:
    return ValueError(f"{caller}: feature_matching wants features, D returned logits alone: (logits, [features])")


def _check_samples(caller: str, **samples: Any) -> None:
    for name, img in samples.items():
        if not isinstance(img, Tensor) or img.ndim == 0 or img.is_complex():
            raise ValueError(
                f"{caller}: {name} must be a tensor [N, ...] in floating point or integers, got {described(img)}"
            )
        if len(img) == 0:
            raise ValueError(f"{caller}: {name} must have at least one sample, got {list(img.shape)}")


def _is_whole(value: Any, *, at_least: int) -> bool:
    return is_number(value) and at_least <= value < inf and value == int(value)


@contextlib.contextmanager
def _learning_nothing(D: Network) -> Iterator[None]:
    """Inside, no parameter of D requires a gradient."""
    learnt = [p for p in parameters_of(D) if p.requires_grad]
    try:
        for p in learnt:
            p.requires_grad_(False)
        yield
    finally:
        for p in learnt:
            p.requires_grad_(True)


def _average(D: Network, group: Any) -> None:
    """Average the gradients of D over the processes."""
    grads = [p.grad for p in parameters_of(D) if p.grad is not None]
    waiting = [torch.distributed.all_reduce(grad, group=group, async_op=True) for grad in grads]
    for each in waiting:
        each.wait()
    torch._foreach_div_(grads, torch.distributed.get_world_size(group))


_NOTHING = contextlib.nullcontext()
