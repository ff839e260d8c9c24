"""The effects of a step, in every family."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from gan_engine import backends
from gan_engine.losses import translation
from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.penalties import r1, r2
from gan_engine.training.precision import products_line, takes_tf32
from gan_engine.training.trainer import Trainer
from tests.training.runs import (
    CGAN,
    CPU,
    CYCLEGAN,
    DCGAN,
    EDGES,
    FAMILIES,
    GAN3D,
    LAPGAN,
    MLP,
    PENALTIES,
    PIX2PIX,
    R3GAN,
    SNGAN,
    SRGAN,
    toy,
    weights,
)


@pytest.mark.parametrize("config", [DCGAN, MLP], ids=["dcgan", "vanilla"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_changes_every_weight_of_both_networks(make, config, loss):
    trainer = make(config, loss=loss)
    before = weights(trainer)
    trainer.step()
    after = weights(trainer)
    still = [k for k in before if torch.equal(before[k], after[k])]
    # D's last bias cancels between real and generated images if the loss is the mean logit itself.
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
        for tensor in (x for x in tensors if x.ndim == trainer.batches.sampler.images.ndim and x.shape[1] > 1):
            assert tensor.is_contiguous(memory_format=layout if channels_last else torch.contiguous_format)
        found.append(trainer.means.read())
    assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-6)


GREY_SRGAN = dataclasses.replace(SRGAN, model=dataclasses.replace(SRGAN.model, channels=1))


@pytest.mark.parametrize(
    "config",
    [DCGAN, COLOUR, PIX2PIX, EDGES, GREY_SRGAN],
    ids=["grey", "colour", "pairs", "edges", "low resolution"],
)
@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "contiguous"])
def test_what_is_computed_from_a_batch_has_the_layout_of_the_networks(make, config, last):
    batches = make(config, channels_last=last).batches
    real_img, _, source = batches.images()
    for img in (real_img,) if source is None else (real_img, source):
        y = F.conv2d(img, torch.ones(4, img.shape[1], 1, 1))
        assert y.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


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


def test_tf32_is_the_choice_on_gpus_for_runs_in_half_precision():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert [takes_tf32(None, name, gpu) for name in ("bf16", "fp16", "fp32")] == [True, True, False]
    assert not takes_tf32(None, "bf16", cpu) and not takes_tf32(False, "bf16", gpu) and takes_tf32(True, "fp32", gpu)
    assert products_line(True, gpu) == "float32 parts in TF32" and products_line(True, cpu) == ""


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_what_the_run_says_while_it_steps(make, allowed, monkeypatch):
    trainer, found = make(tf32=allowed), []
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    monkeypatch.setattr(trainer.average, "update", lambda: found.extend(switch.allow_tf32 for switch in switches))
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
        real_img, c = next(trainer.batches.sampler)
        for net in (D, G):
            gen_img = G(trainer.batches.noise(len(real_img)), c)
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
        trainer.average.prepare(trainer.nimg)
        trainer.average.update()
    for a, b, ema in zip(start.parameters(), end.parameters(), trainer.G_ema.parameters(), strict=True):
        torch.testing.assert_close(ema, (a + b) / 2)
    assert torch.equal(trainer.G_ema.blocks[0].norm.running_mean, end.blocks[0].norm.running_mean)


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


def test_more_time_for_a_resumed_run_does_not_send_D_away_again(make):
    trainer, longer = (make(SRGAN, pretrain_kimg=1, kimg=None, minutes=minutes) for minutes in (1, 10))
    trainer.step()
    assert trainer.clock.pretraining
    trainer.clock.seconds = 31.0
    trainer.step()
    longer.load_state_dict(trainer.state_dict())
    assert longer.clock.seconds == 31 and not longer.clock.pretraining


def test_the_perceptual_term_has_its_weight(make, monkeypatch):
    class Distance(torch.nn.Module):
        def forward(self, x, y):
            return (x - y).square().flatten(1).mean(1)

    monkeypatch.setattr(translation, "PerceptualDistance", Distance)
    model = dataclasses.replace(PIX2PIX.model, dropout=0, perceptual_weight=3.0)
    objective = make(PIX2PIX, model=model).objective
    batch = make(PIX2PIX).shown.examples
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
    sources = trainer.shown.examples.source
    with torch.no_grad():
        torch.testing.assert_close(samples[8:16], trainer.G_ema(sources[:8]))
    scale = size // sources.shape[2]
    assert torch.equal(samples[:8, :, ::scale, ::scale], sources[:8].expand_as(samples[:8, :, ::scale, ::scale]))


def test_data_of_another_kind_are_refused(make, data):
    with pytest.raises(ValueError, match=r"data: want pairs of images for pix2pix, got toy: 4,096 images 1x16x16"):
        Trainer(PIX2PIX, data, device=CPU, run_dir=make().run_dir)
    with pytest.raises(ValueError, match=r"data: want pairs of images for pix2pix, got toy: 4,096 and 4,096 images"):
        Trainer(PIX2PIX, toy(32, 1, "unpaired"), device=CPU, run_dir=make().run_dir)
