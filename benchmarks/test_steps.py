"""Time a training step of every family, phase by phase: with our ops, and with the same networks on PyTorch alone.

A step computes the gradients of the loss of its phase by the weights of its network, as the trainer does, without the
optimiser. The phases:

    G, D           the adversarial loss alone
    D + penalties  a step of D with R1 or another penalty; penalties run in float32 at any precision of the run
    R1             stylegan2: the penalty alone, for comparison with trainers that give the penalty its own step
    G path length  stylegan2: the path-length penalty

The forms that are compared:

    ours           our ops, with the penalty at the best level that D allows
    eager          PyTorch's own ops and autograd alone, in channels_last and in contiguous memory
    compile        PyTorch's own ops, with both networks compiled; not for penalties, which torch.compile refuses
                   because they differentiate twice

The table adds the phases of a family up to its whole step, each weighted by how often a step has it. Phases before the
adversarial training, such as the content phase of srgan, do not count.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._inductor import config as inductor

from benchmarks.eager import eager_pytorch
from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import load
from gan_engine.losses.objective import Batch
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.presets import PRESETS
from gan_engine.training.trainer import Trainer

# Modules that torch.compile imports give this deprecation warning about PyTorch's own code.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def _stylegan2() -> Config:
    return dataclasses.replace(PRESETS["stylegan2_64"](), batch_size=8)


# The presets for CPUs, and StyleGAN2 with the batch size of a GPU.
SAMPLES: dict[str, Callable[[], Config]] = {
    "stylegan2 8x3x64x64": _stylegan2,
    **{
        name: PRESETS[name]
        for name in (
            *("vanilla", "dcgan", "upsample_gan", "wgan", "wgan_gp", "cgan", "lapgan", "sngan", "sagan", "r3gan"),
            *("pix2pix", "cyclegan", "srgan_light", "gan3d"),
        )
    },
}
MODES = ("G", "D", "D + penalties", "R1", "G path length")


def make_trainer(sample: str, dtype: str, device: str) -> Trainer:
    config = dataclasses.replace(SAMPLES[sample](), data="toy", precision=dtype, tensorboard=False)
    model, kind = config.model, models.data_kind(config.model)
    data = load(config.data_config, resolution=model.resolution, channels=model.channels, kind=kind)
    if config.conditional:
        config = dataclasses.replace(config, model=dataclasses.replace(model, c_dim=data.num_classes))
    return Trainer(config, data, device=torch.device(device), run_dir=Path("unused"))


def trained_network(trainer: Trainer, mode: str) -> torch.nn.Module:
    """The network whose gradients the phase computes."""
    return trainer.G if mode.startswith("G") else trainer.D


def step_of(trainer: Trainer, mode: str, *, contiguous: bool = False) -> Callable[[], None]:
    """A function that computes the gradients of `mode` and leaves them in .grad."""
    objective = trainer.objective
    net = trained_network(trainer, mode)
    real_img, c = next(trainer.batches.sampler)
    source = trainer.batches.source(real_img, trainer.batches.source_sampler)
    if contiguous and source is not None:
        source = source.clone(memory_format=torch.contiguous_format)  # with other strides, even of one channel
    batch = Batch(
        real_img.contiguous() if contiguous else trainer.batches.laid_out(real_img),
        trainer.batches.noise(len(real_img)),
        c if trainer.config.conditional else None,
        source,
    )
    terms = {"G": objective.generator, "D": objective.discriminator, "G path length": objective.path_length}

    def call() -> None:
        torch.manual_seed(0)  # for noise inputs and style mixing
        trainer.penalty_generator.manual_seed(0)
        trainer.G.requires_grad_(net is trainer.G), trainer.D.requires_grad_(net is trainer.D)
        net.zero_grad(set_to_none=True)
        with trainer.precision.autocast():
            if mode == "D + penalties":
                objective.penalised_discriminator(batch).backward(1.0)
                return
            if mode == "R1":
                gamma, level = trainer.config.r1_gamma, objective.level
                backward_with_penalty(trainer.D, batch.real_img, None, gamma=gamma, c=batch.c, level=level)
                return
            losses = terms[mode](batch)
        sum(values.mean() for values in losses.values()).backward()

    return call


def per_step(trainer: Trainer) -> dict[str, float]:
    """How often a training step has each mode, on average."""
    config = trainer.config
    penalised = 1 / config.penalty_interval if trainer.objective.weights else 0
    return {
        "G": 1 / config.n_critic,
        "D": 1 - penalised,
        "D + penalties": penalised,
        "R1": 0,
        "G path length": 1 / config.pl_interval if config.pl_weight else 0,
    }


def compiled(trainer: Trainer) -> Trainer:
    inductor.fallback_random = True  # draw the same noise as eager mode, so that gradients can be compared
    trainer.G.compile(dynamic=False)
    trainer.D.compile(dynamic=False)
    return trainer


def on_pytorch(call: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with eager_pytorch():
            call()

    return run


def gradients(net: torch.nn.Module) -> Tensor:
    """All gradients in one vector. An undefined gradient counts as 0, such as a bias by R1 at level 1."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).double().flatten() for p in net.parameters()])


def relative(x: Tensor, wanted: Tensor) -> float:
    return float((x - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("sample", SAMPLES)
def test_family_step(sample: str, dtype: str, mode: str, malloc: str, session, benchmark) -> None:
    ours = make_trainer(sample, dtype, session.device)
    if mode == "D + penalties" and not ours.objective.weights:
        pytest.skip("trained without penalties")
    if mode == "R1" and not (ours.config.r1_gamma and ours.config.penalty_interval > 1):
        pytest.skip("no trainer gives this penalty its own step")
    if mode == "G path length" and not ours.config.pl_weight:
        pytest.skip("trained without a path-length penalty")
    eager, contiguous = (make_trainer(sample, dtype, session.device) for _ in range(2))
    for net in (contiguous.G, contiguous.D):
        net.to(memory_format=torch.contiguous_format)
    for trainer in (eager, contiguous):
        trainer.objective.level = "autograd"
    trainers = {"ours": ours, "eager channels_last": eager, "eager": contiguous}
    by_role = {
        "ours": {"ours": step_of(ours, mode)},
        "eager": {
            "eager channels_last": on_pytorch(step_of(eager, mode)),
            "eager": on_pytorch(step_of(contiguous, mode, contiguous=True)),
        },
        "compile": {},
    }
    if mode in ("G", "D"):
        torch.compiler.reset()
        trainers["compile"] = compiled(make_trainer(sample, dtype, session.device))
        by_role["compile"]["compile"] = on_pytorch(step_of(trainers["compile"], mode))

    errors = {}
    if dtype == "fp32":
        grads = {}
        for name, call in {name: call for calls in by_role.values() for name, call in calls.items()}.items():
            try:
                call()
            except Exception as error:  # torch.compile may raise any exception
                if name != "compile":
                    raise
                errors[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                continue
            grads[name] = gradients(trained_network(trainers[name], mode))
        # PyTorch's gradients in two memory layouts differ by rounding. Batch norms can magnify this to 1e-3.
        rounding = relative(grads["eager"], grads["eager channels_last"])
        for name in grads.keys() - {"eager", "eager channels_last"}:
            off = relative(grads[name], grads["eager channels_last"])
            if not off < 1e-3 + 2 * rounding:
                errors[name] = f"gradients are off by {off:.1e}; PyTorch's two layouts differ by {rounding:.1e}"
    roles = {name: role for role, steps in by_role.items() for name in steps}
    calls = {name: step for steps in by_role.values() for name, step in steps.items()}
    case = {"op": "family step", "sample": sample, "dtype": dtype, "mode": mode, "malloc": malloc}
    timings = session.compare(case | {"per_step": per_step(ours)}, roles, calls, errors)
    benchmark.group = "family step"
    benchmark.extra_info.update(case, medians_ms={name: t.median for name, t in timings.items() if t.ms})
    benchmark.pedantic(lambda: None)
    assert not timings["ours"].error, timings["ours"].error
