"""All that a run shows of itself is there, is right, and never ends the run."""

import html
import json
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine.runs import loggers, loss_plot, monitors, sample_grids
from gan_engine.runs.history import read_metrics
from gan_engine.runs.monitors import Monitors
from gan_engine.runs.report import write as write_report
from gan_engine.system.names import legible


def rows_of(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_every_report_is_one_line_at_once(tmp_path):
    watch = Monitors(tmp_path / "run", tensorboard=False)
    watch.scalars(1500, {"loss/G": torch.tensor(0.5), "loss/D": math.nan, "loss/r1": math.inf})
    watch.scalars(3000, {"loss/G": 0.25})
    first, second = rows_of(tmp_path / "run")
    assert first.pop("time") <= second.pop("time")
    assert first == {"nimg": 1500, "kimg": 1.5, "loss/G": 0.5, "loss/D": None, "loss/r1": None}
    assert second == {"nimg": 3000, "kimg": 3.0, "loss/G": 0.25}


def test_a_resumed_run_leaves_one_history(tmp_path):
    watch = Monitors(tmp_path, tensorboard=False)
    for nimg in (1000, 2000, 3000):
        watch.scalars(nimg, {"loss/G": nimg})
        watch.grid(nimg, torch.zeros(4, 1, 8, 8))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"nimg": 4000, "ki')
    watch = Monitors(tmp_path, tensorboard=False, resume_nimg=2000)
    watch.scalars(2500, {"loss/G": 7})
    assert [(row["nimg"], row["loss/G"]) for row in rows_of(tmp_path)] == [(1000, 1000), (2000, 2000), (2500, 7)]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "kimg-000001.000.png",
        "kimg-000002.000.png",
    ]


def test_a_grid_shows_every_image_where_it_belongs(tmp_path):
    images = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 32, 32)
    path = Monitors(tmp_path, tensorboard=False).grid(123_456, images)
    assert path == tmp_path / "samples" / "kimg-000123.456.png"
    with Image.open(path) as picture:
        assert picture.mode == "L"
        assert picture.size == (3 * 64 + 4 * 2, 2 * 64 + 3 * 2)
        sheet = np.asarray(picture)
    assert [int(sheet[34 + 66 * (i // 3), 34 + 66 * (i % 3)]) for i in range(6)] == [0, 64, 128, 191, 255, 255]


def test_tensorboard_gets_the_same(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for resume_nimg in (None, 2000):
        watch = Monitors(tmp_path, resume_nimg=resume_nimg)
        for nimg in (1000, 2000, 3000) if resume_nimg is None else (2500,):
            watch.scalars(nimg, {"loss/G": nimg})
            watch.grid(nimg, torch.zeros(4, 1, 8, 8))
        watch.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/G")] == [
        (1000, 1000),
        (2000, 2000),
        (2500, 2500),
    ]
    assert "samples" in events.Tags()["images"]


def test_without_tensorboard_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.warns(UserWarning, match="pip install tensorboard"):
        watch = Monitors(tmp_path)
    watch.scalars(1, {"loss/G": 1.0})
    assert len(rows_of(tmp_path)) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_the_animation_plays_from_the_first_grid_to_the_last(tmp_path, channels, monkeypatch):
    monkeypatch.setattr(sample_grids, "_FRAMES", 5)
    watch = Monitors(tmp_path, tensorboard=False)
    for i in range(9):
        watch.grid(i * 1000, torch.full((9, channels, 32, 32), i / 4 - 1))
    watch.close()
    with Image.open(tmp_path / "training.gif") as movie:
        assert movie.n_frames == 5
        assert movie.size == (200, 228)
        seen, durations = [], []
        for frame in range(5):
            movie.seek(frame)
            seen.append(np.asarray(movie.convert("RGB"))[100, 100].tolist())
            durations.append(movie.info["duration"])
    assert np.allclose(seen, [[value] * 3 for value in (0, 64, 128, 191, 255)], atol=4)
    assert durations[-1] > durations[0] > 0
    assert not list(tmp_path.glob("*.tmp*")) and not list(tmp_path.glob("samples/*.tmp*"))


def test_a_large_grid_is_animated_small(tmp_path):
    watch = Monitors(tmp_path, tensorboard=False)
    for nimg in (0, 1000):
        watch.grid(nimg, torch.rand(16, 3, 256, 256) * 2 - 1)
    with Image.open(sample_grids.animate(tmp_path)) as movie:
        assert max(movie.size) <= 750


def test_losses_are_plotted(tmp_path):
    watch = Monitors(tmp_path, tensorboard=False)
    for i in range(50):
        watch.scalars(
            i * 1000, {"loss/G": math.exp(-i / 9), "loss/D": math.nan if i == 7 else i / 50, "img_per_s": 900}
        )
    watch.scalars(50_000, {"loss/r1": math.nan})
    watch.close()
    with Image.open(tmp_path / "losses.png") as plot:
        assert plot.size[0] >= 900 and plot.size[1] >= 400
        colours = {tuple(pixel) for pixel in np.asarray(plot.convert("RGB")).reshape(-1, 3).tolist()}
    assert {(0, 114, 178), (213, 94, 0)} <= colours
    curves = loss_plot._curves(read_metrics(tmp_path), "loss")
    assert list(curves) == ["G", "D"]
    assert curves["D"][0][-1] == 49.0


def test_the_moving_average_ends_where_a_constant_is():
    values = np.full(500, 3.0)
    values[40:60] = np.nan
    assert np.allclose(loss_plot._smooth(values), 3.0)
    assert np.allclose(loss_plot._smooth(np.arange(5.0)), np.arange(5.0))


def test_nothing_reported_gives_no_pictures_and_no_error(tmp_path):
    Monitors(tmp_path, tensorboard=False).close()
    assert not list(tmp_path.iterdir())


def test_half_a_line_is_taken_back(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("needs leave to mount a small file system")
    try:
        watch = Monitors(tmp_path, tensorboard=False)
        with pytest.warns(UserWarning, match="No space left on device"):
            for nimg in range(200):
                watch.scalars(nimg, {"loss/G": 1.0})
        assert [row["nimg"] for row in rows_of(tmp_path)][:30] == list(range(30))
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_disk_that_is_full_at_the_start_does_not_end_the_run(tmp_path, monkeypatch):
    Monitors(tmp_path, tensorboard=False).scalars(1000, {"loss/G": 1.0})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", full)
    with pytest.warns(UserWarning) as warned:
        watch = Monitors(tmp_path, resume_nimg=500)
    reasons = [str(warning.message).removeprefix(f"{tmp_path}/") for warning in warned]
    reason = "not written: No space left on device; the run goes on"
    assert reasons == [f"metrics.jsonl: {reason}", f"tensorboard: {reason}"]
    watch.close()


def test_a_disk_that_is_full_does_not_end_the_run(tmp_path, monkeypatch):
    watch = Monitors(tmp_path, tensorboard=False)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.warns(UserWarning, match="metrics.jsonl: not written: No space left on device; the run goes on"):
        watch.scalars(1000, {"loss/G": 1.0})
    with pytest.warns(UserWarning, match=r"kimg-000001.000.png: not written"):
        watch.grid(1000, torch.zeros(4, 1, 8, 8))


NAMES = [
    "cost$_$1",
    "$$",
    r"\frac{",
    "a%b{}<b>",
    "line\nbreak",
    "emoji 😀",
    "bytes \udcff",
    "[x]*?#",
    "-dash",
    "_x",
    "x" * 250,
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
@pytest.mark.filterwarnings("error")
def test_a_name_is_text_whatever_it_looks_like(tmp_path, name):
    run_dir = tmp_path / name
    watch = Monitors(run_dir, tensorboard=False)
    for nimg in (0, 1000):
        watch.scalars(nimg, {f"loss/{name}": 1.0, "loss/G": nimg / 1000})
        watch.grid(nimg, torch.zeros(4, 1, 8, 8))
    watch.close()
    assert (run_dir / "losses.png").exists() and (run_dir / "training.gif").exists()
    (run_dir / "run.json").write_text(json.dumps({"config": {"data": name}, "starts": []}))
    page = write_report(run_dir).read_text(encoding="utf-8")
    assert html.escape(legible(name)) in page and "<b>" not in page


def test_the_legend_names_every_loss(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    seen = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *to, **form: seen.append(self))
    watch = Monitors(tmp_path, tensorboard=False)
    watch.scalars(0, {"loss/_hidden": 1.0, "loss/$x": 2.0})
    watch.close()
    assert [text.get_text() for text in seen[0].axes[0].get_legend().get_texts()] == ["_hidden", "$x"]


def test_the_same_plot_is_drawn_once(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    save, drawn = figure.Figure.savefig, []
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, *to, **form: drawn.append(self) or save(self, *to, **form)
    )
    watch = Monitors(tmp_path, tensorboard=False)
    for nimg, value in ((0, float("nan")), (1000, 1.0)):
        watch.scalars(nimg, {"loss/G": value})
    watch.close()
    assert loss_plot.losses_png(tmp_path) == (tmp_path / "losses.png").read_bytes() and len(drawn) == 1
    watch.scalars(2000, {"loss/G": 2.0})
    assert loss_plot.losses_png(tmp_path) != (tmp_path / "losses.png").read_bytes() and len(drawn) == 2


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    "error", [ValueError("odd\ntext"), KeyError("kimg"), MemoryError(), TypeError("proto"), OSError(5, "I/O")]
)
def test_no_exception_of_a_monitor_ends_a_run_and_each_is_said_once(tmp_path, monkeypatch, error):
    class Board:
        scalars = picture = close = raising(error)

    monkeypatch.setattr(loggers, "started", lambda *_: Board())
    watch = Monitors(tmp_path)
    for name in ("_append_line", "grid", "animate", "plot_losses"):
        monkeypatch.setattr(monitors, name, raising(error))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for nimg in (0, 1000, 2000):
            watch.scalars(nimg, {"loss/G": 1.0})
            watch.grid(nimg, torch.zeros(4, 1, 8, 8))
        watch.close()
    places = ["metrics.jsonl", "tensorboard", "samples/kimg-000000.000.png", "training.gif", "losses.png"]
    assert [str(each.message).split(": not written: ")[0] for each in warned] == [
        str(tmp_path / place) for place in places
    ]
    assert all(len(str(each.message).splitlines()) == 1 for each in warned)


def test_a_broken_tensorboard_does_not_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", raising(TypeError("Descriptors cannot be created")))
    with pytest.warns(UserWarning, match="tensorboard: not written: TypeError: Descriptors cannot be created; the run"):
        Monitors(tmp_path).scalars(1, {"loss/G": 1.0})
    assert len(rows_of(tmp_path)) == 1


DAMAGE = [
    *("[1]", "{", "null", '{"nimg": "x"}', '{"nimg": -1}', '{"nimg": true}', '{"nimg": 1e3}', '{"kimg": 1}', "\0\0"),
    *('{"nimg": 1' + "0" * 400 + "}", "[" * 100_000, '{"nimg": 1' + "0" * 5000 + "}"),
]


@pytest.mark.filterwarnings("error")
def test_damaged_metrics_cost_what_is_damaged(tmp_path):
    good = [
        {"nimg": 1000, "loss/G": 1.0},
        {"nimg": 2000, "loss/G": 2.0, "loss/D": "x", "loss/r1": [1], "loss/D2": 10**400},
    ]
    lines = [json.dumps(good[0]), *DAMAGE, json.dumps(good[1])]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n")
    (tmp_path / "samples").mkdir()
    for nimg, content in ((0, b"\x89PNG\r\n"), (1, b""), (2, None)):
        path = sample_grids.sample_path(tmp_path, nimg)
        path.mkdir() if content is None else path.write_bytes(content)
    watch = Monitors(tmp_path, tensorboard=False, resume_nimg=2000)
    for nimg in (3000, 4000):
        watch.grid(nimg, torch.zeros(4, 1, 8, 8))
    watch.scalars(3000, {"loss/G": 3.0})
    watch.close()
    rows = read_metrics(tmp_path)
    assert [(row["nimg"], row["kimg"], row["loss/G"]) for row in rows] == [(1000, 1, 1), (2000, 2, 2), (3000, 3, 3)]
    assert rows[1].keys() == {"nimg", "kimg", "loss/G"} and (tmp_path / "losses.png").exists()
    with Image.open(tmp_path / "training.gif") as movie:
        assert movie.size[1] > 0
    (tmp_path / "run.json").write_text(json.dumps({"config": {}, "starts": []}))
    assert "3.0 kimg" in write_report(tmp_path).read_text()
