"""Count the FLOPs of a training step by precision, without computing one: `python -m benchmarks.flops stylegan2_256`.

Networks and images are fake tensors, which have shapes and no numbers. A product or convolution of n multiplications
with additions counts 2 n. FIR filters and other depthwise convolutions do not count: memory decides their time.
"""

import argparse
import collections
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.eager import eager_pytorch
from benchmarks.gpu_check.page import table
from gan_engine import models
from gan_engine.config import Config
from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.objective import Batch, GanObjective
from gan_engine.losses.step import TermsStep
from gan_engine.presets import PRESETS
from gan_engine.training.precision import takes_tf32

Flops = dict[torch.dtype, float]


class Counter(TorchDispatchMode):
    """Adds up the FLOPs of all products and convolutions, by the dtype of their factors."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: Flops = collections.defaultdict(float)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None and not _depthwise(func, args):
            first = next(x for x in pytree.tree_leaves(args) if isinstance(x, torch.Tensor))
            self.flops[first.dtype] += count(*args, **(kwargs or {}), out_val=out)
        return out


def _depthwise(func: torch._ops.OpOverload, args: tuple) -> bool:
    groups = {"convolution": 8, "convolution_backward": 9}.get(func._overloadpacket.__name__)
    image = 1 if groups == 9 else 0
    return groups is not None and args[groups] > 1 and args[groups] == args[image].shape[1]


@contextmanager
def learning(net: torch.nn.Module, *others: torch.nn.Module) -> Iterator[None]:
    for other in others:
        other.requires_grad_(False)
    net.requires_grad_(True)
    yield


def phases(config: Config, precision: torch.dtype | None) -> dict[str, Flops]:
    """{phase: FLOPs by dtype}; `precision` is the dtype of autocast, None for float32."""
    counted: dict[str, Flops] = {}
    G, D = models.build(config.model)
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    for module in (*G.modules(), *D.modules()):
        for tensors in (module._parameters, module._buffers):
            tensors.update({name: fakes.from_tensor(t) for name, t in tensors.items() if t is not None})
    with fakes, eager_pytorch():
        options = ("r1_gamma", "r2_gamma", "gp_weight", "penalty_interval", "pl_weight", "pl_batch_shrink")
        weights = {name: getattr(config, name) for name in options}
        objective = GanObjective(G, D, LOSSES[config.loss], lambda *_: None, **weights)
        img = torch.randn(config.batch_size, config.model.channels, *[config.model.resolution] * 2)
        batch = Batch(img, torch.randn(config.batch_size, config.model.z_dim), None)
        todo: dict[str, tuple[torch.nn.Module, torch.nn.Module, Callable]] = {
            "D": (D, G, lambda: TermsStep(objective.discriminator(batch))),
            "G": (G, D, lambda: TermsStep(objective.generator(batch))),
        }
        if objective.weights:
            todo["D with penalties"] = (D, G, lambda: objective.penalised_discriminator(batch))
        if config.pl_weight:
            todo["path length"] = (G, D, lambda: TermsStep(objective.path_length(batch)))
        for name, (net, other, step) in todo.items():
            with learning(net, other), Counter() as counter:
                with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
                    made = step()
                made.backward(1.0)
            counted[name] = counter.flops
    return counted


def per_step(config: Config, counted: dict[str, Flops]) -> Flops:
    """The mean over the steps of a run, each phase weighted by how often it is due."""
    penalised = 1 / config.penalty_interval if "D with penalties" in counted else 0
    share = {"D": 1 - penalised, "D with penalties": penalised, "G": 1 / config.n_critic}
    share["path length"] = 1 / config.pl_interval
    mean: Flops = collections.defaultdict(float)
    for phase, flops in counted.items():
        for dtype, number in flops.items():
            mean[dtype] += share[phase] * number
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the FLOPs of a training step by precision.")
    parser.add_argument("preset", nargs="?", default="stylegan2_256")
    config = dataclasses.replace(PRESETS[parser.parse_args().preset](), data="toy")
    counted = phases(config, torch.bfloat16)
    counted["mean step"] = per_step(config, counted)
    name = "TF32" if takes_tf32(config.tf32, "bf16", torch.device("cuda")) else "fp32"
    lines = []
    for phase, flops in counted.items():
        full = {"bf16": flops[torch.bfloat16] / 1e12, "TF32": 0.0, "fp32": 0.0}
        full[name] = flops[torch.float32] / 1e12
        line = {"phase": phase, **{kind: f"{number:.2f}" for kind, number in full.items()}}
        lines.append(line | {"share of fp32": f"{full['fp32'] / sum(full.values()):.0%}"})
    print(f"{config.preset}, {config.batch_size} images, TFLOP on a GPU:\n\n{table(lines)}")


if __name__ == "__main__":
    main()
