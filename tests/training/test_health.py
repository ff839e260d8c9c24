"""Readings of a run change nothing that is learnt, and see what they are to see."""

import dataclasses
import json

import pytest
import torch

from gan_engine.data import DataConfig, ImageSet, held_out, load
from gan_engine.losses.objective import Judged
from gan_engine.runs import history, record, report
from gan_engine.runs.history import BACK_TO, read_metrics
from gan_engine.system import checkpoint
from gan_engine.training import alarms
from gan_engine.training.health import PREFIX, WINDOW, features, interval, signs
from gan_engine.training.nonfinite import NonFiniteError
from gan_engine.training.stops import Stops
from gan_engine.training.trainer import Trainer
from gan_engine.training.watch import Watch
from tests.training.runs import (
    CPU,
    CYCLEGAN,
    DCGAN,
    FAMILIES,
    LAPGAN,
    MLP,
    PIX2PIX,
    SRGAN,
    STYLEGAN2,
    assert_equal,
    weights,
)

WATCHED = {"health_kimg": 2.048, "metrics_kimg": 1e6, "grid_kimg": 1e6, "checkpoint_kimg": 1e6}
LARGE = dataclasses.replace(MLP, batch_size=64, **WATCHED)


@pytest.mark.parametrize("family", ["dcgan", "stylegan2", *FAMILIES])
def test_a_reading_changes_nothing_that_is_learnt(make, family):
    config = {"dcgan": DCGAN, "stylegan2": STYLEGAN2, **FAMILIES}[family]
    plain, read = make(config), make(config)
    for trainer in (plain, read):
        torch.manual_seed(0)
        for _ in range(3):
            trainer.step()
            if trainer is read:
                values = trainer.health.read(trainer.nimg, trainer.read_means(keep=True))
                assert all(isinstance(value, float | int) and value == value for value in values.values())
    assert_equal(weights(plain), weights(read))
    assert plain.means.read() == read.means.read()
    assert plain.state_dict()["processes"][0]["rng"]["torch"].equal(read.state_dict()["processes"][0]["rng"]["torch"])


@pytest.mark.parametrize(
    ("config", "sides"), [(DCGAN, [""]), (LAPGAN, ["/4", "/8", "/16"]), (PIX2PIX, [""]), (CYCLEGAN, ["/A", "/B"])]
)
def test_each_pair_of_networks_is_read(make, config, sides):
    values = make(config, held_out=16).health.read(0, {})
    for name in ("diversity", "separation", "gap", "slope/D", "slope/G", "overfitting"):
        assert sorted(key for key in values if key.startswith(f"{PREFIX}{name}")) == sorted(
            f"{PREFIX}{name}{side}" for side in sides
        )


def test_a_reading_is_due_after_32_images_of_training_for_each_of_its_own():
    assert interval(dataclasses.replace(DCGAN, health_kimg=0.001), 1) == 32 * 64
    assert interval(dataclasses.replace(DCGAN, health_kimg=5), 1) == 5000
    assert interval(dataclasses.replace(DCGAN, batch_size=256, health_kimg=1), 1) == 32 * 256
    assert interval(dataclasses.replace(DCGAN, batch_size=256, batch_gpu=16, health_kimg=1), 2) == 32 * 64


def test_signs_compare_all_pairs():
    assert signs(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.0, -1.0])) == 1
    assert signs(torch.tensor([0.0, 2.0]), torch.tensor([1.0])) == 0


def test_features_of_any_images_and_volumes():
    assert features(torch.rand(2, 1, 32, 32)).shape == (2, 64)
    assert features(torch.rand(2, 3, 64, 64)).shape == (2, 3 * 64)
    assert features(torch.rand(2, 1, 16, 16, 16)).shape == (2, 512)


def one_output(trainer):
    """Let G draw one image, whatever the noise is."""
    trainer.G.register_forward_hook(lambda G, args, img: img[:1].expand_as(img))


def test_a_generator_with_one_output_raises_an_alarm_of_collapse(make, capsys):
    trainer = make(LARGE, kimg=14.336)
    one_output(trainer)
    trainer.run()
    rows = [row for row in read_metrics(trainer.run_dir) if f"{PREFIX}diversity" in row]
    assert [row["nimg"] for row in rows if "alarms" in row] == [10240]  # once, at the fifth reading
    assert rows[4]["alarms"][0].startswith("collapse: two images of G differ by 0% of what two images of the data")
    assert "alarm      10.24 kimg: collapse: " in capsys.readouterr().err
    (trainer.run_dir / "run.json").write_text(json.dumps({"config": {}, "starts": []}))
    assert "<li>10.2 kimg: collapse: two images of G differ by 0%" in report.write(trainer.run_dir).read_text()


GARMENTS = dataclasses.replace(DCGAN, model=dataclasses.replace(DCGAN.model, resolution=32), data="fashion-mnist")


def test_a_class_that_G_leaves_out_raises_an_alarm(tmp_path, monkeypatch):
    data = load(DataConfig("fashion-mnist"), resolution=32, channels=1)
    trainer = Trainer(GARMENTS, data, device=CPU, run_dir=tmp_path)
    data, watch = trainer.data, Watch(trainer.health, trainer.config, trainer.run_dir, nimg=0)

    def let_G_draw(classes):
        kept = data.images[torch.isin(data.labels, torch.tensor(classes))].float() / 127.5 - 1

        def judged(batch):
            drawn = kept[torch.randint(len(kept), (len(batch.z),), generator=rng)]
            return [Judged("", drawn, batch.real_img, torch.randn(16), torch.randn(16))]

        monkeypatch.setattr(trainer.objective, "judged", judged)

    rng = torch.Generator().manual_seed(0)
    said = {}
    for left_out in (None, 8):
        let_G_draw([k for k in range(10) if k != left_out])
        said[left_out] = [watch.look(2048 * i, {}).alarms for i in range(3 * WINDOW)]
    assert not any(said[None])
    (at, (sentence,)) = next((i, alarms) for i, alarms in enumerate(said[8]) if alarms)
    assert at < 3 * WINDOW and sum(map(len, said[8])) == 1
    assert "class number 8 of the data, counted from 0, is " in sentence


@pytest.mark.parametrize("overlapping", [0, 6, 10])
def test_a_run_and_its_report_say_once_when_few_classes_or_none_are_judged(tmp_path, capsys, overlapping):
    labels = torch.arange(640) % 10
    pixels = torch.where(labels < overlapping, 90, 25 * labels)  # the first ones look alike
    noise = torch.randint(5, (640, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    images = (pixels[:, None, None, None] + noise).byte()
    data = ImageSet("levels", images, labels, tuple("abcdefghij"))
    trainer = Trainer(dataclasses.replace(LARGE, kimg=8.192), data, device=CPU, run_dir=tmp_path)
    record.write(tmp_path, trainer.config, {"arguments": ["vanilla"]})
    trainer.run()
    out, judged = capsys.readouterr().out, 10 - overlapping
    rows = [row for row in read_metrics(tmp_path) if PREFIX + "classes_judged" in row]
    assert [row[PREFIX + "classes_judged"] for row in rows] == [judged] and rows[0][PREFIX + "classes_of_data"] == 10
    which = "only 4" if judged else "none"
    said = int(overlapping > 5)
    assert out.count("health     the alarm of a missing class judges") == said
    assert out.count(f"judges {which} of the 10 classes: it leaves out classes that overlap") == said
    assert report.page(tmp_path).count(f"The alarm of a missing class judges {which} of the 10 classes") == said


def test_classes_of_which_eight_readings_hold_few_images_are_not_judged(tmp_path):
    labels = torch.arange(4000) % 100
    images = torch.randint(5, (4000, 1, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    images[..., :8] += (25 * (labels // 10)).byte()[:, None, None, None]
    images[..., 8:] += (25 * (labels % 10)).byte()[:, None, None, None]
    data = ImageSet("halves", images, labels, tuple(map(str, range(100))))
    health = Trainer(LARGE, data, device=CPU, run_dir=tmp_path).health
    read = health.read(0, {})
    assert health.classes.known.all()  # eight readings hold 4 images of each
    assert read[PREFIX + "classes_judged"] == 0 and PREFIX + "rarest_class" not in read


def readings(**values):
    """Readings of which some values change: a list of values, or one for all."""
    num = max(len(value) for value in values.values())
    usual = {"diversity": 0.9, "separation": 0.5, "slope/D": 0.3, "slope/G": 0.5, "growth/D": 1.0, "gradient/D": 1.0}
    return [
        {PREFIX + name: value for name, value in (usual | {k: v[i] for k, v in values.items()}).items()}
        for i in range(num)
    ]


@pytest.mark.parametrize(
    ("name", "values", "kept"),
    [
        ("collapse", {"diversity": [0.8, 0.9, 0.3, 0.3]}, {"diversity": [0.2, 0.4, 0.8, 0.4]}),
        ("collapse", {"diversity": [0.02] * 5}, {"diversity": [0.02, 0.03, 0.05, 0.07, 0.1]}),
        ("vanishing", {"separation": [1.0] * 2, "slope/D": [1e-3] * 2}, {"separation": [1.0] * 2}),
        ("vanishing", {"separation": [1.0] * 2, "slope/G": [1e-3] * 2}, {"slope/D": [1e-3] * 2}),
        ("divergence", {"growth/D": [2.5, 3.5]}, {"growth/D": [1.2, 1.4, 1.6, 1.8, 2.1, 2.3]}),
        ("divergence", {"gradient/D": [1.0] * 5 + [200.0] * 2}, {"gradient/D": [1.0] * 5 + [200.0, 1.0, 1.0]}),
        ("oscillation", {"separation": [0.9, -0.9] * 3}, {"separation": [0.9, 0.1, 0.9, -0.1, 0.9, -0.9]}),
        ("overfitting", {"overfitting": [0.6, 0.6]}, {"overfitting": [0.4, 0.9, 0.2, 0.3]}),
    ],
)
def test_each_rule_holds_twice_in_a_row_before_it_is_an_alarm(name, values, kept):
    assert [alarm.key.partition("/")[0].partition(" ")[0] for alarm in alarms.standing(readings(**values), DCGAN)] == [
        name
    ]
    assert not alarms.standing(readings(**values)[:-1], DCGAN) or name == "oscillation"
    for end in range(1, 1 + len(next(iter(kept.values())))):
        assert not alarms.standing(readings(**kept)[:end], DCGAN)


def test_an_alarm_is_said_once_and_again_when_it_returns(make, monkeypatch):
    trainer = make(DCGAN)
    turn = iter(readings(diversity=[0.9, 0.9, 0.1, 0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.9, 0.1, 0.1]))
    monkeypatch.setattr(trainer.health, "read", lambda nimg, means: next(turn))
    watch = Watch(trainer.health, trainer.config, trainer.run_dir, nimg=0)
    looks = [watch.look(i, {}) for i in range(12)]
    assert [i for i, look in enumerate(looks) if look.alarms] == [3, 11]
    assert [(i, look.ended) for i, look in enumerate(looks) if look.ended] == [(8, ["collapse"])]


def test_the_end_of_an_alarm_is_said_and_stands_in_the_report(make, monkeypatch, capsys):
    trainer = make(LARGE, kimg=16.384)  # eight readings
    found = {"separation": [0.99] * 3 + [0.1] * 5, "slope/G": [0.001] * 8, "diversity": [0.9] * 6 + [0.1] * 2}
    turn = iter(readings(**found))
    monkeypatch.setattr(trainer.health, "read", lambda nimg, means: next(turn))
    trainer.run()
    said = [line for row in read_metrics(trainer.run_dir) for line in row.get("alarms", ())]
    assert [line.partition(";")[0].partition(":")[0] for line in said] == ["vanishing gradient", "ended", "collapse"]
    assert "alarm      10.24 kimg: ended: vanishing gradient\n" in capsys.readouterr().err
    (trainer.run_dir / "run.json").write_text(json.dumps({"config": {}, "starts": []}))
    page = report.write(trainer.run_dir).read_text()
    assert page.count("<li>") == 2
    assert "<b>Ended at 10.2 kimg.</b></li>" in page and "<b>This alarm stood in the last reading.</b></li>" in page


def test_a_missing_class_stands_on_until_a_resumed_run_has_counted_enough_to_judge():
    counted = [*[WINDOW] * (2 * WINDOW), *range(1, WINDOW), *[WINDOW] * (WINDOW + 2)]  # it begins to count anew
    missing = [0.0] * (3 * WINDOW) + [1.0] * (WINDOW + 1)
    taken = readings(
        **{"rarest_class": missing, "usual_class": [0.9] * len(counted), "class": [8.0] * len(counted)},
        classes_counted=counted,
    )
    before, stood = set(), []
    for end in range(1, len(taken) + 1):
        before = {alarm.key for alarm in alarms.standing(taken[:end], DCGAN, before=before)}
        stood.append("missing class" in before)
    judged = 4 * WINDOW - 2  # the last reading in the window that counts too few
    assert stood == [WINDOW <= i <= judged for i in range(len(taken))]


def test_a_rollback_ends_the_alarms_that_stood():
    rows = [
        {"nimg": 1, "alarms": ["collapse: a", "divergence (D): b"]},
        {"nimg": 2, "alarms": ["ended: divergence (D)"]},
        {"nimg": 3, BACK_TO: 0.0, "alarms": ["rolled back"]},
        {"nimg": 4, "alarms": ["collapse: c"]},
        {"nimg": 5, "alarms": ["collapse: d"]},
    ]
    ends = [("collapse: a", 3), ("divergence (D): b", 2), ("rolled back", 3), ("collapse: c", 5), ("collapse: d", None)]
    found = history.alarms(rows)
    assert [(alarm.sentence, alarm.end) for alarm in found] == ends
    assert [alarm.sentence for alarm in found if alarm.undone] == ["collapse: a", "rolled back"]


@pytest.mark.parametrize(
    ("diversity", "at"),
    [([0.99**i for i in range(200)], 93), ([1.0] * 10 + [0.3] * 150, 11)],
    ids=["slowly", "at once"],
)
def test_a_collapse_is_seen_however_slow_it_is_and_stands_as_long_as_it_lasts(make, monkeypatch, diversity, at):
    trainer, turn = make(DCGAN), iter(readings(diversity=diversity))
    monkeypatch.setattr(trainer.health, "read", lambda nimg, means: next(turn))
    watch = Watch(trainer.health, trainer.config, trainer.run_dir, nimg=0)
    assert [i for i in range(len(diversity)) if watch.look(i, {}).alarms] == [at]
    assert [alarm.key for alarm in watch.standing] == ["collapse"]


@pytest.mark.parametrize("kept", [100, 2])
def test_images_are_compared_with_the_most_of_the_history_that_counts(make, monkeypatch, kept):
    """That of before a rollback, and of a resumed run too, even if it is no longer among the last readings."""
    monkeypatch.setattr("gan_engine.training.watch._KEPT", kept)
    trainer = make(DCGAN)
    taken = readings(diversity=[0.2, 0.3, 0.9, 0.1, 0.1, 0.2, 0.2, 0.11, 0.11])
    turn = iter(taken)
    monkeypatch.setattr(trainer.health, "read", lambda nimg, means: next(turn))
    watch = Watch(trainer.health, trainer.config, trainer.run_dir, nimg=0)
    said = [bool(watch.look(i, {}).alarms) for i in range(5)]
    watch.go_back(1)
    said += [bool(watch.look(i, {}).alarms) for i in range(5, 9)]
    assert said == [i in (4, 8) for i in range(9)]
    rows = [{"nimg": i} | values for i, values in enumerate(taken)]
    rows.insert(5, {"nimg": 4, BACK_TO: 0.001})
    trainer.run_dir.mkdir()
    (trainer.run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = Watch(trainer.health, trainer.config, trainer.run_dir, nimg=8)
    assert (again.most, again.readings, again.standing) == (watch.most, watch.readings, watch.standing)


def test_advice_names_flags_that_the_run_can_take():
    (alarm,) = alarms.standing(readings(overfitting=[1.0, 1.0]), DCGAN)
    assert alarm.sentence.endswith("try --augment ada")
    assert "--augment" not in alarms.standing(readings(overfitting=[1.0, 1.0]), SRGAN)[0].sentence
    bands = dataclasses.replace(DCGAN, model=dataclasses.replace(DCGAN.model, channels=5))
    assert alarms.standing(readings(overfitting=[1.0, 1.0]), bands)[0].sentence.endswith("try --augment diffaugment")
    collapsed = readings(diversity=[0.9, 0.1, 0.1])
    assert alarms.standing(collapsed, DCGAN)[0].sentence.endswith(
        "try --lr 5e-05 or --r1-gamma 1 --no-d-norm or --on-collapse rollback"
    )
    assert alarms.standing(collapsed, dataclasses.replace(SRGAN, on_collapse="stop"))[0].sentence.endswith(
        "try --lr 5e-05"
    )


def test_held_out_images_are_not_trained_on(data, tmp_path):
    config = dataclasses.replace(DCGAN, held_out=16)
    trainer = Trainer(config, data, device=CPU, run_dir=tmp_path)
    learnt, unseen = held_out.split(data, 16, seed=config.seed)
    assert len(learnt) == len(data) - 16 == len(trainer.data) and len(unseen) == 16
    together = torch.cat([learnt.images, unseen.images]).flatten(1).double()
    assert torch.equal(together.sum(1).sort().values, data.images.flatten(1).double().sum(1).sort().values)
    assert trainer.batches.sampler.data.sha256 == learnt.sha256 != data.sha256
    assert held_out.split(data, 0, seed=0) == (data, None)
    few = ImageSet("few", torch.zeros(20, 1, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match="held_out: want fewer than the 20 images of few, got 20"):
        held_out.split(few, 20, seed=0)
    with pytest.raises(ValueError, match="held_out: want 0, or 16 images or more, got 3"):
        dataclasses.replace(DCGAN, held_out=3)


def test_pairs_stay_together():
    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 1, 4, 4).contiguous()
    pairs = ImageSet("pairs", images, source=ImageSet("sources", images + 100), paired=True)
    for part in held_out.split(pairs, 16, seed=0):
        assert part.paired and torch.equal(part.images + 100, part.source.images)


def collapse_once(trainer, nimg):
    """Let G's last weights be zero from `nimg` images on, until the run has gone back."""
    step = trainer.step

    def broken():
        step()
        if trainer.nimg >= nimg and not any(BACK_TO in row for row in read_metrics(trainer.run_dir)):
            with torch.no_grad():
                for p in list(trainer.G.parameters())[-2:]:
                    p.zero_()

    trainer.step = broken


def test_a_run_goes_back_to_its_last_healthy_state_with_another_seed(make, capsys):
    trainer = make(LARGE, kimg=16.384, on_collapse="rollback", rollback_lr=0.5)
    collapse_once(trainer, 4097)
    trainer.run()
    rows = {row["nimg"]: row for row in read_metrics(trainer.run_dir) if BACK_TO in row}
    assert {at: row[BACK_TO] for at, row in rows.items()} == {8192: 4.096}
    err = capsys.readouterr().err
    assert "8.192 kimg: rolled back to the healthy state of 4.096 kimg, with other noise and order of data" in err
    assert "at 0.5 times the first learning rates; 2 more at most" in err
    assert trainer.nimg == 16384  # the clock goes on
    assert {float(o.param_groups[0]["lr"]) for o in trainer.optimizers.values()} == {LARGE.lr / 2}
    assert trainer.batches.sampler.seed != LARGE.seed
    last = [row[f"{PREFIX}diversity"] for row in read_metrics(trainer.run_dir) if f"{PREFIX}diversity" in row][-1]
    assert last > 0.1
    again = make(LARGE, kimg=16.384, on_collapse="rollback", rollback_lr=0.5, rollbacks=1)
    again.load_state_dict(trainer.state_dict())
    from gan_engine.training.run import Run

    run = Run(again)
    assert run.rollback.count == 1 and not run.rollback.left
    assert [at for at, _ in run.watch.readings] == [2048, 4096, 10240, 12288, 14336, 16384]


def test_the_state_after_a_rollback_is_the_healthy_one(make):
    from gan_engine.training.watch import Rollback

    trainer = make(DCGAN)
    for _ in range(2):
        trainer.step()
    rollback, healthy = Rollback(trainer, count=0), weights(trainer)
    trainer.step()
    rollback.carry_out()
    assert_equal(weights(trainer), healthy)
    assert trainer.nimg == 48 and not trainer.means.read()
    trainer.step()  # other noise than before, from the same weights
    assert not torch.equal(trainer.batches.z_generator.get_state(), torch.Generator().manual_seed(0).get_state())


def break_at(monkeypatch, trainer, nimg, *, times=1):
    """Let a weight of D be NaN in the step after `nimg` images, until the run has gone back `times` times."""
    step = trainer.step

    def broken():
        if trainer.nimg == nimg and sum(BACK_TO in row for row in read_metrics(trainer.run_dir)) < times:
            with torch.no_grad():
                next(trainer.D.parameters()).view(-1)[0] = torch.nan
        step()

    monkeypatch.setattr(trainer, "step", broken)


def test_a_run_goes_back_from_a_value_that_is_not_finite(make, monkeypatch, capsys):
    trainer = make(LARGE, kimg=8.192, on_collapse="rollback", rollback_lr=0.5)
    break_at(monkeypatch, trainer, 3008)
    assert trainer.run() is None
    (row,) = [row for row in read_metrics(trainer.run_dir) if BACK_TO in row]
    assert (row["nimg"], row[BACK_TO]) == (3008, 2.048)
    first, second = row["alarms"]
    assert first.startswith(
        "divergence: phase D met a value that is not finite at 3.008 kimg, step 47; weights were not"
    )
    assert second.startswith("rolled back to the healthy state of 2.048 kimg")
    assert "alarm      3.008 kimg: divergence: phase D met" in capsys.readouterr().err
    assert trainer.nimg == 8192 and trainer.step_count == 128
    assert {float(o.param_groups[0]["lr"]) for o in trainer.optimizers.values()} == {LARGE.lr / 2}
    assert all(value.isfinite().all() for value in weights(trainer).values())
    taken = [row["nimg"] for row in read_metrics(trainer.run_dir) if f"{PREFIX}diversity" in row]
    assert taken == [2048, 4096, 6144, 8192]


def test_a_value_that_is_not_finite_ends_a_run_without_a_rollback_left(make, monkeypatch):
    trainer = make(LARGE, kimg=8.192, on_collapse="rollback", rollbacks=1)
    break_at(monkeypatch, trainer, 3008, times=2)
    with pytest.raises(NonFiniteError, match=r"(?s)phase D met .* at 3.008 kimg.*last good checkpoint: none yet"):
        trainer.run()
    assert [row["nimg"] for row in read_metrics(trainer.run_dir) if BACK_TO in row] == [3008]


def test_a_run_saves_the_healthy_state_where_the_last_step_is_broken(make, monkeypatch):
    """A GPU tells that a step was broken in a later phase, or when the run is about to save."""
    heed, add, phases = Stops.heed, Stops.add, []
    monkeypatch.setattr(Stops, "heed", lambda self, *, leave=None: heed(self, leave=0 if leave is None else 10**6))
    monkeypatch.setattr(Stops, "add", lambda self, finite: phases.append(1) or add(self, finite & (len(phases) != 156)))
    trainer = make(LARGE, kimg=4.992, on_collapse="rollback")  # 78 steps of two phases
    assert trainer.run() is None
    assert [(row["nimg"], row[BACK_TO]) for row in read_metrics(trainer.run_dir) if BACK_TO in row] == [(4992, 4.096)]
    assert trainer.nimg == checkpoint.load(checkpoint.find(trainer.run_dir))["nimg"] == 4992
    assert (trainer.run_dir / "samples/kimg-000004.992.png").exists()


@pytest.mark.parametrize(("on_collapse", "rollbacks"), [("stop", 3), ("rollback", 1)])
def test_a_collapse_ends_the_run_where_asked_or_where_no_rollback_is_left(make, on_collapse, rollbacks):
    trainer = make(LARGE, kimg=40.96, on_collapse=on_collapse, rollbacks=rollbacks)
    one_output(trainer)
    assert trainer.run() is None
    assert trainer.nimg < 40960 and trainer.verdict.startswith("collapse: two images of G differ by 0%")
    assert sum(BACK_TO in row for row in read_metrics(trainer.run_dir)) == (on_collapse == "rollback")
