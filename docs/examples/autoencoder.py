"""A variational auto-encoder of garments with a patch discriminator, beside the same one without.

python docs/examples/autoencoder.py --steps 300 --out autoencoder.png

The garments are those that the package brings; nothing else is installed. The loss is L1, 1e-3 x the divergence of the
code from a normal distribution, and 0.1 x the hinge loss of D, with R1 in every 16th step. The printed sharpness is the
mean difference of neighbouring pixels, divided by that of the real images: L1 alone blurs.
"""

from collections.abc import Iterator

import torch
from beside import beside, options
from torch import Tensor, nn
from torch.nn.functional import l1_loss, relu

from gan_engine.adversarial import Adversarial
from gan_engine.data import DataConfig, ImageSet, Sampler, load, to_float
from gan_engine.pictures.picture import grid, write_picture

R1, HELD_OUT = 0.01, 500  # a patch: the penalty has the gradient of the sum of 49 logits


class Autoencoder(nn.Module):
    """[N, 1, 32, 32] -> an image like it, and the divergence [] of its code of 32 numbers"""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, 32, 4, 2, 1), nn.SiLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.SiLU()),
            *(nn.Flatten(), nn.Linear(64 * 8 * 8, 64)),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(32, 64 * 8 * 8), nn.SiLU(), nn.Unflatten(1, (64, 8, 8))),
            *(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Tanh()),
        )

    def forward(self, img: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(img).chunk(2, 1)
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        return self.decoder(code), divergence


def discriminator() -> nn.Module:
    """[N, 1, 32, 32] -> [N, 1, 7, 7], a logit for each patch"""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 64, 4, 2, 1), nn.LeakyReLU(0.2)),
        nn.Conv2d(64, 1, 4, 1, 1),
    )


def plain_terms(D: nn.Module, real: Tensor, fake: Tensor, gamma: float) -> dict[str, Tensor]:
    """The parts of a step of D, as one writes them without gan_engine."""
    real = real.clone().requires_grad_()
    of_real, of_fake = D(real), D(fake)
    (g,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
    return {
        "D": relu(1 - of_real).mean() + relu(1 + of_fake).mean(),
        "r1": gamma / 2 * g.square().sum((1, 2, 3)).mean(),
    }


def train(net: nn.Module, D: nn.Module | None, images: Iterator[Tensor], steps: int) -> Iterator[dict[str, float]]:
    game = Adversarial(D, "hinge", r1=R1, penalty_interval=16) if D else None
    optimizer, D_optimizer = (adam(each) if each else None for each in (net, D))
    for _ in range(steps):
        real = next(images)
        fake, divergence = net(real)
        terms, parts = {"l1": l1_loss(fake, real), "divergence": 1e-3 * divergence}, {}
        if game:
            D_optimizer.zero_grad()
            parts = game.d_step(real, fake)
            D_optimizer.step()
            terms["G"] = 0.1 * game.g_terms(fake)["G"]
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        yield {name: float(value.detach()) for name, value in (parts | terms).items()}


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.99), fused=True)


def sharpness(img: Tensor) -> Tensor:
    return img.diff(dim=2).abs().mean() + img.diff(dim=3).abs().mean()


def main() -> None:
    asked = options(__doc__, 300, out="autoencoder.png")
    data = load(DataConfig("fashion-mnist"), resolution=32, channels=1)
    test = to_float(data.images[:HELD_OUT])
    rest = ImageSet("garments", data.images[HELD_OUT:])
    rows = [test[:12]]
    for name, D in {"L1 alone": None, "with D": discriminator()}.items():
        torch.manual_seed(0)
        net = Autoencoder()
        images = (img for img, _ in Sampler(rest, 32, seed=0))
        for step, parts in enumerate(train(net, D, images, asked.steps)):
            if step % 100 == 0 or step == asked.steps - 1:
                values = "  ".join(f"{part} {value:.3f}" for part, value in parts.items())
                print(f"{name:8} step {step:4}  {values}", flush=True)
        with torch.no_grad():
            fake, _ = net(test)
        print(f"{name:8} held-out L1 {l1_loss(fake, test):.3f}, sharpness {sharpness(fake) / sharpness(test):.2f}")
        rows.append(fake[:12])
    game, real, fake = Adversarial(D, "hinge", r1=R1), test[:32], fake[:32]
    print(beside(D, lambda: game.d_step(real, fake), lambda: plain_terms(D, real, fake, R1)))
    write_picture(grid(torch.cat(rows), columns=12), asked.out)
    print(f"wrote {asked.out}: garments, L1 alone, with D")


if __name__ == "__main__":
    main()
