"""The page of a run holds all that it shows."""

import json
import re
import subprocess
import sys

import pytest
import torch

from gan_engine import report
from gan_engine.runs.monitors import Monitors
from gan_engine.runs.report import write as write_report


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

    monkeypatch.setattr("gan_engine.runs.report.plot_losses", fail)
    with pytest.warns(UserWarning, match="no plot of the losses: ValueError: no fonts"):
        assert "loss/G" in write_report(run_dir).read_text()
