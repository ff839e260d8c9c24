"""Typed code of other people that uses the package. `make lint` lets mypy read it strictly; nothing runs it."""

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

import gan_engine
from gan_engine import backends, evaluate, generate, info, layers, ops, report, train, translate, upscale
from gan_engine.inference.generator import TrainedGenerator
from gan_engine.losses import penalties
from gan_engine.losses.adversarial import LOSSES, Adversarial


def operators(x: Tensor, b: Tensor, weight: Tensor, styles: Tensor) -> None:
    f = ops.setup_filter([1, 3, 3, 1])
    assert_type(f, Tensor)
    assert_type(ops.bias_act(x, b, act="lrelu", clamp=256), Tensor)
    assert_type(ops.scale_bias_act(x, styles, b, act="relu"), Tensor)
    assert_type(ops.norm_act(x, b, b, act="lrelu"), Tensor)
    assert_type(ops.pixel_norm(x), Tensor)
    assert_type(ops.upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1]), Tensor)
    assert_type(ops.upsample2d(x, f), Tensor)
    assert_type(ops.downsample2d(x, f), Tensor)
    assert_type(ops.filter2d(x, f), Tensor)
    assert_type(ops.conv2d(x, weight, padding=1), Tensor)
    assert_type(ops.modulated_conv2d(x, weight, styles), Tensor)
    assert_type(ops.upsample_conv2d(x, weight, mode="fir", f=f), Tensor)
    assert_type(ops.minibatch_stddev(x), Tensor)
    assert_type(ops.sum_of_squares(x), Tensor)
    with backends.use("reference"):
        ops.avg_pool2d(x, 2)


def modules(x: Tensor) -> None:
    linear = layers.EqualizedLinear(8, 8, act="lrelu")
    conv = layers.EqualizedConv2d(8, 8, 3, resample="up", taps=(1, 3, 3, 1))
    assert_type(linear.weight, nn.Parameter)
    assert_type(conv.weight, nn.Parameter)
    layers.Conv2d(8, 8, 3)(x)


def discriminator_step(D: nn.Module, img: Tensor) -> None:
    logits, penalty = penalties.backward_with_penalty(D, img, lambda logits: nn.functional.softplus(-logits), gamma=1.0)
    assert_type(logits, Tensor)
    assert_type(penalty, Tensor)
    assert_type(penalties.r1(D, img), Tensor)
    assert_type(penalties.wgan_gp(D, img, img), Tensor)
    assert_type(penalties.refusal(D, img), str | None)
    assert_type(LOSSES["hinge"], Adversarial)


def generators() -> None:
    G = gan_engine.load("runs/dcgan-1")
    assert_type(G, TrainedGenerator)
    assert_type(G.sample(4, seed=0), Tensor)
    assert_type(G.sample(seeds=[1, 2], truncation=0.7), Tensor)
    torch.save(G.state_dict(), "G.pt")


def commands() -> None:
    assert_type(train.main(["--list"]), int)
    assert_type(generate.main(["runs/dcgan-1", "--num", "4"]), int)
    assert_type(evaluate.main(), int)
    assert_type(translate.main(), int)
    assert_type(upscale.main(), int)
    assert_type(report.main(), int)
    assert_type(info.main(), int)
    run = Path("runs/dcgan-1")
    generate.generate(generate.Options(run, num=4, seeds="0-3"))
    evaluate.evaluate(evaluate.Options(run, num=100))
    translate.translate(translate.Options(run, run, checkpoint=run))
    upscale.upscale(upscale.Options(run, run, checkpoint=run))
