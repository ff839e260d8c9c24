"""`gan_engine.adversarial`: steps of D and terms of G against autograd in float64, with what public networks return."""

import math

import pytest
import torch
from torch import Tensor, nn

from gan_engine.adversarial import Adversarial
from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.objective import Batch, GanObjective
from tests.adversarial_steps import PENALTIES, SHAPES, Discriminator, N, close, d_terms, gradients, images, read, side


@pytest.mark.parametrize(
    ("loss", "penalties", "shape"),
    [
        *((loss, penalties, "scales and features") for loss in LOSSES for penalties in PENALTIES),
        *(("relativistic", penalties, shape) for penalties in ("r1", "all") for shape in SHAPES[:-1]),
    ],
)
def test_a_step_of_D_is_autograd(loss: str, penalties: str, shape: str):
    real, fake, options = images(1), images(2).requires_grad_(), PENALTIES[penalties]
    D = Discriminator(shape, nn.LeakyReLU if penalties == "r1" else nn.Tanh)
    want = d_terms(D, loss, real, fake.detach(), **options)
    sum(want.values()).backward()
    wanted = gradients(D)
    game = Adversarial(D, loss, **options, generator=torch.Generator().manual_seed(5))
    parts = game.d_step(real, fake)
    close(gradients(D), wanted)
    assert fake.grad is None
    logits = {f"logits/{name}": read(D, img).logits for name, img in (("real", real), ("fake", fake.detach()))}
    means = {name: torch.cat([each.flatten() for each in found]).mean() for name, found in logits.items()}
    close(parts, {name: values.detach() for name, values in (want | means).items()})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_terms_of_G_are_autograd_and_teach_D_nothing(loss: str, shape: str):
    D, real = Discriminator(shape), images(1)
    row, with_features = LOSSES[loss], "features" in shape
    fake = images(2).requires_grad_()
    of_fake, of_real = read(D, fake), read(D, real)
    reals = [each.detach() for each in of_real.logits] if row.generator_reads_real else [None] * len(of_fake.logits)
    want = {"G": side(row.generator, of_fake.logits, reals)}
    if with_features:
        each = zip(of_fake.features, of_real.features, strict=True)
        want["features"] = 2.5 * sum((f - r.detach()).abs().mean() for f, r in each)
    (wanted,) = torch.autograd.grad(sum(want.values()), fake)

    terms = Adversarial(D, loss, feature_matching=2.5 * with_features).g_terms(fake, real)
    close({name: term.detach() for name, term in terms.items()}, {name: term.detach() for name, term in want.items()})
    sum(terms.values()).backward()
    close(fake.grad, wanted)
    assert all(p.grad is None and p.requires_grad for p in D.parameters())
    if not row.generator_reads_real and not with_features:
        close(Adversarial(D, loss).g_terms(fake)["G"], terms["G"])


@pytest.mark.parametrize("level", [None, 1, "autograd", 2])
def test_every_level(level):
    D, real, fake = Discriminator("one", nn.LeakyReLU), images(1), images(2)
    for options in PENALTIES.values():
        sum(d_terms(D, "relativistic", real, fake, **options).values()).backward()
        wanted = gradients(D)
        generator = torch.Generator().manual_seed(5)
        Adversarial(D, "relativistic", level=level, generator=generator, **options).d_step(real, fake)
        close(gradients(D), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_aligned_level_is_near(shape: str):
    D, real, fake = Discriminator(shape), images(1), images(2)
    sum(d_terms(D, "hinge", real, fake, r1=2.0, r2=3.0).values()).backward()
    wanted = gradients(D)
    Adversarial(D, "hinge", r1=2.0, r2=3.0, level="aligned").d_step(real, fake)
    torch.testing.assert_close(gradients(D), wanted, rtol=0.01, atol=1e-4)


def test_penalties_are_due_in_every_kth_step_and_count_k_times():
    D, real, fake = Discriminator("patches"), images(1), images(2)
    game = Adversarial(D, "hinge", r1=2.0, penalty_interval=3)
    for step in range(7):
        if step == 4:  # a run that is interrupted goes on as it would have
            state, game = game.state_dict(), Adversarial(D, "hinge", r1=2.0, penalty_interval=3)
            game.load_state_dict(state)
        due = step % 3 == 0
        terms = d_terms(D, "hinge", real, fake, r1=2.0 * due)
        (terms["D"] + 3 * terms.get("r1", 0)).backward()
        wanted = gradients(D)
        parts = game.d_step(real, fake)
        close(gradients(D), wanted)
        assert ("r1" in parts) == due
        if due:
            close(parts["r1"], terms["r1"].detach())  # without the factor of the interval


def test_arguments_of_D_by_name():
    D, real, fake, label = Discriminator("scales"), images(1), images(2), torch.arange(N) % 3
    for options in PENALTIES.values():
        sum(d_terms(D, "hinge", real, fake, label=label, **options).values()).backward()
        wanted = gradients(D)
        Adversarial(D, "hinge", generator=torch.Generator().manual_seed(5), **options).d_step(real, fake, label=label)
        close(gradients(D), wanted)
    want = side(LOSSES["hinge"].generator, read(D, fake, label).logits, [None, None])
    close(Adversarial(D, "hinge").g_terms(fake, label=label)["G"], want.detach())


def test_a_function_as_D():
    D, real, fake = Discriminator("features"), images(1), images(2).requires_grad_()
    game = Adversarial(lambda img: D(img), "relativistic", r1=1.0, feature_matching=1.0)
    sum(d_terms(D, "relativistic", real, fake.detach(), r1=1.0).values()).backward()
    wanted = gradients(D)
    game.d_step(real, fake)
    close(gradients(D), wanted)
    sum(game.g_terms(fake, real).values()).backward()
    assert fake.grad is not None and all(p.grad is None for p in D.parameters())


def test_packs():
    D, real, fake = Discriminator("one", nn.LeakyReLU, channels=9), images(1), images(2)
    joined = [img.reshape(N // 3, 9, 8, 8) for img in (real, fake)]
    sum(d_terms(D, "wasserstein", *joined, gp=5.0).values()).backward()
    wanted = gradients(D)
    game = Adversarial(D, "wasserstein", gp=5.0, pack=3, generator=torch.Generator().manual_seed(5))
    game.d_step(real, fake)
    close(gradients(D), wanted)
    close(game.g_terms(fake)["G"], -D(joined[1]).mean().detach())
    with pytest.raises(ValueError, match=r"N must be a multiple of 3 in \[N, C, ...\], got \[4, 3, 8, 8\]"):
        game.d_step(real[:4], fake[:4])


@pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)
def test_scales_of_gradients(options):
    D, real, fake = Discriminator("patches"), images(1), images(2)
    Adversarial(D, "hinge", generator=torch.Generator().manual_seed(5), **options).d_step(real, fake)
    wanted = gradients(D)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    game = Adversarial(D, "hinge", generator=torch.Generator().manual_seed(5), scaler=scaler, **options)
    game.d_step(real, fake, scale=0.5)
    close(gradients(D), [32 * g for g in wanted])


def test_D_runs_under_the_autocast_that_is_in_force_and_in_float32_where_it_is_penalised():
    D = Discriminator("patches").float()
    dtypes: list[torch.dtype] = []
    D.last[0].register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
    real, fake = images(1).float(), images(2).float()
    game = Adversarial(D, "hinge", r1=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        parts = game.d_step(real, fake.bfloat16())
        terms = game.g_terms(fake)
    watched = [torch.float32]  # whether level 1 gains anything, before the first step
    assert dtypes == [torch.bfloat16, *watched, torch.float32, torch.bfloat16]
    assert {term.dtype for term in (*parts.values(), *terms.values())} == {torch.float32}
    assert all(math.isfinite(p.grad.sum()) for p in D.parameters() if p.grad is not None)


def test_the_trainer_computes_the_same_bits():
    class G(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
            return self.weight * z

    D, real, fake = Discriminator("one", nn.LeakyReLU).float(), images(1).float(), images(2).float()
    for options in list(PENALTIES.values())[1:]:
        names = {"r1": "r1_gamma", "r2": "r2_gamma", "gp": "gp_weight"}
        of_trainer = {names[name]: weight for name, weight in options.items()}
        rng = torch.Generator().manual_seed(5)
        objective = GanObjective(G(), D, LOSSES["hinge"], lambda name, values: None, rng=rng, **of_trainer)
        terms = objective.penalised_discriminator(Batch(real, fake, None)).backward(1.0)
        wanted = gradients(D)
        parts = Adversarial(D, "hinge", generator=rng.manual_seed(5), **options).d_step(real, fake)
        assert all(torch.equal(a, b) for a, b in zip(gradients(D), wanted, strict=True))
        assert all(torch.equal(parts[name], values.mean()) for name, values in terms.items())
