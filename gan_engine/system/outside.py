"""The parts of a run that plug-ins define, and the error for a run whose plug-ins were not named.

A checkpoint names plug-ins and never imports them. A person who trusts the checkpoint names them again.
"""

from typing import Any

from gan_engine.system.checkpoint import CheckpointError
from gan_engine.system.names import legible, shell_word

# Every registered part, such as "loss pearson", and the name of its plug-in.
REGISTERED: dict[str, str] = {}


def parts(family: str, loss: str, data: str) -> tuple[str, ...]:
    """The parts of such a run that plug-ins define."""
    all_parts = (f"family {family}", f"objective {family}", f"loss {loss}", f"data {data}")
    return tuple(part for part in all_parts if part in REGISTERED)


def listing(plugin: str, parts: tuple[str, ...]) -> str:
    """The parts that this plug-in has registered, in one line."""
    return ", ".join(part for part in parts if REGISTERED.get(part) == plugin)


def require(config: Any, source: Any) -> None:
    """Raises CheckpointError, which names `source` and the plug-ins, if parts of the run are not registered.

    `config` is the configuration of the run as `saved_config.to_dict` returns it. A file may hold anything in its
    place; that is not checked here.
    """
    if not isinstance(config, dict):
        return
    needed, names = (_texts(config.get(key)) for key in ("outside", "plugin"))
    missing = ", ".join(legible(part) for part in needed if part not in REGISTERED)
    if missing:
        flags = " ".join(f"--plugin {shell_word(name)}" for name in names)
        raise CheckpointError(
            f"{source}: its run has parts of plug-ins: {missing}; name the plug-ins again by {flags}, or in Python by "
            "gan_engine.plugins.load"
        )


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []
