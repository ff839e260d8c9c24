"""The training loop: phases over batches, one place each for accumulation, precision, EMA, checkpoints and reports."""

import copy
import math
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from gan_engine import models, plugins
from gan_engine.augment import Ada, Augmented, diff_augment
from gan_engine.command_line import console
from gan_engine.config import Config, differences, from_dict, to_dict
from gan_engine.data import ImageSet, Sampler
from gan_engine.data.kinds import check_kind
from gan_engine.losses import penalties
from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.families import objective_of
from gan_engine.losses.objective import Batch
from gan_engine.ops.minibatch_stddev import group_of
from gan_engine.runs import run_state
from gan_engine.runs.monitors import Monitors
from gan_engine.system import checkpoint
from gan_engine.training import graphs, nonfinite, progress, transfer
from gan_engine.training.distributed import ALONE, Processes
from gan_engine.training.precision import Precision, resolve, tf32_products
from gan_engine.training.schedule import Means, Phase, optimizers, schedule

# By the number of dimensions of a batch: of images, and of volumes.
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}

_EXAMPLES = 16  # images that a grid of translations shows


class Trainer:
    """Trains the networks of `config` on `data`.

    Two trainers with equal configuration and data do the same bit for bit on a CPU with an equal number of threads,
    also if one of them goes on from the other's `state_dict`.

    Args:
        config: the run.
        data: images that fit config.model in resolution and channels.
        device: where to train.
        run_dir: for checkpoints and reports.
        processes: that train together, each with its part of every batch. All of them must call `step`, `run` and
            `state_dict` alike; the first one writes.

    Raises ValueError where a batch cannot be dealt out to the processes, or a pass of it to the minibatch statistic.
    """

    def __init__(
        self,
        config: Config,
        data: ImageSet,
        *,
        device: torch.device,
        run_dir: Path,
        processes: Processes = ALONE,
    ) -> None:
        self.config = config = plugins.admitted(config)
        self.device, self.run_dir, self.processes = device, run_dir, processes
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # whose stream and memory are then the current ones
        if config.batch_size % processes.size:
            raise ValueError(f"batch_size: want a multiple of the {processes.size} processes, got {config.batch_size}")
        self._check_groups()
        check_kind(data, models.data_kind(config.model), family=models.family(config.model))
        self.class_names = data.class_names if config.conditional else ()
        torch.manual_seed(config.seed)
        G, D = models.build(config.model)
        self.layout = _LAYOUTS[data.images.ndim] if config.channels_last else torch.contiguous_format
        self.G = G.to(device, memory_format=self.layout)
        self.D = D.to(device, memory_format=self.layout)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        plugins.try_networks(config, self.G_ema, self.D)
        self.frozen = transfer.frozen(self.D, config.freeze_d, models.family(config.model))
        if processes.rank:  # equal weights above; noise of its own from here on
            torch.manual_seed(config.seed + processes.rank * 1_000_003)

        self.means = Means()
        self.ada = None
        if config.augment == "ada":
            self.ada = Ada(
                config.ada_groups, target=config.ada_target, adjust_kimg=config.ada_kimg, total=processes.sum
            )
        # Noise is drawn on the CPU: the same numbers on every device, in a state that is easily kept. Every process
        # draws that of the whole batch; the numbers of penalties are its own.
        self.z_generator = torch.Generator().manual_seed(config.seed)
        self.penalty_generator = torch.Generator().manual_seed(config.seed + (processes.rank + 1) * 1_000_003)
        self.objective = objective = objective_of(
            models.family(config.model), models.capabilities(config.model).objective
        )(
            self.G,
            self._seen_by_D(),
            LOSSES[config.loss],
            self._observe,
            r1_gamma=config.r1_gamma,
            r2_gamma=config.r2_gamma,
            gp_weight=config.gp_weight,
            penalty_interval=config.penalty_interval,
            pl_weight=config.pl_weight,
            pl_batch_shrink=config.pl_batch_shrink,
            class_weight=getattr(config.model, "class_weight", 0),
            rng=self.penalty_generator,
        )
        if config.augment != "none":  # which transforms are drawn changes from pass to pass, and with it the level
            objective.level = 1
        self.optimizers = optimizers(config, self.G, self.D)
        self.phases = schedule(config, objective, self.G, self.D, self.optimizers)
        self.precision = Precision(resolve(config.precision, device), device)
        deal = {"rank": processes.rank, "world_size": processes.size, "device": device, "mirror": config.mirror}
        self.sampler = Sampler(data, config.batch_size // processes.size, seed=config.seed, **deal)
        # Samplers of one seed give the same order: it is what keeps pairs together.
        self.source_sampler = None
        if data.source is not None:
            seed = config.seed if data.paired else config.seed + 1
            self.source_sampler = Sampler(data.source, config.batch_size // processes.size, seed=seed, **deal)
        self.examples = self._examples(data)
        no_graphs = graphs.refusal(config, device, processes) if config.cuda_graphs else "not asked for"
        self.graphs_line = f"none: {no_graphs}" if no_graphs else graphs.describe(self.phases)
        self.graphs: dict[str, graphs.Recorded] = {}
        if no_graphs is None:
            self._record_from_here_on()
        self.step_count = self.nimg = 0
        self.seconds = 0.0

        self.stop = torch.zeros((), device=device)  # becomes 1 at the first value that is not finite
        self._unread: list[tuple[Tensor, Any, Phase, Batch]] = []

    def _check_groups(self) -> None:
        """Refuse a pass without groups for the minibatch statistic, and warn of groups smaller than those of the batch.

        Raises ValueError, which says what sizes make that pass.
        """
        config = self.config
        group = getattr(config.model, "mbstd_group", 1)
        share = config.batch_size // self.processes.size
        size = min(config.batch_gpu or share, share)
        passes = {size, share % size or size}  # the last one may be smaller
        for images in sorted(passes):
            if group_of(images, group) == 1 < min(images, group):
                of = f"batch_size {config.batch_size}" + (f" and batch_gpu {size}" if size < share else "")
                of += f" in {self.processes.size} processes" if self.processes.size > 1 else ""
                raise ValueError(
                    f"batch_size: want passes that split into equal groups of 2 to {min(images, group)} images "
                    f"(mbstd_group {group}) for the minibatch statistic of D, got a pass of {images} images by {of}"
                )
        of_pass = min(group_of(images, group) for images in passes)
        of_batch = group_of(config.batch_size, group)
        if of_pass < of_batch and self.processes.first:
            warnings.warn(
                f"the minibatch statistic of D is over groups of {of_pass} images, as many as a pass of a process has; "
                f"a batch of {config.batch_size} in one pass makes groups of {of_batch}",
                stacklevel=2,
            )

    def _seen_by_D(self) -> nn.Module:
        """D behind the augmentation, for what generated and real images it is given in any phase."""
        if self.config.augment == "none":
            return self.D
        return Augmented(self.D, self.ada or diff_augment)

    def _observe(self, name: str, values: Tensor) -> None:
        self.means.add(name, values)
        if self.ada is not None and name == "logits/real":
            self.ada.observe(values)
            self.means.add("ada/r_t", values.sign())

    # One step

    def step(self) -> None:
        """Every phase that is due, on one batch of real images; then the moving average."""
        with tf32_products(self.config.tf32):
            self._step()

    def _step(self) -> None:
        real_img, c = next(self.sampler)
        real_img = real_img.contiguous(memory_format=self.layout)
        c = c if self.config.conditional else None
        source = self._source(real_img, self.source_sampler)
        self._set_rates()
        for phase in self.phases:
            if phase.due(self.nimg, self.step_count):
                self._train(phase, Batch(real_img, self._noise(len(real_img)), c, source))
        self._average()
        if self.ada is not None:
            self.ada.update(self.config.batch_size)
        self.step_count += 1
        self.nimg += self.config.batch_size

    def _source(self, real_img: Tensor, sampler: Sampler | None) -> Tensor | None:
        """What G starts from if it translates images: those that the data have for it, or what it makes of the real."""
        if sampler is not None:
            return next(sampler)[0].contiguous(memory_format=self.layout)
        return self.G.source_of(real_img) if hasattr(self.G, "source_of") else None

    def _set_rates(self) -> None:
        """Of the optimisers: those that they began with, falling linearly to 0 in the last part of the run."""
        if self.config.lr_decay:
            left = (1 - self.nimg / self.total) / self.config.lr_decay
            for optimizer in self.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = optimizer.defaults["lr"] * min(1, left)

    def _train(self, phase: Phase, batch: Batch) -> None:
        self._learn_only(phase.net)
        phase.optimizer.zero_grad(set_to_none=True)
        penalised = phase.penalties_due(self.step_count)
        if penalised or phase.name not in self.graphs:
            total, measured = self._gradients(phase, batch, penalised=penalised)
        else:
            total, measured = self.graphs[phase.name](batch)
        self.means.merge(measured)
        grads = [p.grad for p in phase.net.parameters() if p.grad is not None]
        self.processes.average_([*grads, total, self.objective.pl_mean])  # each has met its own path lengths
        self.precision.unscale(phase.optimizer)
        norm = torch.nn.utils.get_total_norm(grads)
        self.means.add(f"grad_norm/{phase.name}", norm)
        finite = total.isfinite() & self.precision.bears(norm)
        self.stop = torch.maximum(self.stop, (~finite).float())
        self.precision.step(phase.optimizer, self.stop)
        if phase.weight_clip is not None:
            with torch.no_grad():
                learnt = [p for p in phase.net.parameters() if p.requires_grad]
                torch._foreach_clamp_min_(learnt, -phase.weight_clip)
                torch._foreach_clamp_max_(learnt, phase.weight_clip)
        self._note_stop(phase, batch)

    def _learn_only(self, net: nn.Module) -> None:
        """Gradients are for this network, but for what is frozen of it."""
        for phase in self.phases:
            phase.net.requires_grad_(phase.net is net)
        for p in self.frozen:
            p.requires_grad_(False)

    def _gradients(self, phase: Phase, batch: Batch, *, penalised: bool = False) -> tuple[Tensor, Means]:
        """The loss of a phase and what was measured on the way; gradients are added to .grad."""
        total = torch.zeros((), device=self.device)
        kept, self.means = self.means, Means()
        try:
            for part in self._parts(batch):
                total += self._part_gradients(phase, part, len(part.real_img) / len(batch.real_img), penalised)
            return total, self.means
        finally:
            self.means = kept

    def _record_from_here_on(self) -> None:
        of_run: list[graphs.Recorded] = []
        for phase in self.phases:
            if phase.no_graph is None:
                gradients = partial(self._gradients, phase)
                self.graphs[phase.name] = graphs.Recorded(gradients, phase, [self.G, self.D], of_run)

    def _part_gradients(self, phase: Phase, part: Batch, share: float, penalised: bool) -> Tensor:
        share *= phase.weight
        with self.precision.autocast():
            step = phase.step(part, penalised=penalised)
        terms = step.backward(self.precision.scale(share))
        for name, values in terms.items():
            self.means.add(f"loss/{name}", values)
        return sum(values.mean() for values in terms.values()) * share

    def penalties(self) -> str | None:
        """What gradient penalties there are and how they are computed, or None."""
        config = self.config
        paths = f"path length {config.pl_weight:g} every {config.pl_interval} steps" if config.pl_weight else None
        if not self.objective.weights:
            return paths
        img = torch.zeros(2, *self.sampler.images.shape[1:], device=self.device)
        c = torch.eye(config.model.c_dim, device=self.device)[[0, 0]] if config.conditional else None
        augmented = config.augment != "none"
        reason = "its images are augmented" if augmented else penalties.refusal(self.D, img, c)
        how = "level 2" if reason is None else f"level 1, as level 2 does not hold for D: {reason}"
        names = ", ".join(f"{name} {weight:g}" for name, weight in self.objective.weights.items())
        every = f" every {config.penalty_interval} steps" if config.penalty_interval > 1 else ""
        return f"{names}{every}; {how}" + (f"; {paths}" if paths else "")

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """The batch in passes of batch_gpu images. Batch norms see one pass at a time."""
        size = self.config.batch_gpu or len(batch.real_img)
        for i in range(0, len(batch.real_img), size):
            yield Batch(*(None if values is None else values[i : i + size] for values in batch))

    def _noise(self, num: int) -> Tensor:
        """z [num, z_dim]: this process's part of what is drawn for all."""
        rank, size = self.processes.rank, self.processes.size
        z = torch.randn(num * size, self.config.model.z_dim, generator=self.z_generator)
        return z[rank::size].to(self.device, non_blocking=True)

    @torch.no_grad()
    def _average(self) -> None:
        """G_ema <- beta G_ema + (1 - beta) G with beta = 0.5^(batch / half-life); buffers are copied.

        The half-life is ema_kimg, but at most ema_rampup times the images shown before this step.
        """
        config = self.config
        half_life = 1000 * config.ema_kimg
        if config.ema_rampup is not None:
            half_life = min(half_life, config.ema_rampup * self.nimg)
        beta = 0.5 ** (config.batch_size / half_life) if half_life else 0.0
        torch._foreach_lerp_(list(self.G_ema.parameters()), list(self.G.parameters()), 1 - beta)
        buffers = list(self.G.buffers())
        if buffers:
            torch._foreach_copy_(list(self.G_ema.buffers()), buffers)

    def _note_stop(self, phase: Phase, batch: Batch) -> None:
        """Remember `stop` after this phase, and heed it: on a CPU at once, on a GPU one phase later.

        `stop` has kept the weights as they were, so there is time: to read it at once would leave a GPU idle until the
        host has the answer and has launched the next phase.
        """
        done = None
        copied = self.stop.to("cpu", non_blocking=True)
        if self.device.type == "cuda":
            done = torch.cuda.Event()
            done.record()
        self._unread.append((copied, done, phase, batch))
        self._heed_stops(leave=0 if done is None else 1)

    def _heed_stops(self, *, leave: int = 0) -> None:
        """Raise NonFiniteError if a phase met a value that is not finite; the last `leave` phases are not asked yet."""
        while len(self._unread) > leave:
            copied, done, phase, batch = self._unread.pop(0)
            if done is not None:
                done.synchronize()
            if copied.item():
                self._report_stop(phase, batch)

    def _report_stop(self, phase: Phase, batch: Batch) -> NoReturn:
        self._learn_only(phase.net)
        found = None
        for part in self._parts(batch):
            with self.precision.autocast():
                found = found or nonfinite.trace({"G": self.G, "D": self.D}, partial(phase.terms, part))
        found = next(filter(None, self.processes.all(found)), None)
        raise nonfinite.NonFiniteError(
            f"phase {phase.name} met a value that is not finite at {self.nimg / 1000:g} kimg, step {self.step_count};\n"
            f"{found or 'not seen again when the step was computed once more, without penalties'}"
        )

    # A run

    @property
    def total(self) -> int:
        """Images of the whole run: config.kimg in whole batches."""
        return math.ceil(1000 * self.config.kimg / self.config.batch_size) * self.config.batch_size

    def run(self) -> int | None:
        """Train up to config.kimg, reporting and saving on the way.

        Returns:
            None at the end, or the number of the signal (SIGINT, SIGTERM) that ended the run early, its state saved.

        Raises:
            NonFiniteError: a loss or gradient was not finite; the last checkpoint is from before.
        """
        config = self.config
        keeper = monitors = None
        if self.processes.first:
            keeper = checkpoint.Keeper(self.run_dir, config.keep, nimg=self.nimg)
            monitors = Monitors(self.run_dir, tensorboard=config.tensorboard, resume_nimg=self.nimg)
        sums = self.processes.all(sum(float(p.detach().double().sum()) for p in self.G.parameters()))
        if len(set(sums)) > 1:
            raise RuntimeError(f"the processes must begin with equal weights, but those of G sum up to {sums}")
        whole = True  # between two steps, when all that is to be saved belongs together
        try:
            with console.unbroken(), console.signals() as caught, self._bar() as bar:
                if self.nimg == 0 or self.nimg >= self.total:
                    self._show(monitors)
                last = done = self.nimg >= self.total
                number = 0
                while not last:
                    whole, started = False, time.perf_counter()
                    self.step()
                    whole, self.seconds = True, self.seconds + time.perf_counter() - started
                    bar.update(config.batch_size)
                    done = self.nimg >= self.total
                    number = self.processes.max(caught[0] if caught else 0)
                    last = done or bool(number)
                    if last and not done:
                        bar.write(f"{signal.Signals(number).name}: saving; once more aborts", file=sys.stderr)
                    if done or self._due(config.metrics_kimg):
                        means = self.means.read(self.processes) | ({} if self.ada is None else {"ada/p": self.ada.p})
                        losses = {name: f"{mean:.3f}" for name, mean in means.items() if name.startswith("loss/")}
                        bar.set_postfix(losses, refresh=False)
                        if monitors is not None:
                            monitors.scalars(self.nimg, means | {"seconds": self.seconds})
                    if last or self._due(config.checkpoint_kimg):
                        self._save(keeper)
                    if last or self._due(config.grid_kimg):
                        self._show(monitors)
        except nonfinite.NonFiniteError as error:
            if monitors is None:
                raise
            monitors.close()
            raise nonfinite.NonFiniteError(f"{error}\nlast good checkpoint: {keeper.newest() or 'none yet'}") from None
        except checkpoint.CheckpointError:
            raise
        except Exception:
            if whole and self.nimg and self.processes.size == 1:  # others may not be between two steps
                self._save(keeper)
            raise
        if monitors is not None:
            monitors.close()
        return number or None

    def _bar(self) -> progress.tqdm | progress.Lines:
        return progress.bar(total=self.total, initial=self.nimg, name=self.config.preset, shown=self.processes.first)

    def _save(self, keeper: checkpoint.Keeper | None) -> None:
        self._heed_stops()
        state = self.state_dict()
        if keeper is not None:
            keeper.save(self.nimg, state)

    def _show(self, monitors: Monitors | None) -> None:
        self._agree_on_buffers()
        if monitors is not None:
            with monitors.watching("samples"):
                monitors.grid(self.nimg, self.samples(), columns=self.columns)

    def _agree_on_buffers(self) -> None:
        """Running statistics, which every process takes of its own images, become their means."""
        if self.processes.size > 1:
            buffers = [buffer for net in (self.G, self.D) for buffer in net.buffers() if buffer.is_floating_point()]
            self.processes.average_(buffers)
            for ours, theirs in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
                ours.copy_(theirs)

    def _due(self, kimg: float) -> bool:
        """Whether this step passed a multiple of `kimg`."""
        every = 1000 * kimg
        return self.nimg // every > (self.nimg - self.config.batch_size) // every

    @property
    def columns(self) -> int:
        """Of a grid of `samples`."""
        if self.examples is not None:
            return _EXAMPLES // 2
        return max(8, min(self.config.model.c_dim, 10)) if self.config.conditional else 8

    def _examples(self, data: ImageSet) -> Batch | None:
        """The images of all grids of samples, for a G that translates images."""
        real_img = next(Sampler(data, _EXAMPLES, seed=self.config.seed))[0].to(self.device)
        source_sampler = None if data.source is None else Sampler(data.source, _EXAMPLES, seed=self.config.seed)
        source = self._source(real_img, source_sampler)
        return None if source is None else Batch(real_img, self._noise(0), None, source.to(self.device))

    @torch.no_grad()
    def samples(self) -> Tensor:
        """Images [N, C, H, W] of G_ema from noise that is the same all through a run; one row for each class.

        Of volumes: pictures of them.

        Of a G that translates images: rows of sources, of its images and of targets, again and again.
        """
        if self.examples is not None:
            rows = (images.split(self.columns) for images in self.objective.rows(self.G_ema, self.examples))
            return torch.cat([images for block in zip(*rows, strict=True) for images in block])
        c_dim, z_dim = self.config.model.c_dim, self.config.model.z_dim
        rows = min(c_dim, 10) if self.config.conditional else 8
        z = torch.randn(rows * self.columns, z_dim, generator=torch.Generator().manual_seed(self.config.seed))
        c = None
        if self.config.conditional:
            c = torch.eye(c_dim)[:rows].repeat_interleave(self.columns, 0).to(self.device)
        return models.pictures(self.config.model, self.G_ema(z.to(self.device), c))

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened; plain types and tensors."""
        self._agree_on_buffers()
        return self._common_state() | {"processes": self.processes.all(self._own_state())}

    def _own_state(self) -> dict[str, Any]:
        return {
            "rng": checkpoint.rng_state(),
            "penalty_generator": self.penalty_generator.get_state(),
            "objective": self.objective.state_dict(),
            "means": dict(self.means.sums),
            **({} if self.ada is None else {"ada": self.ada.state_dict()}),
        }

    def _common_state(self) -> dict[str, Any]:
        return {
            "config": to_dict(self.config),
            "model": models.to_dict(self.config.model),
            "class_names": list(self.class_names),
            "nimg": self.nimg,
            "step_count": self.step_count,
            "seconds": self.seconds,
            "precision": self.precision.name,
            "threads": torch.get_num_threads(),
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "G_ema": self.G_ema.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": self.precision.state_dict(),
            "z_generator": self.z_generator.get_state(),
            "sampler": self.sampler.state_dict(),
            "source_sampler": None if self.source_sampler is None else self.source_sampler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], *, source: str | Path = "state") -> None:
        """Go on from a `state_dict`, which messages call `source`, in the precision of its run.

        Raises ValueError that lists the fields of a configuration that does not fit, or says that the data do not, and
        CheckpointError where entries are missing or of another kind. Nothing has changed then.
        """
        common, fresh = self._common_state(), self._own_state()
        checkpoint.require(state, (*common, "processes"), source)
        rank, saved = self.processes.rank, run_state.processes(state, source)
        own = saved[min(rank, len(saved) - 1)]
        checkpoint.require(own, fresh, source)
        changed = differences(to_dict(from_dict(state["config"], source)), to_dict(self.config))
        if changed:
            raise ValueError("\n  ".join(["a resumed run keeps its configuration, but these differ:", *changed]))
        precision = Precision(resolve(state["precision"], self.device), self.device)
        like = run_state.of_run(
            common | {"scaler": precision.state_dict()}, fresh, self.optimizers, self.sampler.images.shape[1:]
        )
        run_state.check(state, like, "", source)
        self.sampler.load_state_dict(state["sampler"])
        if self.source_sampler is not None:
            self.source_sampler.load_state_dict(state["source_sampler"])
        self.precision = precision
        if self.device.type == "cpu" and state["threads"] != torch.get_num_threads():
            warnings.warn(
                f"the run had {state['threads']} threads, now {torch.get_num_threads()}: what follows equals an "
                "uninterrupted run up to rounding only",
                stacklevel=2,
            )
        for name in ("G", "D", "G_ema"):
            getattr(self, name).load_state_dict(state[name])
        for name, optimizer in self.optimizers.items():
            options = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state["optimizers"][name]["state"], "param_groups": options})
            # Moments come in the layout they were saved in; fused optimisers take them to be in that of their weights.
            for p, moments in optimizer.state.items():
                moments |= {k: torch.empty_like(p).copy_(v) for k, v in moments.items() if v.shape == p.shape}
        self.objective.load_state_dict(own["objective"])
        self.precision.load_state_dict(state["scaler"])
        if self.graphs:  # which would scale by the loss scale of before
            self._record_from_here_on()
        self.z_generator.set_state(state["z_generator"])
        self.nimg, self.step_count, self.seconds = state["nimg"], state["step_count"], state["seconds"]
        if len(saved) != self.processes.size and self.processes.first:
            warnings.warn(
                f"the run had {len(saved)} processes, now {self.processes.size}: images and latents go on as they "
                "were, but not the noise that a process draws by itself",
                stacklevel=2,
            )
        if self.ada is not None:
            self.ada.load_state_dict(own["ada"])
        if rank < len(saved):
            self.means.sums = {name: (total.to(self.device), count) for name, (total, count) in own["means"].items()}
            self.penalty_generator.set_state(own["penalty_generator"])
            checkpoint.set_rng_state(own["rng"])
        else:
            torch.manual_seed(self.config.seed + rank * 1_000_003 + self.nimg)
