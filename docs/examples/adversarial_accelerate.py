"""The loop of adversarial_loop.py under accelerate, which takes care of devices, processes and precision.

accelerate launch docs/examples/adversarial_accelerate.py
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from adversarial_loop import adam, example, show
from beside import wanted
from torch import Tensor, nn

from gan_engine.adversarial import Adversarial

accelerate = wanted("accelerate", "pip install -c constraints.txt accelerate")


def train(
    G: nn.Module, D: nn.Module, images: Iterable[Tensor], noise: Callable[[int], Tensor], **options: str
) -> Iterator[dict]:
    """As in adversarial_loop.py; `options` are those of Accelerator, such as mixed_precision="bf16"."""
    accelerator = accelerate.Accelerator(**options)
    G, D, D_optimizer, G_optimizer = accelerator.prepare(G, D, adam(D), adam(G))
    game = Adversarial(D, "relativistic", r1=1.0, penalty_interval=4, scaler=accelerator.scaler)
    for real in images:
        real = real.to(accelerator.device)
        with torch.no_grad():
            fake = G(noise(len(real)).to(real))
        D_optimizer.zero_grad()
        parts = game.d_step(real, fake)  # has its backward pass inside, with the scale of fp16
        D_optimizer.step()
        G_optimizer.zero_grad()
        terms = game.g_terms(G(noise(len(real)).to(real)), real)
        accelerator.backward(sum(terms.values()))
        G_optimizer.step()
        yield {name: float(value.detach()) for name, value in (parts | terms).items()}


if __name__ == "__main__":
    for step, parts in enumerate(train(*example())):
        show(step, parts)
