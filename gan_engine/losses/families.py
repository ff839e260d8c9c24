"""Which objective a family is trained with."""

from gan_engine.losses.objective import GanObjective
from gan_engine.losses.pyramid import PyramidObjective
from gan_engine.losses.translation import CycleObjective, PairedObjective

# By family; that of the others is GanObjective.
OBJECTIVES: dict[str, type[GanObjective]] = {
    "lapgan": PyramidObjective,
    "pix2pix": PairedObjective,
    "cyclegan": CycleObjective,
    "srgan": PairedObjective,
}
