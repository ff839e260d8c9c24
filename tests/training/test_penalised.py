"""Steps with penalties, path lengths and critics, and the precision of each."""

import copy

import pytest
import torch

from gan_engine.losses.objective import Batch
from gan_engine.losses.penalties import path_length, r1, r2, wgan_gp
from gan_engine.ops.thresholds import TABLE
from tests.losses.conftest import FEW
from tests.training.runs import DCGAN, MLP, NO_NORM, PATHS, PENALTIES


def written_out(trainer, config):
    """Three steps of D with its penalties, as one would write them."""
    objective, k = trainer.objective, config.penalty_interval
    optimizer = torch.optim.Adam(trainer.D.parameters(), lr=config.lr, betas=config.betas)
    for step in range(3):
        real_img, _ = next(trainer.batches.sampler)
        with torch.no_grad():
            gen_img = trainer.G(trainer.batches.noise(len(real_img)))
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
        each.batches.sampler = ((img.double(), c) for img, c in each.batches.sampler)
        each.batches.noise = lambda n, noise=each.batches.noise: noise(n).double()
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
        "r2 2; plain autograd, as level 1 gains nothing and level 2 does not hold for D: blocks.1.norm (BatchNorm2d):"
        " batch_norm ties samples together in training; a spectral norm does not"
    )


def test_a_small_D_is_told_to_go_by_plain_autograd(make, monkeypatch):
    monkeypatch.setitem(TABLE, FEW, TABLE[FEW]._replace(number=1e12))
    told = make(NO_NORM, r1_gamma=1.5).penalties()
    assert told == f"r1 1.5; plain autograd, as D is small: {TABLE[FEW].sentence}"


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
    trainer.phase_steps.take(
        trainer.phases[0],
        Batch(*next(trainer.batches.sampler)[:1], trainer.batches.noise(16), None),
        penalised=True,
        last=False,
    )
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
        img, _ = next(expected.batches.sampler)
        if step % 2 == 0:
            z = expected.batches.noise(len(img))[:8]
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
