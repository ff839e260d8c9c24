"""Train a classifier on real garments, on garments drawn by a GAN of them, and on both, and compare.

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
from gan_engine.training.inputs import with_classes
from gan_engine.training.trainer import Trainer

HALF = 5000  # real images, generated images, and held-out images
STEPS = 1200  # steps of each classifier

data = load(DataConfig("fashion-mnist"), resolution=32, channels=1)
training, held_out = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).split(HALF)
real = ImageSet("real", data.images[training], data.labels[training], data.class_names)

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
training_sets = {
    "real": (real.images, real.labels),
    "generated": (drawn, labels),
    "both": (torch.cat([real.images, drawn]), torch.cat([real.labels, labels])),
}
for name, (training_images, training_labels) in training_sets.items():
    classifier = train(training_images, training_labels, epochs=STEPS * 100 // len(training_images))
    _, predicted = classify(classifier, data.images[held_out])
    print(f"{name:9} {(predicted == data.labels[held_out]).float().mean():.1%} of {HALF:,} held-out images right")
