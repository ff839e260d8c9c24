"""compare: groups by the configuration, means and spread, curves on common axes, and what it refuses."""

import dataclasses
import json
import re

import numpy as np
import pytest

from gan_engine import compare
from gan_engine.metrics import scores
from gan_engine.presets import PRESETS
from gan_engine.runs.comparison import compare as compared
from gan_engine.runs.comparison import final_and_best, rows
from gan_engine.saved_config import to_dict

FD, PRECISION = "fd_fashion32 N=100", "precision_fashion32 N=100"


@pytest.fixture
def made(tmp_path):
    """Writes the directory of a run: its numbers at 10, 20, ... kimg, which took `pace` seconds each."""

    def make(name, numbers, *, pace=5.0, data="fashion-mnist: 10,000 images 1x32x32, 10 classes", **fields):
        run_dir = tmp_path / name
        run_dir.mkdir()
        config = dataclasses.replace(PRESETS[fields.pop("preset", "dcgan")](), **fields)
        start = {"data": data, "device": "cpu"}
        (run_dir / "run.json").write_text(json.dumps({"config": to_dict(config), "starts": [start]}))
        lines = []
        for i in range(1, 1 + max(map(len, numbers.values()), default=1)):
            lines.append({"nimg": 10_000 * i, "loss/D": 1.0, "seconds": pace * i})
            here = {f"eval/{key}": values[i - 1] for key, values in numbers.items() if len(values) >= i}
            lines.append({"nimg": 10_000 * i, **here})
        (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run_dir

    return make


def test_runs_that_differ_by_the_seed_alone_are_one_group(made):
    runs = [made(f"a{seed}", {FD: [9.0, 7.0 + seed]}, seed=seed, threads=seed + 1) for seed in range(3)]
    runs += [made("b", {FD: [8.0, 9.0]}, r1_gamma=1.0), made("c", {FD: [5.0, 4.0]}, r1_gamma=1.0, kimg=50)]
    found = compared(runs)
    assert [len(group.runs) for group in found.groups] == [3, 1, 1]
    assert [group.label for group in found.groups] == [
        "kimg 100, r1_gamma 0",
        "kimg 100, r1_gamma 1",
        "kimg 50, r1_gamma 1",
    ]
    assert final_and_best(found.groups[0], FD) == {"final": (8.0, 7.0, 9.0), "best": (8.0, 7.0, 9.0)}
    assert final_and_best(found.groups[1], FD) == {"final": (9.0, 9.0, 9.0), "best": (8.0, 8.0, 8.0)}
    table = rows(found)
    assert [row["runs"] for row in table] == [found.groups[i].label for i in (2, 0, 1)]  # the least distance first
    assert table[1][f"{FD}, final"] == "8 (7 to 9)" and table[1]["seeds"] == "3" and table[1]["kimg"] == "20"


def test_more_is_better_for_shares_and_modes(made):
    found = compared([made("a", {PRECISION: [0.2, 0.6, 0.5]}), made("b", {PRECISION: [0.2, 0.4, 0.9]}, lr=1e-3)])
    assert final_and_best(found.groups[0], PRECISION)["best"][0] == 0.6
    assert rows(found)[0]["runs"] == "lr 0.001"
    better = {"modes_fashion32 N=9": True, "modes_kl_fashion32 N=9": False, "fid_inception N=9": False}
    better |= {"is_imagenet112 N=9": True, "coverage_inception N=5": True, "ppl_imagenet N=9": False}
    assert {name: scores.more_is_better(name) for name in better} == better


def test_curves_are_over_the_part_of_the_axis_that_all_runs_have(made):
    runs = [made("a", {FD: [9.0, 7.0, 5.0]}, pace=4.0), made("b", {FD: [5.0, 3.0]}, seed=1, pace=10.0)]
    (group,) = compared(runs).groups
    points, values = group.over(FD, "kimg")
    np.testing.assert_array_equal(points, [10, 20])
    np.testing.assert_array_equal(values, [[9, 7], [5, 3]])
    points, values = group.over(FD, "seconds")  # 4, 8, 12 and 10, 20 seconds
    np.testing.assert_array_equal(points, [10, 12])
    np.testing.assert_allclose(values, [[6, 5], [5, 4.6]])


def test_measurements_that_were_not_finite_are_no_points(made):
    run = made("a", {FD: [9.0, None, 5.0]})
    assert compared([run]).groups[0].runs[0].curves[FD].kimg.tolist() == [10, 30]


def test_the_terminal_has_a_table_and_the_page_needs_nothing_else(made, tmp_path, capsys):
    runs = [made(f"a{seed}", {FD: [9.0, 7.0 + seed]}, seed=seed) for seed in range(2)]
    runs += [made("<b>", {FD: [8.0], PRECISION: [0.5]}, loss="hinge")]
    page = tmp_path / "page.html"
    assert compare.main([*map(str, runs), "--out", str(page)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^loss nonsaturating +2 +20 +10 +7.5 \(7 to 8\) +7.5 \(7 to 8\)$", out, re.M)
    assert re.search(r"^loss hinge +1 +10 +5 +8 +8$", out, re.M)
    assert f"{PRECISION}: not compared, since 1 of 3 runs have it" in out
    text = page.read_text()
    assert len(re.findall(r'<img class="plot"[^>]*src="data:image/png;base64,', text)) == 1
    assert not re.search(r"https?://|<script|<link|<b>", text) and "(seed 1)" in text and "7.5 (7 to 8)" in text
    assert "3 runs compared" in text
    page = tmp_path / "no/such/page.html"
    assert compare.main([str(runs[0]), "--out", str(page)]) == 0 and "1 run compared" in page.read_text()


@pytest.mark.parametrize(
    "second, message",
    [
        ({"numbers": {"fd_fashion32 N=200": [8.0]}}, "a number that all runs have, with the same extractor and N, got"),
        ({"numbers": {"fd_imagenet112 N=100": [8.0]}}, "in .*a and fd_imagenet112 N=100 in .*b"),
        ({"data": "toy: 4,096 images 3x32x32, 5 classes"}, "same images, got fashion-mnist: 10,000 images 1x32x32 for"),
        ({"eval_data": "held_out/"}, "same images, got fashion-mnist.* and held_out/ for .*b"),
    ],
)
def test_what_does_not_compare_is_refused_in_a_sentence(made, second, message):
    a, b = made("a", {FD: [9.0]}), made("b", **{"numbers": {FD: [8.0]}, **second})
    with pytest.raises(ValueError, match=message):
        compared([a, b])


NO_RUN = "want the directory of a run, and there is no run.json in it"
NOT_MEASURED = "want measurements, which train --eval-kimg makes, and there are none"


def test_what_has_no_measurements_is_left_out_and_named(made, tmp_path, capsys):
    a, b, page = made("a", {FD: [9.0]}), made("b", {}), tmp_path / "compare.html"
    damaged = made("damaged", {FD: [8.0]})
    (damaged / "run.json").write_text("{")
    (tmp_path / "a_file").touch()
    runs = [a, b, damaged, tmp_path / "a_file", tmp_path / "gone"]
    assert compare.main([*map(str, runs), "--out", str(page)]) == 0
    out, text = capsys.readouterr().out, page.read_text()
    assert re.search(r"^dcgan +1 +10 +5 +9 +9$", out, re.M) and "1 run compared" in text
    for path, why in (
        (b, NOT_MEASURED),
        (damaged / "run.json", "damaged: not JSON"),
        *((path, NO_RUN) for path in runs[3:]),
    ):
        assert f"\nleft out: {path}: {why}" in out and f"<p>left out: {path}: {why}" in text
    assert compared([a]).notes == []


def test_no_run_and_one_run_twice_are_refused(made, tmp_path, capsys):
    a, b = made("a", {FD: [9.0]}), made("b", {})
    (tmp_path / "empty").mkdir()
    for argv, message in (
        ([str(tmp_path / "empty")], f"error: {tmp_path / 'empty'}: {NO_RUN}\n"),
        ([str(b), str(tmp_path / "empty")], f"error: {b}: {NOT_MEASURED}; {tmp_path / 'empty'}: {NO_RUN}\n"),
        ([str(a), str(a)], "want each run once, got"),
        ([], "want the directory of at least one run"),
        ([str(a), "--out", str(tmp_path)], "out: want the name of a page, got the folder"),
        ([str(a), "--out", "curves.png"], "out: want the name of a page, which ends in .html, got curves.png"),
        ([str(a), "--out", str(a / "run.json/a.html")], "run.json cannot be written: want a directory, got a file"),
    ):
        assert compare.main(argv) == 2
        err = capsys.readouterr().err
        assert message in err and err.startswith("error: ") and err.count("\n") == 1


def test_equal_seeds_are_said(made):
    found = compared([made("a", {FD: [9.0]}), made("b", {FD: [8.0]})])
    assert len(found.groups) == 1 and "some have one seed and differ in nothing" in found.notes[0]


def test_families_are_told_by_what_they_share(made):
    found = compared([made("a", {FD: [9.0]}), made("b", {FD: [8.0]}, preset="r3gan")])
    label = found.groups[1].label
    assert "preset r3gan" in label and "family r3gan" in label and "d_norm" not in label
