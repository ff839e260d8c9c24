"""fashion32: a small classifier of the embedded garments. Distances between images are measured in its features.

`python -m gan_engine.metrics.classifier` trains it on 8,000 of the embedded images and writes the weights that ship.
This takes two minutes on a CPU core. The classifier is right about a share of HELD_OUT of the other 2,000 images.
"""

import sys
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.data import DataConfig, ImageSet, load, to_float

NAME = "fashion32"
HELD_OUT = 0.904  # accuracy of the weights that ship, on the images held out
WEIGHTS = resources.files("gan_engine.metrics") / f"{NAME}.pt"


class Classifier(nn.Module):
    """img [N, 1, 32, 32] in [-1, 1] -> features [N, 64], logits [N, 10]"""

    def __init__(self) -> None:
        super().__init__()
        layers, width = [], 1
        for o in (16, 32, 64):
            layers += [nn.Conv2d(width, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)]
            width = o
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.ReLU())
        self.logits = nn.Linear(64, 10)

    def forward(self, img: Tensor) -> tuple[Tensor, Tensor]:
        if img.shape[1:] != (1, 32, 32):
            raise ValueError(f"{NAME}: want grey images [N, 1, 32, 32], got {list(img.shape)}")
        features = self.features(img)
        return features, self.logits(features)


def load_classifier(device: str | torch.device = "cpu") -> Classifier:
    """The classifier with the weights that ship, in eval mode."""
    classifier = Classifier()
    with resources.as_file(WEIGHTS) as path:
        classifier.load_state_dict(torch.load(path, weights_only=True))
    # 23 ms instead of 67 for 300 images, on one thread with AVX-512 (2026-11): pooling is slow with channels apart.
    return classifier.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


@torch.no_grad()
def classify(classifier: Classifier, images: Tensor, *, batch: int = 500) -> tuple[Tensor, Tensor]:
    """uint8 [N, 1, 32, 32] -> features [N, 64], classes [N], on the CPU"""
    device = next(classifier.parameters()).device
    parts = [classifier(to_float(part.to(device))) for part in images.split(batch)]
    return torch.cat([f.cpu() for f, _ in parts]), torch.cat([logits.argmax(1).cpu() for _, logits in parts])


def split(data: ImageSet) -> tuple[Tensor, Tensor]:
    """Indices of the images to learn from, and of the images held out, which are a fifth."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return order[len(data) // 5 :], order[: len(data) // 5]


def train(images: Tensor, labels: Tensor, *, epochs: int = 30, batch: int = 100) -> Classifier:
    """Train a classifier on images uint8 [N, 1, 32, 32], mirrored and shifted by <= 2 pixels, and labels int64 [N]."""
    torch.manual_seed(0)
    classifier = Classifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=0.05)
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for _ in range(epochs):
        for part in torch.randperm(len(images)).split(batch):
            x, y = torch.randint(5, (2,)).tolist()
            img = F.pad(to_float(images[part]), [2, 2, 2, 2], value=-1)[:, :, y : y + 32, x : x + 32]
            img = img.flip(3) if torch.rand(()) < 0.5 else img
            optimizer.zero_grad()
            F.cross_entropy(classifier(img)[1], labels[part], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()
    return classifier.eval()


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else f"{NAME}.pt")
    data = load(DataConfig("fashion-mnist"), resolution=32, channels=1)
    learnt, held_out = split(data)
    classifier = train(data.images[learnt], data.labels[learnt])
    _, classes = classify(classifier, data.images[held_out])
    accuracy = float((classes == data.labels[held_out]).float().mean())
    torch.save(classifier.state_dict(), out)
    print(f"{out}: accuracy {accuracy:.2%} on the images held out")
