"""RUN/copies.png and RUN/copies.json: the samples of a run that lie nearest to its training images, for its report."""

import json
from pathlib import Path

import torch

from gan_engine import models
from gan_engine.data import to_float
from gan_engine.data.image_set import to_eight_bits
from gan_engine.data.kinds import MADE, kind_of
from gan_engine.inference import run_data
from gan_engine.inference.generator import from_state
from gan_engine.metrics import copies
from gan_engine.pictures.picture import grid, to_uint8, write_picture
from gan_engine.runs import record
from gan_engine.runs.copies import JSON, PICTURE, read
from gan_engine.saved_config import from_dict
from gan_engine.system import checkpoint
from gan_engine.system.devices import choose_device
from gan_engine.system.whole_file import replacing

SAMPLES = 100  # from noise, that are compared
SHOWN = 16  # of these, that lie nearest


def write(run_dir: Path, *, device: str = "auto") -> None:
    """Compare samples of the newest checkpoint with the data of its run, and write both files.

    Files that were written for this checkpoint are kept.

    Raises:
        FileNotFoundError: there is no run in `run_dir`.
        CheckpointError: there is no intact checkpoint in `run_dir`.
        DataError: the data of the run are not there any more.
        ValueError: a generator that starts from pictures, or makes volumes or points; too few training images.
    """
    record.read(run_dir)
    path = checkpoint.find(run_dir)
    state = checkpoint.load(path)
    trained = from_state(state, path)
    checkpoint.require(state, ("nimg",), path)
    trained.require_noise()
    made, family = MADE[kind_of(models.data_kind(trained.config)).axes], models.family(trained.config)
    if made != "images":
        raise ValueError(f"{run_dir}: want a generator of images, got one of {made} ({family})")
    made_of = {"checkpoint": path.name, "size": path.stat().st_size, "changed": path.stat().st_mtime_ns}
    if (before := read(run_dir)) is not None and before.get("made_of") == made_of:
        return
    data = run_data.of_run(state, path)
    trained = trained.to(choose_device(device))
    c_dim = trained.config.c_dim
    classes = [i % c_dim for i in range(SAMPLES)] if c_dim else None
    samples = torch.from_numpy(to_uint8(trained.sample(SAMPLES, classes=classes))).permute(0, 3, 1, 2).contiguous()
    mirror = from_dict(state["config"], path).mirror
    found = copies.search(samples, data, device=trained.device, mirror=mirror)
    order = found.ratios.argsort()[:SHOWN]
    near = to_eight_bits(data.images[found.indices[order]])
    rows = torch.cat([samples[order, None], near], 1)  # [SHOWN, 1 + NEAREST, C, H, W]
    blank = torch.full_like(rows[:1, 0], 255)
    cells = [cell for i, row in enumerate(rows) for cell in (*row, *([] if i % 2 else blank))]
    write_picture(grid(to_float(torch.stack(cells)), 2 * rows.shape[1] + 1), run_dir / PICTURE)
    text = {"made_of": made_of, "nimg": state["nimg"], "sentences": found.sentences()}
    with replacing(run_dir / JSON) as temporary:
        temporary.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
