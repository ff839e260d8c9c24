"""Augmentation of all that D sees, so that few images last longer, and G does not learn to draw augmented ones.

Whatever D is given, real or generated, in the phases of D and of G, goes through random transforms of the same
distribution, and gradients flow back through them to G (Karras et al. 2020, arXiv:2006.06676; Zhao et al. 2020,
arXiv:2006.10738).
"""

from collections.abc import Callable

from torch import Tensor, nn

from gan_engine.augment.ada import PIPES, Ada
from gan_engine.augment.diff_augment import POLICY, diff_augment

__all__ = ["PIPES", "POLICY", "Ada", "Augmented", "diff_augment"]


class Augmented(nn.Module):
    """(img [N, C, H, W], c) -> D(augment(img), c)

    To whatever differentiates by the image, this is the discriminator: R1, R2 and WGAN-GP take the gradient at the
    image as it was before the augmentation, through the augmentation. D and the transforms drawn are together one
    function of the data, and it is around the data that R1 holds it flat (arXiv:1801.04406, equation 9). So a step
    needs one augmented pass for loss and penalty, and what a transform takes away, such as a square cut out, has no
    gradient to be punished; a gradient at the augmented image would not know that a contrast has multiplied it.

    With its transforms D is still affine in pieces, but no chain of layers any more, and at p = 0 it looks like one:
    the trainer takes penalties at level 1 here (gan_engine.losses.penalties).
    """

    def __init__(self, D: nn.Module, augment: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.D, self.augment = D, augment

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        return self.D(self.augment(img), c)

    def logits_and_classes(self, img: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Of a D that has an auxiliary classifier."""
        return self.D.logits_and_classes(self.augment(img), c)
