"""The images that the grids of a run show, which are drawn from the same noise all through the run."""

import torch
from torch import Tensor, nn

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import ImageSet, Sampler
from gan_engine.data.kinds import kind_of
from gan_engine.losses.objective import Batch, GanObjective
from gan_engine.pictures import scatter
from gan_engine.runs.sample_grids import CLASSES
from gan_engine.training.batches import Batches

_EXAMPLES = 16  # images that a grid of translations shows


class Samples:
    """Samples of G_ema.

    Attributes:
        examples: the images of all grids, for a G that translates images; None for a G that starts from noise.
        data: the points that lie behind those of G, for a G that makes points; else None.
        columns: of a grid of `images`.
    """

    def __init__(
        self, config: Config, data: ImageSet, G_ema: nn.Module, objective: GanObjective, batches: Batches
    ) -> None:
        self.config, self.G_ema, self.objective, self.device = config, G_ema, objective, batches.device
        self.examples = _examples(config, data, batches)
        self.data = data if kind_of(models.data_kind(config.model)).axes == 0 else None
        self.columns = 8
        if self.examples is not None:
            self.columns = _EXAMPLES // 2
        elif config.conditional:
            self.columns = max(8, min(config.model.c_dim, CLASSES))

    @torch.no_grad()
    def images(self) -> Tensor:
        """Images [N, C, H, W] in [-1, 1], one row for each class; volumes become pictures of volumes.

        A G that translates images has rows of sources, of its images and of targets, in turn. All points are in one
        picture, [1, 3, H, W], with points of the data behind them.
        """
        if self.examples is not None:
            rows = (images.split(self.columns) for images in self.objective.rows(self.G_ema, self.examples))
            return torch.cat([images for block in zip(*rows, strict=True) for images in block])
        c_dim, z_dim = self.config.model.c_dim, self.config.model.z_dim
        if self.data is not None:
            z = torch.randn(scatter.SHOWN, z_dim, generator=torch.Generator().manual_seed(self.config.seed))
            return scatter.render(self.G_ema(z.to(self.device)), self.data.images)
        rows = min(c_dim, CLASSES) if self.config.conditional else 8
        z = torch.randn(rows * self.columns, z_dim, generator=torch.Generator().manual_seed(self.config.seed))
        c = None
        if self.config.conditional:
            c = torch.eye(c_dim)[:rows].repeat_interleave(self.columns, 0).to(self.device)
        return models.pictures(self.config.model, self.G_ema(z.to(self.device), c))


def _examples(config: Config, data: ImageSet, batches: Batches) -> Batch | None:
    real_img = next(Sampler(data, _EXAMPLES, seed=config.seed))[0].to(batches.device)
    sampler = None if data.source is None else Sampler(data.source, _EXAMPLES, seed=config.seed)
    source = batches.source(real_img, sampler)
    return None if source is None else Batch(real_img, batches.noise(0), None, source.to(batches.device))
