"""Augmentation of everything that D sees: few images last longer, and G does not learn to draw augmented images.

All images go through random transforms of one distribution before D sees them: real and generated images, in the phases
of D and of G. Gradients flow back through the transforms to G (Karras et al. 2020, arXiv:2006.06676; Zhao et al. 2020,
arXiv:2006.10738).
"""

from collections.abc import Callable

from torch import Tensor, nn

from gan_engine.augment.ada import PIPES, Ada
from gan_engine.augment.diff_augment import POLICY, diff_augment

__all__ = ["PIPES", "POLICY", "Ada", "Augmented", "diff_augment"]


class Augmented(nn.Module):
    """(img [N, C, H, W], c) -> D(augment(img), c)

    Losses and penalties use this module as the discriminator. R1, R2 and WGAN-GP therefore take the gradient at the
    image before the augmentation, through the augmentation. There are three reasons:

    - D and the transforms are together one function of the data. R1 keeps D flat around the data (arXiv:1801.04406,
      equation 9).
    - One augmented pass of D serves the loss and the penalty.
    - A square that was cut out has no gradient, so it is not penalised. A gradient at the augmented image would not
      know that a change of contrast has multiplied it.

    D with its transforms is still piecewise affine, but it is not a chain of layers any more, except at p = 0. The
    trainer therefore computes penalties at level 1 here (gan_engine.losses.penalties).
    """

    def __init__(self, D: nn.Module, augment: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.D, self.augment = D, augment

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        return self.D(self.augment(img), c)

    def logits_and_classes(self, img: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """`D.logits_and_classes` of the augmented images, for a D with an auxiliary classifier"""
        return self.D.logits_and_classes(self.augment(img), c)
