"""A classifier of real garments, of garments that a GAN of them draws, and of both.

python docs/examples/augmentation.py [RUN]
"""

import dataclasses
import sys
from pathlib import Path

import torch

from gan_engine.data import DataConfig, ImageSet, load
from gan_engine.inference.generator import images
from gan_engine.metrics.classifier import classify, train
from gan_engine.pictures.picture import to_uint8
from gan_engine.presets import PRESETS
from gan_engine.system.devices import choose_device
from gan_engine.train import with_classes
from gan_engine.training.trainer import Trainer

HALF, STEPS = 5000, 1200  # images of each sort, and steps of each classifier

data = load(DataConfig("fashion-mnist"), resolution=32, channels=1)
shown, held_out = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).split(HALF)
real = ImageSet("real", data.images[shown], data.labels[shown], data.class_names)

run_dir = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/augmentation")
if run_dir.exists():
    sys.exit(f"error: {run_dir} exists; name another directory")
run_dir.mkdir(parents=True)
config = dataclasses.replace(PRESETS["cgan"](), kimg=60, tensorboard=False)
trainer = Trainer(with_classes(config, real), real, device=choose_device("auto"), run_dir=run_dir)
if trainer.run() is not None:
    sys.exit("stopped before the end")

labels = torch.arange(HALF) % 10
drawn = torch.cat([torch.from_numpy(to_uint8(img)) for img in images(trainer.G_ema, HALF, classes=labels.tolist())])
drawn = drawn.permute(0, 3, 1, 2)
learnt = {
    "real": (real.images, real.labels),
    "generated": (drawn, labels),
    "both": (torch.cat([real.images, drawn]), torch.cat([real.labels, labels])),
}
for name, (known, its_labels) in learnt.items():
    classifier = train(known, its_labels, epochs=STEPS * 100 // len(known))
    _, found = classify(classifier, data.images[held_out])
    print(f"{name:9} {(found == data.labels[held_out]).float().mean():.1%} right of {HALF:,} others")
