"""Objectives by name, and the objective of a family."""

from gan_engine.losses.objective import GanObjective
from gan_engine.losses.pyramid import PyramidObjective
from gan_engine.losses.translation import CycleObjective, PairedObjective

# The keys are the names that families declare, `models.declaration.Family.objective`.
OBJECTIVES: dict[str, type[GanObjective]] = {
    "game": GanObjective,
    "pyramid": PyramidObjective,
    "paired": PairedObjective,
    "cycle": CycleObjective,
}

# Objectives of plug-ins, which replace the declared one; the keys are families.
REPLACED: dict[str, type[GanObjective]] = {}


def objective_of(family: str, declared: str) -> type[GanObjective]:
    """The objective that trains `family`, which declares the name `declared`."""
    return REPLACED[family] if family in REPLACED else OBJECTIVES[declared]
