"""Objectives by name, and which of them trains a family."""

from gan_engine.losses.objective import GanObjective
from gan_engine.losses.pyramid import PyramidObjective
from gan_engine.losses.translation import CycleObjective, PairedObjective

# By the name that a family declares, `models.declaration.Family.objective`.
OBJECTIVES: dict[str, type[GanObjective]] = {
    "game": GanObjective,
    "pyramid": PyramidObjective,
    "paired": PairedObjective,
    "cycle": CycleObjective,
}

# By family: what plug-ins have put in place of the declared objective.
REPLACED: dict[str, type[GanObjective]] = {}


def objective_of(family: str, declared: str) -> type[GanObjective]:
    """The objective that trains `family`, which declares the name `declared`."""
    return REPLACED[family] if family in REPLACED else OBJECTIVES[declared]
