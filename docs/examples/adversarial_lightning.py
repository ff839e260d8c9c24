"""The loop of adversarial_loop.py as a LightningModule.

python docs/examples/adversarial_lightning.py
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from adversarial_loop import adam, example, show
from beside import wanted
from torch import Tensor, nn

from gan_engine.adversarial import Adversarial

lightning = wanted("lightning", "pip install -c constraints.txt lightning")


class GAN(lightning.LightningModule):
    """G and D with a relativistic loss and lazy R1. `parts` is called with the parts of every step."""

    def __init__(
        self, G: nn.Module, D: nn.Module, noise: Callable[[int], Tensor], parts: Callable[[int, dict], None]
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # two optimisers
        self.G, self.D, self.noise, self.parts = G, D, noise, parts

    def setup(self, stage: str) -> None:
        group = torch.distributed.group.WORLD if torch.distributed.is_initialized() else None
        self.game = Adversarial(self.D, "relativistic", r1=1.0, penalty_interval=4, group=group)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [adam(self.D), adam(self.G)]

    def training_step(self, real: Tensor, index: int) -> None:
        D_optimizer, G_optimizer = self.optimizers()
        with torch.no_grad():
            fake = self.G(self.noise(len(real)).to(real))
        D_optimizer.zero_grad()
        parts = self.game.d_step(real, fake)
        D_optimizer.step()
        G_optimizer.zero_grad()
        terms = self.game.g_terms(self.G(self.noise(len(real)).to(real)), real)
        self.manual_backward(sum(terms.values()))
        G_optimizer.step()
        self.parts(index, {name: float(value.detach()) for name, value in (parts | terms).items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["game"] = self.game.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.game.load_state_dict(checkpoint["game"])


def train(
    G: nn.Module,
    D: nn.Module,
    images: Iterable[Tensor],
    noise: Callable[[int], Tensor],
    parts: Callable[[int, dict], None] = show,
    **options: Any,
) -> None:
    """As in adversarial_loop.py; `options` are those of lightning.Trainer, such as precision="bf16-mixed"."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=1, enable_model_summary=False, **quiet, **options)
    trainer.fit(GAN(G, D, noise, parts), images)


if __name__ == "__main__":
    train(*example())
