"""The trainer: it builds the parts of a run from a configuration and data, and puts them to work."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_engine import models, plugins
from gan_engine.config import Config
from gan_engine.data import ImageSet, held_out
from gan_engine.data.kinds import check_kind
from gan_engine.system.random_state import seed_all
from gan_engine.system.tf32 import tf32_products
from gan_engine.training import game, graphs
from gan_engine.training.average import Average
from gan_engine.training.batches import Batches
from gan_engine.training.checks import check_batches
from gan_engine.training.clock import Clock
from gan_engine.training.distributed import ALONE, Processes
from gan_engine.training.evaluation import Evaluation
from gan_engine.training.gradients import Gradients
from gan_engine.training.health import Health
from gan_engine.training.means import Means
from gan_engine.training.networks import Networks
from gan_engine.training.precision import Precision, resolve, takes_tf32
from gan_engine.training.run import Run
from gan_engine.training.samples import Samples
from gan_engine.training.schedule import due, optimizers, schedule, set_learning_rates
from gan_engine.training.state import State
from gan_engine.training.step import PhaseSteps
from gan_engine.training.stops import Stops


class Trainer:
    """Trains the networks of `config` on `data`.

    Two trainers with equal configuration and data do the same bit for bit on a CPU with an equal number of threads.
    This also holds if one of them goes on from the other's `state_dict`.

    Args:
        config: the run.
        data: images that fit config.model in resolution and channels.
        device: where to train.
        run_dir: for checkpoints and reports.
        processes: that train together, each with its part of every batch. All of them must call `step`, `run` and
            `state_dict` alike; the first one writes.

    Attributes:
        G, D, G_ema: the networks and the moving average of G.
        means: the means of what was measured since the last report.
        phases: the parts of a step, in their order.
        data: the images that the run learns from: `data` without images held out.
        evaluation: the measurements of --eval-kimg; None without them.
        health: the readings of --health-kimg; None without them, and in all processes but the first.
        verdict: why measurements or an alarm ended the run early; None if they did not.

    Raises ValueError if data and family do not fit, or if a batch cannot be dealt out to the processes. It is also
    raised if a pass has no groups for the minibatch statistic.
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
            torch.cuda.set_device(device)  # makes the stream and the memory of this device the current ones
        check_batches(config, processes)
        check_kind(data, models.data_kind(config.model), family=models.family(config.model))
        self.data, unseen = held_out.split(data, config.held_out, seed=config.seed)
        data = self.data
        self.clock, self.means = Clock(config), Means()
        self._build_networks(data)
        self._build_game()
        self.batches = Batches(config, data, self.networks, device=device, processes=processes)
        self.shown = Samples(config, data, self.G_ema, self.objective, self.batches)
        self._build_steps()
        measured = config.eval_kimg is not None
        self.evaluation = Evaluation(config, data, self.G_ema, run_dir, processes) if measured else None
        self.health = None
        if config.health_kimg is not None and processes.first:
            self.health = Health(config, data, unseen, self.networks, self.objective, self.batches, self.precision)
        self.verdict: str | None = None
        self._state = State(
            config=config,
            class_names=data.class_names if config.conditional else (),
            networks={"G": self.G, "D": self.D, "G_ema": self.G_ema},
            optimizers=self.optimizers,
            objective=self.objective,
            precision=self.precision,
            batches=self.batches,
            means=self.means,
            ada=self.ada,
            gamma=self.gamma,
            penalty_generator=self.penalty_generator,
            clock=self.clock,
            processes=processes,
        )

    def _build_networks(self, data: ImageSet) -> None:
        config, rank = self.config, self.processes.rank
        self.networks = Networks(config, self.device, dimensions=data.images.ndim)
        self.G, self.D = self.networks.G, self.networks.D
        self.average = Average(self.G, config)
        self.G_ema = self.average.G_ema
        plugins.try_networks(config, self.G_ema, self.D)
        self.networks.freeze(config)
        if rank:  # the weights above are equal in all processes; from here on each draws numbers of its own
            seed_all(config.seed + rank * 1_000_003)

    def _build_game(self) -> None:
        config, seed = self.config, self.config.seed + (self.processes.rank + 1) * 1_000_003
        self.ada = game.ada_of(config, self.processes)
        self.penalty_generator = torch.Generator().manual_seed(seed)
        self.gamma = game.gamma_of(config, self.device, self.processes)
        self.objective = game.build(config, self.networks, self.means, self.ada, self.gamma, self.penalty_generator)
        self.optimizers = optimizers(config, self.G, self.D)
        self.phases = schedule(config, self.objective, self.G, self.D, self.optimizers)

    def _build_steps(self) -> None:
        config, networks, batches = self.config, self.networks, self.batches
        self.precision = Precision(resolve(config.pass_precision, self.device), self.device)
        self.gradients = Gradients(batches, self.precision, self.means)
        self.stops = Stops(networks, batches, self.precision, self.clock, self.processes)
        self.phase_steps = PhaseSteps(
            networks=networks,
            average=self.average,
            objective=self.objective,
            gradients=self.gradients,
            precision=self.precision,
            stops=self.stops,
            means=self.means,
            ada=self.ada,
            gamma=self.gamma,
            clock=self.clock,
            processes=self.processes,
        )
        no_graphs = "not asked for"
        if config.cuda_graphs:
            no_graphs = graphs.refusal(self.device, self.processes, config.outside)
        self.graphs_line = f"none: {no_graphs}" if no_graphs else graphs.describe(self.phases)
        if no_graphs is None:
            self.phase_steps.record(self.phases)

    @property
    def nimg(self) -> int:
        """Real images shown so far."""
        return self.clock.nimg

    @property
    def step_count(self) -> int:
        return self.clock.step_count

    @property
    def tf32(self) -> bool:
        """True if products in float32 are in TF32."""
        return takes_tf32(self.config.tf32, self.precision.name, self.device)

    @property
    def columns(self) -> int:
        """Columns of a grid of `samples`."""
        return self.shown.columns

    def step(self) -> None:
        """Every phase that is due, on one batch of real images; then the moving average.

        Raises NonFiniteError where a loss or gradient is not finite, on a GPU one phase later.
        """
        config, clock = self.config, self.clock
        with tf32_products(self.tf32):
            images = self.batches.images()
            set_learning_rates(self.optimizers, done=clock.done, lr_decay=config.lr_decay)
            self.average.prepare(clock.nimg)
            for phase, penalised, last in due(self.phases, clock.step_count, pretraining=clock.pretraining):
                batch = self.batches.with_noise(*images)
                self.phase_steps.take(phase, batch, penalised=penalised, last=last)
            if self.ada is not None:
                self.ada.update(config.batch_size)
            if self.gamma is not None and not clock.pretraining:
                self.gamma.update(config.batch_size)
            clock.advance()

    def run(self) -> int | None:
        """Train up to config.kimg or config.minutes, reporting and saving on the way.

        Returns:
            None at the end, or the number of the signal (SIGINT, SIGTERM) that ended the run early, its state saved.

        Raises:
            NonFiniteError: a loss or gradient was not finite; the last checkpoint is from before.
        """
        return Run(self).carry_out()

    def samples(self) -> Tensor:
        """Images [N, C, H, W] of G_ema in [-1, 1]; see `samples.Samples.images`."""
        return self.shown.images()

    def read_means(self, *, keep: bool = False) -> dict[str, float]:
        """The means since the last call, over all processes, and what adapts now: the probability of ada, and the
        weights of R1 and R2. `keep` as in Means.read."""
        found = self.means.read(self.processes, keep=keep)
        return found | ({} if self.ada is None else {"ada/p": self.ada.p}) | (self.gamma.weights if self.gamma else {})

    def penalties(self) -> str | None:
        """The gradient penalties and how they are computed, or None."""
        image = self.batches.sampler.images.shape[1:]
        return game.describe_penalties(self.config, self.objective, self.D, image)

    def heed_stops(self) -> None:
        """Raise NonFiniteError if any phase so far met a value that is not finite."""
        self.stops.heed()

    def agree_on_buffers(self) -> None:
        """Give all processes, and G_ema, the mean of the running statistics."""
        if self.processes.size > 1:
            self.networks.average_buffers(self.processes)
            self.average.copy_buffers()

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened; simple types and tensors."""
        self.agree_on_buffers()
        return self._state.state_dict()

    def load_state_dict(self, state: dict[str, Any], *, source: str | Path = "state") -> None:
        """Go on from a `state_dict`, which messages call `source`, in the precision of its run.

        Raises ValueError if the configuration does not fit, with its fields, or if the data do not fit. Raises
        CheckpointError if entries are missing or of another kind. Nothing has changed then.
        """
        self._state.load_state_dict(state, source)
        self.stops.forget()
        if self.phase_steps.graphs:  # they hold the moments and the loss scale of before
            self.phase_steps.record(self.phases)
