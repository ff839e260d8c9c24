"""StyleGAN2: styles, noise, saved states and resumption."""

import copy
import dataclasses

import pytest
import torch

from gan_engine import models
from gan_engine.config import Config as Run
from gan_engine.data import DataConfig, load
from gan_engine.models.style_networks import W_MEAN_HALF_LIFE, Mapping
from gan_engine.models.stylegan2 import SynthesisBlock
from gan_engine.system import checkpoint
from gan_engine.training.trainer import Trainer
from tests.models.stylegan2_networks import SKIP_AND_RESIDUAL, SMALL, build, of

CPU = torch.device("cpu")


# Styles


def test_mixing_swaps_the_styles_from_some_layer_on():
    G, _ = build(style_mixing=1.0)
    ws = G.ws(torch.randn(256, 8))
    same = (ws == ws[:, :1]).all(2)  # [N, num_ws], as the first
    assert same[:, 0].all() and not same[:, -1].any()
    crossover = same.sum(1)
    assert (same == (torch.arange(8) < crossover[:, None])).all()
    assert set(crossover.tolist()) == set(range(1, 8))
    assert all((ws[n, k:] == ws[n, -1]).all() for n, k in enumerate(crossover))


def test_mixing_is_for_training_and_has_its_share():
    G, _ = build(style_mixing=0.25)
    z = torch.randn(2000, 8)
    ws = G.ws(z)
    assert (ws != ws[:, :1]).any(2).any(1).float().mean().item() == pytest.approx(0.25, abs=0.04)
    w = G.eval().mapping(z)
    assert torch.equal(G.ws(z), w[:, None].expand(-1, 8, -1))
    assert torch.equal(build(style_mixing=0.0)[0].ws(z), w[:, None].expand(-1, 8, -1))


def test_truncation():
    G, _ = build()
    for _ in range(20):
        G.mapping(torch.randn(500, 8))
    G.eval()
    z = torch.randn(4, 8)
    mean = G.mapping.w_mean
    with torch.no_grad():
        img = G(z, truncation=0)
        assert all(torch.equal(img[0], other) for other in img)
        torch.testing.assert_close(img[:1], G.synthesis(mean.expand(1, 8, 8)))
        assert (G(z)[0] - G(z)[1]).abs().max() > 1e-3
        ws = G.ws(z)
        torch.testing.assert_close(G.ws(z, truncation=0.5), (ws + mean) / 2)
        cut = G.ws(z, truncation=0, cutoff=3)
        assert torch.equal(cut[:, :3], mean.expand(4, 3, 8)) and torch.equal(cut[:, 3:], ws[:, 3:])
        assert torch.equal(G.ws(z, truncation=1, cutoff=3), ws)


def test_the_mean_of_w_is_followed_in_training_alone():
    mapping = Mapping(SMALL)
    z = torch.randn(1, 8).expand(W_MEAN_HALF_LIFE // 10, -1)
    w = mapping(z)[:1]
    mapping.w_mean.zero_()
    for _ in range(10):
        mapping(z)
    torch.testing.assert_close(mapping.w_mean, w / 2)
    before = mapping.w_mean.clone()
    mapping.eval()(torch.randn(9, 8))
    assert torch.equal(before, mapping.w_mean)
    assert not mapping.w_mean.requires_grad and "w_mean" in mapping.state_dict()


def test_every_class_has_its_mean():
    G, _ = build(c_dim=3)
    c = torch.eye(3)
    seen = c[[0, 0, 0, 2]]
    z = torch.randn(4, 8)
    w = G.mapping(z, seen)
    means = G.mapping.w_mean
    assert means.shape == (3, 8) and not means[1].any()
    torch.testing.assert_close(means[0], w[:3].mean(0) * (1 - 0.5 ** (3 / W_MEAN_HALF_LIFE)), rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(means[2], w[3] * (1 - 0.5 ** (1 / W_MEAN_HALF_LIFE)), rtol=1e-3, atol=1e-7)
    for _ in range(40):
        G.mapping(torch.randn(600, 8), c.repeat(200, 1))
    G.eval()
    img = G(torch.randn(6, 8), c.repeat(2, 1), truncation=0)
    assert torch.equal(img[:3], img[3:]) and not torch.equal(img[0], img[1])


# Noise


def test_noise():
    G, _ = build()
    ws = torch.randn(2, 8, 8)
    for p in [p for name, p in G.named_parameters() if "noise_strength" in name]:
        p.data.fill_(0.5)

    def image(noise=None):
        with torch.no_grad():
            return G.synthesis(ws, noise=noise)

    assert not torch.equal(image(), image()) and not torch.equal(image("random"), image("random"))
    const, none = image("const"), image("none")
    assert torch.equal(const, image("const")) and torch.equal(none, image("none")) and not torch.equal(const, none)
    G.eval()
    state = torch.get_rng_state()
    assert torch.equal(image(), const)
    assert torch.equal(torch.get_rng_state(), state)  # samples do not move what training draws
    for p in [p for name, p in G.named_parameters() if "noise_strength" in name]:
        p.data.zero_()
    assert torch.equal(image("random"), none)


def test_every_layer_has_noise_of_its_size():
    block = SynthesisBlock(SMALL, 16)
    assert block.noise0.shape == block.noise1.shape == (1, 1, 16, 16)
    assert not torch.equal(block.noise0, block.noise1)
    assert not hasattr(SynthesisBlock(SMALL, 4), "noise0")


# Saving, training, resumption


@SKIP_AND_RESIDUAL
def test_a_saved_state_gives_the_same_images_and_logits(architecture, tmp_path):
    G, D = of(architecture, c_dim=3)
    c, z = torch.eye(3), torch.randn(3, 8)
    for p in [p for name, p in G.named_parameters() if "noise_strength" in name]:
        p.data.fill_(0.5)
    G(z, c)  # moves the means
    checkpoint.save(tmp_path / "a.pt", {"G": G.state_dict(), "D": D.state_dict()})
    state = checkpoint.load(tmp_path / "a.pt")
    torch.manual_seed(1)
    others = models.build(G.config)
    for net, name in zip(others, "GD", strict=True):
        net.load_state_dict(state[name])
        net.eval()
    want, got = (net(z, c, truncation=0.7) for net in (G.eval(), others[0]))
    assert torch.equal(want, got)
    assert torch.equal(D(want, c), others[1](got, c))
    assert torch.equal(copy.deepcopy(G)(z, c), G(z, c))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("conditional", [False, True], ids=["", "classes"])
def test_five_steps_of_training_and_again_from_the_third(conditional, precision, tmp_path):
    data = load(DataConfig("toy"), resolution=16, channels=3)
    model = dataclasses.replace(SMALL, resolution=16, c_dim=data.num_classes if conditional else 0)
    run = Run(
        preset="stylegan2",
        model=model,
        data="toy",
        conditional=conditional,
        batch_size=8,
        batch_gpu=4,
        kimg=0.04,
        lr=2.5e-3,
        betas=(0.0, 0.99),
        precision=precision,
        grid_kimg=0.016,
        checkpoint_kimg=0.024,
        metrics_kimg=0.008,
        tensorboard=False,
    )

    def trainer(name):
        return Trainer(run, data, device=CPU, run_dir=tmp_path / name)

    whole = trainer("whole")
    start = copy.deepcopy(whole.G_ema.state_dict())
    assert whole.run() is None and whole.nimg == 40 and whole.step_count == 5
    states = {name: getattr(whole, name).state_dict() for name in ("G", "D", "G_ema")}
    assert all(value.isfinite().all() for state in states.values() for value in state.values())
    moved = {name for name, value in states["G_ema"].items() if not torch.equal(value, start[name])}
    assert start.keys() - moved == {name for name in start if name.endswith(("noise0", "noise1"))}

    again = trainer("again")
    again.load_state_dict(checkpoint.load(tmp_path / "whole/checkpoints/kimg-000000.024.pt"))
    for _ in range(2):
        again.samples()
        again.step()
    for name, state in states.items():
        other = getattr(again, name).state_dict()
        assert [key for key in state if not torch.equal(state[key], other[key])] == []
