"""The measurements of a run while it trains: `--eval-kimg`, the best checkpoint, and the end by `--patience`.

Best and patience follow from the rows of metrics.jsonl and of this start, so a resumed run goes on with them.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import DataError, ImageSet, load
from gan_engine.data.kinds import MADE, kind_of
from gan_engine.inference.generator import images
from gan_engine.metrics import scores
from gan_engine.metrics.subject import Subject, classes_to_ask_for
from gan_engine.runs.history import AGAINST, ANEW, BACK_TO, PREFIX, read_metrics
from gan_engine.system.random_state import rng_state, set_rng_state
from gan_engine.system.tf32 import tf32_products
from gan_engine.training.distributed import ALONE, Processes


class Evaluation:
    """Measures G_ema every config.eval_kimg. Several processes draw the images together.

    The noise is of config.seed each time, so two measurements differ by G_ema alone. The random generators of the run
    are as they were when a measurement is over.

    Args:
        config: has the flags --eval-...
        data: the images that the run learns from.
        G_ema: the averaged generator.
        run_dir: its metrics.jsonl has the measurements so far.
        processes: of the run. Each of them must have an Evaluation.

    Raises ValueError for a generator that the metrics do not take, and for what an extractor lacks.
    """

    def __init__(
        self, config: Config, data: ImageSet, G_ema: nn.Module, run_dir: Path, processes: Processes = ALONE
    ) -> None:
        self.config, self.run_dir, self.keeps = config, run_dir, processes.first
        self.device = next(G_ema.parameters()).device
        with _flags_of_training():
            compared = processes.one_per_machine_first(lambda: _compared(config, data))
            shape = compared.images.shape[1:]
            weights = None if config.eval_weights is None else Path(config.eval_weights)
            metrics = scores.parse(config.eval_metrics)
            self.scores = scores.build(metrics, config.eval_extractor, shape, weights=weights, device=self.device)
            c_dim, names = config.model.c_dim, data.class_names
            classes = classes_to_ask_for(compared, config.eval_num, c_dim, names) if config.conditional else None
            batch = min(100, config.eval_num)
            draw = partial(images, G_ema, config.eval_num, seed=config.seed, classes=classes, batch=batch)
            self.subject = Subject(
                G=G_ema,
                data=compared,
                batch=batch,
                num=config.eval_num,
                draw=draw,
                share=partial(draw, rank=processes.rank, size=processes.size),
                gather=processes.gather,
                classes=classes,
                seed=config.seed,
            )
            self.scores.check(self.subject)
        self.against = int(compared.sha256[:12], 16)  # 48 bits, which JSON's numbers hold
        self.begin()

    def begin(self) -> None:
        """Go on from the rows of metrics.jsonl. Those of this start are noted beside it, as a disk may be full."""
        self.rows: list[dict[str, Any]] = []
        for row in read_metrics(self.run_dir):
            self.note(row)

    def note(self, row: dict[str, Any]) -> None:
        """Note a row of metrics.jsonl if it is a measurement or a rollback, or if best and patience begin anew."""
        if {ANEW, BACK_TO, PREFIX + self.decides} & row.keys():
            self.rows.append(row)

    def draw(self) -> scores.Drawn:
        """What the images of G_ema show. Each process must call it; the first one keeps what all have seen."""
        with self._random_state_kept(), tf32_products(False):
            return self.scores.draw(self.subject, keep=self.keeps)

    def numbers(self, drawn: scores.Drawn) -> dict[str, float]:
        """Numbers by name, "eval/fd_fashion32 N=5000", the one that decides first. One process may call it alone."""
        with self._random_state_kept(), tf32_products(False):
            found = self.scores.numbers(self.subject, drawn)
        return {PREFIX + name: value for name, value in found.items()}

    @contextlib.contextmanager
    def _random_state_kept(self) -> Iterator[None]:
        state = rng_state(self.device)
        try:
            yield
        finally:
            set_rng_state(state, self.device)

    def is_best(self, found: dict[str, float]) -> bool:
        """True if the number that decides is the best so far: of equal ones, such as counts, the last is kept."""
        value, best = next(iter(found.values())), self._best_before()[0]
        return value == best or _better(value, best, more=self.scores.more_is_better)

    def verdict(self) -> str | None:
        """Why the run ends, once --patience measurements in a row were no better than the best. None: it goes on."""
        best, since, _ = self._best_before()
        patience = self.config.patience
        if patience is None or since < patience:
            return None
        last = "measurement" if since == 1 else f"{since} measurements"
        return f"{self.decides} was no better than {best:.4g} in the last {last}"

    @property
    def decides(self) -> str:
        """The name of the number that decides what is best: the first one."""
        return self.scores.names(self.subject)[0]

    def line(self) -> str:
        """A line for the start of the run: what is measured, against which images, and what is done about it."""
        config, data = self.config, self.subject.data
        made = MADE[data.images.ndim - 2]
        which = "that it does not train on" if config.eval_data else "that it trains on"
        which += "" if config.eval_data or config.held_out else ": none is held out"
        line = f"every {config.eval_kimg:g} kimg, against {len(data):,} {made} of {data.name} {which}; best.pt by "
        line += self.decides + (f", patience {config.patience}" if config.patience else "")
        return f"{line}\n           {self.scores.about(self.subject)}"

    def best_nimg(self) -> int | None:
        """Images shown at the best measurement so far. None without one against the images of now."""
        return self._best_before()[2]

    def _best_before(self) -> tuple[float, int, int | None]:
        """The best number so far, NaN without one, how many measurements followed it, and when it was measured.

        Measurements against other images do not count. Those that a rollback has undone cost no patience.
        """
        best, later, at, name = math.nan, list[int](), None, PREFIX + self.decides
        for row in self.rows:
            if ANEW in row:
                best, later, at = math.nan, [], None
            if BACK_TO in row:
                later = [nimg for nimg in later if nimg <= round(1000 * row[BACK_TO])]
            if name not in row or row.get(AGAINST, self.against) != self.against:
                continue
            value = math.nan if row[name] is None else row[name]
            if _better(value, best, more=self.scores.more_is_better):
                best, later, at = value, [], row["nimg"]
                continue
            later.append(row["nimg"])
            at = row["nimg"] if value == best else at
        return best, len(later), at


def _better(value: float, best: float, *, more: bool) -> bool:
    """True if `value` is finite, and there is no `best` yet or `value` is better."""
    return math.isfinite(value) and (math.isnan(best) or (value > best if more else value < best))


_SHARED = ("metrics", "extractor", "weights", "num")  # flags of `evaluate` that are --eval-... of `train`


@contextlib.contextmanager
def _flags_of_training() -> Iterator[None]:
    """Errors that name a flag of `evaluate` name the same flag of `train`: metrics -> eval_metrics."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, DataError) or str(error).partition(":")[0] not in _SHARED:
            raise
        raise ValueError(f"eval_{error}") from error


def _compared(config: Config, data: ImageSet) -> ImageSet:
    """The images to compare with: those of --eval-data, or those that the run learns from."""
    model = config.model
    declared, kind = models.capabilities(model), models.data_kind(model)
    metrics = scores.parse(config.eval_metrics)
    options = {"from_noise": declared.from_noise, "axes": kind_of(kind).axes}
    options |= {"styles": declared.styles, "translates": declared.translates, "channels": model.channels}
    if reason := scores.refusal(metrics, **options):
        raise ValueError(reason)
    if config.eval_data is None:
        return data
    source = replace(config.data_config, source=config.eval_data, mirror=False, bits=8)  # as all measures read them
    return load(source, resolution=model.resolution, channels=model.channels, kind=kind, seed=config.seed)
