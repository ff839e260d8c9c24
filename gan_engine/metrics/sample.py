"""What is remembered of the features of many images. The memory does not depend on the number of images."""

from typing import Any

import torch
from torch import Tensor

KEPT = 10_000  # features of one set that are kept, for the metrics that compare images one by one


class Moments:
    """Mean [d] and covariance [d, d] of all features so far, in float64   # Chan et al. 1979, equation 1.5"""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Take x [N, d] in."""
        x = x.double()
        n, m, mean = self.count, len(x), x.mean(0)
        off, centred = mean - self.mean, x - mean
        self.count = n + m
        self.squares = self.squares + centred.t() @ centred + off.outer(off) * (n * m / self.count)
        self.mean = self.mean + off * (m / self.count)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance. Raises ValueError for fewer than two images."""
        if self.count < 2:
            raise ValueError(f"covariance: want at least 2 images, got {self.count}")
        return self.squares / (self.count - 1)


class Certainty:
    """Running sums for the Inception score: how sure a classifier is of each image, and how varied its answers are."""

    def __init__(self) -> None:
        self.count, self.own, self.shares = 0, 0.0, torch.zeros(())

    def add(self, logits: Tensor) -> None:
        """Take logits [N, K] in."""
        logs = logits.double().log_softmax(1)
        p = logs.exp()
        self.count += len(p)
        self.own += float((p * logs).sum())
        self.shares = self.shares + p.sum(0)

    @property
    def score(self) -> float:
        """exp(mean of KL(p(y | x) | p(y)))   # Salimans et al. 2016, arXiv:1606.03498, section 4"""
        shares = self.shares / self.count
        return float(torch.exp(self.own / self.count - torch.special.xlogy(shares, shares).sum()))


class Sample:
    """The moments of all features of a set, and at most KEPT features [N, d], float32 on the CPU.

    Args:
        certainty: also keep the sums of the Inception score.
    """

    def __init__(self, *, certainty: bool = False) -> None:
        self.moments, self.certainty = Moments(), Certainty() if certainty else None
        self._parts: list[Tensor] = []
        self._kept = 0

    def add(self, features: Tensor, logits: Tensor, keep: Tensor | None = None) -> None:
        """Take the features [N, d] and logits [N, K] of N images in. `keep` [N] chooses what is kept. None: all."""
        features = features.float().cpu()
        self.moments.add(features)
        if self.certainty is not None:
            self.certainty.add(logits.cpu())
        chosen = features if keep is None else features[keep]
        chosen = chosen[: KEPT - self._kept]
        if len(chosen):
            self._parts.append(chosen.clone())
            self._kept += len(chosen)

    def __len__(self) -> int:
        return self.moments.count

    @property
    def kept(self) -> Tensor:
        """The features that were kept, [at most KEPT, d]."""
        self._parts = [torch.cat(self._parts)]
        return self._parts[0]

    def state_dict(self) -> dict[str, Any]:
        moments = self.moments
        return {"count": moments.count, "mean": moments.mean, "squares": moments.squares, "kept": self.kept}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Sample":
        """The inverse of `state_dict`."""
        sample = cls()
        moments = sample.moments
        moments.count, moments.mean, moments.squares = state["count"], state["mean"], state["squares"]
        sample._parts, sample._kept = [state["kept"]], len(state["kept"])
        return sample
