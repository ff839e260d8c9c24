"""Precision of the passes: autocast and loss scaling. Weights, optimiser states and losses stay float32."""

import contextlib
import textwrap
from typing import Any

import torch
from torch import Tensor

from gan_engine.system import bfloat16

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(name: str, device: torch.device) -> str:
    """The precision that `name` ("auto", "fp32", "bf16" or "fp16") means on `device`: "fp32", "bf16" or "fp16".

    "auto" is bf16 where bf16 is faster than fp32.

    Raises ValueError for another name, and for fp16 on a CPU.
    """
    if name == "auto":
        return "bf16" if _gains_by_bf16(device) else "fp32"
    if name not in ("fp32", *DTYPES):
        raise ValueError(f"precision: want auto, fp32, {' or '.join(DTYPES)}, got {textwrap.shorten(repr(name), 60)}")
    if name == "fp16" and device.type != "cuda":
        # 20 times: oneDNN 3.x, AVX-512 without FP16 arithmetic, 3x3 convolutions with 64 to 512 channels.
        raise ValueError(
            f"precision: fp16 is for GPUs; on {device.type} its convolutions run about 20 times slower than in fp32. "
            "Want fp32, bf16 or auto"
        )
    return name


def _gains_by_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bfloat16.on_cpu().gains


def remark(name: str, device: torch.device) -> str:
    """What the first lines of a run say behind its precision: why it is fp32, or that fp32 would be faster."""
    why = bfloat16.slower(device)
    if why is None or name not in ("fp32", "bf16"):
        return ""
    return f": {why}" if name == "fp32" else f"; --precision fp32 may be faster: {why}"


def takes_tf32(asked: bool | None, name: str, device: torch.device) -> bool:
    """True if float32 products of a run on `device` in the precision `name` are in TF32; `asked` is Config.tf32.

    TF32 rounds factors to 10 bits of mantissa, as fp16 does; bf16 rounds them to 7. The float32 parts of such a run
    are the penalties and the low resolutions of stylegan2. Their gradients in TF32 are as near to float32 as those of
    the loss in bf16: `python -m benchmarks.gradient_errors`, docs/performance-gpu.md.
    """
    return (device.type == "cuda" and name != "fp32") if asked is None else asked


def products_line(tf32: bool, device: torch.device) -> str:
    """What the first lines of a run on a GPU say of products in float32."""
    return "" if device.type != "cuda" else "float32 parts in TF32" if tf32 else "float32 parts without TF32"


def finite(x: Tensor) -> Tensor:
    """x.isfinite(), in half as many launches on a GPU"""
    return x - x == 0


class Precision:
    """The precision of a phase: `autocast` around its forward pass, `scale` for its backward pass, then `step`.

    Args:
        name: "fp32", "bf16" or "fp16".
        device: of the networks.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.device = device
        self.switch(name)

    def switch(self, name: str) -> None:
        """Become another precision, "fp32", "bf16" or "fp16"."""
        self.name = name
        # Gradients below 2^-24 vanish in fp16. The loss is therefore scaled up, and a step that overflows is left out
        # (Micikevicius et al. 2018, arXiv:1710.03740). The dtype bf16 has the exponents of fp32 and needs no scale.
        self.scaler = torch.amp.GradScaler(self.device.type) if name == "fp16" else None

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.name])

    def scale(self, share: float) -> float | Tensor:
        """The factor of a loss before its backward pass: `share`, times the loss scale, which `unscale` takes back."""
        if self.scaler is None:
            return share
        return self.scaler.scale(torch.full((), share, device=self.device))

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients of `optimizer` by the loss scale."""
        if self.scaler is not None:
            self.scaler._per_optimizer_states.clear()  # left there by a CUDA graph whose recording failed
            self.scaler.unscale_(optimizer)

    def bears(self, norm: Tensor) -> Tensor:
        """True if training can go on after gradients with that norm: it is finite, or a smaller loss scale may help.

        A smaller scale does not help below a scale of 1, where the scale is not the reason of the overflow.
        """
        return finite(norm) if self.scaler is None else finite(norm) | (self.scaler._scale >= 1)

    def step(self, optimizer: torch.optim.Optimizer, skip: Tensor) -> None:
        """Let `optimizer` step, unless `skip`, a float32 scalar on the device, is not 0.

        The optimiser must be fused: fused optimisers read `skip` on the device, so that the host need not wait for it.
        """
        if self.scaler is None:
            optimizer.found_inf = skip
            optimizer.step()
        else:
            for found_inf in self.scaler._found_inf_per_device(optimizer).values():
                found_inf.copy_(torch.maximum(found_inf, skip))
            self.scaler.step(optimizer)
            self.scaler.update()

    def tensors(self) -> list[Tensor]:
        """What a step changes: the loss scale and the steps since it grew."""
        if self.scaler is None or self.scaler._scale is None:
            return []
        return [self.scaler._scale, self.scaler._growth_tracker]

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.scaler is not None:
            self.scaler.load_state_dict(state)
