"""Loggers of a run, beside its own files: TensorBoard, Weights & Biases (wandb) and MLflow, behind one protocol.

A package is imported when its logger is asked for. Nothing leaves the machine unless the environment says so:

    wandb     offline, in RUN/wandb. WANDB_MODE=online sends everything to a server.
    mlflow    RUN/mlflow.db and RUN/mlartifacts. MLFLOW_TRACKING_URI names a server instead.

RUN/loggers.json holds the names that wandb and mlflow have for the run, so that a resumed run goes on under them.
"""

import contextlib
import importlib
import itertools
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL.Image import Image

from gan_engine.system.checkpoint import stem
from gan_engine.system.names import legible
from gan_engine.system.whole_file import replacing

NAME = "loggers.json"
PROJECT = "gan_engine"  # the project of wandb and the experiment of mlflow, unless the environment names another


class LoggerError(ValueError):
    """A logger that was asked for by name cannot be had; the message says why, in one line."""


class Logger(Protocol):
    """A place that shows a run. `nimg` is the number of images shown so far. Any method may raise any exception."""

    identity: str | None
    """The name of the run in that place, by which a resumed run goes on. None: the directory is enough."""

    def configuration(self, config: dict[str, Any]) -> None:
        """The configuration of this start, in simple types."""

    def scalars(self, nimg: int, values: dict[str, float]) -> None:
        """Numbers by name. Some may be infinite or NaN."""

    def alarm(self, nimg: int, sentence: str) -> None:
        """A sentence about the health of the run."""

    def picture(self, nimg: int, picture: Image) -> None:
        """A grid of samples, RGB."""

    def close(self, *, failed: bool) -> None:
        """The end of this start of the run; `failed` if an error ended it."""


class TensorBoard:
    """Events in RUN/tensorboard; steps are images."""

    identity = None

    def __init__(self, run_dir: Path, identity: str | None, resume_nimg: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._at = resume_nimg or 0
        purge = None if resume_nimg is None else resume_nimg + 1  # drop what a killed process wrote beyond
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge)

    def configuration(self, config: dict[str, Any]) -> None:
        self._board.add_text("configuration", f"```\n{json.dumps(config, indent=2)}\n```", self._at)

    def scalars(self, nimg: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(legible(name), value, nimg)
        self._board.flush()

    def alarm(self, nimg: int, sentence: str) -> None:
        self._board.add_text("alarms", sentence, nimg)

    def picture(self, nimg: int, picture: Image) -> None:
        self._board.add_image("samples", np.asarray(picture), nimg, dataformats="HWC")

    def close(self, *, failed: bool) -> None:
        self._board.close()


class Wandb:
    """A run of Weights & Biases, whose charts have kimg as their axis."""

    def __init__(self, run_dir: Path, identity: str | None, resume_nimg: int | None) -> None:
        import wandb

        environment, place = os.environ.get, run_dir.resolve()
        self.identity = environment("WANDB_RUN_ID") or identity or secrets.token_hex(8)
        self._image = wandb.Image
        self._run = wandb.init(
            id=self.identity,
            resume="allow",
            project=environment("WANDB_PROJECT") or PROJECT,
            name=environment("WANDB_NAME") or (None if identity else place.name),
            dir=environment("WANDB_DIR") or str(place),
            mode=environment("WANDB_MODE") or "offline",
            settings=wandb.Settings(console="off"),  # the terminal is the trainer's
        )
        self._run.define_metric("kimg")
        self._run.define_metric("*", step_metric="kimg")  # steps of wandb's own cannot go back, as a rollback does

    def configuration(self, config: dict[str, Any]) -> None:
        self._run.config.update(config, allow_val_change=True)

    def scalars(self, nimg: int, values: dict[str, float]) -> None:
        self._run.log({"kimg": nimg / 1000} | {legible(name): value for name, value in values.items()})

    def alarm(self, nimg: int, sentence: str) -> None:
        self._run.log({"kimg": nimg / 1000, "alarms": sentence})

    def picture(self, nimg: int, picture: Image) -> None:
        self._run.log({"kimg": nimg / 1000, "samples": self._image(picture)})

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class Mlflow:
    """A run of MLflow; steps are images, as they must be whole numbers."""

    def __init__(self, run_dir: Path, identity: str | None, resume_nimg: int | None) -> None:
        import mlflow
        from mlflow.entities import Metric, Param

        self._metric, self._param, place = Metric, Param, run_dir.resolve()
        self._alarms = itertools.count(1)
        server = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = mlflow.MlflowClient(tracking_uri=server or f"sqlite:///{place / 'mlflow.db'}")
        self.identity = os.environ.get("MLFLOW_RUN_ID") or identity or ""
        if self.identity:
            self._client.update_run(self.identity, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        known = self._client.get_experiment_by_name(name)
        files = None if server else (place / "mlartifacts").as_uri()
        experiment = known.experiment_id if known else self._client.create_experiment(name, artifact_location=files)
        self.identity = self._client.create_run(experiment, run_name=place.name).info.run_id

    def configuration(self, config: dict[str, Any]) -> None:
        """The parameters that are new: mlflow refuses a second value of a parameter. config.json has the values now."""
        known = self._client.get_run(self.identity).data.params
        params = [self._param(name, value) for name, value in _flat(config).items() if name not in known]
        for first in range(0, len(params), 100):  # as many as a server takes at once
            self._client.log_batch(self.identity, params=params[first : first + 100])
        self._client.log_dict(self.identity, config, "config.json")

    def scalars(self, nimg: int, values: dict[str, float]) -> None:
        now = round(1000 * time.time())
        names = {re.sub(r"[^\w./ :-]", "_", name): value for name, value in values.items()}  # what mlflow takes
        metrics = [self._metric(name, value, now, nimg) for name, value in names.items()]
        self._client.log_batch(self.identity, metrics=metrics)

    def alarm(self, nimg: int, sentence: str) -> None:
        self._client.log_text(self.identity, sentence + "\n", f"alarms/{stem(nimg)}-{next(self._alarms)}.txt")

    def picture(self, nimg: int, picture: Image) -> None:
        self._client.log_image(self.identity, picture, key="samples", step=nimg)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self.identity, status="FAILED" if failed else "FINISHED")


@dataclass(frozen=True)
class Kind:
    """How a logger begins.

    Attributes:
        module: the module it needs.
        member: a member of that module. A folder of data called wandb/ is imported as a module too, but has no members.
        start: (directory of the run, identity of an earlier start, images shown by then) -> logger.
        environment: variables that are set unless the user has set them. The package sends no data about its own use,
            and a server that does not answer is given up in seconds: mlflow tries for four minutes by itself.
    """

    module: str
    member: str
    start: Callable[[Path, str | None, int | None], Logger]
    environment: Mapping[str, str]


_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
}
LOGGERS = {
    "tensorboard": Kind("torch.utils.tensorboard", "SummaryWriter", TensorBoard, {}),
    "wandb": Kind("wandb", "init", Wandb, {"WANDB_ERROR_REPORTING": "false"}),
    "mlflow": Kind("mlflow", "MlflowClient", Mlflow, _MLFLOW),
}


def require(name: str) -> None:
    """Import the package of a logger. Raises LoggerError if it is missing; a broken package raises its own error."""
    kind = LOGGERS[name]
    for variable, value in kind.environment.items():
        os.environ.setdefault(variable, value)
    try:
        found = hasattr(importlib.import_module(kind.module), kind.member)
    except ModuleNotFoundError as error:
        if error.name not in (kind.module, name):
            raise
        found = False
    if not found:
        raise LoggerError(f"not installed (pip install {name})")


def started(name: str, run_dir: Path, config: dict[str, Any], resume_nimg: int | None) -> Logger:
    """The logger `name` of a run, which knows the configuration. A resumed run goes on under its identity.

    Raises LoggerError if the package is missing or loggers.json is damaged, and any error of the package.
    """
    require(name)
    known = _identities(run_dir)
    logger = LOGGERS[name].start(run_dir, known.get(name) if resume_nimg else None, resume_nimg)
    logger.configuration(config)
    if logger.identity is not None and known.get(name) != logger.identity:
        with replacing(run_dir / NAME) as temporary:
            temporary.write_text(json.dumps(known | {name: logger.identity}, indent=2) + "\n", encoding="utf-8")
    return logger


@contextlib.contextmanager
def asked_for(name: str) -> Iterator[None]:
    """Inside, every exception becomes a LoggerError, as the user has named this logger."""
    try:
        yield
    except Exception as error:  # servers, keys, disks, broken packages
        raise LoggerError(f"loggers: {name}: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """The message of `error` in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = " ".join(str(error).split())
    if isinstance(error, LoggerError):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _identities(run_dir: Path) -> dict[str, str]:
    path = run_dir / NAME
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict) or not all(isinstance(value, str) for value in known.values()):
        raise LoggerError(f"{path} is damaged; once it is removed, loggers begin new runs")
    return known


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"model.z_dim": "64", ...}: what mlflow takes as parameters, at most 250 characters each."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: str(value)[:250]}
    return flat
