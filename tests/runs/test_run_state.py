"""A checkpoint with a right checksum may still hold anything: every entry that does not fit is refused by its name."""

import dataclasses
import math

import pytest
import torch

from gan_engine import models
from gan_engine.inference import generator
from gan_engine.runs import run_state
from gan_engine.system import checkpoint
from gan_engine.system.checkpoint import CheckpointError
from gan_engine.system.random_state import rng_state, set_rng_state
from tests.training.runs import CYCLEGAN, DCGAN, MLP, PATHS

TINY = dataclasses.replace(MLP, model=dataclasses.replace(MLP.model, hidden=(4,)), batch_size=4)
RUNS = {
    "vanilla": TINY,
    "ada": dataclasses.replace(DCGAN, augment="ada", batch_size=4, model=dataclasses.replace(DCGAN.model, width=2)),
    "gamma": dataclasses.replace(TINY, gamma="auto", r1_gamma=1.0),
    "paths": dataclasses.replace(PATHS, batch_size=4),
    "pools": dataclasses.replace(CYCLEGAN, batch_size=2),
}


class Removed:
    """Stands for a value: it is not there."""


class Extra:
    """Stands for a value: it has one more entry."""


WRONG = [None, [], {}, "x", b"x", True, -1, -0.5, 2**70, math.nan, -math.inf, (), Removed, Extra]


def places(value, path=()):
    """The path of every entry of a state, branches too."""
    if path:
        yield path
    if isinstance(value, dict | list | tuple):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        alike = all(isinstance(value[key], torch.Tensor | dict) for key in keys) and len(keys) > 4
        for key in keys[:2] if alike else keys:  # of many tensors, or the moments of many
            yield from places(value[key], (*path, key))


def at(state, path):
    for key in path:
        state = state[key]
    return state


def changed(state, path, new):
    """A copy of `state` with `new` at `path`."""
    key, *rest = path
    if rest:
        new = changed(state[key], rest, new)
    elif new is Extra:
        old = state[key]
        new = {**old, "extra": 1} if isinstance(old, dict) else type(old)([*old, 1])
    copy = dict(state) if isinstance(state, dict) else list(state)
    if new is Removed:
        del copy[key]
    else:
        copy[key] = new
    return tuple(copy) if isinstance(state, tuple) else copy


def wrong(value):
    """Values that may stand in the place of `value` and do not fit."""
    if isinstance(value, torch.Tensor):
        yield from (torch.zeros(*value.shape, 2, dtype=value.dtype), torch.zeros(0), value.to(torch.complex64))
        yield value.to(torch.float64 if value.dtype == torch.float16 else torch.float16)
    for new in WRONG:
        if new is Extra:
            if isinstance(value, dict | list | tuple):
                yield new
        elif not fits(new, value):
            yield new


def fits(new, value):
    """True if `new` may be meant where `value` stood."""
    if new is Removed:
        return False
    if type(new) is type(value) and not isinstance(new, dict | list | tuple):
        negative = isinstance(new, int) and not isinstance(new, bool) and not 0 <= new < 2**63
        return not negative and not (isinstance(new, float) and not math.isfinite(new))
    return type(new) is type(value) and new == value


# What is not read: options of optimisers follow from the configuration. What is checked elsewhere: the configuration.
ELSEWHERE = ("config", "param_groups")
# Parts that may be missing or of any number: moments before a first step, means that were just read, classes, GPUs.
ANY_NUMBER = ("state", "means", "class_names", "cuda", "A", "B", "gauss", "processes")


@pytest.fixture(params=RUNS, scope="module")
def saved(request, tmp_path_factory):
    from gan_engine.training.trainer import Trainer
    from tests.training.runs import CPU, toy

    def make():
        config = RUNS[request.param]
        data = toy(config.model.resolution, config.model.channels, models.data_kind(config.model))
        return Trainer(config, data, device=CPU, run_dir=tmp_path_factory.getbasetemp() / "unused")

    trainer = make()
    trainer.step()
    path = tmp_path_factory.mktemp(request.param) / "a.pt"
    checkpoint.save(path, trainer.state_dict())
    return make, checkpoint.load(path)


def test_every_wrong_entry_is_refused_by_name_and_changes_nothing(saved, monkeypatch):
    make, state = saved
    trainer = make()
    before = {name: value.clone() for name, value in trainer.G.state_dict().items()}
    for name in ("_shared", "_own"):  # what is expected stays the same, and takes half of the time
        part = getattr(trainer._state, name)()
        monkeypatch.setattr(type(trainer._state), name, lambda self, part=part: part)
    asked = 0
    for path in places(state):
        if any(key in ELSEWHERE for key in path):
            continue
        for new in wrong(at(state, path)):
            tensor = isinstance(new, torch.Tensor)
            empty = not tensor and (new in (Removed, None, -0.5) or new == [] or new == {})
            if any(key in ANY_NUMBER for key in path[-2:]) and empty:
                continue
            if "pools" in path and tensor and new.dtype == torch.float16:
                continue  # as a run in half precision has them
            with pytest.raises((CheckpointError, ValueError)) as caught:
                trainer.load_state_dict(changed(state, path, new), source="here")
                raise AssertionError(f"{path} = {new!r} was taken")
            message = str(caught.value)
            assert len(message.splitlines()) == 1 and len(message) < 700, message
            assert any(str(key) in message for key in path if isinstance(key, str)), (path, new, message)
            asked += 1
    assert asked > 300
    assert all(torch.equal(value, before[name]) for name, value in trainer.G.state_dict().items())
    monkeypatch.undo()
    trainer.load_state_dict(state)
    trainer.step()


def test_every_wrong_configuration_is_refused(saved):
    make, state = saved
    trainer = make()
    for path in places({"config": state["config"]}):
        for new in wrong(at(state, path)):
            old = at(state, path)
            any_text = path[-1] in ("out", "resume", "eval_data")  # read when a run begins
            free = path[-1] == "channels_of_data" or any_text or new is Removed or (old == [] and new == ())
            same = isinstance(old, int | float) and isinstance(new, int | float) and not isinstance(old, bool)
            if free or (same and not isinstance(new, bool)) or new is Extra or new is None:
                continue  # another number is another run, for `differences` to say
            with pytest.raises((CheckpointError, ValueError)) as caught:
                trainer.load_state_dict(changed(state, path, new), source="here")
                raise AssertionError(f"{path} = {new!r} was taken")
            assert str(caught.value).startswith(("here: its configuration does not fit", "a resumed run keeps"))


@pytest.mark.parametrize("family", ["vanilla", "stylegan2", "cyclegan"])
def test_every_wrong_generator_is_refused_by_name(tmp_path, family):
    config = {"vanilla": TINY, "stylegan2": PATHS, "cyclegan": CYCLEGAN}[family].model
    G, _ = models.build(config)
    state = {"model": models.to_dict(config), "G_ema": G.state_dict(), "class_names": []}
    for path in places(state):
        for new in wrong(at(state, path)):
            if new is Removed and path[0] in ("model", "class_names") and path != ("model",):
                continue  # defaults, which other shapes of weights tell
            if new is None and path[-1] in ("clamp", "blocks"):
                continue
            with pytest.raises(CheckpointError) as caught:
                generator.from_state(changed(state, path, new), "here")
                run_state.class_names(changed(state, path, new), "here")
                raise CheckpointError("taken") if path[0] == "model" else AssertionError(f"{path} = {new!r} was taken")
            assert str(caught.value).startswith("here: ") or str(caught.value) == "taken", str(caught.value)


@pytest.mark.parametrize("said", ["a\n\x1b[31mb", torch.ones(9, 9), ["\u2028"]], ids=["str", "tensor", "list"])
def test_what_a_file_says_is_quoted_in_one_line_without_commands_to_a_terminal(saved, said):
    make, state = saved
    for path in (("config", "model", "family"), ("config", "loss"), ("config", "kimg"), ("precision",), ("nimg",)):
        with pytest.raises((CheckpointError, ValueError)) as caught:
            make().load_state_dict(changed(state, path, said), source="here")
        assert str(caught.value).isprintable(), str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_generator_with_a_weight_that_is_not_finite_draws_nothing(value):
    G, _ = models.build(TINY.model)
    state = {"model": models.to_dict(TINY.model), "G_ema": G.state_dict(), "class_names": []}
    generator.from_state(state, "here")
    name, weight = next(reversed(state["G_ema"].items()))
    weight[..., -1] = value
    with pytest.raises(CheckpointError, match=rf"here: G_ema\['{name}'\]: want finite numbers"):
        generator.from_state(state, "here")


def test_sizes_that_no_memory_has_take_none():
    for name, value in (("z_dim", 2**40), ("width", 2**19), ("max_width", 2**70), ("levels", 2**30)):
        family = "lapgan" if name == "levels" else "dcgan"
        state = {"model": models.to_dict(models.FAMILIES[family].Config()) | {name: value, "max_width": 2**20}}
        if family == "lapgan":
            del state["model"]["max_width"]
        with pytest.raises(CheckpointError, match="does not fit this version"):
            generator.from_state(state | {"G_ema": {}}, "here")


def test_tensors_that_are_not_what_they_seem_are_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_detached", lambda value, where: value)
    for tensor in (
        torch.zeros(1).expand(2**40),
        torch.zeros(4)[:2],
        torch.zeros(3, device="meta"),
        torch.eye(3).to_sparse(),
        torch.eye(3).to_sparse_csr(),
    ):
        checkpoint.save(tmp_path / "a.pt", {"x": [{"y": tensor}]})
        with pytest.raises(CheckpointError, match=r"a.pt: (want dense tensors|not an archive|want simple types)"):
            checkpoint.load(tmp_path / "a.pt")
    itself = []
    itself.append(itself)
    checkpoint.save(tmp_path / "a.pt", {"x": itself})
    with pytest.raises(CheckpointError, match=r"not an archive of tensors: .* want each container in one place"):
        checkpoint.load(tmp_path / "a.pt")


def test_numbers_that_no_generator_has():
    good = rng_state(torch.device("cpu"))
    words = good["python"]["words"]
    for part in (
        {"numpy": good["numpy"] | {"position": 625}},
        {"python": good["python"] | {"words": words - 2**40}},
        {"python": good["python"] | {"version": 9}},
    ):
        with pytest.raises(ValueError, match=r"rng|state with version 9"):
            set_rng_state(good | part, torch.device("cpu"))
