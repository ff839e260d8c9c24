"""--gamma auto: the rule and its direction, steps with a factor, resumption, graphs, and what a run says of it."""

import json
import math

import pytest
import torch

from gan_engine.losses.adversarial import LOSSES, Adversarial, guessing
from gan_engine.losses.objective import Batch, GanObjective
from gan_engine.system import checkpoint
from gan_engine.training.gamma import LEAD, RANGE, SHARE, SPEED, AutoGamma
from tests.losses.test_objective_steps import Discriminator, Generator
from tests.training.runs import CPU, MLP, NO_NORM, weights

AUTO = {"gamma": "auto", "r1_gamma": 1.0}
CHANCE = 2 * math.log(2)


def rule(**options):
    return AutoGamma(LOSSES["nonsaturating"], 1.0, 0.0, **{"penalty_interval": 1, "device": CPU} | options)


def told(gamma, *, lead, share, steps=4, images=250):
    """The factor after steps in which D leads by `lead`, and R1 takes `share` of what D has won."""
    for _ in range(steps):
        loss, r1 = CHANCE * (1 - lead), share * CHANCE * abs(lead)
        gamma.count({"loss/D": (torch.tensor(8 * loss), 8), "loss/r1": (torch.tensor(8 * r1), 8)})
        gamma.update(images)
    return gamma.factor.item()


@pytest.mark.parametrize(
    ("lead", "share", "exponent"),
    [
        (0.99, 0.5, 0.99 - LEAD),  # D has nearly won, or knows the images by heart
        (0.99, 0.0, 0.99 - LEAD),
        (0.05, 0.5, 0.05 - LEAD),  # the penalty holds D back
        (0.05, SHARE / 2, 0.0),  # D is weak, but not by the penalty
        (-0.2, 1.0, -0.2 - LEAD),  # D is worse than guessing
        (-0.2, SHARE / 2, 0.0),
        (LEAD, 1.0, 0.0),
    ],
)
def test_the_factor_rises_if_D_is_ahead_and_falls_if_the_penalty_holds_D_back(lead, share, exponent):
    got = told(rule(), lead=lead, share=share)  # 4 steps of 250 images: 1 kimg
    assert got == pytest.approx(10 ** (SPEED * exponent), rel=1e-5)


def test_the_factor_stays_in_its_range():
    gamma = rule()
    assert told(gamma, lead=1.0, share=0.5, images=10**6) == RANGE
    assert told(gamma, lead=0.01, share=0.5, images=10**6) == pytest.approx(1 / RANGE)
    assert told(gamma, lead=0.99, share=0.5) > 1 / RANGE


@pytest.mark.parametrize(("interval", "steps"), [(1, 4), (3, 6), (16, 16)])
def test_the_factor_changes_after_whole_intervals_of_penalties(interval, steps):
    gamma = rule(penalty_interval=interval)
    assert told(gamma, lead=0.9, share=0.5, steps=steps - 1) == 1
    assert told(gamma, lead=0.9, share=0.5, steps=1) > 1


def test_the_penalties_count_as_means_of_the_steps_that_have_them():
    """In one of 16 steps R1 takes a share of 2 SHARE, so it holds D back."""
    gamma = rule(penalty_interval=16)
    for step in range(16):
        r1 = {} if step else {"loss/r1": (torch.tensor(2 * SHARE * 0.1 * CHANCE), 1)}
        gamma.count({"loss/D": (torch.tensor(0.9 * CHANCE), 1), **r1})
        gamma.update(16)
    assert gamma.factor < 1


def test_a_guess_costs_what_the_papers_say():
    want = {"nonsaturating": CHANCE, "relativistic": math.log(2), "hinge": 2, "least_squares": 0.25, "wasserstein": 0}
    assert {name: guessing(loss) for name, loss in LOSSES.items()} == pytest.approx(want)


PENALTIES = ({"r1_gamma": 2.0}, {"r1_gamma": 2.0, "r2_gamma": 3.0}, {"r2_gamma": 3.0, "gp_weight": 5.0})


@pytest.mark.parametrize("level", [2, 1, "autograd", "aligned", None])
@pytest.mark.parametrize("options", PENALTIES, ids=["r1", "r1 and r2", "r2 and gp"])
def test_a_step_with_a_factor_is_one_with_multiplied_weights(options, level):
    def gradients(**options):
        torch.manual_seed(0)
        G, D = Generator(4, 16), Discriminator()
        rng = torch.Generator().manual_seed(0)
        objective = GanObjective(G, D, LOSSES["hinge"], lambda name, values: None, rng=rng, **options)
        objective.level = level
        batch = Batch(torch.randn(6, 1, 4, 4), torch.randn(6, 4), None)
        terms = objective.penalised_discriminator(batch).backward(1.0)
        return [p.grad for p in D.parameters()], terms

    multiplied = {name: value if name == "gp_weight" else 3 * value for name, value in options.items()}
    want, want_terms = gradients(**multiplied)
    got, terms = gradients(**options, gamma_factor=torch.tensor(3.0))
    torch.testing.assert_close(got, want)
    assert terms.keys() == want_terms.keys()
    for name, values in terms.items():
        torch.testing.assert_close(values, want_terms[name], msg=name)


def test_a_penalty_that_is_too_strong_falls_and_a_D_that_is_ahead_makes_it_rise(make):
    strong, weak = (make(NO_NORM, gamma="auto", r1_gamma=gamma, lr=5e-3) for gamma in (1e4, 1e-4))
    weak.phases = weak.phases[:1]  # G learns nothing
    for _ in range(40):
        strong.step()
        weak.step()
    assert strong.gamma.factor < 0.9 and weak.gamma.factor > 1.1


@pytest.mark.parametrize("options", [{}, {"r2_gamma": 0.5, "loss": "relativistic"}, {"penalty_interval": 3}])
def test_a_resumed_run_equals_an_uninterrupted_one(make, tmp_path, options):
    whole, first, second = (make(NO_NORM, **AUTO, **options, lr=5e-3) for _ in range(3))
    for trainer in (whole, first):
        torch.manual_seed(0)
        for _ in range(23):  # not a multiple of the steps between two changes
            trainer.step()
    checkpoint.save(tmp_path / "a.pt", first.state_dict())
    second.load_state_dict(checkpoint.load(tmp_path / "a.pt"))
    assert second.gamma.factor == whole.gamma.factor != 1
    for _ in range(7):
        whole.step()
        second.step()
    assert second.gamma.factor == whole.gamma.factor != first.gamma.factor
    for (name, a), b in zip(weights(whole).items(), weights(second).values(), strict=True):
        assert torch.equal(a, b), name


def test_a_factor_that_is_no_factor_is_refused(make):
    trainer = make(NO_NORM, **AUTO)
    for factor in (0.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"gamma: want a factor above 0, got {factor}"):
            trainer.gamma.load_state_dict(trainer.gamma.state_dict() | {"factor": factor})


@pytest.mark.parametrize("power", [-9, 9])
def test_a_factor_at_its_limit_is_saved_and_loaded(make, power):
    trainer = make(NO_NORM, **AUTO)
    gamma = trainer.gamma
    gamma.factor.mul_(10.0**power)
    for _ in range(gamma.interval):  # the next change brings it to its limit
        trainer.step()
    at_limit = gamma.factor.clone()
    assert at_limit == torch.tensor(RANGE if power > 0 else 1 / RANGE)
    gamma.load_state_dict(gamma.state_dict())
    assert gamma.factor == at_limit


def test_the_first_weights_are_those_given_or_that_of_the_paper(make):
    assert make(NO_NORM, gamma="auto").gamma.weights == {"gamma/r1": 10.0}
    given = make(NO_NORM, gamma="auto", r2_gamma=3.0)
    assert given.gamma.weights == {"gamma/r2": 3.0}
    assert make(NO_NORM, **AUTO).penalties() == "r1 1 at first, then by --gamma auto; level 2"
    assert make(NO_NORM, r1_gamma=1.0).gamma is None


def test_a_run_writes_and_says_its_weights(make, capsys):
    trainer = make(MLP, **AUTO, r2_gamma=2.0)
    trainer.run()
    rows = [json.loads(line) for line in (trainer.run_dir / "metrics.jsonl").read_text().splitlines()]
    found = [(row["gamma/r1"], row["gamma/r2"]) for row in rows if "loss/D" in row]
    assert len(found) > 2 and all(r2 == pytest.approx(2 * r1) for r1, r2 in found)
    assert found[-1] == tuple(trainer.gamma.weights.values()) and found[-1][0] != 1
    assert f"gamma/r1 {found[-1][0]:.3g}" in capsys.readouterr().err


def test_an_objective_that_reports_no_loss_of_D_is_refused(make):
    trainer = make(NO_NORM, **AUTO)
    with pytest.raises(ValueError, match="gamma: want fixed for an objective without the term D, got auto"):
        trainer.gamma.count({"loss/D/32": (torch.zeros(()), 1)})


def test_a_loss_of_a_plug_in_is_judged_by_its_guess():
    reward = Adversarial(generator=lambda fake, real: -fake, discriminator=lambda fake, real: fake - real - 1)
    assert guessing(reward) == -1
