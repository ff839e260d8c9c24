"""python -m benchmarks.alarms [healthy] [provoked] [rollback] [cost] [--seeds 10] [--kimg 20] [--width 16] [--out FILE]

Which alarms do healthy and broken runs raise, and after how many images? Every run is a real one, in a directory of
its own: its alarms are those of its metrics.jsonl. A table goes to standard output, and to FILE with the command.

    healthy    dcgan, cgan and stylegan2_32, `--seeds` runs of each from `--first-seed` on, as they are
    provoked   dcgan with one fault at a time, see FAULTS
    rollback   two faults from half of the run on, with the best distance before and after: G's last layer is zero until
               the run goes back, or the learning rates are 200 times as large, and --rollback-lr 0.1 meets that
    cost       the CPU time of a reading over the CPU time of the steps between two readings, in turn

--kept FILE holds a line of JSON for each finished run of `healthy`. A run of this commit that FILE holds is not trained
again, so a command that was interrupted goes on where it was.

--width makes networks narrower, which is quicker: dcgan and cgan have 64 feature maps, stylegan2_32 at most 512.
"""

import argparse
import dataclasses
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import rows
from gan_engine.config import Config
from gan_engine.data import ImageSet, Sampler, load
from gan_engine.presets import PRESETS
from gan_engine.runs.history import BACK_TO, ENDED, read_metrics
from gan_engine.training import inputs
from gan_engine.training.health import interval
from gan_engine.training.trainer import Trainer

QUIET = {"tensorboard": False, "minutes": None, "grid_kimg": 1e6, "checkpoint_kimg": 1e6, "data": "fashion-mnist"}
LEFT_OUT = 8  # the class of bags, in the provoked run without one class


def config_of(preset: str, width: int | None, **changes: object) -> Config:
    """The preset on the embedded garments. stylegan2_32 takes batches of 16 instead of 64."""
    config = PRESETS[preset]()
    if preset == "stylegan2_32":
        sizes = {} if width is None else {"channel_base": 32 * width // 2, "channel_max": width}
        model = dataclasses.replace(config.model, channels=1, **sizes)
        changes = {"batch_size": 16, "ema_kimg": 5} | changes
    else:
        model = config.model if width is None else dataclasses.replace(config.model, width=width)
    return dataclasses.replace(config, model=model, **QUIET | changes)


def trainer_of(config: Config, run_dir: Path) -> Trainer:
    data = load(config.data_config, resolution=32, channels=1, kind="image")
    return Trainer(inputs.with_classes(config, data), data, device=torch.device("cpu"), run_dir=run_dir)


def alarms(run_dir: Path) -> list[tuple[int, str]]:
    """(images shown, the name of the alarm) of every alarm of a run."""
    rows = read_metrics(run_dir)
    lines = [(row["nimg"], line) for row in rows for line in row.get("alarms", ()) if not line.startswith(ENDED)]
    return [(nimg, line.partition(":")[0]) for nimg, line in lines]


def carried_out(config: Config, break_it: Callable[[Trainer], None] = lambda trainer: None) -> list[tuple[int, str]]:
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(config, Path(folder))
        break_it(trainer)
        try:
            trainer.run()
        except RuntimeError as error:
            return [*alarms(Path(folder)), (trainer.nimg, str(error).partition(" at ")[0])]
        return alarms(Path(folder))


def one_output(trainer: Trainer) -> None:
    # Equal noise would not do: batch norms make differences of the rounding errors of equal images. So G draws a batch
    # from fixed noise and repeats its first image, which is then the same in all passes of a reading.
    z = torch.randn(trainer.config.batch_size, trainer.config.model.z_dim, generator=torch.Generator().manual_seed(1))
    trainer.G.register_forward_pre_hook(lambda G, args: (z[: len(args[0])], *args[1:]))
    trainer.G.register_forward_hook(lambda G, args, img: img[:1].expand_as(img))


def without_a_class(trainer: Trainer) -> None:
    data, config = trainer.data, trainer.config
    kept = data.labels != LEFT_OUT
    few = ImageSet(data.name, data.images[kept], data.labels[kept], data.class_names)
    trainer.batches.sampler = Sampler(few, config.batch_size, seed=config.seed)
    if not config.conditional:
        trainer.batches.sampler.labels = None


def fast_discriminator(trainer: Trainer) -> None:
    trainer.optimizers["D"].param_groups[0]["lr"] *= 100


FAULTS: dict[str, tuple[str, dict, Callable[[Trainer], None]]] = {
    "G has one output": ("collapse", {}, one_output),
    "G never sees one class": ("missing class", {}, without_a_class),
    "D's rate is 100 times as large": ("divergence", {}, fast_discriminator),
    "the rate is 0.1": ("divergence", {"lr": 0.1}, lambda trainer: None),
    "20 images, 9,980 held out": ("overfitting", {"held_out": 9980}, lambda trainer: None),
}


def healthy(options: argparse.Namespace) -> list[str]:
    lines = []
    for preset in options.presets:
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        runs = {seed: _healthy_run(options, preset, seed) for seed in seeds}
        raised = {seed: found for seed, found in runs.items() if found}
        which = f"seeds {seeds[0]} to {seeds[-1]}"
        lines.append(f"{preset:<14}{which:<16}{options.kimg:g} kimg each: {raised or 'no alarm'}")
    return lines


def _healthy_run(options: argparse.Namespace, preset: str, seed: int) -> list[tuple[int, str]]:
    """The alarms of a run, out of options.kept if it holds that run."""
    run = {"preset": preset, "width": options.width, "kimg": options.kimg, "seed": seed, "commit": rows.commit()}
    if options.kept and options.kept.exists():
        for row in map(json.loads, options.kept.read_text(encoding="utf-8").splitlines()):
            if run.items() <= row.items():
                return [tuple(alarm) for alarm in row["alarms"]]
    found = carried_out(config_of(preset, options.width, seed=seed, kimg=options.kimg, held_out=256))
    print(f"  {preset} seed {seed}: {found or 'none'}", file=sys.stderr, flush=True)
    if options.kept:
        with open(options.kept, "a", encoding="utf-8") as file:
            file.write(json.dumps(run | {"alarms": found}) + "\n")
    return found


def provoked(options: argparse.Namespace) -> list[str]:
    lines = []
    for fault, (wanted, changes, break_it) in FAULTS.items():
        if options.faults and not any(word in fault for word in options.faults):
            continue
        found = carried_out(config_of(options.presets[0], options.width, kimg=options.kimg, **changes), break_it)
        at = next((f"{nimg:,} images" for nimg, name in found if name.startswith(wanted)), "not raised")
        others = sorted({name for _, name in found if not name.startswith(wanted)})
        lines.append(f"{options.presets[0]}: {fault:<32}{wanted:<16}{at:<16}{', '.join(others)}")
        print(f"  {lines[-1]}", file=sys.stderr, flush=True)
    return lines


def rollback(options: argparse.Namespace) -> list[str]:
    lines = []
    for fault, (changes, break_it) in COLLAPSES.items():
        if options.faults and not any(word in fault for word in options.faults):
            continue
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            lines.append(f"{fault}, seed {seed}: {_recovery(options, seed, changes, break_it)}")
            print(f"  {lines[-1]}", file=sys.stderr, flush=True)
    return lines


def _recovery(options: argparse.Namespace, seed: int, changes: dict, break_it: Callable[[Trainer, float], None]) -> str:
    """The distances of a run that breaks at half of its images, before that and after it has gone back."""
    measured = {"eval_kimg": 2.048, "eval_num": 1000, "on_collapse": "rollback", "seed": seed}
    half = 500 * options.kimg
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(options.presets[0], options.width, kimg=options.kimg, **measured | changes)
        trainer = trainer_of(config, Path(folder))
        break_it(trainer, half)
        trainer.run()
        rows = read_metrics(trainer.run_dir)
    name = next(key for row in rows for key in row if key.startswith("eval/"))
    back = [row["nimg"] for row in rows if BACK_TO in row]
    distances = [(row["nimg"], row[name]) for row in rows if name in row]
    before = min(value for nimg, value in distances if nimg < half)
    if not back:
        return "no rollback"
    worst = max(value for nimg, value in distances if half <= nimg <= back[-1])
    after = min((value for nimg, value in distances if nimg > back[-1]), default=math.nan)
    return (
        f"{name.removeprefix('eval/')} {before:.1f} at best before, {worst:.1f} at worst from {half / 1000:g} kimg on, "
        f"back at {' and '.join(f'{nimg / 1000:g}' for nimg in back)} kimg, {after:.1f} at best afterwards: "
        f"{after / before:.2f} times"
    )


def _collapse_until_rollback(trainer: Trainer, nimg: float) -> None:
    """Keep the last layer of G at zero from `nimg` images on, until the run has gone back."""
    step, gone_back = trainer.step, []
    load_state = trainer.load_state_dict
    trainer.load_state_dict = lambda *args, **options: gone_back.append(1) or load_state(*args, **options)

    def broken() -> None:
        step()
        if trainer.nimg >= nimg and not gone_back:
            with torch.no_grad():
                for p in list(trainer.G.parameters())[-2:]:
                    p.zero_()

    trainer.step = broken


def _fast_from(trainer: Trainer, nimg: float) -> None:
    """Take 200 times the learning rates from `nimg` images on, also when the run has gone back."""
    step = trainer.step

    def broken() -> None:
        if trainer.nimg >= nimg:
            for optimizer in trainer.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = 200 * optimizer.defaults["lr"]
        step()

    trainer.step = broken


COLLAPSES: dict[str, tuple[dict, Callable[[Trainer, float], None]]] = {
    "G's last layer is zero": ({}, _collapse_until_rollback),
    "the rates are 200 times as large": ({"rollback_lr": 0.1}, _fast_from),
}


def cost(options: argparse.Namespace) -> list[str]:
    lines = []
    for preset in options.presets:
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_of(config_of(preset, options.width, kimg=1e6), Path(folder))
            steps = round(interval(trainer.config, 1) / trainer.config.batch_size)
            trainer.step()
            trainer.health.read(0, {})
            shares = []
            for _ in range(options.seeds):
                began = time.process_time()
                for _ in range(steps):
                    trainer.step()
                between = time.process_time()
                trainer.health.read(trainer.nimg, trainer.read_means(keep=True))
                shares.append((time.process_time() - between) / (between - began))
        share = sorted(shares)[len(shares) // 2]
        lines.append(
            f"{preset:<14}a reading takes {share:.2%} of the {steps} steps before it (median of {len(shares)})"
        )
    return lines


PARTS = {"healthy": healthy, "provoked": provoked, "rollback": rollback, "cost": cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, help="the finished runs of `healthy`, a line of JSON for each")
    parser.add_argument("--kimg", type=float, default=20)
    parser.add_argument("--width", type=int)
    parser.add_argument("--presets", nargs="+", default=["dcgan", "cgan", "stylegan2_32"])
    parser.add_argument("--faults", nargs="+", help="words of the faults to provoke; default: all")
    parser.add_argument("--out", type=Path, help="append the table to this file")
    options = parser.parse_args()
    for part in options.parts:
        lines = [f"$ python -m benchmarks.alarms {' '.join(sys.argv[1:])}", *PARTS[part](options), ""]
        print("\n".join(lines), flush=True)
        if options.out:
            with open(options.out, "a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
