"""A plug-in of pytest that hides the compiled modules: `pytest -p tests.without_native`, as where no compiler was."""

import sys
from collections.abc import Sequence
from types import ModuleType

HIDDEN = ("gan_engine._C", "gan_engine._C_cuda")


class _Hide:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name in HIDDEN:
            raise ModuleNotFoundError(f"{name} is hidden from this process", name=name)


sys.meta_path.insert(0, _Hide())
