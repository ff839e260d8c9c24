"""run.json: the configuration of a run, and an entry for each start of the run."""

import json
import warnings
from pathlib import Path
from typing import Any

from gan_engine.config import Config
from gan_engine.saved_config import to_dict
from gan_engine.system.checkpoint import runs_in
from gan_engine.system.whole_file import replacing

NAME = "run.json"


def read(run_dir: str | Path) -> dict[str, Any]:
    """{"config": {...}, "starts": [{...}, ...]} of a run.

    Raises:
        FileNotFoundError: there is no run in `run_dir`.
        ValueError: the file is damaged; the message says how.
    """
    path = Path(run_dir) / NAME
    if not path.is_file():
        runs = runs_in(Path(run_dir))
        raise FileNotFoundError(f"{run_dir}: want the directory of a run, and there is no {NAME} in it{runs}")
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: not JSON: {error}") from None
    if not isinstance(run, dict):
        raise ValueError(f"{path}: damaged: want an object, got {type(run).__name__}")
    config, starts = run.get("config"), run.get("starts")
    if not isinstance(config, dict):
        raise ValueError(f"{path}: damaged: config: want an object, got {type(config).__name__}")
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise ValueError(f"{path}: damaged: starts: want a list of objects")
    return {"config": config, "starts": starts}


def end(run: dict[str, Any]) -> dict[str, Any] | None:
    """{"reason", "kimg", "seconds"}: how the last start of `run`, as `read` gives it, ended. None: not recorded."""
    found = run["starts"][-1].get("end") if run["starts"] else None
    wanted = {"reason": str, "kimg": (int, float), "seconds": (int, float)}
    whole = isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in wanted.items())
    return found if whole else None


def write(run_dir: Path, config: Config, entry: dict[str, Any]) -> None:
    """Write the resolved configuration, the entries of earlier starts, and `entry`, of this start. Raises OSError."""
    path = run_dir / NAME
    starts = []
    if path.exists():
        try:
            starts = read(run_dir)["starts"]
        except (OSError, ValueError) as error:
            warnings.warn(f"{path}: damaged, and written anew without its earlier starts ({error})", stacklevel=2)
    _write(path, {"config": to_dict(config), "starts": [*starts, entry]})


def add_to_last_start(run_dir: Path, more: dict[str, Any]) -> None:
    """Add `more` to the entry of the last start, if there is one. A run goes on without it: errors are warnings."""
    try:
        run = read(run_dir)
        run["starts"][-1] |= more
        _write(run_dir / NAME, run)
    except FileNotFoundError:  # a trainer that is used without the command
        pass
    except (OSError, ValueError, IndexError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        warnings.warn(f"{run_dir / NAME}: {', '.join(more)} not written ({reason})", stacklevel=2)


def _write(path: Path, run: dict[str, Any]) -> None:
    text = json.dumps(run, indent=2)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
