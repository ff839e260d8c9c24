"""The part of a run before its first step: everything that is read and built, what is recorded, and the first lines."""

import datetime
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

import gan_engine
from gan_engine import backends
from gan_engine.config import Config
from gan_engine.data import ImageSet, describe
from gan_engine.runs import directory, ending, loggers
from gan_engine.saved_config import ANOTHER_RUN, require_same
from gan_engine.system import malloc, outside
from gan_engine.system.devices import choose_device
from gan_engine.system.names import counted, legible, listed
from gan_engine.training import inputs, memory, threads, transfer
from gan_engine.training.advice import advice
from gan_engine.training.distributed import Processes
from gan_engine.training.precision import products_line, remark, resolve
from gan_engine.training.trainer import Trainer
from gan_engine.training.transfer import TakenWeights
from gan_engine.training.watch import Watch


@dataclass(frozen=True)
class Start:
    """One start of a run, when everything is ready for the first step.

    Attributes:
        trainer: at the beginning of the run, or at the checkpoint `resumed`.
        data: of the run.
        resumed: the checkpoint from which the run goes on.
        initial: the checkpoint whose weights the run begins with.
        taken: the weights that each network has taken from `initial`.
        allocator: what was changed about the memory of the process.
        fewer_threads: why the run takes fewer threads than the CPU has cores.
    """

    trainer: Trainer
    data: ImageSet
    resumed: Path | None
    initial: Path | None
    taken: dict[str, TakenWeights]
    allocator: str | None
    fewer_threads: str | None = None

    @property
    def device(self) -> str:
        """The device, its model or number of threads, and the number of processes."""
        device, processes = self.trainer.device, self.trainer.processes
        what = torch.cuda.get_device_name(device) if device.type == "cuda" else threads.count()
        return f"{device} ({what}{f', {processes.size} processes' if processes.size > 1 else ''})"

    def entry(self) -> dict[str, Any]:
        """The entry of this start in run.json, in simple types."""
        return {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "kimg": self.trainer.nimg / 1000,
            "resumed_from": str(self.resumed) if self.resumed else None,
            "initialised_from": str(self.initial) if self.initial else None,
            "weights": {name: str(weights) for name, weights in self.taken.items()},
            "device": self.device,
            "threads": torch.get_num_threads(),
            "fewer_threads": self.fewer_threads,
            "precision": self.trainer.precision.name,
            "versions": {
                "gan_engine": gan_engine.__version__,
                "torch": torch.__version__,
                "numpy": numpy.__version__,
                "python": platform.python_version(),
            },
            "data": describe(self.data),
            "classes": list(self.data.class_names) if self.trainer.config.conditional else [],
            "memory": self.allocator,
            "graphs": self.trainer.graphs_line,
        }

    def lines(self) -> list[str]:
        """The first lines that the run prints."""
        trainer, config, data = self.trainer, self.trainer.config, self.data
        sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in (("G", trainer.G), ("D", trainer.D))}
        frozen = sum(p.numel() for p in trainer.networks.frozen)
        products = products_line(trainer.tf32, trainer.device)
        lines = [
            f"run        {legible(str(trainer.run_dir))}" + (f", from {self.resumed.name}" if self.resumed else ""),
            f"data       {describe(data)}",
            f"networks   {config.preset}: " + ", ".join(f"{name} of {num:,} parameters" for name, num in sizes.items()),
            *(f"plug-in    {legible(name)}: {outside.listing(name, config.outside)}" for name in config.plugin),
            *(
                f"weights    {name} of {legible(str(self.initial))}: {taken.line()}"
                for name, taken in self.taken.items()
            ),
            *([f"frozen     {counted(config.freeze_d, 'block')} of D, {frozen:,} parameters"] if frozen else []),
            f"device     {', '.join(filter(None, (self.device, trainer.precision.name, products)))}"
            f"{remark(trainer.precision.name, trainer.device)}",
            *([f"threads    {self.fewer_threads}"] if self.fewer_threads else []),
        ]
        if penalties := trainer.penalties():
            lines.append(f"penalties  {penalties}" + ("; in TF32" if products and trainer.tf32 else ""))
        if trainer.evaluation is not None:
            lines.append(f"evaluation {trainer.evaluation.line()}")
        if config.cuda_graphs and trainer.device.type == "cuda":
            lines.append(f"graphs     {trainer.graphs_line}")
        if self.allocator:
            lines.append(f"memory     {self.allocator}")
        if self.resumed is None:
            sentences = advice(config, data, [trainer.G, trainer.D]) + self._frozen_at_random()
            lines += [f"advice     {sentence}" for sentence in sentences]
        if trainer.clock.over:
            lines.append("the training is over; its last pictures and its report are missing, and are written now")
        return lines

    def _frozen_at_random(self) -> list[str]:
        """Advice about frozen blocks that have not taken all of their weights from `initial`."""
        if self.initial is None:
            return []
        trainer = self.trainer
        names = transfer.frozen_at_random(trainer.D, trainer.networks.frozen, self.taken["D"])
        if not names:
            return []
        kept = f"--freeze-d {trainer.config.freeze_d} keeps random weights: {listed(names, most=2)}"
        return [f"{kept}, not taken from {legible(str(self.initial))}; a smaller --freeze-d lets D learn"]


def prepare(
    config: Config,
    run_dir: Path,
    *,
    device: str,
    processes: Processes,
    resumed: Path | None = None,
    state: dict[str, Any] | None = None,
) -> Start:
    """Read the data, build the trainer, and load weights or a state.

    Args:
        config: the run.
        run_dir: its directory.
        device: as in `choose_device`.
        processes: that train together.
        resumed: the checkpoint from which the run goes on, and `state`, which it holds.

    Raises ValueError, RuntimeError or OSError for everything that stands against the run.
    """
    if processes.first:
        for name in config.loggers:
            with loggers.asked_for(name):
                loggers.require(name)
    if state is not None:
        require_same(state, config, resumed)  # the data may be read otherwise where the flags differ
    device = choose_device(device)
    resolve(config.pass_precision, device)  # refuses before the data are read
    initial = transfer.read(config.init_from, config.model) if config.init_from and state is None else None
    memory.require(config, device)
    fewer_threads = threads.choose(config.threads, alone_on_cpu=device.type == "cpu" and processes.size == 1)
    allocator = malloc.tune() if config.tune_malloc and device.type == "cpu" else None
    data = processes.one_per_machine_first(lambda: inputs.read(config))
    config = inputs.fitted(config, data)
    torch.backends.cudnn.benchmark = True  # batches have one shape all through a run
    if backends.asked() is not None:  # refuse here, and not in the first step, what this process cannot have
        x = torch.empty(1, device=device)
        for op in backends.ops():
            backends.choose(op, x)
    trainer = Trainer(config, data, device=device, run_dir=run_dir, processes=processes)
    taken = {} if initial is None else transfer.begin(trainer.G, trainer.D, trainer.G_ema, *initial)
    if state is not None:
        trainer.load_state_dict(state, source=resumed)
        _require_time_left(trainer, resumed)
        if trainer.health is not None and not trainer.clock.over:
            Watch(trainer.health, config, directory.home(resumed), nimg=trainer.nimg).require_healthy(resumed)
    return Start(
        trainer, trainer.data, resumed, None if initial is None else initial[0], taken, allocator, fewer_threads
    )


def _require_time_left(trainer: Trainer, resumed: Path) -> None:
    """Raise ValueError for a run that is over, unless it was killed before its report was written."""
    clock, config = trainer.clock, trainer.config
    fallen = f"; its learning rate has fallen to its end; {ANOTHER_RUN}"
    complete = clock.nimg == clock.total or (clock.out_of_time and clock.nimg < clock.total)
    if not clock.over or (complete and not ending.is_over(trainer.run_dir, resumed)):
        return
    if clock.out_of_time:
        trained = f"has trained {clock.seconds / 60:.3g} of {config.minutes:g} minutes"
        if config.lr_decay:
            raise ValueError(f"minutes: {resumed} {trained}{fallen}")
        raise ValueError(f"minutes: {resumed} {trained}; go on with a larger --minutes, or with --kimg")
    at = f"is at {clock.nimg / 1000:g} of {clock.total / 1000:g} kimg"
    raise ValueError(f"kimg: {resumed} {at}{fallen if config.lr_decay else '; go on with a larger --kimg'}")
