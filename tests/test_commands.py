"""gan-engine lists and runs every command, starts fast, and all commands share one set of exit statuses."""

import errno
import importlib
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import gan_engine
from gan_engine import __main__ as commands
from gan_engine import backends
from gan_engine.command_line import console
from gan_engine.system import checkpoint

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def run(*argv, **options):
    command = [sys.executable, "-m", "gan_engine", *argv]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, **options)


def main_of(name):
    module = importlib.import_module(f"gan_engine.{name}")
    return getattr(module, "main", None) or importlib.import_module(f"gan_engine.{name}.__main__").main


def test_every_module_that_can_be_run_is_a_command():
    package = Path(gan_engine.__file__).parent
    can = {
        path.parent.name if path.stem == "__main__" else path.stem
        for path in (*package.glob("*.py"), *package.glob("*/__main__.py"))
        if 'if __name__ == "__main__":' in path.read_text()
    }
    assert can - {"gan_engine"} == commands.COMMANDS.keys()


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_ctrl_c_while_a_command_imports_pytorch_is_one_line(tmp_path, name):
    (tmp_path / "torch.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    for argv in ([f"gan_engine.{name}"], ["gan_engine", name]):
        done = subprocess.run([sys.executable, "-m", *argv], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "aborted\n")


def test_other_errors_of_a_command_keep_their_traceback(tmp_path):
    (tmp_path / "torch.py").write_text("1 / 0")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "gan_engine.generate"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("Traceback") and "ZeroDivisionError" in done.stderr


def test_a_program_that_imports_the_engine_keeps_its_hook():
    code = "import sys, gan_engine; sys.exit(sys.excepthook is not sys.__excepthook__)"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT).returncode == 0


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_list_names_every_command(capsys, argv):
    assert commands.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "] == list(commands.COMMANDS)


def test_the_list_imports_nothing_slow():
    code = (
        "import sys; from gan_engine.__main__ import main; main(['--help']); main(['--version']); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    *_, version, modules = done.stdout.splitlines()
    assert version == f"gan-engine {gan_engine.__version__}"
    assert not {"torch", "numpy", "tyro", "PIL"} & set(modules.split())


def test_a_misspelt_command_gets_a_suggestion(capsys):
    assert commands.main(["trian"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: command: want one of train, ") and line.endswith("got trian; did you mean train?")
    assert commands.main(["--verison"]) == 2
    capsys.readouterr()
    assert commands.main(["project", "runs/a"]) == 2
    assert capsys.readouterr().err.endswith("got project; did you mean generate --project?\n")
    assert {command.split()[0] for command in commands.ELSEWHERE.values()} <= commands.COMMANDS.keys()
    assert not commands.ELSEWHERE.keys() & commands.COMMANDS.keys()


def test_a_command_runs_under_both_names():
    done = run("report", "no/such/run")
    assert done.returncode == 2
    assert done.stderr == "error: no/such/run: want the directory of a run, and there is no run.json in it\n"
    assert commands.main(["report", "no/such/run"]) == main_of("report")(["no/such/run"]) == 2


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_help_is_0_and_a_wrong_flag_2_in_every_command(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/gan-engine"])
    with pytest.raises(SystemExit) as exit:
        commands.main([name, "--help"])
    assert exit.value.code in (0, None)
    usage = capsys.readouterr().out.partition("\n\n")[0]
    assert usage.startswith(f"usage: gan-engine {name}")
    assert "PATH" not in re.sub(r"--[a-z-]+ PATH", "", usage)  # RUN, IN and OUT say what the paths are
    try:
        status = commands.main([name, "--no-such-flag"])
    except SystemExit as exit:
        status = exit.code
    shown = capsys.readouterr()
    assert status == 2 and shown.out == "" and "--no-such-flag" in shown.err


def full_disk():
    error = checkpoint.CheckpointError("a.pt: not written")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (ValueError("num: want at least 1, got 0"), 2, "error: num: want at least 1, got 0\n"),
        (checkpoint.CheckpointError("a.pt: damaged"), 2, "error: a.pt: damaged\n"),
        (backends.Refused("normed: backend 'cuda'"), 2, "error: normed: backend 'cuda'\n"),
        (FileNotFoundError("no file a"), 2, "error: no file a\n"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), 2, "error: [Errno 13] Permission denied: 'a'\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: [Errno 28] No space left on device\n"),
        (full_disk(), 1, "error: a.pt: not written\n"),
        (OSError(errno.EIO, "Input/output error"), 1, "error: [Errno 5] Input/output error\n"),
        (KeyboardInterrupt(), 130, "aborted\n"),
    ],
)
def test_every_end_of_a_command_has_an_exit_status_and_one_line(capsys, error, status, shown):
    @console.command
    def main(argv):
        """About."""
        assert argv == ["a"]
        if isinstance(error, BaseException):
            raise error
        return error

    assert main.__doc__ == "About." and main(["a"]) == status
    assert capsys.readouterr().err == shown


@pytest.mark.parametrize("fault", [RuntimeError, TypeError, KeyError, AssertionError])
def test_a_fault_of_the_program_is_not_hidden(fault):
    @console.command
    def main(argv):
        raise fault("of ours")

    with pytest.raises(fault, match="of ours"):
        main([])


def test_warnings_are_one_line_only_inside_a_command(capsys):
    before = warnings.formatwarning

    @console.command
    def main(argv):
        print(warnings.formatwarning("look", UserWarning, "a.py", 1), end="")

    assert main([]) == 0 and warnings.formatwarning is before
    assert capsys.readouterr().out == "warning: look\n"


@pytest.mark.parametrize("argv", [["--help"], ["info"], ["train", "dcgan", "--help"]])
def test_a_reader_that_closes_early_is_no_error(argv):
    command = [sys.executable, "-m", "gan_engine", *argv]
    with subprocess.Popen(
        command, env={**ENVIRONMENT, "PYTHONUNBUFFERED": ""}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 0
