"""What a step does, that it can be repeated bit for bit, and that it stops before it does harm."""

import copy
import dataclasses
import functools
import os
import signal
import warnings

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from gan_engine import backends, checkpoint, models
from gan_engine.config import Config
from gan_engine.data import DataConfig, load
from gan_engine.losses import translation
from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.objective import Batch
from gan_engine.losses.penalties import path_length, r1, r2, wgan_gp
from gan_engine.monitors import Monitors, read_metrics
from gan_engine.nonfinite import NonFiniteError
from gan_engine.precision import Precision
from gan_engine.trainer import Trainer

NUM_CLASSES = 5  # of the toy data
CPU = torch.device("cpu")
DCGAN = Config(
    preset="dcgan",
    model=models.dcgan.Config(resolution=16, z_dim=8, width=4),
    data="toy",
    batch_size=16,
    kimg=0.16,
    precision="fp32",
    ema_kimg=0.05,
    metrics_kimg=0.032,
    grid_kimg=0.08,
    checkpoint_kimg=0.032,
    tensorboard=False,
)
MLP = dataclasses.replace(DCGAN, preset="vanilla", model=models.vanilla.Config(resolution=16, z_dim=8, hidden=(16, 16)))
NO_NORM = dataclasses.replace(DCGAN, model=dataclasses.replace(DCGAN.model, d_norm=False))
LAZY = dataclasses.replace(NO_NORM, r1_gamma=1.0, gp_weight=10.0, penalty_interval=2, n_critic=2)

STYLEGAN2 = dataclasses.replace(
    DCGAN,
    preset="stylegan2",
    model=models.stylegan2.Config(
        resolution=16, channels=1, z_dim=8, w_dim=8, mapping_layers=2, channel_base=128, channel_max=16
    ),
    lr=2.5e-3,
    betas=(0.0, 0.99),
)
PATHS = dataclasses.replace(STYLEGAN2, betas=(0.5, 0.99), pl_weight=2.0, pl_interval=2)

R3GAN = dataclasses.replace(
    DCGAN,
    preset="r3gan",
    model=models.r3gan.Config(resolution=16, z_dim=8, width=8, max_width=16, blocks=1, group=4),
    loss="relativistic",
    r1_gamma=1.0,
    r2_gamma=1.0,
)
CGAN = dataclasses.replace(
    DCGAN,
    preset="cgan",
    model=models.cgan.Config(resolution=16, z_dim=8, width=8, max_width=16, class_weight=1.0, c_dim=NUM_CLASSES),
    conditional=True,
)
PENALTIES = {
    "r1": {"r1_gamma": 1.0},
    "r1 and r2": {"r1_gamma": 1.0, "r2_gamma": 2.0, "loss": "hinge"},
    "gp": {"gp_weight": 10.0, "loss": "wasserstein"},
    "r1, lazy": {"r1_gamma": 1.0, "penalty_interval": 3},
}
SNGAN = dataclasses.replace(
    DCGAN,
    preset="sngan",
    model=models.sngan.Config(resolution=16, z_dim=8, width=4, d_width=4, max_width=8, c_dim=NUM_CLASSES),
    conditional=True,
    loss="hinge",
)
SAGAN = dataclasses.replace(SNGAN, model=dataclasses.replace(SNGAN.model, attention=8, g_spectral_norm=True))
LAPGAN = dataclasses.replace(
    DCGAN,
    preset="lapgan",
    model=models.lapgan.Config(resolution=16, base_z_dim=8, hidden=16, width=4, c_dim=NUM_CLASSES),
    conditional=True,
)
PIX2PIX = dataclasses.replace(
    DCGAN,
    preset="pix2pix",
    model=models.pix2pix.Config(resolution=32, width=4, max_width=8, d_width=4),
    batch_size=4,
    lr_decay=0.5,
)
EDGES = dataclasses.replace(PIX2PIX, model=dataclasses.replace(PIX2PIX.model, source="edges", channels=1))
CYCLEGAN = dataclasses.replace(
    DCGAN,
    preset="cyclegan",
    model=models.cyclegan.Config(resolution=32, channels=1, width=4, blocks=1, d_width=4, pool_size=6),
    loss="least_squares",
    batch_size=4,
)
FAMILIES = {"r3gan": R3GAN, "cgan": CGAN, "sngan": SNGAN, "sagan": SAGAN, "lapgan": LAPGAN}
SRGAN = dataclasses.replace(
    DCGAN,
    preset="srgan",
    model=models.srgan.Config(resolution=32, channels=1, scale=2, width=4, blocks=1, d_width=2),
    batch_size=4,
)
RRDB = dataclasses.replace(SRGAN, model=dataclasses.replace(SRGAN.model, variant="rrdb", growth=2))
PRETRAINED = dataclasses.replace(SRGAN, pretrain_kimg=0.016)
GAN3D = dataclasses.replace(
    DCGAN, preset="gan3d", model=models.gan3d.Config(resolution=16, z_dim=8, width=4, c_dim=6), conditional=True
)
FAMILIES |= {"gan3d": GAN3D, "pix2pix": PIX2PIX, "edges": EDGES, "cyclegan": CYCLEGAN, "srgan": SRGAN, "rrdb": RRDB}


@functools.cache
def toy(resolution, channels, kind):
    return load(DataConfig("toy"), resolution=resolution, channels=channels, kind=kind)


@pytest.fixture(scope="module")
def data():
    return toy(16, 1, "image")


@pytest.fixture
def make(tmp_path):
    def trainer(config=DCGAN, **changes):
        config = dataclasses.replace(config, **changes)
        data = toy(config.model.resolution, config.model.channels, models.data_kind(config.model))
        return Trainer(config, data, device=CPU, run_dir=tmp_path / "run")

    return trainer


def weights(trainer):
    nets = {"G": trainer.G, "D": trainer.D, "G_ema": trainer.G_ema}
    return {f"{net}.{k}": v.clone() for net, module in nets.items() for k, v in module.state_dict().items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


# A step


@pytest.mark.parametrize("config", [DCGAN, MLP], ids=["dcgan", "vanilla"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_changes_every_weight_of_both_networks(make, config, loss):
    trainer = make(config, loss=loss)
    before = weights(trainer)
    trainer.step()
    after = weights(trainer)
    still = [k for k in before if torch.equal(before[k], after[k])]
    # Where the loss is the mean logit itself, D's last bias cancels between real and generated images.
    assert still in ([], ["D.layers.2.bias"])
    assert trainer.nimg == 16 and trainer.step_count == 1
    assert {"loss/D", "loss/G", "logits/real", "logits/fake", "grad_norm/D"} <= trainer.means.read().keys()


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_two_steps_change_every_weight_of_every_family(make, config):
    trainer = make(config)
    before = weights(trainer)
    trainer.step()  # behind what begins at zero, weights have no gradient yet
    trainer.step()
    after = weights(trainer)
    parameters = [f"{net}.{name}" for net in "GD" for name, _ in getattr(trainer, net).named_parameters()]
    assert [name for name in parameters if torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize(("batch_gpu", "groups"), [(None, None), (8, None), (2, 2), (1, 1), (5, 1)])
def test_passes_too_small_for_the_groups_of_the_minibatch_statistic_are_warned_of(make, batch_gpu, groups):
    with warnings.catch_warnings(record=True) as caught:
        make(STYLEGAN2, batch_gpu=batch_gpu)
    said = [str(warning.message) for warning in caught]
    assert len(said) == (groups is not None)
    if groups:
        assert f"is over groups of {groups} images" in said[0] and said[0].endswith("in one pass makes groups of 4")


COLOUR = dataclasses.replace(DCGAN, model=dataclasses.replace(DCGAN.model, channels=3))


@pytest.mark.parametrize("config", [COLOUR, GAN3D], ids=["dcgan", "gan3d"])
def test_the_layout_changes_memory_and_nothing_else(make, config):
    layout = torch.channels_last_3d if config is GAN3D else torch.channels_last
    found = []
    for channels_last in (True, False):
        trainer = make(config, channels_last=channels_last)
        seen = []
        trainer.D.register_forward_pre_hook(lambda _, arguments, seen=seen: seen.append(arguments[0]))
        trainer.step()
        tensors = [*trainer.G.parameters(), *trainer.D.parameters(), *trainer.G_ema.parameters()]
        tensors.append(seen[1])  # generated images come first, real ones second
        for tensor in (x for x in tensors if x.ndim == trainer.sampler.images.ndim and x.shape[1] > 1):
            assert tensor.is_contiguous(memory_format=layout if channels_last else torch.contiguous_format)
        found.append(trainer.means.read())
    assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("before", [True, False], ids=["to contiguous", "to channels_last"])
def test_a_run_may_go_on_in_another_layout(make, before):
    trainer, other = make(COLOUR, channels_last=before), make(COLOUR, channels_last=not before)
    for _ in range(3):
        trainer.step()
    other.load_state_dict(copy.deepcopy(trainer.state_dict()))
    trainer.step()
    other.step()
    ours, theirs = weights(trainer), weights(other)
    for name in ours:
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_what_the_run_says_while_it_steps(make, allowed, monkeypatch):
    trainer, found = make(tf32=allowed), []
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    monkeypatch.setattr(trainer, "_average", lambda: found.extend(switch.allow_tf32 for switch in switches))
    before = [switch.allow_tf32 for switch in switches]
    trainer.step()
    assert found == [allowed, allowed] and [switch.allow_tf32 for switch in switches] == before


@pytest.mark.parametrize("config", [R3GAN, CGAN, SNGAN, GAN3D], ids=["r3gan", "cgan", "sngan", "gan3d"])
def test_piecewise_linear_families_are_penalised_at_level_2(make, config):
    assert make(config, r1_gamma=1.0, r2_gamma=1.0).penalties() == "r1 1, r2 1; level 2"


def test_volumes_are_shown_as_pictures_of_them(make):
    trainer = make(GAN3D)
    pictures = trainer.samples()
    assert pictures.shape == (6 * 8, 1, 32, 32) and torch.equal(pictures, trainer.samples())
    trainer.run()
    with Image.open(trainer.run_dir / "samples/kimg-000000.160.png") as grid:
        assert grid.size == (8 * 66 + 2, 6 * 66 + 2)


def test_volumes_and_images_are_told_apart(make, data):
    with pytest.raises(ValueError, match="data: want volumes for gan3d, got toy: 4,096 images 1x16x16"):
        Trainer(GAN3D, data, device=CPU, run_dir=make().run_dir)
    with pytest.raises(ValueError, match="data: want images for dcgan, got toy: 2,048 images 1x16x16x16"):
        Trainer(DCGAN, toy(16, 1, "voxels"), device=CPU, run_dir=make().run_dir)


def class_steps(trainer, options):
    """Two steps of D and G with an auxiliary classifier, as one would write them."""
    G, D, config = trainer.G, trainer.D, trainer.config
    optimizers = {net: torch.optim.Adam(net.parameters(), lr=config.lr, betas=config.betas) for net in (D, G)}
    for _ in range(2):
        real_img, c = next(trainer.sampler)
        for net in (D, G):
            gen_img = G(trainer._noise(len(real_img)), c)
            fake, fake_classes = D.logits_and_classes(gen_img if net is G else gen_img.detach(), c)
            real, real_classes = D.logits_and_classes(real_img, c)
            if net is D:
                total = trainer.objective.loss.discriminator(fake, real).mean() + F.cross_entropy(real_classes, c)
                for name, penalty, img in (("r1_gamma", r1, real_img), ("r2_gamma", r2, gen_img)):
                    total += options.get(name, 0) / 2 * penalty(D, img, c).mean()
            else:
                total = trainer.objective.loss.generator(fake, None).mean() + F.cross_entropy(fake_classes, c)
            optimizers[net].zero_grad()
            total.backward()
            optimizers[net].step()


@pytest.mark.parametrize("options", [{}, PENALTIES["r1"], PENALTIES["r1 and r2"]], ids=["alone", "r1", "r1 and r2"])
def test_steps_with_a_classifier_are_those_written_out(make, options):
    trainer, expected = make(CGAN, **options), make(CGAN, **options)
    for _ in range(2):
        trainer.step()
    class_steps(expected, options)
    for net in "DG":
        for (name, a), b in zip(
            getattr(trainer, net).named_parameters(), getattr(expected, net).parameters(), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=name)
    assert {"loss/D_class", "loss/G_class"} <= trainer.means.read().keys()


def test_a_classifier_sees_augmented_images(make):
    trainer = make(CGAN, augment="diffaugment")
    trainer.step()
    assert trainer.means.read()["loss/G_class"] > 0


def test_one_level_of_a_pyramid_is_trained_alone(make):
    trainer = make(LAPGAN, model=dataclasses.replace(LAPGAN.model, level=8))
    before = weights(trainer)
    trainer.step()
    after = weights(trainer)
    changed = {name.split(".")[2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"1"}
    assert {name for name in trainer.means.read() if name.startswith("loss/")} == {"loss/D/8", "loss/G/8"}


def test_classes_reach_both_networks(data, make):
    config = dataclasses.replace(DCGAN.model, c_dim=data.num_classes)
    trainer = make(conditional=True, model=config)
    before = weights(trainer)
    trainer.step()
    after = weights(trainer)
    for name in ("G.embed.weight", "D.embed.weight"):
        assert not torch.equal(before[name], after[name])
    assert trainer.samples().shape == (8 * data.num_classes, 1, 16, 16)


def test_the_moving_average_halves_in_its_half_life(make):
    trainer = make(batch_size=10, ema_kimg=0.05)
    start, end = copy.deepcopy(trainer.G_ema), trainer.G
    with torch.no_grad():
        for p in end.parameters():
            p += 1
        end.blocks[0].norm.running_mean += 1
    for _ in range(5):  # 50 images
        trainer._average()
    for a, b, ema in zip(start.parameters(), end.parameters(), trainer.G_ema.parameters(), strict=True):
        torch.testing.assert_close(ema, (a + b) / 2)
    assert torch.equal(trainer.G_ema.blocks[0].norm.running_mean, end.blocks[0].norm.running_mean)


@pytest.mark.parametrize("batch_gpu", [4, 5, 16])
def test_accumulated_gradients_are_those_of_the_whole_batch(make, batch_gpu):
    whole, parts = make(MLP), make(MLP, batch_gpu=batch_gpu)
    whole.step()
    parts.step()
    for a, b in zip(whole.D.parameters(), parts.D.parameters(), strict=True):
        # The sums run in another order: their rounding grows with what is summed, not with what is left of it.
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6 * a.grad.abs().max().item() + 1e-12)
    means = whole.means.read(), parts.means.read()
    for name in ("loss/D", "logits/real"):
        assert means[0][name] == pytest.approx(means[1][name], rel=1e-6)


@pytest.mark.parametrize(
    ("config", "steps"), [(DCGAN, 30), *((c, 5) for c in FAMILIES.values())], ids=["dcgan", *FAMILIES]
)
def test_the_first_steps_are_those_of_the_reference(make, config, steps):
    def curve(backend):
        trainer, losses = make(config), []
        with backends.use(backend):
            for _ in range(steps):
                trainer.step()
                means = trainer.means.read()
                losses.append([means[name] for name in sorted(means) if name.startswith("loss/")])
        return torch.tensor(losses)

    if backends.MISSING["cpu"]:
        pytest.skip(f"cpu: {backends.MISSING['cpu']}")
    torch.testing.assert_close(curve("cpu"), curve("reference"), rtol=1e-3, atol=1e-4)


# Translation


def test_the_rate_falls_to_zero_in_the_last_part_of_a_run(make):
    trainer, rates = make(PIX2PIX, kimg=0.032), []
    for _ in range(8):
        trainer.step()
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers.values()])
    assert rates == [[pytest.approx(2e-4 * share)] * 2 for share in (1, 1, 1, 1, 1, 0.75, 0.5, 0.25)]


@pytest.mark.parametrize("config", [PIX2PIX, SRGAN], ids=["pix2pix", "srgan"])
def test_G_learns_the_content_before_there_is_a_game(make, config):
    trainer = make(config, pretrain_kimg=0.008)
    before = weights(trainer)
    for names in [{"loss/L1"}, {"loss/L1"}, {"loss/D", "loss/G", "loss/L1"}]:
        after = weights(trainer)
        assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("D."))
        trainer.step()
        assert {name for name in trainer.means.read() if name.startswith("loss/")} == names
    assert any(not torch.equal(before[name], value) for name, value in weights(trainer).items() if name[:2] == "D.")


def test_the_perceptual_term_has_its_weight(make, monkeypatch):
    class Distance(torch.nn.Module):
        def forward(self, x, y):
            return (x - y).square().flatten(1).mean(1)

    monkeypatch.setattr(translation, "PerceptualDistance", Distance)
    model = dataclasses.replace(PIX2PIX.model, dropout=0, perceptual_weight=3.0)
    objective = make(PIX2PIX, model=model).objective
    batch = make(PIX2PIX).examples
    terms = objective.generator(batch)
    assert terms.keys() == {"G", "L1", "perceptual"}
    difference = objective.G(batch.source) - batch.real_img
    torch.testing.assert_close(terms["perceptual"], 3 * difference.square().flatten(1).mean(1))
    torch.testing.assert_close(terms["L1"], 100 * difference.abs().flatten(1).mean(1))


@pytest.mark.parametrize(("config", "rows"), [(PIX2PIX, 3), (EDGES, 3), (CYCLEGAN, 4), (SRGAN, 3)])
def test_samples_show_what_is_made_of_what(make, config, rows):
    trainer = make(config)
    size = config.model.resolution
    samples = trainer.samples()
    assert trainer.columns == 8 and samples.shape == (2 * rows * 8, config.model.channels, size, size)
    assert torch.equal(samples, trainer.samples())
    sources = trainer.examples.source
    with torch.no_grad():
        torch.testing.assert_close(samples[8:16], trainer.G_ema(sources[:8]))
    scale = size // sources.shape[2]
    assert torch.equal(samples[:8, :, ::scale, ::scale], sources[:8].expand_as(samples[:8, :, ::scale, ::scale]))


def test_accumulated_gradients_of_a_translation_are_those_of_the_whole_batch(make):
    config = dataclasses.replace(PIX2PIX, model=dataclasses.replace(PIX2PIX.model, dropout=0))
    whole, parts = make(config), make(config, batch_gpu=3)
    whole.step()
    parts.step()
    for a, b in zip(whole.D.parameters(), parts.D.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5 * a.grad.abs().max().item())


def test_data_of_another_kind_are_refused(make, data):
    with pytest.raises(ValueError, match=r"data: want pairs of images for pix2pix, got toy: 4,096 images 1x16x16"):
        Trainer(PIX2PIX, data, device=CPU, run_dir=make().run_dir)
    with pytest.raises(ValueError, match=r"data: want pairs of images for pix2pix, got toy: 4,096 and 4,096 images"):
        Trainer(PIX2PIX, toy(32, 1, "unpaired"), device=CPU, run_dir=make().run_dir)


# Penalties


def written_out(trainer, config):
    """Three steps of D with its penalties, as one would write them."""
    objective, k = trainer.objective, config.penalty_interval
    optimizer = torch.optim.Adam(trainer.D.parameters(), lr=config.lr, betas=config.betas)
    for step in range(3):
        real_img, _ = next(trainer.sampler)
        with torch.no_grad():
            gen_img = trainer.G(trainer._noise(len(real_img)))
        total = objective.loss.discriminator(trainer.D(gen_img), trainer.D(real_img)).mean()
        if step % k == 0:
            if config.gp_weight:
                total += k * config.gp_weight * wgan_gp(trainer.D, real_img, gen_img, generator=objective.rng).mean()
            total += k * config.r1_gamma / 2 * r1(trainer.D, real_img).mean()
            total += k * config.r2_gamma / 2 * r2(trainer.D, gen_img).mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()


@pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)
def test_steps_with_penalties_are_those_written_out(make, options):
    trainer, expected = (make(NO_NORM, n_critic=5, **options) for _ in range(2))
    for each in (trainer, expected):
        each.D.double(), each.G.double(), each.G_ema.double()
        each.sampler = ((img.double(), c) for img, c in each.sampler)
        each._noise = lambda n, noise=each._noise: noise(n).double()
    trainer.phases = trainer.phases[:1]
    for _ in range(3):
        trainer.step()
    written_out(expected, expected.config)
    for (name, a), b in zip(trainer.D.named_parameters(), expected.D.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)  # logits are float32 all the same


@pytest.mark.parametrize("config", [NO_NORM, DCGAN], ids=["level 2", "level 1"])
@pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)
def test_a_run_with_penalties_has_the_losses_of_plain_autograd(make, config, options):
    curves = {}
    for level in (None, "autograd"):
        trainer = make(config, **options)
        trainer.objective.level = level
        curves[level] = []
        for _ in range(15):
            trainer.step()
            means = trainer.means.read()
            curves[level].append([means[name] for name in sorted(means) if name.startswith("loss/")])
    for ours, plain in zip(*curves.values(), strict=True):
        assert ours == pytest.approx(plain, rel=1e-3, abs=1e-4)


def test_the_penalties_and_their_level_are_told(make):
    assert make().penalties() is None
    assert make(PATHS).penalties() == "path length 2 every 2 steps"
    assert make(PATHS, r1_gamma=1).penalties().endswith("ties samples together; path length 2 every 2 steps")
    assert make(NO_NORM, r1_gamma=1.5, gp_weight=10, penalty_interval=4).penalties() == (
        "r1 1.5, gp 10 every 4 steps; level 2"
    )
    assert make(r2_gamma=2).penalties() == (
        "r2 2; level 1, as level 2 does not hold for D: blocks.1.norm (BatchNorm2d): batch_norm ties samples together"
    )


@pytest.mark.parametrize("name", [name for name in PENALTIES if name != "gp"])  # which draws its images part by part
def test_accumulated_gradients_with_penalties_are_those_of_the_whole_batch(make, name):
    options = PENALTIES[name]
    whole, parts = make(MLP, **options), make(MLP, batch_gpu=5, **options)
    whole.step()
    parts.step()
    for a, b in zip(whole.D.parameters(), parts.D.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5 * a.grad.abs().max().item())


def test_penalties_are_of_fp32_in_a_bf16_run(make, monkeypatch):
    seen = []
    trainer = make(NO_NORM, precision="bf16", r1_gamma=1.0, gp_weight=1.0)
    assert trainer.penalties().endswith("level 2")  # which tries D once
    trainer.D.logit.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    trainer._train(trainer.phases[0], Batch(*next(trainer.sampler)[:1], trainer._noise(16), None))
    assert seen == [torch.float32, torch.bfloat16, torch.float32]  # gp, generated images, real images with R1
    means = trainer.means.read()
    assert means["loss/r1"] > 0 and means["loss/gp"] > 0


def test_path_lengths_take_steps_of_their_own_at_a_corrected_rate(make):
    trainer, expected = make(PATHS), make(PATHS)
    for each in (trainer, expected):
        each.phases = [phase for phase in each.phases if phase.name == "G_pl"]
    c = 2 / 3  # of pl_interval = 2
    optimizer = torch.optim.Adam(expected.G.parameters(), lr=c * 2.5e-3, betas=(0.5**c, 0.99**c))
    for step in range(3):
        torch.manual_seed(step)  # of the noise inputs and the mixing of styles
        trainer.step()
        torch.manual_seed(step)
        img, _ = next(expected.sampler)
        if step % 2 == 0:
            z = expected._noise(len(img))[:8]
            ws = expected.G.ws(z)
            penalty = path_length(
                expected.G.synthesis, ws, expected.objective.pl_mean, generator=expected.penalty_generator
            )
            optimizer.zero_grad()
            (2 * 2.0 * penalty).mean().backward()
            optimizer.step()
        torch.testing.assert_close(list(trainer.G.parameters()), list(expected.G.parameters()), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(trainer.objective.pl_mean, expected.objective.pl_mean)
    assert trainer.objective.pl_mean > 0
    assert {"loss/pl", "pl/mean", "grad_norm/G_pl"} <= trainer.means.read().keys()


def test_the_corrected_rate_counts_the_steps_that_G_takes(make):
    often, rarely = make(PATHS, pl_interval=4), make(PATHS, pl_interval=4, n_critic=4)
    rates = [trainer.optimizers["G"].defaults["lr"] / PATHS.lr for trainer in (often, rarely)]
    assert rates == pytest.approx([4 / 5, 1 / 2])


def test_path_lengths_are_of_fp32_in_a_bf16_run(make):
    trainer, seen = make(PATHS, precision="bf16"), []
    trainer.G.synthesis.blocks[-1].register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    for _ in range(2):
        trainer.step()
    assert seen.count(torch.float32) == 1 and seen.count(torch.bfloat16) == 4


def test_weights_are_clipped_and_G_waits_for_the_critic(make):
    trainer = make(weight_clip=0.01, n_critic=3, loss="wasserstein")
    trainer.step()
    assert max(p.abs().max() for p in trainer.D.parameters()) == pytest.approx(0.01)
    before = copy.deepcopy(trainer.G)
    trainer.step()
    trainer.step()
    assert all(torch.equal(*pair) for pair in zip(before.parameters(), trainer.G.parameters(), strict=True))
    trainer.step()
    assert not torch.equal(before.blocks[0].layer.weight, trainer.G.blocks[0].layer.weight)


def test_bf16_stays_near_fp32(make):
    wide, narrow = make(), make(precision="bf16")
    for _ in range(5):
        wide.step()
        narrow.step()
    wide, narrow = wide.means.read(), narrow.means.read()
    for name in ("loss/D", "loss/G"):
        assert narrow[name] == pytest.approx(wide[name], rel=0.05)


def test_fp16_on_the_cpu_is_refused_with_the_reason(make):
    with pytest.raises(ValueError, match="fp16 is for GPUs; on cpu its convolutions run about 20 times slower"):
        make(precision="fp16")


# A run


def test_a_run_leaves_metrics_grids_and_checkpoints(make):
    trainer = make()
    assert trainer.run() is None
    run_dir = trainer.run_dir
    rows = read_metrics(run_dir)
    assert [row["nimg"] for row in rows] == [32, 64, 96, 128, 160]
    assert {"loss/D", "loss/G", "seconds"} <= rows[-1].keys()
    grids = sorted(path.name for path in (run_dir / "samples").glob("kimg-*.png"))
    assert grids == [f"kimg-000000.{nimg}.png" for nimg in ("000", "080", "160")]
    kept = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert kept == ["kimg-000000.128.pt", "kimg-000000.160.pt"]
    state = checkpoint.load(checkpoint.find(run_dir))
    G, _ = models.build(models.from_dict(state["model"]))
    G.load_state_dict(state["G_ema"])


@pytest.mark.parametrize(
    "config",
    [DCGAN, MLP, STYLEGAN2, LAZY, PATHS, PRETRAINED, *FAMILIES.values()],
    ids=["dcgan", "vanilla", "stylegan2", "lazy penalties", "paths", "pretrained", *FAMILIES],
)
def test_a_resumed_run_equals_an_uninterrupted_one(make, config):
    whole = make(config)
    for _ in range(6):
        whole.step()
    first = make(config)
    for _ in range(3):
        first.step()
    path = checkpoint.Keeper(first.run_dir, keep=1).save(first.nimg, first.state_dict())
    second = make(config, seed=config.seed)
    torch.rand(5)
    second.load_state_dict(checkpoint.load(path))
    for _ in range(3):
        second.step()
    assert_equal(weights(whole), weights(second))
    assert whole.means.read() == second.means.read()


def test_a_resumed_run_keeps_its_precision_and_says_where_threads_differ(make):
    state = make(precision="bf16").state_dict()
    state["config"]["precision"] = "auto"
    state["threads"] += 1
    trainer = make(precision="auto")
    with pytest.warns(UserWarning, match=rf"the run had {state['threads']} threads, now {state['threads'] - 1}"):
        trainer.load_state_dict(state)
    assert trainer.precision.name == "bf16"


@pytest.mark.parametrize("missing", ["config", "rng", "means"])
def test_a_state_with_a_part_missing_changes_nothing(make, missing):
    state = make().state_dict()
    del (state if missing in state else state["processes"][0])[missing]
    trainer = make(seed=1)
    before = weights(trainer)
    with pytest.raises(checkpoint.CheckpointError, match=f"here: want a checkpoint of a training with {missing}, got"):
        trainer.load_state_dict(state, source="here")
    assert_equal(before, weights(trainer))


def test_a_run_resumed_from_an_older_checkpoint_leaves_the_later_ones_behind_at_once(make, monkeypatch):
    make(keep=5).run()
    trainer = make(keep=5)
    older = trainer.run_dir / "checkpoints" / "kimg-000000.064.pt"
    trainer.load_state_dict(checkpoint.load(older))

    def step(self):
        raise NonFiniteError("at once")

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(NonFiniteError, match=r"last good checkpoint: .*kimg-000000.064.pt"):
        trainer.run()
    assert checkpoint.find(trainer.run_dir) == older
    assert [row["nimg"] for row in read_metrics(trainer.run_dir)] == [32, 64]


def test_an_error_between_two_steps_saves(make, monkeypatch):
    def scalars(self, nimg, values):
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(Monitors, "scalars", scalars)
    trainer = make(checkpoint_kimg=1)
    with pytest.raises(RuntimeError, match="out of ideas"):
        trainer.run()
    assert checkpoint.load(checkpoint.find(trainer.run_dir))["nimg"] == trainer.nimg == 32


def test_every_class_has_a_row_of_eight_at_least(data, make):
    two = dataclasses.replace(data, labels=data.labels % 2, class_names=("a", "b"))
    config = dataclasses.replace(MLP, conditional=True, model=dataclasses.replace(MLP.model, c_dim=2))
    trainer = Trainer(config, two, device=CPU, run_dir=make().run_dir)
    assert trainer.columns == 8 and trainer.samples().shape == (16, 1, 16, 16)
    trainer.run()
    with Image.open(trainer.run_dir / "samples/kimg-000000.000.png") as grid:
        assert grid.size == (8 * 66 + 2, 2 * 66 + 2)


def test_another_configuration_is_refused_by_field(make):
    state = make().state_dict()
    with pytest.raises(ValueError, match="these differ:\n  loss: the run has 'nonsaturating', now 'hinge'\n  lr: "):
        make(loss="hinge", lr=1.0).load_state_dict(state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_the_run(make, monkeypatch, number):
    def step(self, step=Trainer.step):
        step(self)
        if self.nimg == 48:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Trainer, "step", step)
    before = signal.getsignal(number)
    trainer = make()
    assert trainer.run() == number
    assert signal.getsignal(number) is before
    assert checkpoint.load(checkpoint.find(trainer.run_dir))["nimg"] == 48
    assert (trainer.run_dir / "samples" / "kimg-000000.048.png").exists()


def test_a_signal_between_two_steps_saves_too(make, monkeypatch):
    def scalars(self, nimg, values):
        if nimg == 32:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Monitors, "scalars", scalars)
    trainer = make()
    assert trainer.run() == signal.SIGTERM
    assert checkpoint.load(checkpoint.find(trainer.run_dir))["nimg"] == trainer.nimg == 48


def test_a_second_interrupt_aborts(make, monkeypatch):
    def step(self):
        signal.raise_signal(signal.SIGINT)  # of this thread, so that the two stay two
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "step", step)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs without it
    try:
        with pytest.raises(KeyboardInterrupt):
            make().run()
    finally:
        signal.signal(signal.SIGINT, before)


# Values that are not finite


def test_a_nan_names_term_and_layer_and_leaves_the_weights(make):
    trainer = make()
    trainer.step()
    # The first block's input overflows: finite weights, no finite output.
    with torch.no_grad():
        trainer.D.blocks[1].norm.weight.fill_(3e38)
        trainer.D.blocks[1].norm.bias.fill_(3e38)
    before = [p.clone() for p in (*trainer.G.parameters(), *trainer.D.parameters())]
    with pytest.raises(NonFiniteError) as error:
        trainer.step()
    assert "phase D met a value that is not finite at 0.016 kimg, step 1" in str(error.value)
    assert "first layer: D.blocks.1.norm (BatchNorm2d): " in str(error.value)
    assert "term D: " in str(error.value)
    assert all(map(torch.equal, before, [*trainer.G.parameters(), *trainer.D.parameters()]))


def test_broken_weights_are_named(make):
    trainer = make()
    with torch.no_grad():
        trainer.G.blocks[1].layer.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(
        NonFiniteError, match=r"weights were not finite .*:\n  G.blocks.1.layer.weight: 1 NaN and 0 inf"
    ):
        trainer.step()


def test_a_gradient_that_is_not_finite_is_named(make):
    trainer = make(MLP)

    def terms(batch):
        logits = trainer.D(batch.real_img)
        return {"D": (logits - logits.detach()).abs().sqrt() + logits}  # the slope of the root at 0

    trainer.phases[0] = dataclasses.replace(trainer.phases[0], terms=terms)
    with pytest.raises(NonFiniteError, match=r"in the backward pass, .*\n  D.layers.2.linear.weight: 16 NaN"):
        trainer.step()


def test_gradients_that_overflow_at_every_loss_scale_end_the_run(make):
    trainer = make(MLP)
    trainer.precision = Precision("fp16", CPU)

    def terms(batch):
        logits = trainer.D(batch.real_img).float()
        return {"D": (logits - logits.detach()).abs().sqrt() + logits}

    trainer.phases[0] = dataclasses.replace(trainer.phases[0], terms=terms)
    before = [p.clone() for p in trainer.D.parameters()]
    for _ in range(15):  # at scales from 2^16 to 4
        trainer.step()
    with pytest.raises(NonFiniteError, match=r"phase D .*\n.*in the backward pass"):
        for _ in range(5):
            trainer.step()
    assert all(map(torch.equal, before, trainer.D.parameters()))


def test_a_stop_leaves_the_weights_with_loss_scaling_too():
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    precision = Precision("fp16", CPU)
    before = net.weight.clone()
    for skip in (1.0, 0.0):
        optimizer.zero_grad()
        precision.scale(net(torch.ones(1, 2)).sum()).backward()
        precision.unscale(optimizer)
        precision.step(optimizer, torch.tensor(skip))
        assert torch.equal(net.weight, before) == bool(skip)


def test_a_nan_during_a_run_keeps_the_last_good_checkpoint(make, monkeypatch):
    def step(self, step=Trainer.step):
        if self.nimg == 80:
            with torch.no_grad():
                self.D.blocks[0].bias[0] = torch.nan
        step(self)

    monkeypatch.setattr(Trainer, "step", step)
    trainer = make()
    with pytest.raises(NonFiniteError, match=r"last good checkpoint: .*kimg-000000.064.pt"):
        trainer.run()
    state = checkpoint.load(checkpoint.find(trainer.run_dir))
    assert state["nimg"] == 64
    assert all(value.isfinite().all() for value in state["D"].values())
    assert read_metrics(trainer.run_dir)[-1]["nimg"] == 64
