"""An imitation reward as in AMP (Peng et al. 2021, arXiv:2104.02180): a pendulum learns to swing up from a reference.

python docs/examples/imitation.py --steps 30

D judges transitions (state, next state): least squares, with a gradient penalty at the transitions of the reference.
The reward of a transition is max(0, 1 - (D - 1)^2 / 4). The policy is a small network that a search improves (the
cross-entropy method), by the reward of D alone; AMP has PPO there. The environment is gymnasium's Pendulum-v1:
pip install -c constraints.txt gymnasium. Its own return measures the result, and nobody is trained by it.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from beside import beside, options, wanted
from torch import Tensor, nn

from gan_engine.adversarial import Adversarial
from gan_engine.losses.adversarial import Adversarial as Loss

PENALTY = 10.0  # AMP's weight: PENALTY / 2 * |dD/dtransition|^2, which is R1
POPULATION, KEPT, STEPS = 40, 6, 150  # policies in a round, those that the next round starts from, steps of a trial
HIDDEN = 8
UNSEEN = range(500, 516)  # seeds
WEIGHTS = 4 * HIDDEN + HIDDEN  # of a policy
Policy = Callable[[np.ndarray], np.ndarray]  # observations [N, 3] -> torques [N, 1]


def reference(state: np.ndarray) -> np.ndarray:
    """Swing up by energy; near the top a spring with damping holds. state: cos, sin, angular velocity."""
    cos, sin, speed = state.T
    energy = speed**2 / 2 + 15 * (cos - 1)  # 0 at rest at the top
    swing = -0.6 * energy * np.sign(speed + 1e-9)
    hold = -15 * np.arctan2(sin, cos) - 4 * speed
    return np.clip(np.where(cos > 0.9, hold, swing), -2, 2)[:, None]


def networks(weights: np.ndarray) -> Policy:
    """A policy for each row of weights [N, WEIGHTS]: torque = 2 tanh(b . tanh(A [state, 1]))"""
    first = weights[:, : 4 * HIDDEN].reshape(-1, HIDDEN, 4)
    last = weights[:, 4 * HIDDEN :]

    def act(state: np.ndarray) -> np.ndarray:
        x = np.concatenate([state * [1, 1, 1 / 4], np.ones((len(state), 1))], 1)
        hidden = np.tanh(np.einsum("nhi,ni->nh", first, x))
        return 2 * np.tanh((hidden * last).sum(1, keepdims=True))

    return act


def trial(policy: Policy, seeds: Sequence[int]) -> tuple[Tensor, float]:
    """Transitions [N, STEPS, 6] of a pendulum for each seed, and the mean return."""
    gymnasium = wanted("gymnasium", "pip install -c constraints.txt gymnasium")
    pendulums = [gymnasium.make("Pendulum-v1", disable_env_checker=True).unwrapped for _ in seeds]
    state = np.stack([each.reset(seed=seed)[0] for each, seed in zip(pendulums, seeds)])
    states, returns = [state], 0.0
    for _ in range(STEPS):
        found = [each.step(torque) for each, torque in zip(pendulums, policy(state))]
        state = np.stack([each[0] for each in found])
        states.append(state)
        returns += float(np.mean([each[1] for each in found]))
    x = torch.from_numpy(np.stack(states, 1)).float() / torch.tensor([1, 1, 8])
    return torch.cat([x[:, :-1], x[:, 1:]], 2), returns


def discriminator() -> nn.Module:
    """AMP's: ReLUs"""
    return nn.Sequential(nn.Linear(6, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))


def reward(D: nn.Module, transitions: Tensor) -> Tensor:
    """[...], in [0, 1]"""
    with torch.no_grad():
        return (1 - (D(transitions.flatten(0, -2)) - 1).square() / 4).clamp(min=0).view(transitions.shape[:-1])


SIGNS = Loss(  # AMP's: D wants 1 at the reference and -1 at the policy
    generator=lambda fake, real: (fake - 1).square(),
    discriminator=lambda fake, real: (real - 1).square() + (fake + 1).square(),
)


def plain_terms(D: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """The parts of a step of D, as one writes them without gan_engine."""
    real = real.clone().requires_grad_()
    of_real = D(real)
    (g,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
    return {
        "D": (of_real - 1).square().mean() + (D(fake) + 1).square().mean(),
        "r1": PENALTY / 2 * g.square().sum(1).mean(),
    }


def improve(D: nn.Module, real: Tensor, rounds: int) -> Iterator[tuple[np.ndarray, dict[str, float]]]:
    """Rounds of the search: a trial of all policies, steps of D, and the best policies by the reward of D."""
    game = Adversarial(D, SIGNS, r1=PENALTY, level="autograd")  # a D so small is fastest there
    optimizer = torch.optim.Adam(D.parameters(), lr=1e-3)
    rng, mean, spread = np.random.default_rng(0), np.zeros(WEIGHTS), np.ones(WEIGHTS)
    for i in range(rounds):
        weights = mean + spread * rng.standard_normal((POPULATION, WEIGHTS))
        fake, returned = trial(networks(weights), [1000 + i] * POPULATION)
        rewards = reward(D, fake).mean(1).numpy()
        best = weights[np.argsort(rewards)[-KEPT:]]
        mean, spread = best.mean(0), 0.5 * spread + 0.5 * best.std(0) + 0.02
        for _ in range(20):
            batch = (x.flatten(0, 1)[torch.randint(x.shape[0] * x.shape[1], (256,))] for x in (real, fake))
            optimizer.zero_grad()
            parts = game.d_step(*batch)
            optimizer.step()
        found = {"reward": float(rewards.mean()), "return": returned}
        yield mean, found | {name: float(value) for name, value in parts.items()}


def share(high: Tensor, low: Tensor) -> float:
    """The fraction of pairs in which the first is larger (AUROC)."""
    return float((high.flatten()[:, None] > low.flatten()).float().mean())


def main() -> None:
    asked = options(__doc__, 30)
    D = discriminator()
    real, _ = trial(reference, range(32))
    mean = np.zeros(WEIGHTS)
    for i, (mean, parts) in enumerate(improve(D, real, asked.steps)):  # noqa: B007 the last mean is measured below
        if i % 5 == 0 or i == asked.steps - 1:
            print(f"round {i:3}  " + "  ".join(f"{name} {value:.3f}" for name, value in parts.items()), flush=True)
    unseen, best_return = trial(reference, UNSEEN)
    random, random_return = trial(networks(np.random.default_rng(1).standard_normal((len(UNSEEN), WEIGHTS))), UNSEEN)
    learnt, learnt_return = trial(networks(np.tile(mean, (len(UNSEEN), 1))), UNSEEN)
    for name, x, returned in (
        ("reference", unseen, best_return),
        ("learnt", learnt, learnt_return),
        ("random", random, random_return),
    ):
        print(f"{name:9}  reward of D {reward(D, x).mean():.3f}  return {returned:.0f}")
    ranked = share(reward(D, unseen), reward(D, random))
    print(f"D ranks an unseen transition of the reference above one of a random policy in {ranked:.1%} of pairs")
    real, fake = real[:2].flatten(0, 1), learnt[:2].flatten(0, 1)
    game = Adversarial(D, SIGNS, r1=PENALTY)
    for level in "autograd", None:
        game.level = level
        found = beside(D, lambda: game.d_step(real, fake), lambda: plain_terms(D, real, fake), rounds=50)
        print(f"level {level}: {found}")


if __name__ == "__main__":
    main()
