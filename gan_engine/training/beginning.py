"""The start of a run: what run.json keeps of it, and the lines that a person reads."""

import datetime
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

import gan_engine
from gan_engine import backends
from gan_engine.data import ImageSet, describe
from gan_engine.system import outside
from gan_engine.system.names import legible
from gan_engine.training.advice import advice
from gan_engine.training.trainer import Trainer
from gan_engine.training.transfer import Taken


@dataclass(frozen=True)
class Start:
    """A start of a run, when everything is ready for the first step.

    Attributes:
        trainer: at the beginning of the run, or where it goes on.
        data: of the run.
        resumed: the checkpoint that it goes on from.
        initial: the checkpoint whose weights it begins with, and `taken`, what of them.
        allocator: what was changed about the memory of the process.
        ops: the backend of each op.
    """

    trainer: Trainer
    data: ImageSet
    resumed: Path | None
    initial: Path | None
    taken: dict[str, Taken]
    allocator: str | None
    ops: dict[str, str]

    @property
    def device(self) -> str:
        """With what it is."""
        device, processes = self.trainer.device, self.trainer.processes
        what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
        return f"{device} ({what}{f', {processes.size} processes' if processes.size > 1 else ''})"

    def entry(self) -> dict[str, Any]:
        """What run.json says of this start, in plain types."""
        return {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "kimg": self.trainer.nimg / 1000,
            "resumed_from": str(self.resumed) if self.resumed else None,
            "initialised_from": str(self.initial) if self.initial else None,
            "weights": {name: str(of) for name, of in self.taken.items()},
            "device": self.device,
            "precision": self.trainer.precision.name,
            "versions": {
                "gan_engine": gan_engine.__version__,
                "torch": torch.__version__,
                "numpy": numpy.__version__,
                "python": platform.python_version(),
            },
            "data": describe(self.data),
            "memory": self.allocator,
            "ops": self.ops,
            "graphs": self.trainer.graphs_line,
        }

    def lines(self) -> list[str]:
        """The first lines that the run prints."""
        trainer, config, data = self.trainer, self.trainer.config, self.data
        sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in (("G", trainer.G), ("D", trainer.D))}
        frozen = sum(p.numel() for p in trainer.networks.frozen)
        lines = [
            f"run        {legible(str(trainer.run_dir))}" + (f", from {self.resumed.name}" if self.resumed else ""),
            f"data       {describe(data)}",
            f"networks   {config.preset}, " + ", ".join(f"{name} {num:,}" for name, num in sizes.items()),
            *(f"plug-in    {legible(name)}: {', '.join(outside.of(name, config.outside))}" for name in config.plugin),
            *(f"weights    {name} of {legible(f'{self.initial}: {of}')}" for name, of in self.taken.items()),
            *([f"frozen     {config.freeze_d} blocks of D, {frozen:,} parameters"] if frozen else []),
            f"device     {self.device}, {trainer.precision.name}",
        ]
        if penalties := trainer.penalties():
            lines.append(f"penalties  {penalties}")
        if config.cuda_graphs:
            lines.append(f"graphs     {trainer.graphs_line}")
        if self.allocator:
            lines.append(f"memory     {self.allocator}")
        lines.append(f"ops        {_by_backend(self.ops)}; python -m gan_engine.info says why")
        if self.resumed is None:
            lines += [f"advice     {sentence}" for sentence in advice(config, data, [trainer.G, trainer.D])]
        if trainer.nimg >= trainer.clock.total:
            lines.append("the training is over; what was not written is written now: the last pictures and the report")
        return lines


def _by_backend(ops: dict[str, str]) -> str:
    """All on one backend, or those of each."""
    of_backend = {name: [op for op, chosen in ops.items() if chosen == name] for name in backends.ORDER}
    *others, (most, _) = sorted(of_backend.items(), key=lambda item: len(item[1]))
    return f"{most}" + "".join(f", {name} for {', '.join(chosen)}" for name, chosen in others if chosen)
