"""Nearest training images of samples: right, also for a generator that copies, and kept for the report of a run."""

import dataclasses
import json

import pytest
import torch

from gan_engine import report
from gan_engine.data import DataConfig, ImageSet, load
from gan_engine.inference import copies as of_runs
from gan_engine.metrics import copies, extractors
from gan_engine.metrics.classifier import classify, load_classifier
from gan_engine.presets import PRESETS
from gan_engine.saved_config import to_dict
from gan_engine.system import checkpoint
from gan_engine.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def garments():
    return load(DataConfig("fashion-mnist"), resolution=32, channels=1)


def part(data, first, last):
    return ImageSet("part", data.images[first:last].clone())


def test_the_nearest_are_those_of_all_distances(garments, monkeypatch):
    monkeypatch.setattr(copies, "REAL", 50)
    data, samples = part(garments, 0, 330), garments.images[500:512]
    found = copies.search(samples, data, device=CPU, mirror=False, batch=100)
    x, y = (classify(load_classifier(), images)[0].double() for images in (samples, data.images))
    distances, indices = torch.cdist(x, y).topk(3, largest=False)
    torch.testing.assert_close(found.distances, distances, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.indices, indices)
    chosen = torch.randperm(330, generator=torch.Generator().manual_seed(0))[:50]
    torch.testing.assert_close(
        found.among_real, torch.cdist(y[chosen], y).topk(2, largest=False).values[:, 1], rtol=1e-4, atol=1e-4
    )


def test_copies_are_called_copies_and_other_images_are_not(garments):
    data, others = part(garments, 0, 400), garments.images[500:540]
    copied = copies.search(data.images[7:47], data, device=CPU, mirror=False)
    assert torch.equal(copied.indices[:, 0], torch.arange(7, 47)) and copied.ratios.max() < 1e-3
    assert "may be copies" in copied.sentences()[2] and "100% of the samples" in copied.sentences()[1]
    some = copies.search(torch.cat([data.images[:10], others[:30]]), data, device=CPU, mirror=False)
    assert "may be copies" in some.sentences()[2]
    fresh = copies.search(others, data, device=CPU, mirror=False)
    assert "No copies were found" in fresh.sentences()[2] and 0.6 < float(fresh.ratios.median()) < 1.6


def test_a_few_exact_copies_among_a_hundred_samples_are_found(garments):
    data, others = part(garments, 0, 4000), garments.images[5000:5100]
    fresh = copies.search(others, data, device=CPU, mirror=False)
    assert "No copies were found" in fresh.sentences()[2] and int((fresh.ratios < copies.SAME).sum()) <= 1
    some = copies.search(torch.cat([data.images[:5], others[5:]]), data, device=CPU, mirror=False)
    share = float((some.ratios < copies.NEAR).double().mean())
    assert share < 0.15 and "may be copies" in some.sentences()[2]
    assert "% of the training images do. Nearer than 0.1 times lie " in some.sentences()[1]


def test_flipped_copies_are_found_if_the_run_has_learnt_flipped_images(garments):
    data = part(garments, 0, 400)
    flipped = data.images[7:47].flip(-1)
    found = copies.search(flipped, data, device=CPU, mirror=True)
    assert torch.equal(found.indices[:, 0], torch.arange(7, 47)) and found.ratios.max() < 1e-3
    first, _, verdict = found.sentences()
    assert "400 training images and their mirror images, by" in first and "may be copies" in verdict
    assert found.among_real.min() > 0.1  # a mirror image is no other image
    apart = copies.search(flipped, data, device=CPU, mirror=False)
    assert apart.ratios.min() > 1e-3 and "mirror" not in apart.sentences()[0]


@pytest.mark.parametrize("mirror", [False, True])
def test_an_image_like_its_mirror_image_is_not_its_own_nearest(monkeypatch, mirror):
    monkeypatch.setattr(copies, "extractor_for", lambda shape, _: (copies.Pixels(shape), "pixels"))
    half = torch.randint(256, (20, 1, 8, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = torch.cat([half, half.flip(-1)], 3)
    found = copies.search(images[:2], ImageSet("even", images), device=CPU, mirror=mirror)
    assert found.distances[:, 0].tolist() == [0, 0] and found.among_real.min() > 1


def test_pixels_serve_where_there_is_no_extractor_and_the_page_says_so(monkeypatch):
    def refuse(*_, **__):
        raise ValueError("imagenet: its weights are not installed")

    monkeypatch.setattr(extractors, "build", refuse)
    images = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = copies.search(images[3:5], ImageSet("noise", images), device=CPU, mirror=False)
    assert found.indices[:, 0].tolist() == [3, 4] and found.distances[:, 0].tolist() == [0, 0]
    assert found.sentences()[0] == (
        "2 samples and 20 training images, by pixels of 8 bits, not resized (imagenet: its weights are not installed)."
    )


def test_pixels_of_large_images_are_resized_by_area():
    few = torch.randint(256, (2, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    large = few.repeat_interleave(4, 2).repeat_interleave(8, 3)
    pixels = copies.Pixels((3, 256, 256))
    assert pixels.about == "pixels of 8 bits, resized to 64x64 by area"
    torch.testing.assert_close(pixels(large)[0], few.repeat_interleave(2, 3).flatten(1) / 255)
    assert copies.Pixels((3, 64, 64)).about == "pixels of 8 bits, not resized"


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="want more than 3 training images, got 3"):
        copies.search(
            torch.zeros(1, 1, 32, 32, dtype=torch.uint8),
            ImageSet("few", torch.zeros(3, 1, 32, 32).byte()),
            device=CPU,
            mirror=False,
        )


@pytest.fixture
def run_dir(tmp_path, garments):
    """A run of cgan on the embedded images, before its first step."""
    config = PRESETS["cgan"]()
    model = dataclasses.replace(config.model, width=4, max_width=8, c_dim=10)
    config = dataclasses.replace(config, model=model, batch_size=8, precision="fp32", held_out=64)
    trainer = Trainer(config, garments, device=CPU, run_dir=tmp_path)
    checkpoint.Keeper(tmp_path, keep=1).save(0, trainer.state_dict())
    (tmp_path / "run.json").write_text(json.dumps({"config": to_dict(config), "starts": []}))
    return tmp_path


def test_the_report_shows_them_and_keeps_them(run_dir, monkeypatch, capsys):
    assert report.main([str(run_dir), "--copies", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("100 samples and 9,936 training images, by the classifier")
    page = (run_dir / "report.html").read_text()
    assert "<h2>Does it copy?</h2><p>100 samples and 9,936 training images, by the classifier" in page
    assert "its three nearest training images" in page
    monkeypatch.setattr(of_runs.copies, "search", lambda *_, **__: pytest.fail("searched again"))
    assert report.main([str(run_dir), "--copies", "--device", "cpu"]) == 0
    assert report.main([str(run_dir)]) == 0
    assert (run_dir / "report.html").read_text() == page
    (run_dir / "copies.json").write_text('{"nimg": 0, "sentences": 3}')
    with pytest.warns(UserWarning, match="copies.json: damaged"):
        assert report.main([str(run_dir)]) == 0
    assert "Does it copy?" not in (run_dir / "report.html").read_text()


@pytest.mark.parametrize("mirror", [False, True])
def test_the_run_says_whether_mirror_images_count(run_dir, garments, mirror, monkeypatch):
    state = checkpoint.load(checkpoint.find(run_dir))
    state["config"]["mirror"] = mirror
    checkpoint.Keeper(run_dir, keep=1).save(0, state)
    wanted = []

    def search(*_, mirror, **__):
        wanted.append(mirror)
        raise ValueError("enough")

    monkeypatch.setattr(of_runs.copies, "search", search)
    assert report.main([str(run_dir), "--copies", "--device", "cpu"]) == 2
    assert wanted == [mirror]


def test_a_generator_of_pictures_from_pictures_is_refused(tmp_path, capsys):
    config = PRESETS["pix2pix"]()
    model = dataclasses.replace(config.model, resolution=32, width=4, max_width=8, d_width=4, source="grey")
    config = dataclasses.replace(config, model=model, batch_size=2, precision="fp32")
    images = ImageSet("few", torch.zeros(8, 3, 32, 32, dtype=torch.uint8))
    trainer = Trainer(config, images, device=CPU, run_dir=tmp_path)
    checkpoint.Keeper(tmp_path, keep=1).save(0, trainer.state_dict())
    (tmp_path / "run.json").write_text(json.dumps({"config": to_dict(config), "starts": []}))
    assert report.main([str(tmp_path), "--copies", "--device", "cpu"]) == 2
    assert "want a generator that starts from noise, got pix2pix" in capsys.readouterr().err
