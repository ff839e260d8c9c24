"""A trained generator as one function of tensors, for programs that know nothing of gan_engine.

    from noise    z [N, z_dim], c [N, c_dim], one-hot, if it has classes, truncation [], if it has styles -> img
    from images   source [N, C', H, W] in [-1, 1] -> img

A drawing with shifts, which pages with sliders have, also takes shift [N, w_dim]: every w is moved by it.

img [N, C, H, W] is in [-1, 1], or close to it; volumes are [N, 1, R, R, R]. N is any number. The sides of a source are
those of the training images, or any multiples of `Family.source_multiple`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from gan_engine import models
from gan_engine.inference.generator import TrainedGenerator
from gan_engine.models.declaration import Direction
from gan_engine.system.resolution import height_width

# torch.export takes the sizes of an example that are 0 or 1 as fixed.
_EXAMPLES = 2


class Drawing(nn.Module):
    """The function above.

    Args:
        direction: which of the two networks of a cyclegan it is.
        shifts: take a shift too, if G has styles.
    """

    def __init__(self, trained: TrainedGenerator, direction: Direction = "A2B", *, shifts: bool = False) -> None:
        """Raises ValueError for a direction that the family does not have."""
        super().__init__()
        declared, family = models.capabilities(trained.config), models.family(trained.config)
        if direction != "A2B" and not declared.directions:
            raise ValueError(f"direction: want A2B for {family}, which goes one way only, got {direction}")
        self.network, self.config, self.class_names = trained.network, trained.config, trained.class_names
        self.shifts = shifts and declared.styles
        self.styles, self.from_noise = declared.styles, declared.from_noise
        self.multiple = declared.source_multiple
        self.arguments = (direction,) if declared.directions else ()
        self.eval().requires_grad_(False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arguments."""
        if not self.from_noise:
            return ("source",)
        has = {"z": True, "c": self.config.c_dim > 0, "truncation": self.styles, "shift": self.shifts}
        return tuple(name for name, there in has.items() if there)

    @property
    def any_sides(self) -> bool:
        """Whether the sides of a source may differ from those of the examples."""
        return self.multiple is not None

    def forward(self, *inputs: Tensor) -> Tensor:
        if not self.styles:
            return self.network(*inputs, *self.arguments)
        num = 2 if self.config.c_dim else 1
        given, (truncation, *shift) = inputs[:num], inputs[num:]
        # The network compares a number with 1 here. What is recorded has to work for every number.
        ws, mean = self.network.ws(*given), self.network.mapping.mean(*given[1:])[:, None]
        ws = mean + truncation * (ws - mean)
        return self.network.synthesis(ws + shift[0][:, None] if shift else ws)

    def examples(self, num: int = _EXAMPLES, *, taller: int = 0) -> tuple[Tensor, ...]:
        """Arguments for `num` images, the same in every call, on the CPU.

        `taller` and half as much are added to the sides of a source, in multiples of what the family takes.
        """
        random = torch.Generator().manual_seed(num)
        if not self.from_noise:
            scale, multiple = getattr(self.config, "scale", 1), self.multiple or 0
            height, width = (side // scale for side in height_width(self.config.resolution))
            height, width = height + taller * multiple, width + (taller + 1) // 2 * multiple
            return (torch.rand(num, self.config.source_channels, height, width, generator=random) * 2 - 1,)
        inputs = [torch.randn(num, self.config.z_dim, generator=random)]
        if self.config.c_dim:
            inputs.append(torch.eye(self.config.c_dim)[torch.arange(num) % self.config.c_dim])
        if self.styles:
            inputs.append(torch.tensor(0.7))
        if self.shifts:
            inputs.append(torch.randn(num, self.config.w_dim, generator=random))
        return tuple(inputs)

    def varying(self) -> tuple[dict[int, Any], ...]:
        """For torch.export: which sizes of each argument may vary."""
        batch = torch.export.Dim("batch")
        if self.from_noise:
            return tuple({} if name == "truncation" else {0: batch} for name in self.names)
        if self.multiple is None:
            return ({0: batch},)
        height, width = (self.multiple * torch.export.Dim(f"{side}_by_{self.multiple}") for side in ("height", "width"))
        return ({0: batch, 2: height, 3: width},)
