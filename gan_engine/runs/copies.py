"""copies.json and copies.png of a run: does G copy its data? gan_engine.inference.copies writes both."""

import json
import warnings
from pathlib import Path
from typing import Any

JSON, PICTURE = "copies.json", "copies.png"


def read(run_dir: Path) -> dict[str, Any] | None:
    """{"made_of": {"checkpoint": name, ...}, "nimg": int, "sentences": [...]}. None: not written yet, or damaged.

    A warning says that it is damaged.
    """
    if not (run_dir / JSON).is_file() or not (run_dir / PICTURE).is_file():
        return None
    try:
        found = json.loads((run_dir / JSON).read_text(encoding="utf-8"))
        texts = (found["made_of"]["checkpoint"], *found["sentences"])
        whole = isinstance(found["nimg"], int) and all(isinstance(text, str) for text in texts)
    except (ValueError, RecursionError, KeyError, TypeError):
        whole = False
    if not whole:
        warnings.warn(f"{run_dir / JSON}: damaged, and left out of the report", stacklevel=2)
        return None
    return found
