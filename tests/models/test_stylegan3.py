"""StyleGAN3: the bands of the paper, its filters, equivariance of untrained networks, and gradients of two orders."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from gan_engine import backends, models
from gan_engine.models.stylegan3 import MAGNITUDE_HALF_LIFE, Config, lowpass
from gan_engine.system import checkpoint
from tests.models.stylegan2_networks import autocast, path_length, r1

SMALL = Config(
    resolution=32, channels=1, z_dim=8, w_dim=8, channel_base=256, channel_max=12, num_layers=6, half_resolutions=1
)
TINY = dataclasses.replace(SMALL, resolution=8, channel_base=16, channel_max=3, num_layers=3, num_critical=1, margin=3)
VARIANTS = pytest.mark.parametrize("variant", ["t", "r"])


def build(config=SMALL, **changes):
    torch.manual_seed(0)
    return models.build(dataclasses.replace(config, **changes))


def bands(name, **changes):
    return [getattr(band, name) for band in Config(**changes).bands]


def test_bands_are_those_of_the_paper():
    """Sizes with a margin of 10 and feature maps of configs T and R (figure 4c and the tables of appendix G)."""
    assert bands("size", resolution=256) == [36] * 3 + [52] * 2 + [84] * 2 + [148] * 3 + [276] * 3 + [256] * 2
    assert bands("width", resolution=256) == [512] * 9 + [362, 256, 181, 128, 128, 3]
    rates = [16, 16, 32, 32, 64, 128, 128, 256, 256, 512, 1024, 1024, 1024, 1024, 1024]
    assert bands("rate", resolution=1024) == rates
    assert bands("size", resolution=1024) == [rate + 20 for rate in rates[:-2]] + [1024] * 2
    wide = Config(resolution=1024, variant="r").bands
    assert [band.width for band in wide] == [1024] * 7 + [645, 406, 256, 161, 102, 64, 64, 3]


def test_sizes_and_widths_are_those_that_logs_of_published_trainings_name():
    """L8_84_1024, L9_148_1024, L10_148_912, L11_148_683, L12_148_512, L13_128_512 and L14_128_3 of config R at 128"""
    found = [(band.size, band.width) for band in Config(resolution=128, variant="r").bands]
    last = [(84, 1024), (148, 1024), (148, 912), (148, 683), (148, 512), (128, 512), (128, 3)]
    assert found[8:] == last


@pytest.mark.parametrize("resolution", [8, 16, 64, 256, 1024])
def test_bands_obey_the_formulas(resolution):
    found = Config(resolution=resolution).bands
    cutoffs = np.array([band.cutoff for band in found])
    ratios = cutoffs[1:13] / cutoffs[:12]
    np.testing.assert_allclose(ratios, ratios[0])  # a geometric progression up to the first critical layer
    assert cutoffs[0] == 2 and cutoffs[12] == pytest.approx(resolution / 2) and (cutoffs[12:] == cutoffs[12]).all()
    stops = [max(band.cutoff + band.half_width, 0) for band in found]
    assert stops[-1] == pytest.approx(2**0.3 * resolution / 2)
    for i, band in enumerate(found):
        stopband = 2**2.1 * (2**0.3 * resolution / 2 / 2**2.1) ** min(i / 12, 1)
        assert stops[i] == pytest.approx(max(stopband, band.rate / 2))
        assert band.rate == resolution or band.rate / 2 < 2 * stopband <= band.rate
        assert band.half_width > 0 and band.size % 2 == 0


def response(f, rate, frequency, angle=0.0):
    """|sum of f exp(-2 pi i frequency t)| of a filter [taps] or [taps, taps], along a direction."""
    f = f.double().numpy()
    f = np.outer(f, f) if f.ndim == 1 else f
    t = (np.arange(len(f)) - (len(f) - 1) / 2) / rate
    along = (
        np.exp(-2j * np.pi * frequency * (t * math.cos(angle))),
        np.exp(-2j * np.pi * frequency * t * math.sin(angle)),
    )
    return abs(along[1] @ f @ along[0])


@pytest.mark.parametrize(
    ("taps", "cutoff", "half_width", "rate"), [(12, 2, 6, 32), (24, 5.04, 10.96, 128), (12, 32, 7.4, 128)]
)
def test_filters_are_those_of_kaiser(taps, cutoff, half_width, rate):
    signal = pytest.importorskip("scipy.signal")
    want = signal.firwin(taps, cutoff, width=2 * half_width, fs=rate)  # the same formulas, of another author
    np.testing.assert_allclose(lowpass(taps, cutoff, half_width, rate).numpy(), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize("index", [1, 4, 8, 11])
def test_filters_pass_and_stop_what_they_should(index, radial):
    band = Config(resolution=256).bands[index]
    rate = 2 * band.rate
    f = lowpass(12, band.cutoff, band.half_width, rate, radial=radial)
    assert f.ndim == 1 + radial
    assert response(f, rate, 0) == pytest.approx(1, abs=1e-6)
    stop = band.cutoff + band.half_width
    stopped = [response(f, rate, x) for x in np.linspace(stop, rate / 2, 20)]
    attenuation = 2.285 * math.pi * 11 * 4 * band.half_width / rate + 7.95  # Kaiser's estimate in dB, for long filters
    assert attenuation > 30 and max(stopped) < 2 * 10 ** (-attenuation / 20)
    if not radial:  # half the signal at the cutoff
        assert response(f, rate, band.cutoff) == pytest.approx(0.5, abs=0.12)


def test_radial_filters_are_the_same_in_all_directions():
    band = Config(resolution=256).bands[11]
    rate = 2 * band.rate

    def spread(radial):
        f = lowpass(12, band.cutoff, band.half_width, rate, radial=radial)
        frequencies = np.linspace(0, band.cutoff + band.half_width, 8)
        return max(abs(response(f, rate, x, math.pi / 4) - response(f, rate, x)) for x in frequencies)

    assert spread(True) < 0.02 < 0.3 < spread(False)


def test_the_layers_have_their_filters():
    """Only r has radial filters, and no critical layer. Every filter has six taps for a sample of the coarser grid."""
    for variant, radial in (("t", 0), ("r", SMALL.num_layers - SMALL.num_critical)):
        layers = build(variant=variant)[0].synthesis.layers[:-1]
        assert [layer.fd.ndim for layer in layers] == [2] * radial + [1] * (SMALL.num_layers - radial)
        assert {layer.weight.shape[2] for layer in layers} == {3 if variant == "t" else 1}
        assert all(len(layer.fu) == 6 * layer.up and len(layer.fd) == 6 * layer.down for layer in layers)
        assert {(layer.up, layer.down) for layer in layers} == {(2, 2), (4, 2)}


def decibels(got, want):
    """The power of `want` over that of the difference, in dB."""
    return float(10 * torch.log10(want.var() / (got - want).square().mean()).detach())


@VARIANTS
@pytest.mark.parametrize("shift", [(4, 0), (-3, 2)])
def test_images_move_with_the_fourier_features(shift, variant):
    """By whole pixels, which are fractions of a sample of the coarser grids."""
    G, _ = build(variant=variant, resolution=64, num_layers=10)
    ws = G.eval().double().ws(torch.randn(2, 8, dtype=torch.float64))
    moved = G.synthesis(ws, translation=torch.tensor([shift], dtype=torch.float64).expand(2, 2) / 64)
    inner = (..., slice(8, -8), slice(8, -8))
    still = G.synthesis(ws)
    assert decibels(moved[inner], still.roll(shift[::-1], (2, 3))[inner]) > 45
    assert decibels(still[inner], still.roll(shift[::-1], (2, 3))[inner]) < 10  # the image is not the same everywhere


def test_images_move_by_fractions_of_a_pixel():
    """By half a pixel, against the image interpolated with a long windowed sinc."""
    G, _ = build(resolution=64, num_layers=10)
    ws = G.eval().double().ws(torch.randn(2, 8, dtype=torch.float64))
    moved = G.synthesis(ws, translation=torch.tensor([[0.5, 0.0]], dtype=torch.float64).expand(2, 2) / 64)
    still = G.synthesis(ws)
    t = np.arange(-15.5, 16)
    taps = torch.from_numpy(np.sinc(t) * np.kaiser(32, 8))
    want = torch.nn.functional.conv2d(still, (taps / taps.sum()).view(1, 1, 1, 32))  # its sample n lies at n + 15.5
    inner = moved[:, :, :, 16:-16]
    assert decibels(inner, want[:, :, :, : inner.shape[3]]) > 30
    assert decibels(inner, still[:, :, :, 16:-16]) < 25


def test_only_variant_r_turns_with_the_fourier_features():
    """By a quarter of a turn, which no grid hinders."""

    def turned(variant):
        G, _ = build(variant=variant)
        ws = G.eval().double().ws(torch.randn(2, 8, dtype=torch.float64))
        still = G.synthesis(ws)
        with torch.no_grad():
            G.synthesis.input.affine.bias[:2] = torch.tensor([0.0, 1.0])
        return max(decibels(G.synthesis(ws), still.rot90(k, (2, 3))) for k in (1, 3))

    assert turned("r") > 45 and turned("t") < 10


def test_features_have_the_frequencies_of_the_first_band():
    G, _ = build(resolution=64, channel_base=8192, channel_max=512)
    f = G.synthesis.input.freqs.norm(dim=1)
    assert f.max() <= 2 and (f < 2**0.5).float().mean() == pytest.approx(0.5, abs=0.12)  # uniform in the disc


@VARIANTS
def test_second_order_equals_the_reference(variant, backend, device):
    if reason := backends.refusal("filtered_lrelu", backend, torch.empty(1, device=device)):
        pytest.skip(reason)
    G, D = (net.to(device).double().eval() for net in build(TINY, variant=variant))
    ws = G.ws(torch.randn(4, 8, dtype=torch.float64, device=device)).detach().requires_grad_()

    def grads():
        loss = path_length(G, ws) + r1(D, G.synthesis(ws))
        parameters = [*G.synthesis.parameters(), *D.parameters()]
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    with backends.use("reference"):
        want = grads()
    with backends.use(backend):
        got = grads()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@VARIANTS
def test_gradients_of_two_orders_equal_differences(variant):
    G, _ = build(TINY, variant=variant)
    G = G.eval().double().requires_grad_(False)
    ws = G.ws(torch.randn(2, 8, dtype=torch.float64)).detach().contiguous().requires_grad_()
    assert torch.autograd.gradcheck(G.synthesis, ws, fast_mode=True)
    assert torch.autograd.gradgradcheck(G.synthesis, ws, fast_mode=True)


@VARIANTS
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])
def test_gradients_in_every_precision_are_finite(variant, dtype):
    G, D = build(variant=variant)
    with autocast(dtype):
        img = G(torch.randn(4, 8))
        assert img.dtype == torch.float32 and img.shape == (4, 1, 32, 32)
        loss = D(img).sum() + path_length(G, G.ws(torch.randn(4, 8)))
    loss.backward()
    for name, p in G.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name


def test_half_precision_is_that_of_the_highest_resolutions():
    G, _ = build()
    seen = []
    for layer in G.synthesis.layers:
        layer.register_forward_hook(lambda module, args, y: seen.append(y.dtype))
    with autocast(torch.bfloat16):
        G(torch.randn(2, 8))
    rates = [band.rate for band in SMALL.bands]
    assert seen == [torch.bfloat16 if rate > 16 else torch.float32 for rate in rates]
    assert set(seen) == {torch.bfloat16, torch.float32}


def test_large_weights_and_styles_do_not_overflow_in_fp16():
    G, _ = build(half_resolutions=4, clamp=256)
    with torch.no_grad():
        for layer in G.synthesis.layers[:-1]:
            layer.weight.mul_(1e4)
            layer.affine.bias.fill_(1e4)
        with torch.autocast("cpu", torch.float16):
            assert G.eval()(torch.randn(2, 8)).isfinite().all()


def test_magnitudes_are_followed_in_training_alone():
    G, _ = build()
    layer = G.synthesis.layers[2]
    z = torch.randn(4, 8)
    seen = []
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].square().mean()))
    G.eval()(z)
    assert layer.magnitude == 1
    G.train()(z)
    share = 1 - 0.5 ** (4 / MAGNITUDE_HALF_LIFE)
    torch.testing.assert_close(layer.magnitude, 1 + share * (seen[1] - 1))


def test_magnitudes_scale_the_input():
    """Four times the mean square is the input halved: the bias does not take part."""
    G, _ = build()
    layer, w = G.eval().synthesis.layers[1], torch.randn(2, 8)
    size = SMALL.bands[0].size
    x = torch.randn(2, layer.weight.shape[1], size, size)
    want = layer(x / 2, w)
    layer.magnitude.fill_(4)
    torch.testing.assert_close(layer(x, w), want)


def test_a_saved_state_has_the_magnitudes_and_gives_the_same_images(tmp_path):
    G, D = build()
    for _ in range(3):
        G.train()(torch.randn(4, 8))
    state = {"G": G.state_dict(), "D": D.state_dict()}
    assert {"synthesis.input.freqs", "synthesis.input.phases", "synthesis.layers.6.magnitude"} <= state["G"].keys()
    assert all(layer.magnitude != 1 for layer in G.synthesis.layers)
    path = checkpoint.Keeper(tmp_path, keep=1).save(0, {"nets": state})
    torch.manual_seed(1)
    other, _ = models.build(SMALL)
    other.load_state_dict(checkpoint.load(path)["nets"]["G"])
    z = torch.randn(2, 8)
    assert torch.equal(other.eval()(z, truncation=0.5), G.eval()(z, truncation=0.5))


@pytest.mark.parametrize("training", [False, True])
def test_compiles_into_one_graph(training):
    G, _ = build(TINY)
    G.train(training)
    z = torch.randn(3, 8)
    compiled = torch.compile(G, fullgraph=True, backend="aot_eager")
    state = {name: value.clone() for name, value in G.state_dict().items()}
    want = G(z)
    G.load_state_dict(state)
    torch.testing.assert_close(compiled(z), want)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"variant": "x"}, "variant: want one of t, r, got 'x'"),
        ({"num_layers": 2, "num_critical": 2}, "num_layers: want more than num_critical = 2, got 2"),
        ({"num_critical": 0}, "num_critical: want at least 1, got 0"),
        ({"margin": -1}, "margin: want at least 0, got -1"),
        ({"channel_base": 16}, "channel_base: want at least resolution = 32, got 16"),
        ({"clamp": 0.0}, "clamp: want more than 0 or None, got 0.0"),
    ],
)
def test_wrong_sizes_are_refused(change, want):
    with pytest.raises(ValueError, match=want):
        dataclasses.replace(SMALL, **change)


def test_ws_that_do_not_fit_are_refused():
    G, _ = build()
    with pytest.raises(ValueError, match=r"want ws \[N, 8, 8\], got \[2, 7, 8\]"):
        G.synthesis(torch.zeros(2, 7, 8))
