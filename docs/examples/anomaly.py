"""Find images that do not belong: a GAN trained on nine of ten classes of garments scores garments of all ten.

python docs/examples/anomaly.py [RUN]

There are two scores. The first is the logit of D, which is low for images that look false. The second is the residual
loss of AnoGAN (Schlegl et al. 2017, arXiv:1703.05921): the distance of an image from the nearest picture that G can
draw. Gradient descent on z searches for this picture.
"""

import dataclasses
import sys
from pathlib import Path

import torch
from torch import Tensor
from tqdm import trange

from gan_engine.data import DataConfig, ImageSet, load, to_float
from gan_engine.presets import PRESETS
from gan_engine.system.devices import choose_device
from gan_engine.training.trainer import Trainer

NUM = 200  # images that are scored, of the nine classes and of the tenth
STEPS = 150  # steps of the search

data = load(DataConfig("fashion-mnist"), resolution=32, channels=1)
bags = data.labels == data.class_names.index("Bag")
known, unknown = data.images[~bags], data.images[bags]
training, normal = known[:-NUM], known[-NUM:]
device = choose_device("auto")
config = dataclasses.replace(PRESETS["dcgan"](), kimg=60, tensorboard=False)
run_dir = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/anomaly")
if run_dir.exists():
    sys.exit(f"error: {run_dir} exists; name another directory")
run_dir.mkdir(parents=True)
trainer = Trainer(config, ImageSet("garments without bags", training), device=device, run_dir=run_dir)
if trainer.run() is not None:
    sys.exit("stopped before the end")
G, D = trainer.G_ema, trainer.D.eval()


def residual(img: Tensor) -> Tensor:
    """min over z of mean |G(z) - img| -> [N], over the z that a search of STEPS steps visits; img: [N, C, H, W]."""
    z = torch.randn(len(img), config.model.z_dim, generator=torch.Generator().manual_seed(0)).to(img)
    z.requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    least = torch.full((len(img),), torch.inf, device=img.device)
    for _ in trange(STEPS):
        optimizer.zero_grad()
        distance = (G(z) - img).abs().mean((1, 2, 3))
        distance.sum().backward()
        optimizer.step()
        least = torch.minimum(least, distance.detach())
    return least


def auroc(normal: Tensor, anomalous: Tensor) -> float:
    """The fraction of pairs in which the anomalous image has the larger score; ties count half."""
    difference = anomalous[:, None] - normal
    return float(((difference > 0).float() + (difference == 0).float() / 2).mean())


images = [to_float(x[:NUM].to(device)) for x in (normal, unknown)]
with torch.no_grad():
    print(f"brightness, for comparison: AUROC {auroc(*(img.mean((1, 2, 3)) for img in images)):.3f}")
    print(f"logit of D:                 AUROC {auroc(*(-D(img) for img in images)):.3f}")
print(f"residual loss:              AUROC {auroc(*(residual(img) for img in images)):.3f}")
