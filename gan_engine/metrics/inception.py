"""The network of the Frechet Inception distance: the Inception v3 of TensorFlow from 2015-12-05.

Only distances in its features are called FID. The network is that of torch-fidelity, which resizes images to 299x299 as
TensorFlow 1 does. Its weights are a file of 95 MB that no package brings. Nothing is downloaded here.
"""

import hashlib
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

FILES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILES[0]}"


class Inception(nn.Module):
    """images uint8 [N, 1 or 3, H, W] -> features [N, 2048], logits [N, 1008] without bias, as the Inception score has

    Args:
        shape: of an image.
        weights: the file with the weights. None: the file that torch-fidelity or pytorch-fid has put into the folder of
            torch.hub.

    Raises ValueError where torch-fidelity or the weights are missing; the message says how to get them.
    """

    name = "inception"

    def __init__(self, shape: tuple[int, int, int], weights: Path | None = None) -> None:
        super().__init__()
        if shape[0] not in (1, 3):
            raise ValueError(f"inception: want images with 1 or 3 channels, got {shape[0]}")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

            import gan_engine.data.torchvision_shim  # noqa: F401  (torch-fidelity imports torchvision)
        except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision was built for another PyTorch
            raise ValueError(f"inception: want torch-fidelity: pip install torch-fidelity ({error})") from None
        path = found() if weights is None else weights
        try:
            torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would run code in the file
            layers = ["2048", "logits_unbiased"]
            self.network = FeatureExtractorInceptionV3("inception", layers, feature_extractor_weights_path=str(path))
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"weights: {path}: no weights of the Inception of FID: {reason}") from None
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
        self.about = (
            f"Inception v3 of 2015-12-05 (weights sha256 {digest}), 2,048 features of images of 8 bits, resized to "
            "299x299 as TensorFlow 1 does (bilinear, not antialiased)"
        )

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.network(images.expand(-1, 3, -1, -1))
        return features, logits


def found() -> Path:
    """The file with the weights in the folder of torch.hub. Raises ValueError if there is none."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(
        f"inception: want the weights of the Inception of FID, and there is no {FILES[0]} in {folder}; "
        f"download {URL} to that folder, or name the file by --weights"
    )
