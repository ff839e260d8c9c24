"""The alarms of a run: rules over its readings, `gan_engine.training.health`. docs/health.md explains each.

A rule says what it sees in the last reading, or None. An alarm stands once its rule holds IN_A_ROW times in a row, and
ends when it has not held as many times. No rule reads a loss.
"""

import itertools
import statistics
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from gan_engine import models
from gan_engine.config import Config
from gan_engine.training.health import PREFIX, WINDOW, Reading

IN_A_ROW = 2
DIVERSITY = f"{PREFIX}diversity"  # for each pair of networks
MOST = f"{PREFIX}most_diversity"  # so far in the history of a run, which may reach further back than the readings

# The limits. benchmarks/results/*-alarms.txt has the readings of healthy and of broken runs that they lie between.
FALLEN = 0.4  # G's images differ by less than this share of the most that they differed by, or of the data's
SAME = 0.1  # G's images differ by less than this share of the data's difference, and no longer rise
RISING = 1.2  # times the difference of two readings ago
CLASS = 0.1  # G draws less than this share of what the data have of a class
USUAL = 0.5  # the median of that share over the classes is at least this much: a young G has found few classes yet
SEPARATED = 0.98  # mean sign of D(real) - D(fake), over all pairs
FLAT = 0.01  # mean slope of a loss with respect to a logit, and share of G's usual gradient
GROWN = 2.0  # weights, as a multiple of those HISTORY readings ago, or of the first ones
STEEP = 100.0  # gradients, as a multiple of their median
HISTORY = 4  # readings that a trend or a median takes
HEART = 0.5  # mean sign of D(training image) - D(held-out image)
FLIPPED = 0.2  # mean sign of D(real) - D(fake) that says clearly who leads


UNJUDGED = ""  # what a rule has seen in a reading that it cannot judge: an alarm that stood stands on


class Rule(NamedTuple):
    """One alarm.

    Attributes:
        reads: the name of the reading that there is one of for each pair of G and D.
        seen: (readings, suffix of the pair) -> what was seen in the last one, UNJUDGED, or None.
        means: what this usually means.
        tries: which flag to try, for a configuration.
        serious: --on-collapse acts upon it.
    """

    name: str
    reads: str
    seen: Callable[[Sequence[Reading], str], str | None]
    means: str
    tries: Callable[[Config], str]
    serious: bool = False


class Alarm(NamedTuple):
    """An alarm that stands. `key` names it among all of the run."""

    key: str
    sentence: str
    serious: bool

    @property
    def name(self) -> str:
        """Its rule and its networks, with which the sentence begins."""
        return self.sentence.partition(":")[0]


def standing(readings: Sequence[Reading], config: Config, *, before: Collection[str] = ()) -> list[Alarm]:
    """The alarms after the last of `readings`; `before` has the keys of those that stood until then."""
    found = []
    for rule in RULES:
        for side in _sides(rule, readings[-1]):
            seen = [rule.seen(readings[: len(readings) - i], side) for i in range(min(IN_A_ROW, len(readings)))]
            key = rule.name + side
            newest = next(filter(None, seen), None)
            if newest is None and key in before and UNJUDGED in seen:
                earlier = (rule.seen(readings[:i], side) for i in range(len(readings) - IN_A_ROW, 0, -1))
                newest = next(filter(None, earlier), None)
            if newest is not None and (key in before or (len(seen) == IN_A_ROW and all(seen))):
                where = f" ({side.lstrip('/')})" if side else ""
                sentence = f"{rule.name}{where}: {newest}; {rule.means}; {rule.tries(config)}"
                found.append(Alarm(key, sentence, rule.serious))
    return found


def most(values: Reading, before: Reading) -> Reading:
    """MOST for each pair of networks after the reading `values`; `before` has it as it was."""
    found = dict(before)
    for name, value in values.items():
        if name.startswith(DIVERSITY):
            key = MOST + name.removeprefix(DIVERSITY)
            found[key] = max(found.get(key, 0.0), min(1.0, value))
    return found


def clear(readings: Sequence[Reading], config: Config) -> bool:
    """True if no rule that --on-collapse acts upon holds in the last reading, not even once."""
    return not any(rule.seen(readings, side) for rule in RULES if rule.serious for side in _sides(rule, readings[-1]))


def _sides(rule: Rule, reading: Reading) -> list[str]:
    """The suffixes of the pairs of networks that `rule` looks at."""
    start = PREFIX + rule.reads
    return [name.removeprefix(start) for name in reading if name.startswith(start)]


def _collapse(readings: Sequence[Reading], side: str) -> str | None:
    name, most = f"{DIVERSITY}{side}", f"{MOST}{side}"
    values = [reading[name] for reading in readings if name in reading]
    now, best = values[-1], min(1.0, max(values + [reading[most] for reading in readings if most in reading]))
    seen = f"two images of G differ by {now:.0%} of what two images of the data differ by"
    if now < FALLEN * best:
        return f"{seen}, after {best:.0%} before"
    flat = len(values) >= HISTORY and now <= RISING * values[-3]
    return seen if now < SAME and flat else None


def _missing(readings: Sequence[Reading], side: str) -> str | None:
    last = readings[-WINDOW:]
    rarest, usual, counted = (f"{PREFIX}{name}{side}" for name in ("rarest_class", "usual_class", "classes_counted"))
    if len(last) < WINDOW or any(values.get(counted, 0) < WINDOW for values in last):
        return UNJUDGED
    if any(values[rarest] >= CLASS or values[usual] < USUAL for values in last):
        return None
    name = f"number {last[-1][f'{PREFIX}class{side}']:.0f} of the data, counted from 0,"
    return f"class {name} is {last[-1][rarest]:.0%} as frequent in G's images as in the data"


def _vanishing(readings: Sequence[Reading], side: str) -> str | None:
    last = readings[-1]
    separation = last[f"{PREFIX}separation{side}"]
    if not separation >= SEPARATED:
        return None
    seen = f"D tells real and generated images apart in {_pairs(separation)}"
    for network in "GD":
        if (slope := last[f"{PREFIX}slope/{network}{side}"]) < FLAT:
            return f"{seen}, and the slope of {network}'s loss is {slope:.1g}"
    share = _share(readings, f"{PREFIX}gradient/G")
    return f"{seen}, and G's gradient is {share:.1g} of its median" if share is not None and share < FLAT else None


def _pairs(sign: float) -> str:
    """The share of pairs that a mean sign stands for."""
    return f"{(1 + sign) / 2:.1%} of all pairs"


def _diverging(readings: Sequence[Reading], side: str) -> str | None:
    name = f"{PREFIX}growth{side}"
    sizes = [1.0, *(reading[name] for reading in readings)][-1 - HISTORY :]
    if not sizes[-1] < GROWN * sizes[0]:
        return f"the weights have grown to {sizes[-1] / sizes[0]:.3g} times their size in {len(sizes) - 1} readings"
    share = _share(readings, f"{PREFIX}gradient{side}")
    return None if share is None or share < STEEP else f"the gradient is {share:.3g} times its median"


def _share(readings: Sequence[Reading], name: str) -> float | None:
    """The last value over the median of those before; None without enough of them."""
    earlier = [value for reading in readings[:-1] if (value := reading.get(name))]
    if name not in readings[-1] or len(earlier) < HISTORY:
        return None
    return readings[-1][name] / statistics.median(earlier)


def _oscillating(readings: Sequence[Reading], side: str) -> str | None:
    signs = [value for r in readings[-WINDOW:] if abs(value := r.get(f"{PREFIX}separation{side}", 0)) >= FLIPPED]
    flips = sum(a * b < 0 for a, b in itertools.pairwise(signs))
    return None if flips < 3 else f"D has changed {flips} times in {WINDOW} readings which images it takes for real"


def _by_heart(readings: Sequence[Reading], side: str) -> str | None:
    sign = readings[-1][f"{PREFIX}overfitting{side}"]
    if not sign >= HEART:
        return None
    return f"D finds an image that it trained on more real than a held-out one in {_pairs(sign)}"


def _slower(config: Config) -> str:
    return f"try --lr {config.lr / 4:.2g}"


def _calmer(config: Config) -> str:
    """A lower rate, and R1 where the family has penalties and the run has none: then without batch norms in D."""
    calm = models.capabilities(config.model).penalties and not (config.first_gammas[0] or config.gp_weight)
    norms = " --no-d-norm" if getattr(config.model, "d_norm", False) else ""
    return _slower(config) + (f" or --r1-gamma 1{norms}" if calm else "")


def _classes(config: Config) -> str:
    conditional = models.reads_classes(config.model) and not config.conditional
    return "try --conditional" if conditional else _calmer(config)


def _rollback(config: Config) -> str:
    return f"{_calmer(config)}{' or --on-collapse rollback' if config.on_collapse == 'warn' else ''}"


def _more_images(config: Config) -> str:
    if config.augment == "none" and config.augmentations:
        return f"try --augment {config.augmentations[0]}"
    return "try more images, or end the run here"


RULES = (
    Rule("collapse", "diversity", _collapse, "this is mode collapse", _rollback, serious=True),
    Rule("missing class", "rarest_class", _missing, "G has left out a part of the data", _classes),
    Rule(
        "vanishing gradient",
        "separation",
        _vanishing,
        "D has won, and G learns nothing more from it",
        _calmer,
    ),
    Rule("divergence", "growth", _diverging, "the learning rate is too high", _slower, serious=True),
    Rule("oscillation", "separation", _oscillating, "the networks chase each other in circles", _calmer),
    Rule("overfitting", "overfitting", _by_heart, "D learns the images by heart, and G soon gets worse", _more_images),
)
