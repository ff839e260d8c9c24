"""What in a run is of plug-ins, and the sentence for a run whose plug-ins were not named.

A checkpoint names plug-ins and never imports them: that is for the person who knows where the file comes from.
"""

from typing import Any

from gan_engine.system.checkpoint import CheckpointError
from gan_engine.system.names import legible, shell_word

# Every registered thing, such as "loss pearson", and the plug-in it is of, as it was named.
REGISTERED: dict[str, str] = {}


def used(family: str, loss: str, data: str) -> tuple[str, ...]:
    """What a run with these has of plug-ins."""
    things = (f"family {family}", f"objective {family}", f"loss {loss}", f"data {data}")
    return tuple(thing for thing in things if thing in REGISTERED)


def of(plugin: str, things: tuple[str, ...]) -> list[str]:
    """Those of `things` that this plug-in has registered."""
    return [thing for thing in things if REGISTERED.get(thing) == plugin]


def require(config: Any, source: Any) -> None:
    """Raises CheckpointError, which names `source` and the plug-ins, where the run has more than is registered.

    `config` is that of the run in plain types, or whatever a file has in its place, which others check.
    """
    if not isinstance(config, dict):
        return
    needed, names = (_texts(config.get(key)) for key in ("outside", "plugin"))
    missing = ", ".join(legible(thing) for thing in needed if thing not in REGISTERED)
    if missing:
        flags = " ".join(f"--plugin {shell_word(name)}" for name in names)
        raise CheckpointError(
            f"{source}: its run has this of plug-ins: {missing}; name them again, by {flags} or, in Python, by "
            "gan_engine.plugins.load"
        )


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []
