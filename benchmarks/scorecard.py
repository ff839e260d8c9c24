"""Losses and penalties on stacked garments, over seeds: `nice -n 19 python -m benchmarks.scorecard --seeds 3`.

A cell is one run: a loss, a penalty and a seed. All cells have the networks of dcgan without norms, the same optimiser
and one step of D for each step of G, so they differ by the loss and the penalty alone. A cell ends with the modes
covered, their KL to the data's, and the time. Seeds come one after the other, so a stopped scorecard has whole rounds.

A cell that is done is not done again, and a cell that was stopped goes on. The runs lie in --runs, for
`python -m gan_engine.compare`. The rows go to --out, and the table to docs/scorecard.md, between two marks.
"""

import argparse
import contextlib
import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import rows
from gan_engine import train
from gan_engine.data import stacked
from gan_engine.runs import record
from gan_engine.runs.directory import holds_run
from gan_engine.runs.history import read_metrics
from gan_engine.system.whole_file import replacing

NUM = 26_000  # images that are measured, as in PacGAN (arXiv:1712.04086, section 4.1.2)
R1, R2 = ("--r1-gamma", "1"), ("--r2-gamma", "1")
CELLS: dict[str, tuple[str, ...]] = {
    "GAN": (),
    "GAN + R1": R1,
    "GAN + R1 + R2": (*R1, *R2),
    "RpGAN": ("--loss", "relativistic"),
    "RpGAN + R1": ("--loss", "relativistic", *R1),
    "RpGAN + R1 + R2": ("--loss", "relativistic", *R1, *R2),
    "WGAN": ("--loss", "wasserstein", "--weight-clip", "0.01"),
    "WGAN-GP": ("--loss", "wasserstein", "--gp-weight", "10"),
    "hinge + SN": ("--loss", "hinge", "--d-spectral-norm"),
}
SHARED = ("--data", stacked.NAME, "--width", "16", "--no-d-norm", "--batch-size", "32", "--lr", "4e-4")
SHARED += ("--betas", "0.5", "0.99", "--precision", "fp32", "--no-tensorboard", "--keep", "1", "--grid-kimg", "1000")
PAGE = Path(__file__).parents[1] / "docs" / "scorecard.md"
OUT = Path(__file__).parent / "results" / "scorecard.jsonl"
MARKS = "<!-- scorecard -->", "<!-- end of scorecard -->"


def main() -> None:
    options = _options()
    _require_one_length(options)
    cells = [(name, seed) for seed in range(options.seeds) for name in options.cells]
    done = {(row["cell"], row["seed"]) for row in read(options.out)}
    for name, seed in tqdm(cells, unit=" cells", desc="scorecard"):
        if (name, seed) not in done:
            row = measured(name, seed, options)
            tqdm.write(f"{name}, seed {seed}: {row['modes']} modes, KL {row['kl']:.3f}, {row['seconds']:.0f} s")
            rows.append(options.out, [row])
    found = table(read(options.out))
    print(found)
    if options.page:
        write_page(PAGE, MARKS, found)


def measured(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Carry out a cell, or the rest of it, and return its row."""
    run_dir = options.runs / f"{name.replace(' + ', '-').lower()}-{seed}"
    words = ["--resume", str(run_dir)]
    if not holds_run(run_dir):
        length = ["--kimg", str(options.kimg)] if options.kimg else []
        length += ["--minutes", str(options.minutes)] if options.minutes else []
        measuring = ["--eval-kimg", str(options.eval_kimg), "--eval-metrics", "modes", "--eval-num", str(options.num)]
        words = ["dcgan", *SHARED, *CELLS[name], *length, *measuring, "--seed", str(seed), "--out", str(run_dir)]
        words += ["--threads", str(options.threads)]
    status, log = train_quietly(words)
    if status != 0 and not _is_over(run_dir, options.num):  # resuming a run that is over is refused
        raise SystemExit(f"{name}, seed {seed}: the run ended with status {status}\n{log}")
    return row_of(run_dir, name, seed, options.num) | rows.environment("cpu") | {"threads": options.threads}


def train_quietly(words: Sequence[str]) -> tuple[int | None, str]:
    """The status of `gan_engine.train`, and the end of what it wrote."""
    log = io.StringIO()
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        status = train.main([*words])
    return status, log.getvalue()[-2000:]


def _is_over(run_dir: Path, num: int) -> bool:
    return (
        any(f"eval/modes_fashion32 N={num}" in row for row in read_metrics(run_dir))
        and (run_dir / "report.html").is_file()
    )


def row_of(run_dir: Path, name: str, seed: int, num: int) -> dict[str, Any]:
    """The last measurement of a run, and the run's length and settings."""
    history = read_metrics(run_dir)
    last = [row for row in history if f"eval/modes_fashion32 N={num}" in row][-1]
    config = record.read(run_dir)["config"]
    settings = ("loss", "r1_gamma", "r2_gamma", "gp_weight", "weight_clip", "lr", "betas", "batch_size", "precision")
    return {
        "cell": name,
        "seed": seed,
        "kimg": last["kimg"],
        "num": num,
        "modes": int(last[f"eval/modes_fashion32 N={num}"]),
        "kl": last[f"eval/modes_kl_fashion32 N={num}"],
        "seconds": max(row["seconds"] for row in history if row.get("seconds") is not None),
        **{name: config[name] for name in settings},
        "model": config["model"],
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """Means and least and largest values over the seeds, as Markdown, most modes first and then the least KL."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault(row["cell"], []).append(row)
    lines = ["| loss | modes of 1,000 | KL | seconds | seeds |", "| --- | --- | --- | --- | --- |"]
    for name, group in sorted(groups.items(), key=lambda item: (-_mean(item[1], "modes"), _mean(item[1], "kl"))):
        values = [spread(group, key, form) for key, form in (("modes", ",.0f"), ("kl", ".3f"), ("seconds", ",.0f"))]
        lines.append(f"| {' | '.join([name, *values, str(len(group))])} |")
    return "\n".join(lines)


def _mean(group: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.mean(row[key] for row in group)


def spread(group: Sequence[dict[str, Any]], key: str, form: str) -> str:
    """The mean, and the least and the largest value."""
    values = [row[key] for row in group]
    ends = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{ends}"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that may be missing."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _require_one_length(options: argparse.Namespace) -> None:
    """Stop if the rows that are there have another length or another number of images: they make no one table."""
    for row in read(options.out):
        if row["num"] != options.num or (options.minutes is None and abs(row["kimg"] - options.kimg) > 0.1):
            got = f"{row['kimg']:g} kimg and N={row['num']}"
            raise SystemExit(f"out: {options.out} has rows of {got}; name another file, or the same length and number")


def write_page(page: Path, marks: tuple[str, str], found: str) -> None:
    """Write the table `found` between two marks of a page."""
    before, rest = page.read_text().split(marks[0])
    after = rest.split(marks[1])[1]
    with replacing(page) as temporary:
        temporary.write_text(f"{before}{marks[0]}\n{found}\n{marks[1]}{after}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 on")
    parser.add_argument("--kimg", type=float, help="length of a cell; 60 if --minutes is not given")
    parser.add_argument("--minutes", type=float, help="length of a cell in time; with --kimg, whichever ends first")
    parser.add_argument("--num", type=int, default=NUM, help="images that are measured")
    parser.add_argument("--eval-kimg", type=float, help="time between two measurements; at the end alone if not given")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=[*CELLS], metavar="CELL", help=", ".join(CELLS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "scorecard")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--page", action="store_true", help=f"write the table into {PAGE.name} too")
    options = parser.parse_args()
    if options.kimg is None and options.minutes is None:
        options.kimg = 60.0
    options.eval_kimg = options.eval_kimg or options.kimg or 1e9
    torch.set_num_threads(options.threads)
    return options


if __name__ == "__main__":
    main()
