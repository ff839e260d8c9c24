"""Rows of a table: the networks of the package ctgan, trained by gan_engine.adversarial, beside ctgan's own training.

python docs/examples/table.py --steps 200

The table is plotnine's `diamonds`: 10 columns, three of them of categories. 5,000 rows are learnt. Install both by
pip install -c constraints.txt ctgan plotnine. ctgan is under the Business Source License. D is ctgan's, unchanged: it
judges packs of 10 rows (PacGAN), with dropout, and WGAN-GP. Both trainings have batches of 500 rows, and the same
networks and optimisers. A step of this D takes a few ms, of which level 2 would spend too many on its record:
level="autograd" is the fastest here.
"""

import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beside import beside, options, wanted
from torch import Tensor, nn

from gan_engine.adversarial import Adversarial

INSTALL = "pip install -c constraints.txt ctgan plotnine"
DISCRETE = ["cut", "color", "clarity"]
ROWS, BATCH, PACK = 5000, 500, 10


def diamonds() -> Any:
    """A data frame of ROWS random rows, read without importing plotnine."""
    found = importlib.util.find_spec("plotnine")
    if found is None:
        sys.exit(f"error: this example needs plotnine, which has the table. Install it: {INSTALL}")
    path = Path(found.submodule_search_locations[0]) / "data/diamonds.csv"
    return wanted("pandas", INSTALL).read_csv(path).sample(ROWS, random_state=0).reset_index(drop=True)


class Table:
    """The rows as ctgan sees them: transformed, with one category of a column asked for in each."""

    def __init__(self, frame: Any) -> None:
        synthesizers = wanted("ctgan.synthesizers.ctgan", INSTALL)
        self.transformer = synthesizers.DataTransformer()
        self.transformer.fit(frame, DISCRETE)
        self.rows = self.transformer.transform(frame)
        self.sampler = synthesizers.DataSampler(self.rows, self.transformer.output_info_list, True)
        self.model = synthesizers.CTGAN()  # for its activations and the loss of the asked category
        self.model._transformer = self.transformer
        asked, dim = self.sampler.dim_cond_vec(), self.transformer.output_dimensions
        self.G = synthesizers.Generator(128 + asked, (256, 256), dim)
        self.D = synthesizers.Discriminator(dim + asked, (256, 256), pac=PACK)

    def generated(self) -> tuple[Tensor, Tensor, Any]:
        """Rows with what was asked for, the loss of that, and the drawn categories."""
        condition, mask, column, category = self.sampler.sample_condvec(BATCH)
        asked = torch.from_numpy(condition)
        raw = self.G(torch.cat([torch.randn(BATCH, 128), asked], 1))
        rows = torch.cat([self.model._apply_activate(raw), asked], 1)
        return rows, self.model._cond_loss(raw, asked, torch.from_numpy(mask)), (asked, column, category)

    def real(self, drawn: Any) -> Tensor:
        asked, column, category = drawn
        order = np.random.permutation(BATCH)
        rows = self.sampler.sample_data(self.rows, BATCH, column[order], category[order])
        return torch.cat([torch.from_numpy(rows.astype(np.float32)), asked[order]], 1)

    def frame(self, num: int) -> Any:
        """Generated rows as a data frame; the asked categories have their frequencies in the table."""
        with torch.no_grad():  # in training mode, as CTGAN.sample has it
            asked = torch.from_numpy(self.sampler.sample_original_condvec(num)).float()
            rows = self.model._apply_activate(self.G(torch.cat([torch.randn(num, 128), asked], 1)))
        return self.transformer.inverse_transform(rows.numpy())


def train(table: Table, game: Adversarial, steps: int) -> Iterator[dict[str, float]]:
    """The loop of CTGAN.fit; `game` takes the place of the critic's loss and calc_gradient_penalty."""
    decay = {table.G: 1e-6, table.D: 1e-6}
    G_optimizer, D_optimizer = (
        torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.9), weight_decay=decay[net])
        for net in (table.G, table.D)
    )
    for _ in range(steps):
        fake, _, drawn = table.generated()
        D_optimizer.zero_grad()
        parts = game.d_step(table.real(drawn), fake)
        D_optimizer.step()
        fake, condition_loss, _ = table.generated()
        G_optimizer.zero_grad()
        terms = game.g_terms(fake) | {"asked": condition_loss}
        sum(terms.values()).backward()
        G_optimizer.step()
        yield {name: float(value.detach()) for name, value in (parts | terms).items()}


def plain_terms(D: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """The parts of a step of D as CTGAN.fit computes them, but with one point between the rows for each pack."""
    packs = [x.reshape(len(x) // PACK, -1) for x in (real, fake)]
    eps = torch.rand(len(packs[0]))[:, None]
    between = torch.lerp(packs[1], packs[0], eps).requires_grad_()
    logits = D(between)
    (g,) = torch.autograd.grad(logits, between, torch.ones_like(logits), create_graph=True)
    gp = 10 * ((g.norm(2, dim=1) - 1) ** 2).mean()
    return {"gp": gp, "D": D(fake.detach()).mean() - D(real).mean()}


def distance(real: Any, drawn: Any) -> dict[str, float]:
    """The distance of each column: total variation of categories, Kolmogorov-Smirnov of numbers."""
    found = {}
    for name in real.columns:
        if name in DISCRETE:
            shares = (x[name].value_counts(normalize=True) for x in (real, drawn))
            found[name] = float(next(shares).subtract(next(shares), fill_value=0).abs().sum() / 2)
        else:
            a, b = (np.sort(x[name].to_numpy(float)) for x in (real, drawn))
            at = np.concatenate([a, b])
            below = (np.searchsorted(x, at, side="right") / len(x) for x in (a, b))
            found[name] = float(np.abs(next(below) - next(below)).max())
    return found


def ctgan_itself(frame: Any, steps: int) -> Any:
    """Rows of CTGAN.fit after as many steps."""
    epochs = max(1, steps // (ROWS // BATCH))
    model = wanted("ctgan", INSTALL).CTGAN(epochs=epochs, batch_size=BATCH, pac=PACK, enable_gpu=False)
    model.set_random_state(0)
    model.fit(frame, DISCRETE)
    return model.sample(ROWS)


def line(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())


def main() -> None:
    asked = options(__doc__, 200)
    np.random.seed(0)
    frame = diamonds()
    table = Table(frame)
    game = Adversarial(table.D, "wasserstein", gp=10.0, pack=PACK, level="autograd")
    start = time.thread_time()
    for step, parts in enumerate(train(table, game, asked.steps)):
        if step % 100 == 0 or step == asked.steps - 1:
            print(f"step {step:4}  {line(parts)}", flush=True)
    print(f"trained in {time.thread_time() - start:.1f} s")
    fake, _, drawn = table.generated()
    real = table.real(drawn)
    fake = fake.detach()
    for level in "autograd", None:
        game.level = level
        found = beside(table.D, lambda: game.d_step(real, fake), lambda: plain_terms(table.D, real, fake))
        print(f"level {level}: {found}")
    for name, rows in {"gan_engine": table.frame(ROWS), "ctgan": ctgan_itself(frame, asked.steps)}.items():
        of_columns = distance(frame, rows)
        print(f"{name:10}  mean distance {np.mean(list(of_columns.values())):.3f}: {line(of_columns)}")


if __name__ == "__main__":
    main()
