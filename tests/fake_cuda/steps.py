"""Steps of training runs on the fake device: what they did wrong, and what they did there.

    python -m tests.fake_cuda.steps NAME ...        a line of JSON for each run; "NAME: MUTANT" makes a mistake

It runs in a process of its own, because the fake device changes PyTorch.
"""

import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.fake_cuda.device import FakeCuda, FakeCudaError, torch  # isort: skip
from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import ImageSet
from gan_engine.data.kinds import kind_of
from gan_engine.training.schedule import ever_due
from gan_engine.training.trainer import Trainer
from tests.fake_cuda.mutants import mutated
from tests.fake_cuda.runs import RUNS


def data_of(config: Config) -> ImageSet:
    """Black images: no number of theirs is read."""
    model, kind = config.model, models.data_kind(config.model)
    about = kind_of(kind)
    shape = [max(8, config.batch_size), model.channels, *about.sides(model.resolution)]

    dtype = torch.float32 if kind == "points" else torch.uint8

    def black(**options: Any) -> ImageSet:
        return ImageSet("black", torch.zeros(shape, dtype=dtype), **options)

    labels = torch.arange(shape[0]) % 4
    if about.has_source:
        return black(source=black(), paired=about.paired)
    return black(labels=labels, class_names=tuple("abcd")) if kind == "image" else black()


def trainer_of(config: Config, mode: FakeCuda) -> Trainer:
    """A trainer whose phases run as they are recorded, and `mode` knows of those that graphs are to hold."""
    data = data_of(config)
    # The operators themselves, whether a graph has them or not. A measurement is no part of a step.
    config = dataclasses.replace(config, cuda_graphs=False, eval_kimg=None)
    if config.conditional:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, c_dim=data.num_classes))
    trainer = Trainer(config, data, device=torch.device("cuda"), run_dir=Path("unused"))
    for phase, penalised, last in ever_due(trainer.phases):
        if phase.no_graph is None:
            compute = partial(trainer.phase_steps.compute, phase, penalised=penalised, last=last)
            trainer.phase_steps.graphs[phase.name, penalised, last] = in_graph(compute, phase.name, mode)
    return trainer


def in_graph(compute: Callable, phase: str, mode: FakeCuda) -> Callable:
    def recorded(batch: Any) -> Any:
        with mode.recorded(phase):
            return compute(batch)

    return recorded


def steps(config: Config, mode: FakeCuda) -> dict[str, Any]:
    """What two steps of a run did on the device: a step with every phase, and an ordinary one.

    The step before them is not counted. It makes the moments of Adam, and constants that stay on the device.
    """
    found: dict[str, Any] = {}
    trainer = trainer_of(config, mode)
    trainer.step()
    for name, step_count in (("every phase", 0), ("ordinary step", 1)):
        trainer.clock.step_count = step_count
        with mode.watched() as count:
            trainer.step()
        found[name] = [count.operators, round(count.bytes / 1e6, 2), count.launches]
        found[f"{name}, by operator"] = dict(sorted(count.by_name.items(), key=lambda item: -item[1]))
    return found


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    mode = FakeCuda()
    for name in names or RUNS:
        run, _, mutant = name.partition(": ")
        line: dict[str, Any] = {"name": name}
        began = time.process_time()
        mode.problems.clear()
        with mode, mutated(mutant):
            try:
                line |= steps(RUNS[run](), mode)
            except FakeCudaError as error:
                mode.problems.append(str(error))
        line |= {"problems": list(dict.fromkeys(mode.problems)), "seconds": round(time.process_time() - began, 1)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
