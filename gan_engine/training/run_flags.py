"""The command line of gan_engine.train: a preset, and flags in groups that change the preset."""

import dataclasses
import inspect
import os
import textwrap
from typing import Any

from gan_engine import models
from gan_engine.command_line import console, flags
from gan_engine.config import GROUPS, Basics, Config
from gan_engine.data import sources
from gan_engine.data.kinds import kind_of
from gan_engine.presets import PRESETS
from gan_engine.system.names import legible, nearest, shell_word

USAGE = """\
usage: {prog} [PRESET] [--flags]

The default PRESET is {first}; with --data it is {own}.

{prog} PRESET --help lists the flags of a preset.
{prog} --list shows the data, sizes and length of all presets.
{prog} --resume RUN continues a run: its directory, one of its checkpoints, or latest.

presets:
{presets}
"""

# {flag of other programs: the flag of this program}. --gamma is a flag here too, but takes no number.
ELSEWHERE = {
    "--gamma": "the weight of R1 is --r1-gamma",
    **dict.fromkeys(("--r1", "--r1-reg", "--r1-weight", "--lambda-r1"), "the weight of R1 is --r1-gamma"),
    **dict.fromkeys(
        ("--gp", "--lambda", "--lambda-gp", "--gp-lambda", "--gradient-penalty"),
        "the weight of the WGAN-GP penalty is --gp-weight",
    ),
    **dict.fromkeys(
        ("--learning-rate", "--g-lr", "--d-lr", "--glr", "--dlr", "--lr-g", "--lr-d"),
        "the learning rate of both networks is --lr",
    ),
    **dict.fromkeys(
        ("--beta1", "--beta2", "--b1", "--b2"), "the decay rates of Adam are two numbers, --betas 0.5 0.999"
    ),
    **dict.fromkeys(("--optimizer", "--optim"), "the optimiser is Adam, and its flags are --lr and --betas"),
    **dict.fromkeys(("--critic-iters", "--diters", "--d-steps"), "the steps of D for each step of G are --n-critic"),
    **dict.fromkeys(("--clip", "--clip-value"), "the limit of D's weights is --weight-clip"),
    **dict.fromkeys(("--ema", "--ema-decay", "--ema-beta"), "the half-life of the average of G is --ema-kimg"),
    **dict.fromkeys(
        (
            *("--epoch", "--epochs", "--n-epochs", "--num-epochs", "--max-epochs"),
            *("--steps", "--max-steps", "--iter", "--iters", "--iterations", "--max-iter", "--niter", "--total-kimg"),
        ),
        "the length of a run is --kimg, in thousands of images, or --minutes",
    ),
    **dict.fromkeys(("--batch", "--bs"), "the images of a step are --batch-size"),
    **dict.fromkeys(("--size", "--image-size", "--img-size"), "the side of the images is --resolution"),
    **dict.fromkeys(("--height", "--image-height", "--image-width"), "the sides are --resolution HEIGHTxWIDTH"),
    **dict.fromkeys(("--nc", "--input-nc", "--img-channels"), "1 is grey and 3 is colour in --channels"),
    **dict.fromkeys(("--nz", "--latent-dim", "--latent-size"), "the size of the noise is --z-dim"),
    **dict.fromkeys(
        ("--gpu", "--gpus", "--gpu-ids", "--cuda"),
        "the GPU is --device cuda:N; torchrun starts a process for each of several",
    ),
    **dict.fromkeys(("--fp32", "--fp16", "--bf16", "--amp", "--mixed-precision"), "the precision is --precision"),
    **dict.fromkeys(("--dataset", "--dataroot", "--data-dir", "--data-path"), "the images are --data"),
    **dict.fromkeys(("--workers", "--num-workers"), "images are decoded before the first step, without workers"),
    **dict.fromkeys(("--cond", "--class-cond", "--num-classes"), "--conditional takes the classes of the data"),
    **dict.fromkeys(("--xflip", "--hflip", "--flip"), "--mirror flips images"),
    **dict.fromkeys(("--augpipe", "--aug-pipe"), "the transforms of --augment ada are --ada-groups"),
    **dict.fromkeys(("--cfg", "--model", "--arch"), "the networks are a preset, the first word; --list shows all"),
    "--gan-mode": "the loss is --loss",
    **dict.fromkeys(
        ("--outdir", "--out-dir", "--output-dir", "--save-dir", "--logdir", "--log-dir", "--name"),
        "the directory of the run is --out",
    ),
    **dict.fromkeys(
        ("--transfer", "--pretrained", "--load", "--weights", "--ckpt", "--checkpoint"),
        "--init-from begins with weights, and --resume goes on with a run",
    ),
    **dict.fromkeys(("--manual-seed", "--random-seed"), "the seed is --seed"),
    **dict.fromkeys(
        ("--snap", "--save-every", "--save-interval", "--sample-interval"),
        "the time between two checkpoints is --checkpoint-kimg, and between two grids --grid-kimg",
    ),
    **dict.fromkeys(("--tick", "--log-interval", "--print-freq"), "the time between two reports is --metrics-kimg"),
    **dict.fromkeys(
        ("--metrics", "--eval-freq", "--eval-every"),
        "the time between two measurements is --eval-kimg, and what they measure --eval-metrics",
    ),
    "--wandb": "a logger is --loggers wandb",
}


def parse(argv: list[str], resumed: Config | None = None) -> Config:
    """Read the command line into a configuration.

    Args:
        argv: the name of a preset, which may be missing, and flags.
        resumed: the configuration of the run to continue. The flags then change this configuration and not a preset.

    Raises:
        ValueError, SystemExit: see `flags.parse`. --help exits with status 0.
    """
    if argv[:1] in (["-h"], ["--help"]):
        print(usage(), end="")
        raise SystemExit(0)
    named = bool(argv) and not argv[0].startswith("-")
    asked = {argument.partition("=")[0] for argument in argv}
    name = argv[0] if named else resumed.preset if resumed is not None else _default(asked)
    if name not in PRESETS:
        is_data = os.path.exists(name) or name in sources.NAMED
        hint = f"; images are --data {shell_word(name)}" if is_data else nearest(name, PRESETS)
        raise ValueError(f"preset: want one of {', '.join(PRESETS)}, got {legible(name, most=60)}{hint}")
    if resumed is not None and name != resumed.preset:
        raise ValueError(f"preset: want {resumed.preset}, the preset of the resumed run, got {name}")
    argv = argv[1:] if named else argv
    preset, about = PRESETS[name], inspect.getdoc(PRESETS[name])
    if resumed is not None:
        return _of_one_length(_changed(resumed, argv, "Continue a run."), asked)
    config = _changed(preset(), argv, about)
    if inspect.signature(preset).parameters:
        processes = int(os.environ.get("WORLD_SIZE", 1))
        config = _changed(preset(config.model.resolution, config.device, processes), argv, about)
    if "--channels" not in asked and kind_of(models.data_kind(config.model)).has_colours:
        config = dataclasses.replace(config, channels_of_data=True)
    return _of_one_length(config, asked)


def _default(asked: set[str]) -> str:
    """The preset of a call that names none. Data of one's own may have no classes, so their preset needs none."""
    return "dcgan" if "--data" in asked else next(iter(PRESETS))


def _of_one_length(config: Config, asked: set[str]) -> Config:
    """`config`, in which the one of --kimg and --minutes that is `asked` for takes the place of the other."""
    match "--kimg" in asked, "--minutes" in asked:
        case True, False:
            return dataclasses.replace(config, minutes=None)
        case False, True:
            return dataclasses.replace(config, kimg=None)
    return config


def usage() -> str:
    """The text of --help without a preset."""
    width = max(map(len, PRESETS)) + 4
    presets = (
        textwrap.fill(
            inspect.getdoc(preset).splitlines()[0],
            width=110,
            initial_indent=f"  {name}".ljust(width),
            subsequent_indent=" " * width,
        )
        for name, preset in PRESETS.items()
    )
    return USAGE.format(
        prog=console.prog("train"), first=_default(set()), own=_default({"--data"}), presets="\n".join(presets)
    )


def _changed(config: Config, argv: list[str], about: str) -> Config:
    """`config`, changed by the flags. The model and every group are fields for tyro, and so boxes in --help."""
    boxes = {group.__name__: group for group in GROUPS}
    kind = dataclasses.make_dataclass(
        "Flags", {"Model": type(config.model), **boxes}.items(), bases=(Basics,), frozen=True, kw_only=True
    )
    parts = {name: group(**_values(group, config)) for name, group in boxes.items()}
    default = kind(Model=config.model, **parts, **_values(Basics, config))
    try:
        asked = flags.parse(kind, argv, command=f"train {config.preset}", default=default, description=about)
    except flags.NoSuchFlag as error:
        families = [family for family, module in models.FAMILIES.items() if error.flag in flags.known(module.Config)]
        if families:
            raise ValueError(f"{error.flag}: not a flag of {config.preset}, only of {', '.join(families)}") from None
        if error.flag in ELSEWHERE:
            raise ValueError(f"{error.flag}: no such flag; {ELSEWHERE[error.flag]}") from None
        raise
    except flags.NoSuchChoice as error:
        if error.flag in ELSEWHERE:
            raise ValueError(f"{error}; {ELSEWHERE[error.flag]}") from None
        raise
    except flags.StrayWords as error:
        if error.words[0] in PRESETS:
            raise ValueError(f"preset: want one, as the first word, got {error.words[0]} behind other words") from None
        if os.path.exists(error.words[0]) or error.words[0] in sources.NAMED:
            raise ValueError(_data_among(argv, error.words[0])) from None
        raise
    values = _values(Basics, asked)
    for name, group in boxes.items():
        values |= _values(group, getattr(asked, name))
    return dataclasses.replace(config, model=asked.Model, **values)


def _data_among(argv: list[str], word: str) -> str:
    """What to say of images, `word`, that no flag takes."""
    if any(argument.partition("=")[0] == "--data" for argument in argv):
        return f"data: want one folder or file, got {legible(word)} too; a folder may hold several"
    return f"no flag takes {shell_word(word)}; images are --data {shell_word(word)}"


def _values(kind: type, holder: Any) -> dict[str, Any]:
    return {field.name: getattr(holder, field.name) for field in dataclasses.fields(kind)}
