"""What the configurations of several families refuse, each with the field, what it wants and what it got."""

from typing import Annotated, Any, get_args

import tyro

# The channels of images. In training the data decide, unless the command line has them.
Channels = Annotated[int, tyro.conf.arg(help_behavior_hint="(default: as the data are)")]


def check_power_of_two(config: Any, low: int, high: int) -> None:
    """The resolution must be a power of two from `low` to `high`."""
    if not low <= config.resolution <= high or config.resolution & (config.resolution - 1):
        raise ValueError(f"resolution: want a power of two from {low} to {high}, got {config.resolution}")


def check_channels(config: Any) -> None:
    """Images are grey or in colour."""
    if config.channels not in (1, 3):
        raise ValueError(f"channels: want 1 or 3, got {config.channels}")


def check_at_least(config: Any, least: float, *names: str) -> None:
    """The fields `names` must be numbers of at least `least`."""
    for name in names:
        value = getattr(config, name)
        if not value >= least:  # what is not a number neither
            raise ValueError(f"{name}: want at least {least}, got {value}")


def check_choice(config: Any, **choices: Any) -> None:
    """Fields must be among the values of their Literal."""
    for name, literal in choices.items():
        if getattr(config, name) not in get_args(literal):
            raise ValueError(f"{name}: want one of {', '.join(get_args(literal))}, got {getattr(config, name)!r}")
