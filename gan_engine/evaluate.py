"""Numbers for a trained generator: `python -m gan_engine.evaluate CHECKPOINT --metrics fid,kid --num 10000`.

--metrics names the numbers, which metrics.scores explains. Without it, the family of the generator declares how it is
measured, and gan_engine.metrics.measures has the ways. Each has a module that says what its numbers mean:
metrics.garments, metrics.translations, metrics.volumes, metrics.gaussians. `python -m gan_engine.upscale --original`
compares enlarged photographs.

    torchrun --nproc_per_node 2 -m -- gan_engine.evaluate CHECKPOINT --metrics fid --num 50000

Several processes share the images of the metrics that read features or modes, and of metrics.garments. The numbers are
those of one process. Without the --, torchrun takes --num for a flag of its own.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor, nn
from tqdm import tqdm

from gan_engine import models, plugins
from gan_engine.command_line import console, flags
from gan_engine.config import Config
from gan_engine.data import DataConfig, DataError, ImageSet, load
from gan_engine.data.kinds import MADE, kind_of
from gan_engine.inference import run_data
from gan_engine.inference.generator import from_state, images
from gan_engine.inference.latents import MOST_NUMBERS
from gan_engine.metrics import extractors, scores
from gan_engine.metrics.measures import Measure, measure_of, metrics_of
from gan_engine.metrics.subject import Subject, classes_to_ask_for
from gan_engine.models.checks import check_at_least, check_types
from gan_engine.runs import run_state
from gan_engine.system import checkpoint, fields
from gan_engine.system.devices import choose_device
from gan_engine.system.names import legible
from gan_engine.system.tf32 import tf32_products
from gan_engine.training.distributed import ALONE, PeerError, Processes, joined


@dataclass(frozen=True)
class Options:
    """Print numbers that say how good the averaged generator of a run is."""

    checkpoint: Annotated[fields.Positional[Path], fields.arg(metavar="RUN")]
    """A checkpoint, or the directory of a run, whose newest intact checkpoint is used."""
    best: bool = False
    """Use the checkpoint of the run that measured best in training (train --eval-kimg)."""
    data: str | None = None
    """Data to compare with; see the same flag of gan_engine.train. All images are used.
    Translations: pairs, preferably pairs that the run has not seen.
    None: the data that the run was trained on."""
    data_root: str = DataConfig.root
    """Folder of the torchvision sets that --data names."""
    metrics: str | None = None
    """Numbers to print, with commas between them, such as fid,kid. For generators that draw from noise.
    fid and kid: distances from the data. is: Inception score. pr: precision and recall. dc: density and coverage.
    ppl: path length, and eqt: equivariance to translation in dB, both for stylegan2 and stylegan3.
    modes: kinds of images covered, for --data stacked. gaussians: Gaussians covered, for toy:ring and toy:grid.
    None: what the family is measured by. Grey images of 32x32: distances in fashion32, and the classes found.
    Other pictures: fid,kid,pr. Translations: distances from their targets. Volumes: how much is occupied.
    Points: gaussians."""
    extractor: str = extractors.AUTO
    """The network in whose features --metrics compares: fashion32, imagenet or inception.
    Only distances in inception are FIDs.
    auto: fashion32 for grey images of 32x32, else imagenet."""
    weights: Path | None = None
    """The file with the weights of --extractor inception. None: the file in the folder of torch.hub."""
    num: int | None = None
    """Number of images to generate from noise. Only measurements with the same number compare.
    None: as many as the run measures while it trains (train --eval-num), which is 5000 unless it was set."""
    seed: int = 0
    """Seed of the noise."""
    batch: int = 100
    """Images per pass. Fewer take less memory."""
    plugin: fields.UseAppendAction[tuple[str, ...]] = ()
    """A Python file or module that the run had as a plug-in. Once for each."""
    device: str = "auto"
    """cpu, cuda or cuda:N. auto: the first GPU if there is one. Under torchrun, each process has its own GPU."""

    def __post_init__(self) -> None:
        check_types(self, largest={"num": MOST_NUMBERS, "batch": MOST_NUMBERS, "seed": 2**63 - 1})
        for name, least in (("num", 2), ("batch", 1), ("seed", 0)):
            if getattr(self, name) is not None:
                check_at_least(self, least, name)
        if self.metrics is not None:
            scores.parse(self.metrics)
        elif self.extractor != extractors.AUTO or self.weights is not None:
            raise ValueError("extractor and weights: want --metrics beside them, such as --metrics fid,kid")


def evaluate(
    options: Options, say: Callable[[str], None] = lambda line: None, processes: Processes = ALONE
) -> dict[str, float]:
    """Numbers by name, as --metrics asks for them, or else the measure of the generator's family.

    Args:
        say: gets lines about how the numbers come about, for people.
        processes: share the work. Each of them must call it, and each gets the numbers.

    Raises:
        ValueError: a generator that its measure does not take, or an unknown device.
        CheckpointError, DataError: see inference.generator.load and gan_engine.data.load.
    """
    path = processes.from_first(lambda: checkpoint.find(options.checkpoint, best=options.best))
    plugins.load(*options.plugin)
    device = choose_device(options.device)
    state = checkpoint.load(path)
    if len(set(processes.gather(state.get("nimg")))) > 1:  # a run writes a new best.pt under the name of the old one
        raise ValueError(f"{path}: want one checkpoint in all processes, got another one while they read it: try again")
    G = from_state(state, path).network.to(device)
    declared = models.capabilities(G.config)
    if declared.command == "upscale":
        what = f"what {models.family(G.config)} enlarges"
        raise ValueError(f"{options.checkpoint}: python -m gan_engine.upscale --original compares {what}")
    kind = kind_of(models.data_kind(G.config))
    if options.metrics is None and (metrics := metrics_of(declared.measure, kind.axes, G.config)) is not None:
        say(f"measured by {metrics}; --metrics names others, and FIDs need --extractor inception beside it")
        options = replace(options, metrics=metrics)
    measure = _scores(options, declared, G.config, kind.axes, say, processes) or measure_of(declared.measure, kind.axes)
    if reason := measure.refusal(G.config):
        raise ValueError(f"{options.checkpoint}: {reason}")
    data = processes.one_per_machine_first(lambda: _data(options, G.config, state, wants_unseen=measure.wants_unseen))
    c_dim, num = G.config.c_dim, options.num or _num_of_run(state)
    names = tuple(run_state.class_names(state, path))
    classes = classes_to_ask_for(data, num, c_dim, names) if c_dim else None
    draw = partial(_drawn, G, num, options, classes, shown=processes.first)
    subject = Subject(
        G=G,
        data=data,
        batch=options.batch,
        num=num,
        draw=draw,
        share=partial(draw, rank=processes.rank, size=processes.size),
        gather=processes.gather,
        classes=classes,
        class_names=names,
        directions=declared.directions,
        seed=options.seed,
    )
    kimg = f", {state['nimg'] / 1000:g} kimg" if "nimg" in state else ""
    say(f"the generator of {legible(str(path))}{kimg}")
    if options.metrics is None:
        sizes = "x".join(map(str, data.images.shape[1:]))
        say(f"compared with {len(data):,} {MADE[kind.axes]} of {sizes} from {data.name}")
    with tf32_products(False):  # differences of nearly equal images, as of ppl, are smaller than the rounding of TF32
        if measure.together:
            return measure.measure(subject)
        return processes.from_first(lambda: measure.measure(replace(subject, share=None, gather=lambda value: [value])))


def _scores(
    options: Options,
    declared: models.Family,
    config: models.Config,
    axes: int,
    say: Callable[[str], None],
    processes: Processes,
) -> Measure | None:
    """The measure that --metrics asks for; None without --metrics."""
    if options.metrics is None:
        return None
    metrics = scores.parse(options.metrics)
    able = {"styles": declared.styles, "translates": declared.translates, "channels": config.channels}
    reason = scores.refusal(metrics, from_noise=declared.from_noise, axes=axes, **able)
    made = MADE[axes] if declared.from_noise else "translations"
    if reason and made != MADE[2]:
        reason += f"; without --metrics {made} are measured"

    def measure(subject: Subject) -> dict[str, float]:
        shape = subject.data.images.shape[1:]
        scored = scores.build(metrics, options.extractor, shape, weights=options.weights, device=subject.device)
        scored.check(subject)
        say(scored.about(subject))
        drawn = scored.draw(subject, keep=processes.first)
        return processes.from_first(lambda: scored.numbers(subject, drawn))

    return Measure(measure, lambda config: reason, together=True)


def _data(options: Options, config: models.Config, state: dict[str, Any], *, wants_unseen: bool) -> ImageSet:
    """The data that `options` names, else the data of the run of `state`."""
    name = models.data_kind(config)
    if kind_of(name).unpaired:
        if options.data is None:
            raise ValueError(
                f"data: want --data with pairs for {models.family(config)}, which learns from two sets whether they "
                "are paired or not"
            )
        name = "pairs"
    sizes = {"resolution": config.resolution, "channels": config.channels, "kind": name}
    if options.data is not None:
        return load(DataConfig(options.data, root=options.data_root), **sizes)
    if "sampler" not in state:
        raise ValueError(f"data: want --data beside {options.checkpoint}, which has weights alone and names no data")
    try:
        data = run_data.of_run(state, options.checkpoint)
    except DataError as error:
        raise DataError(f"{error}; --data names other data to compare with") from None
    if wants_unseen:
        warnings.warn("the run was trained on these pairs; --data names pairs that it has not seen", stacklevel=3)
    return data


def _num_of_run(state: dict[str, Any]) -> int:
    """The number of images that the run of `state` measures while it trains. Weights without a run: the usual one."""
    return (state.get("config") or {}).get("eval_num", Config.eval_num)


def _drawn(
    G: nn.Module,
    num: int,
    options: Options,
    classes: list[int] | None,
    *,
    shown: bool,
    rank: int = 0,
    size: int = 1,
) -> Iterator[Tensor]:
    """`num` images from noise in batches, with a progress bar if `shown`. `rank` and `size`: see `images`."""
    drawn = images(G, num, seed=options.seed, classes=classes, batch=options.batch, rank=rank, size=size)
    total = len(range(rank, -(-num // options.batch), size))
    return tqdm(drawn, total=total, unit=" batches", disable=None if shown else True)


@console.command
def main(argv: list[str]) -> int:
    """The command line."""
    options = flags.parse(Options, argv, command="evaluate")
    with joined(options.device) as (processes, device):
        say = print if processes.first else lambda line: None
        try:
            found = evaluate(replace(options, device=device), say, processes)
        except Exception as error:
            processes.announce(error)
            if not isinstance(error, PeerError):
                raise
            print(f"error: {error}", file=sys.stderr)
            return 1
        for name, value in found.items():
            say(f"{name:27} {value:.4f}" if isinstance(value, float) else f"{name:27} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
