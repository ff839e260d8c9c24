"""--gamma auto against fixed weights of R1: `nice -n 19 python -m benchmarks.gamma --seeds 2`.

A cell is one run: a loss, a weight and a seed. All cells have the networks and the optimiser of the scorecard on grey
garments, and differ by the weight alone. A cell ends with the Frechet distance of the embedded classifier.

A cell that is done is not done again. The rows go to --out, and the table to docs/scorecard.md, between two marks.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import rows
from benchmarks.scorecard import PAGE, SHARED, read, spread, train_quietly, write_page
from gan_engine.runs.history import read_metrics

DISTANCE = "eval/fd_fashion32 N=5000"
GAMMAS = ("0.01", "0.1", "1", "10", "100", "auto")
SETTINGS = {"GAN + R1": ("r1",), "RpGAN + R1 + R2": ("r1", "r2")}
OUT = Path(__file__).parent / "results" / "gamma.jsonl"
MARKS = "<!-- gamma -->", "<!-- end of gamma -->"


def words(setting: str, gamma: str, kimg: float) -> list[str]:
    """The call of `gan_engine.train`, but for the seed and the directory. auto begins at 10."""
    grey = SHARED[SHARED.index("--width") :]  # without the data of the scorecard
    weights = ["--gamma", "auto"] if gamma == "auto" else []
    for penalty in SETTINGS[setting]:
        weights += [f"--{penalty}-gamma", "10" if gamma == "auto" else gamma]
    loss = ["--loss", "relativistic"] if setting.startswith("RpGAN") else []
    measured = ["--eval-kimg", str(kimg), "--eval-metrics", "fid", "--eval-num", "5000", "--held-out", "500"]
    return ["dcgan", *grey, "--threads", "1", "--kimg", str(kimg), *measured, *loss, *weights]


def main() -> None:
    options = _options()
    done = {(row["setting"], row["gamma"], row["seed"]) for row in read(options.out)}
    cells = [(s, gamma, seed) for seed in range(options.seeds) for s in SETTINGS for gamma in GAMMAS]
    for setting, gamma, seed in tqdm([cell for cell in cells if cell not in done], unit=" cells"):
        run_dir = options.runs / f"{setting.replace(' + ', '-').lower()}-{gamma}-{seed}"
        call = [*words(setting, gamma, options.kimg), "--seed", str(seed), "--out", str(run_dir)]
        status, log = train_quietly(call)
        if status != 0:
            raise SystemExit(f"{setting}, gamma {gamma}, seed {seed}: the run ended with status {status}\n{log}")
        row = row_of(run_dir, setting, gamma, seed) | rows.environment("cpu")
        tqdm.write(f"{setting}, gamma {gamma}, seed {seed}: {row['distance']:.1f}")
        rows.append(options.out, [row])
    found = table(read(options.out))
    print(found)
    if options.page:
        write_page(PAGE, MARKS, found)


def row_of(run_dir: Path, setting: str, gamma: str, seed: int) -> dict[str, Any]:
    """The last measurement of a run, and the weights that auto came to."""
    history = read_metrics(run_dir)
    last = [row for row in history if DISTANCE in row][-1]
    weights = [row["gamma/r1"] for row in history if "gamma/r1" in row]
    found = {"setting": setting, "gamma": gamma, "seed": seed, "kimg": last["kimg"], "distance": last[DISTANCE]}
    return found | ({"least": min(weights), "most": max(weights), "last": weights[-1]} if weights else {})


def table(found: Sequence[dict[str, Any]]) -> str:
    """The mean distance, and the least and the largest of the seeds, as Markdown: a column for each setting."""
    lines = [f"| gamma | {' | '.join(SETTINGS)} | seeds |", f"| --- |{' --- |' * len(SETTINGS)} --- |"]
    for gamma in GAMMAS:
        groups = [[row for row in found if (row["setting"], row["gamma"]) == (s, gamma)] for s in SETTINGS]
        if all(groups):
            seeds = ", ".join(dict.fromkeys(str(len(group)) for group in groups))
            cells = [spread(group, "distance", ".1f") for group in groups]
            lines.append(f"| {gamma} | {' | '.join(cells)} | {seeds} |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds, from 0 on")
    parser.add_argument("--kimg", type=float, default=16.0, help="length of a cell")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "gamma")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--page", action="store_true", help=f"write the table into {PAGE.name} too")
    torch.set_num_threads(1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
