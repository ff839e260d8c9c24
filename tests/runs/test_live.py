"""report --serve: real requests over the loopback address."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
import torch

from gan_engine import report
from gan_engine.runs import live, record
from gan_engine.runs.monitors import Monitors


@pytest.fixture
def run_dir(tmp_path):
    """A run that has just begun."""
    run = {"config": {"preset": "dcgan"}, "starts": [{"device": "cpu"}]}
    (tmp_path / "run.json").write_text(json.dumps(run))
    return tmp_path


@pytest.fixture
def server(run_dir):
    with live.Server(run_dir) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection(*server.server_address, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def test_the_page_follows_the_run_to_its_end(server, run_dir):
    answer, text = get(server)
    assert answer.status == 200 and "the run goes on" in text and "<img" not in text
    assert answer.headers["Refresh"] == str(live.REFRESH)
    watch = Monitors(run_dir, tensorboard=False)
    watch.scalars(1000, {"loss/G": 0.625}, alarms=["collapse: <seen>"])
    watch.grid(1000, torch.zeros(4, 1, 8, 8))
    files = sorted(run_dir.rglob("*"))
    answer, text = get(server)
    assert sorted(run_dir.rglob("*")) == files  # the page has a plot of the losses, and the run no new file
    assert answer.headers["Refresh"] and all(
        shown in text for shown in ("0.625", "collapse: &lt;seen&gt;", 'alt="samples at 1.0 kimg"')
    )
    record.add_to_last_start(run_dir, {"end": {"reason": "its 1 kimg are done", "kimg": 1.0, "seconds": 2.0}})
    answer, text = get(server)
    assert "The run ended at 1.0 kimg after 2 s of training: its 1 kimg are done." in text
    assert answer.headers["Refresh"] is None
    assert not (run_dir / "report.html").exists()  # a killed run with a report would count as complete


def test_the_page_is_made_once_for_the_same_files(server, monkeypatch):
    made = []
    page = live.report.page
    monkeypatch.setattr(live.report, "page", lambda run_dir: made.append(run_dir) or page(run_dir))
    texts = {get(server)[1] for _ in range(3)}
    assert len(texts) == 1 and not made
    os.utime(server.run_dir / "run.json", ns=(0, 0))
    get(server)
    assert len(made) == 1


@pytest.mark.parametrize("path", ["/run.json", "/../run.json", "/%2e%2e/run.json", "/samples/", "//etc/passwd"])
def test_nothing_but_the_page_is_served(server, path):
    answer, text = get(server, path)
    assert answer.status == 404 and "preset" not in text


def test_nothing_is_taken(server):
    assert get(server, method="POST")[0].status == 501


def test_only_this_machine_is_served(server):
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8000", "127.0.0.1:9"])
def test_this_machine_is_answered_by_its_names_at_any_port(server, host):
    assert get(server, Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil.example", "127.0.0.1:x", ""]
)
@pytest.mark.parametrize("path", ["/", "http://127.0.0.1/"])
def test_another_name_that_leads_to_this_machine_is_refused(server, host, path):
    answer, text = get(server, path, Host=host)
    assert answer.status == 403 and "127.0.0.1 and localhost alone" in text and "preset" not in text


def test_a_new_checkpoint_makes_the_page_anew(server, run_dir, monkeypatch):
    made, page = [], live.report.page
    monkeypatch.setattr(live.report, "page", lambda run_dir: made.append(run_dir) or page(run_dir))
    (run_dir / "checkpoints").mkdir()
    get(server)
    assert len(made) == 1


def test_a_page_that_fails_says_why_and_asks_again(server, run_dir):
    whole = (run_dir / "run.json").read_bytes()
    (run_dir / "run.json").write_text("[]")
    answer, text = get(server)
    assert answer.status == 503 and "damaged: want an object, got list" in text and answer.headers["Refresh"]
    (run_dir / "run.json").write_bytes(whole)
    assert get(server)[0].status == 200


def test_ctrl_c_ends_with_one_sentence(run_dir):
    command = [sys.executable, "-m", "gan_engine.report", str(run_dir), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and err == ""
    assert out.strip() == "ended: the page is shown no more, and the run was not touched"


def test_a_port_that_is_taken_is_named(run_dir, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert report.main([str(run_dir), "--serve", "--port", str(port)]) == 2
    assert f"port: want a free one, got {port}, which is in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "want"), [(["--port", "80"], "want --serve"), (["--serve", "--port", "0"], "want 1 to 65535, got 0")]
)
def test_wrong_flags(run_dir, capsys, flags, want):
    assert report.main([str(run_dir), *flags]) == 2
    assert want in capsys.readouterr().err


def test_a_folder_without_a_run_is_not_served(tmp_path, capsys):
    assert report.main([str(tmp_path), "--serve"]) == 2
    assert "there is no run.json" in capsys.readouterr().err
