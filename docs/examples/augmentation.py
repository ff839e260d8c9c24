"""Fewer labels: a classifier of 500 garments, and the same with garments that a GAN of those 500 draws.

python docs/examples/augmentation.py [RUN]
"""

import dataclasses
import sys
from pathlib import Path

import torch

from gan_engine.data import DataConfig, ImageSet, load
from gan_engine.devices import choose_device
from gan_engine.generate import images
from gan_engine.metrics.classifier import classify, train
from gan_engine.monitors import to_uint8
from gan_engine.presets import PRESETS
from gan_engine.train import with_classes
from gan_engine.trainer import Trainer

REAL, GENERATED, STEPS = 500, 5000, 600

data = load(DataConfig("fashion-mnist"), resolution=32, channels=1)
order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
few, held_out = order[:REAL], order[-5000:]
real = ImageSet("few", data.images[few], data.labels[few], data.class_names)

# Flips, shifts and colours keep D from learning so few images by heart.
config = dataclasses.replace(PRESETS["cgan"](), kimg=60, augment="ada", ada_kimg=50, mirror=True, tensorboard=False)
run_dir = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/augmentation")
run_dir.mkdir(parents=True, exist_ok=True)
trainer = Trainer(with_classes(config, real), real, device=choose_device("auto"), run_dir=run_dir)
trainer.run()

labels = torch.arange(GENERATED) % 10
drawn = [torch.from_numpy(to_uint8(img)) for img in images(trainer.G_ema, GENERATED, classes=labels.tolist())]
drawn = torch.cat(drawn).permute(0, 3, 1, 2)
both = ImageSet("more", torch.cat([real.images, drawn]), torch.cat([real.labels, labels]), data.class_names)

for name, known in (("real images alone", real), ("real and generated images", both)):
    learnt = len(known) - len(known) // 5  # `train` holds a fifth back
    classifier, _ = train(known, epochs=round(STEPS * 100 / learnt))
    _, found = classify(classifier, data.images[held_out])
    print(f"{name:26} {(found == data.labels[held_out]).float().mean():.2%} right of {len(held_out):,} others")
