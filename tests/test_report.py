"""The page of a run holds all that it shows."""

import html
import json
import re
import subprocess
import sys

import pytest
import torch

from gan_engine import report, train
from gan_engine.data.toy import SHAPES
from gan_engine.presets import PRESETS
from gan_engine.runs import copies
from gan_engine.runs.history import AGAINST, ANEW
from gan_engine.runs.monitors import Monitors
from gan_engine.runs.report import write as write_report
from gan_engine.saved_config import to_dict


@pytest.fixture
def run_dir(tmp_path):
    watch = Monitors(tmp_path, tensorboard=False)
    for nimg in (0, 1000, 2000):
        watch.grid(nimg, torch.zeros(4, 1, 8, 8))
        watch.scalars(nimg, {"loss/G": nimg / 1000, "loss/D": float("nan"), "seconds": 1.0})
    config = {"preset": "<b>dcgan</b>", "lr": 0.1, "model": {"width": 64}, "betas": [0.5, 0.9]}
    (tmp_path / "run.json").write_text(json.dumps({"config": config, "starts": [{"device": "cpu"}]}))
    return tmp_path


def test_the_page_needs_nothing_else(run_dir):
    page = write_report(run_dir).read_text()
    pictures = re.findall(r'src="([^"]*)"', page)
    assert len(pictures) == 1 + 1 + 3 and all(src.startswith("data:image/png;base64,") for src in pictures)
    assert not re.search(r"https?://|<script|<link", page)
    for shown in ("2.0 kimg", "loss/G", "not finite", "model.width", "0.5 0.9", "&lt;b&gt;dcgan&lt;/b&gt;"):
        assert shown in page
    assert "<b>" not in page


def test_measurements_have_their_best_and_their_spread(run_dir):
    watch = Monitors(run_dir, tensorboard=False)
    for i, (distance, precision) in enumerate(
        zip((9, 2, 4, 6, 8, 10, 5), (0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.3), strict=True)
    ):
        watch.scalars(
            3000 + 1000 * i, {"eval/fd_fashion32 N=100": distance, "eval/precision_fashion32 N=100": precision}
        )
    page = write_report(run_dir).read_text()
    cells = dict(re.findall(r"<tr><th>([^<]+ N=100)</th>(.*?)</tr>", page))
    found = {name: re.findall(r"<td[^>]*>([^<]*)<", row) for name, row in cells.items()}
    assert found["fd_fashion32 N=100"] == ["5", "2 at 4.0 kimg", "6.6 (4 to 10)"]
    assert found["precision_fashion32 N=100"] == ["0.3", "0.9 at 4.0 kimg", "0.34 (0.2 to 0.5)"]


def test_measurements_of_other_images_and_from_before_a_new_beginning_are_not_compared(run_dir):
    """The best number of the page is that of best.pt: the last one of equals."""
    watch, name = Monitors(run_dir, tensorboard=False), "fd_fashion32 N=100"
    watch.scalars(0, {f"eval/{name}": 1, AGAINST: 1})
    watch.scalars(0, {ANEW: 1})
    for kimg, (distance, against) in enumerate(((9, 1), (2, 2), (5, 1), (5, 1), (7, 1)), 1):
        watch.scalars(1000 * kimg, {f"eval/{name}": distance, AGAINST: against})
    (row,) = re.findall(rf"<tr><th>{name}</th>(.*?)</tr>", write_report(run_dir).read_text())
    assert re.findall(r"<td[^>]*>([^<]*)<", row) == ["7", "5 at 4.0 kimg", "6.5 (5 to 9)"]


def test_the_page_says_what_was_run_and_names_the_rows(run_dir):
    start = {"arguments": ["dcgan", "--data", "my photos"], "data": "photos: 9 images", "classes": ["<cat>", "dog"]}
    (run_dir / "run.json").write_text(json.dumps({"config": {"preset": "dcgan"}, "starts": [start]}))
    page = write_report(run_dir).read_text()
    assert html.escape("python -m gan_engine.train dcgan --data 'my photos'") in page
    assert page.index("photos: 9 images") < page.index("<h2>Samples</h2>")
    assert "<ul><li>&lt;cat&gt;</li><li>dog</li></ul>" in page


def test_a_run_with_classes_has_named_rows(tmp_path):
    flags = ["--data", "toy", "--width", "4", "--max-width", "8", "--batch-size", "16", "--kimg", "0.016"]
    flags += ["--device", "cpu", "--precision", "fp32", "--no-tensorboard", "--no-tune-malloc"]
    assert train.main(["cgan", *flags, "--out", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"<ul>{''.join(f'<li>{name}</li>' for name in SHAPES)}</ul>" in page
    assert "The run ended at 0.0 kimg" in page and "its 0.016 kimg are done" in page
    assert train.main(["dcgan", *flags, "--out", str(tmp_path / "other")]) == 0
    assert "<ul><li>" not in (tmp_path / "other" / "report.html").read_text()


def test_the_page_says_how_to_go_on(run_dir):
    def listed():
        return html.unescape(
            re.search(r"<h2>How to go on</h2><p?r?e?>(.*?)</p", write_report(run_dir).read_text(), re.S)[1]
        )

    assert "How to go on" not in write_report(run_dir).read_text()  # there is no checkpoint
    (run_dir / "checkpoints").mkdir()
    (run_dir / "checkpoints" / "kimg-000002.000.pt").touch()
    assert "its configuration does not fit this version" in listed()
    config = to_dict(PRESETS["dcgan"]())
    (run_dir / "run.json").write_text(json.dumps({"config": config, "starts": [{}]}))
    assert listed().startswith(f"go on, if it was killed python -m gan_engine.train --resume={run_dir}\n")
    end = {"reason": "its 100 kimg are done", "kimg": 100.0, "seconds": 1.0}
    (run_dir / "run.json").write_text(json.dumps({"config": config, "starts": [{"end": end}]}))
    assert f"train --resume={run_dir} --kimg 200\n" in listed() and "if it was killed" not in listed()
    assert f"copies?    python -m gan_engine.report {run_dir} --copies" in listed()
    found = {"made_of": {"checkpoint": "kimg-000002.000.pt"}, "nimg": 2000, "sentences": ["Nothing <found>."]}
    (run_dir / "copies.json").write_text(json.dumps(found))
    (run_dir / "copies.png").write_bytes(b"")
    assert "--copies" not in listed() and "<p>Nothing &lt;found&gt;.</p>" in write_report(run_dir).read_text()
    (run_dir / "run.json").write_text(json.dumps({"config": to_dict(PRESETS["gan3d"]()), "starts": [{}]}))
    (run_dir / "copies.png").unlink()
    assert "--copies" not in listed()


def test_a_search_for_copies_in_an_older_checkpoint_is_called_so(run_dir, monkeypatch):
    (run_dir / "checkpoints").mkdir()
    (run_dir / "checkpoints" / "kimg-000002.000.pt").touch()
    (run_dir / "run.json").write_text(json.dumps({"config": to_dict(PRESETS["dcgan"]()), "starts": [{}]}))
    found = {"made_of": {"checkpoint": "kimg-000002.000.pt"}, "nimg": 2000, "sentences": ["Nothing found."]}
    (run_dir / "copies.json").write_text(json.dumps(found))
    (run_dir / "copies.png").write_bytes(b"")
    page = write_report(run_dir).read_text()
    assert "Nothing found." in page and "not the newest" not in page and "--copies" not in page
    (run_dir / "checkpoints" / "kimg-000003.000.pt").touch()
    reads, read = [], copies.read
    monkeypatch.setattr(copies, "read", lambda of: reads.append(of) or read(of))
    page = write_report(run_dir).read_text()
    assert "Nothing found." in page and len(reads) == 1
    assert "; the search is of the checkpoint kimg-000002.000.pt, which is not the newest one</figcaption>" in page
    assert f"copies?                 python -m gan_engine.report {run_dir} --copies" in page
    del found["made_of"]
    (run_dir / "copies.json").write_text(json.dumps(found))
    with pytest.warns(UserWarning, match="copies.json: damaged"):
        assert "Nothing found." not in write_report(run_dir).read_text()


def test_a_run_that_has_only_begun_has_a_page_too(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"config": {"preset": "dcgan"}, "starts": []}))
    assert "dcgan" in write_report(tmp_path).read_text()


def test_what_is_no_run_is_said(tmp_path):
    command = [sys.executable, "-m", "gan_engine.report", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ") and "there is no run.json" in run.stderr


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", "not JSON"),
        ("\ud800", "not JSON"),
        ("[]", "want an object, got list"),
        ('{"starts": []}', "config: want an object, got NoneType"),
        ('{"config": 3, "starts": []}', "config: want an object, got int"),
        ('{"config": {}}', "starts: want a list of objects"),
        ('{"config": {}, "starts": "abc"}', "starts: want a list of objects"),
        ('{"config": {}, "starts": [{}, null]}', "starts: want a list of objects"),
        ("[" * 100_000, "not JSON"),
        ('{"config": ' + '{"a": ' * 2000 + "1" + "}" * 2000 + ', "starts": []}', "damaged"),
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_a_damaged_record_is_one_line(tmp_path, monkeypatch, capsys, text, want):
    (tmp_path / "run.json").write_bytes(text.encode(errors="surrogatepass"))
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path)])
    assert report.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'run.json'}: damaged: ") and want in line
    assert not (tmp_path / "report.html").exists()


def test_a_plot_that_fails_costs_the_plot(run_dir, monkeypatch):
    def fail(run_dir):
        raise ValueError("no fonts")

    monkeypatch.setattr("gan_engine.runs.report.losses_png", fail)
    with pytest.warns(UserWarning, match="no plot of the losses: ValueError: no fonts"):
        assert "loss/G" in write_report(run_dir).read_text()


@pytest.mark.parametrize(
    ("flags", "want"),
    [
        (["--device", "cpu"], "device: want --copies beside it"),
        (["--device", "cpu", "--demo"], "device: want --copies beside it"),
        (["--plugin", "mine.py"], "plugin: want --copies or --demo beside it"),
    ],
)
def test_flags_that_nothing_reads_are_refused(tmp_path, capsys, flags, want):
    assert report.main([str(tmp_path), *flags]) == 2
    assert capsys.readouterr().err.startswith(f"error: {want}")
