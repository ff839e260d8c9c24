"""wandb and mlflow get what TensorBoard gets, go on when a run goes on, and never end it. The packages are fakes."""

import json
import math
import os
import sys
import warnings
from pathlib import Path

import pytest
import torch

from gan_engine import config, saved_config, train
from gan_engine.presets import PRESETS
from gan_engine.runs import loggers, monitors
from gan_engine.runs.history import read_metrics
from gan_engine.runs.loggers import LoggerError
from gan_engine.runs.monitors import Monitors
from gan_engine.system.checkpoint import CheckpointError
from gan_engine.training.run_flags import parse
from gan_engine.training.trainer import Trainer

FAKES = Path(__file__).parent / "fake_loggers"
CONFIG = {"lr": 0.1, "model": {"z_dim": 8}}
TINY = [
    *("vanilla", "--data", "toy", "--res", "16", "--hidden", "8", "--batch-size", "16", "--device", "cpu"),
    *("--precision", "fp32", "--no-tensorboard", "--no-tune-malloc", "--metrics-kimg", "0.032", "--out", "run"),
]


@pytest.fixture(autouse=True)
def plain_environment(tmp_path, monkeypatch):
    """Variables of wandb and mlflow as no user has set them, and none after the test."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for kind in loggers.LOGGERS.values():
        for name, value in kind.environment.items():
            monkeypatch.setenv(name, value)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("wandb", "mlflow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "calls"))
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("wandb", "mlflow")]:
        del sys.modules[name]


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The calls of the fake packages so far, of one name or of all."""
    monkeypatch.syspath_prepend(str(FAKES))

    def read(name=None):
        lines = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        rows = [json.loads(line) for line in lines]
        return rows if name is None else [row for row in rows if row.pop("call") == name]

    return read


def watch(run_dir="run", **options):
    options = {"tensorboard": False, "log": ("wandb", "mlflow"), "config": CONFIG, "resume_nimg": 0} | options
    return Monitors(run_dir, **options)


def test_every_logger_gets_numbers_pictures_alarms_and_the_configuration(tmp_path, calls):
    watching = watch()
    watching.scalars(1500, {"loss/G": torch.tensor(0.5), "a\nb": math.inf}, alarms=["collapse", "and so on"])
    watching.grid(2000, torch.zeros(4, 1, 32, 32))
    watching.close()
    (begun,) = calls("wandb.init")
    identity = begun.pop("id")
    assert begun == {
        "console": "off",
        "resume": "allow",
        "project": "gan_engine",
        "name": "run",
        "dir": str(tmp_path / "run"),
        "mode": "offline",
    }
    assert {"name": "*", "step_metric": "kimg"} in calls("wandb.define_metric")
    assert calls("wandb.config") == [{"values": CONFIG, "change": True}]
    assert [call["row"] for call in calls("wandb.log")] == [
        {"kimg": 1.5, "loss/G": 0.5, "a\\nb": math.inf},
        {"kimg": 1.5, "alarms": "collapse"},
        {"kimg": 1.5, "alarms": "and so on"},
        {"kimg": 2.0, "samples": [134, 134]},
    ]
    assert calls("wandb.finish") == [{"exit_code": 0}]

    run = "run of run"
    assert calls("mlflow.client") == [{"uri": f"sqlite:///{tmp_path}/run/mlflow.db"}]
    assert calls("mlflow.create_experiment") == [
        {"name": "gan_engine", "artifact_location": (tmp_path / "run/mlartifacts").as_uri()}
    ]
    assert calls("mlflow.create_run") == [{"experiment": "1", "run_name": "run"}]
    params, metrics = calls("mlflow.log_batch")
    assert params["params"] == [{"key": "lr", "value": "0.1"}, {"key": "model.z_dim", "value": "8"}]
    assert [(m["key"], m["value"], m["step"]) for m in metrics["metrics"]] == [
        ("loss/G", 0.5, 1500),
        ("a_b", math.inf, 1500),
    ]
    assert calls("mlflow.log_dict") == [{"run": run, "values": CONFIG, "file": "config.json"}]
    assert calls("mlflow.log_text") == [
        {"run": run, "text": "collapse\n", "file": "alarms/kimg-000001.500-1.txt"},
        {"run": run, "text": "and so on\n", "file": "alarms/kimg-000001.500-2.txt"},
    ]
    assert calls("mlflow.log_image") == [{"run": run, "size": [134, 134], "key": "samples", "step": 2000}]
    assert calls("mlflow.set_terminated") == [{"run": run, "status": "FINISHED"}]
    assert json.loads(Path("run/loggers.json").read_text()) == {"wandb": identity, "mlflow": run}


def test_many_parameters_are_sent_in_parts(calls):
    watch(config={f"p{i}": i for i in range(230)} | {"long": "x" * 9000})
    sent = [len(call["params"]) for call in calls("mlflow.log_batch")]
    assert sent == [100, 100, 31]
    assert len(calls("mlflow.log_batch")[-1]["params"][-1]["value"]) == 250


def test_a_resumed_run_goes_on_under_its_names_and_a_new_one_does_not(calls):
    watch().close()
    watch(resume_nimg=2000, config=CONFIG | {"lr": 0.2}).close()
    watch(resume_nimg=0).close()
    first, second, third = calls("wandb.init")
    assert first["id"] == second["id"] != third["id"]
    assert second["name"] is None  # a name that was changed since stays
    assert calls("mlflow.update_run") == [{"run": "run of run", "status": "RUNNING"}]
    sent = [[param["key"] for param in call["params"]] for call in calls("mlflow.log_batch") if call["params"]]
    assert sent == [["lr", "model.z_dim"], ["model.z_dim"], ["lr", "model.z_dim"]]  # mlflow refuses another lr
    assert [call["values"]["lr"] for call in calls("mlflow.log_dict")] == [0.1, 0.2, 0.1]
    assert json.loads(Path("run/loggers.json").read_text())["wandb"] == third["id"]


def test_the_environment_of_wandb_and_mlflow_decides(calls, monkeypatch):
    chosen = {"MODE": "online", "PROJECT": "faces", "NAME": "mine", "DIR": "elsewhere", "RUN_ID": "abc"}
    for name, value in chosen.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    watch()
    (begun,) = calls("wandb.init")
    assert {name: begun[key] for name, key in zip(chosen, ("mode", "project", "name", "dir", "id"))} == chosen
    assert calls("mlflow.client") == [{"uri": "http://server"}]
    assert calls("mlflow.create_run")[0]["experiment"] == "7" and not calls("mlflow.create_experiment")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    monkeypatch.setenv("MLFLOW_RUN_ID", "ours")
    watch()
    assert calls("mlflow.update_run") == [{"run": "ours", "status": "RUNNING"}]
    monkeypatch.delenv("MLFLOW_RUN_ID")
    watch()
    assert calls("mlflow.create_experiment") == [{"name": "other", "artifact_location": None}]  # as the server says


def test_nothing_is_sent_about_the_use_of_a_package(calls, monkeypatch):
    quiet = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    for name in quiet:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")
    watch()
    assert {name: os.environ[name] for name in quiet} == quiet and os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "99"


def test_a_missing_package_is_an_error_before_anything_is_made(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train.main([*TINY, "--loggers", "wandb"]) == 2
    assert capsys.readouterr().err == "error: loggers: wandb: not installed (pip install wandb)\n"
    assert not Path("run").exists()


def test_a_folder_with_the_name_of_a_package_is_no_package(tmp_path, monkeypatch, capsys):
    """Runs of wandb leave a folder wandb where they began, and Python imports any folder."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(entry for entry in sys.path if "-packages" not in entry)])
    assert train.main([*TINY, "--loggers", "wandb"]) == 2
    assert capsys.readouterr().err == "error: loggers: wandb: not installed (pip install wandb)\n"


def test_a_package_that_cannot_be_imported_says_why(tmp_path, monkeypatch, capsys):
    (tmp_path / "wandb.py").write_text("import protobuf_of_another_time\n")
    (tmp_path / "mlflow.py").write_text("raise TypeError('Descriptors cannot\\nbe created')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, why in (
        ("wandb", "ModuleNotFoundError: No module named 'protobuf_of_another_time'"),
        ("mlflow", "TypeError: Descriptors cannot be created"),
    ):
        assert train.main([*TINY, "--loggers", name]) == 2
        assert capsys.readouterr().err == f"error: loggers: {name}: {why}\n"


@pytest.mark.parametrize("name", ["wandb.init", "wandb.config"])
def test_a_logger_that_refuses_at_the_start_ends_the_run_before_its_first_step(calls, monkeypatch, capsys, name):
    monkeypatch.setenv("FAKE_FAILS", name)
    monkeypatch.setattr(Trainer, "step", lambda self: pytest.fail("a step"))
    assert train.main([*TINY, "--loggers", "mlflow", "wandb"]) == 1
    assert capsys.readouterr().err == "error: loggers: wandb: No space left on device\n"
    assert calls("mlflow.set_terminated") == [{"run": "run of run", "status": "FAILED"}]


def test_a_run_tells_its_loggers_how_it_ends(calls, monkeypatch, capsys):
    assert train.main([*TINY, "--loggers", "wandb", "mlflow", "--kimg", "0.064"]) == 0
    logged = {name: value for call in calls("wandb.log") for name, value in call["row"].items()}
    assert {"loss/G", "samples", "seconds"} <= logged.keys() and logged["kimg"] == 0.064
    assert calls("wandb.config")[0]["values"]["model"]["resolution"] == 16
    assert train.main(["--resume", "run", "--kimg", "0.096"]) == 0  # with the loggers of its first start
    assert len({call["id"] for call in calls("wandb.init")}) == 1 and len(calls("wandb.init")) == 2
    assert [call["exit_code"] for call in calls("wandb.finish")] == [0, 0]

    def fault(self, step=Trainer.step):
        step(self)
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(Trainer, "step", fault)
    assert train.main(["--resume", "run", "--kimg", "0.5"]) == 1
    assert calls("wandb.finish")[-1] == {"exit_code": 1} and calls("mlflow.set_terminated")[-1]["status"] == "FAILED"
    assert train.main(["--resume", "run", "--kimg", "0.5", "--loggers"]) == 1  # none
    assert len(calls("wandb.init")) == 3
    assert "--loggers" not in capsys.readouterr().err


def test_a_logger_that_fails_is_said_once_and_left_alone_for_ten_times_as_long(calls, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(monitors.time, "monotonic", lambda: seconds[0])
    watching = watch(log=("wandb", "mlflow"))

    class Slow:
        def __init__(self, run):
            self.run = run

        def scalars(self, nimg, values):
            seconds[0] += 3
            self.run.scalars(nimg, values)

    wandb = watching._loggers["wandb"]
    watching._loggers["wandb"] = Slow(wandb)
    monkeypatch.setenv("FAKE_FAILS", "wandb.log")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        watching.scalars(1000, {"loss/G": 1.0})  # fails until second 3
        seconds[0] = 32.9
        watching.scalars(2000, {"loss/G": 2.0})
        assert len(calls("wandb.log")) == 1
        seconds[0] = 33.0
        watching.scalars(3000, {"loss/G": 3.0})  # fails until second 36
        monkeypatch.delenv("FAKE_FAILS")
        seconds[0] = 66.0
        watching.scalars(4000, {"loss/G": 4.0})
        watching.scalars(5000, {"loss/G": 5.0})
    assert [call["row"]["kimg"] for call in calls("wandb.log")] == [1, 3, 4, 5]
    sent = [call["metrics"][0]["step"] for call in calls("mlflow.log_batch") if call["metrics"]]
    assert sent == [row["nimg"] for row in read_metrics("run")] == [1000, 2000, 3000, 4000, 5000]
    assert [str(each.message) for each in warned] == [
        "run/wandb: not written: No space left on device; the run goes on"
    ]


def test_a_logger_that_fails_at_the_end_costs_nothing(calls, monkeypatch):
    monkeypatch.setenv("FAKE_FAILS", "wandb.finish")
    watching = watch()
    with pytest.warns(UserWarning, match="run/wandb: not written: No space left on device"):
        watching.close()
    watching.close()
    assert len(calls("wandb.finish")) == len(calls("mlflow.set_terminated")) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"wandb": 1}', "[" * 100_000])
def test_a_damaged_list_of_names_is_refused(calls, text):
    Path("run").mkdir()
    Path("run/loggers.json").write_text(text)
    with pytest.raises(LoggerError, match=r"^loggers: wandb: run/loggers.json is damaged; once it is removed, loggers"):
        watch(resume_nimg=1000)


def test_names_of_loggers():
    assert tuple(loggers.LOGGERS) == config.LOGGERS
    asked = parse(["vanilla", "--loggers", "tensorboard", "wandb", "--kimg", "1"])
    assert asked.loggers == ("tensorboard", "wandb") and asked.tensorboard
    assert parse(["vanilla", "--loggers"]).loggers == ()
    with pytest.raises(ValueError, match=r"'wandbb' for argument '--loggers'. Expected one of .'tensorboard', 'wandb'"):
        parse(["vanilla", "--loggers", "wandbb"])
    with pytest.raises(ValueError, match="loggers: want no tensorboard beside --no-tensorboard, got both"):
        parse(["vanilla", "--loggers", "tensorboard", "--no-tensorboard"])


def test_a_configuration_from_before_there_were_loggers_is_read():
    values = saved_config.to_dict(PRESETS["vanilla"]())
    assert values.pop("loggers") == []
    assert saved_config.from_dict(values, "run.json").loggers == ()
    with pytest.raises(CheckpointError, match="loggers: want some of tensorboard, wandb, mlflow, got 'comet'"):
        saved_config.from_dict(values | {"loggers": ["comet"]}, "run.json")


def test_tensorboard_that_is_named_must_be_there(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    flags = [flag for flag in TINY if flag != "--no-tensorboard"]
    assert train.main([*flags, "--loggers", "tensorboard"]) == 2
    assert capsys.readouterr().err == "error: loggers: tensorboard: not installed (pip install tensorboard)\n"
