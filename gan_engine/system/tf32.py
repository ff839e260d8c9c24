"""Products of float32 numbers on GPUs: in float32, or rounded to TF32."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def tf32_products(allowed: bool) -> Iterator[None]:
    """Inside, float32 convolutions and matrix products on GPUs round their factors to TF32 if it is `allowed`."""
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = allowed
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
