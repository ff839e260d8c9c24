"""StyleGAN2: the sizes of the paper, and gradients of two orders in every precision and layout."""

import dataclasses

import pytest
import torch

from gan_engine import backends
from gan_engine.models.stylegan2 import Config
from gan_engine.presets import PRESETS
from tests.models.stylegan2_networks import SKIP_AND_RESIDUAL, SMALL, autocast, build, of, path_length, r1

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
PRECISIONS = pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])


def outputs(nets, layer):
    """{(net, size): y} of one layer of every block, filled as the networks run."""
    seen = {}
    for net, blocks in nets.items():
        for block in [block for block in blocks if getattr(block, layer) is not None]:

            def keep(module, inputs, y, net=net):
                seen[net, y.shape[2]] = y

            getattr(block, layer).register_forward_hook(keep)
    return seen


# Sizes


def paper_sizes(base, resolution):
    """Parameters of G and D, counted from arXiv:1912.04958, figures 2 and 7, and arXiv:1812.04948, figure 1.

    Feature maps: at most 512, 512 up to 64x64 in config F and to 32x32 in config E, then halved with each doubling.
    G: 8 mapping layers of 512 -> 512, a constant of 4x4, and for every convolution its weight, a bias for each feature
    map, an affine layer from w, and the strength of its noise; colours are a convolution of 1x1 without noise.
    D: colours to features, and at every resolution down to 8x8 two convolutions with biases and one of 1x1 without;
    at 4x4 a convolution that also sees the standard deviation, and two fully connected layers.
    """
    sizes = [1 << i for i in range(2, resolution.bit_length())]
    maps = {size: min(base // size, 512) for size in sizes}

    def modulated(i, o, kernel, noise):
        return kernel * i * o + o + (512 * i + i) + noise

    g = 8 * (512 * 512 + 512) + 16 * maps[4]
    for size in sizes:
        if size > 4:
            g += modulated(maps[size // 2], maps[size], 9, 1)
        g += modulated(maps[size], maps[size], 9, 1) + modulated(maps[size], 3, 1, 0)
    d = 3 * maps[resolution] + maps[resolution]
    for size in sizes[1:]:
        i, o = maps[size], maps[size // 2]
        d += (9 * i * i + i) + (9 * i * o + o) + i * o
    c = maps[4]
    return g, d + (9 * (c + 1) * c + c) + (16 * c * c + c) + (c + 1)


@pytest.mark.parametrize(
    ("base", "resolution", "g", "d"),
    [
        (16384, 256, 24_767_458, 24_001_089),  # config E
        (16384, 1024, 24_900_764, 24_038_161),
        (32768, 256, 30_034_338, 28_864_129),  # config F
        (32768, 1024, 30_370_060, 29_012_513),
    ],
)
def test_parameters_are_those_of_the_paper(base, resolution, g, d):
    """Published to compare with: 24.767M and 24.001M at 256x256 (StyleGAN2 as the baseline of Huang et al. 2024,
    arXiv:2501.05441), and the 30.37M and 29.01M for which config F at 1024x1024 is known. The two between follow from
    the same count."""
    G, D = build(Config(resolution=resolution, channel_base=base))
    assert sum(p.numel() for p in G.parameters()) == g
    assert sum(p.numel() for p in D.parameters()) == d
    assert (g, d) == paper_sizes(base, resolution)
    assert sum(p.numel() for p in G.mapping.parameters()) == 8 * (512 * 512 + 512) == 2_101_248


def test_presets_are_the_configs_of_the_paper():
    F_1024, E_256 = PRESETS["stylegan2_1024"]().model, PRESETS["stylegan2_256"]().model
    assert (F_1024.resolution, F_1024.channel_base, F_1024.mapping_layers, F_1024.num_ws) == (1024, 32768, 8, 18)
    assert (E_256.resolution, E_256.channel_base, E_256.mapping_layers) == (256, 16384, 8)
    assert [F_1024.width(1 << i) for i in range(2, 11)] == [512] * 5 + [256, 128, 64, 32]
    for resolution in (32, 64, 128, 256, 512, 1024):
        assert PRESETS[f"stylegan2_{resolution}"]().model.resolution == resolution
    light = PRESETS["stylegan2"]()
    assert (light.model.resolution, light.model.channel_base, light.loss) == (64, 4096, "nonsaturating")


@SKIP_AND_RESIDUAL
@pytest.mark.parametrize("resolution", [8, 32, 64, 128])
def test_shapes(resolution, architecture):
    G, D = of(architecture, resolution=resolution)
    ws = G.ws(torch.randn(3, 8))
    assert ws.shape == (3, 2 * (resolution.bit_length() - 2), 8)
    img = G.synthesis(ws)
    assert img.shape == (3, 3, resolution, resolution) and img.dtype == torch.float32
    assert D(img).shape == (3,)
    assert 0.1 < img.std() < 3  # equalised weights and demodulation keep the variance


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"resolution": 48}, "resolution: want a power of two from 8 to 1024, got 48"),
        ({"resolution": 4}, "resolution: want a power of two from 8 to 1024, got 4"),
        ({"channels": 65}, "channels: want 1 to 64, got 65"),
        ({"mapping_layers": 0}, "mapping_layers: want at least 1, got 0"),
        ({"channel_base": 16}, "channel_base: want at least resolution = 32, got 16"),
        ({"architecture": "plain"}, "architecture: want skip or residual, got 'plain'"),
        ({"d_architecture": "plain"}, "d_architecture: want skip or residual, got 'plain'"),
        ({"style_mixing": 1.5}, "style_mixing: want 0 to 1, got 1.5"),
        ({"mapping_lr": 0}, "mapping_lr: want more than 0, got 0"),
        ({"half_resolutions": -1}, "half_resolutions: want at least 0, got -1"),
        ({"clamp": 0}, "clamp: want more than 0 or None, got 0"),
    ],
)
def test_wrong_sizes_are_refused(change, want):
    with pytest.raises(ValueError, match=want):
        dataclasses.replace(SMALL, **change)


def test_ws_that_do_not_fit_are_refused():
    G, _ = build()
    with pytest.raises(ValueError, match=r"want ws \[N, 8, 8\], got \[2, 8\]"):
        G.synthesis(torch.randn(2, 8))
    with pytest.raises(ValueError, match="noise: want random, const or none, got 'pink'"):
        G.synthesis(torch.randn(2, 8, 8), noise="pink")


# Gradients


@PRECISIONS
@SKIP_AND_RESIDUAL
def test_gradients_of_two_orders_are_finite(architecture, dtype):
    G, D = of(architecture)
    with autocast(dtype):
        loss = r1(D, torch.randn(4, 3, 32, 32))
    loss.backward()
    for name, p in D.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, name
    with autocast(dtype):
        loss = path_length(G, G.ws(torch.randn(4, 8)))
    loss.backward()
    for name, p in G.named_parameters():
        # What is only added to the colours changes no slope; all else is reached through the second order.
        assert p.grad is None or p.grad.isfinite().all(), name
        assert "to_rgb.bias" in name or (p.grad is not None and p.grad.abs().max() > 0), name


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@SKIP_AND_RESIDUAL
def test_second_order_equals_the_reference(architecture, device):
    """R1 and path length through whole networks, on the backends that run by themselves and in plain PyTorch."""
    G, D = (net.double().to(device) for net in of(architecture, style_mixing=0.0))
    z = torch.randn(4, 8, dtype=torch.float64, device=device)
    img = torch.randn(4, 3, 32, 32, dtype=torch.float64, device=device)
    for p in [p for name, p in G.named_parameters() if "noise_strength" in name]:
        p.data.fill_(0.1)
    G.eval()

    def grads():
        of_d = torch.autograd.grad(r1(D, img), list(D.parameters()))
        of_g = torch.autograd.grad(path_length(G, G.ws(z)), list(G.parameters()), allow_unused=True)
        return [*of_d, *(g for g in of_g if g is not None)]

    with backends.use("reference"):
        want = grads()
    for a, b in zip(grads(), want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
def test_styles_of_zero_give_no_nan(dtype):
    G, _ = build()
    with torch.no_grad():
        for name, p in G.named_parameters():
            if "affine" in name:
                p.zero_()
    ws = torch.zeros(2, 8, 8, requires_grad=True)
    with autocast(dtype):
        loss = path_length(G, ws) + G.synthesis(ws).square().mean()
    loss.backward()
    assert loss.isfinite()
    for name, p in [("ws", ws), *G.named_parameters()]:
        assert p.grad is None or p.grad.isfinite().all(), name


def test_large_styles_do_not_overflow_in_fp16():
    G, D = build()
    with torch.no_grad():
        for name, p in G.named_parameters():
            if "conv" in name and "affine.bias" in name:
                p.fill_(1e5)
    with autocast(torch.float16):
        img = G(torch.randn(2, 8))
        loss = D(img * 1e3).sum()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in [*G.parameters(), *D.parameters()])


# Precision and layout


def test_half_precision_is_that_of_the_highest_resolutions():
    G, D = build(half_resolutions=2, d_architecture="skip")
    seen = outputs({"G": G.synthesis.blocks, "D": D.blocks}, "conv1")
    with autocast(torch.bfloat16):
        img = G(torch.randn(2, 8))
        logits = D(img)
    half, single = torch.bfloat16, torch.float32
    assert [seen["G", size].dtype for size in (4, 8, 16, 32)] == [single, single, half, half]
    assert [seen["D", size].dtype for size in (16, 8, 4)] == [half, half, single]  # what 32, 16 and 8 give
    assert img.dtype == logits.dtype == single


def test_no_half_resolutions_are_single_precision_under_autocast():
    G, D = (net.eval() for net in build(half_resolutions=0))
    z = torch.randn(2, 8)
    want = D(G(z))
    with autocast(torch.bfloat16):
        assert torch.equal(D(G(z)), want)
    G, D = (net.eval() for net in build(half_resolutions=9))
    want = G(z)
    with autocast(torch.bfloat16):
        got = G(z)
    assert not torch.equal(got, want)
    torch.testing.assert_close(got, want, rtol=0.1, atol=0.05)


def test_clamp_limits_the_half_resolutions():
    G, D = build(half_resolutions=2, clamp=0.01)
    seen = outputs({"G": G.synthesis.blocks, "D": D.blocks}, "conv0")
    D(G(torch.randn(2, 8)))
    assert len(seen) == 6
    assert all((y.abs().max() <= 0.01) == (size > 8) for (_, size), y in seen.items())


@SKIP_AND_RESIDUAL
def test_networks_keep_their_memory_format(architecture):
    G, D = (net.eval() for net in of(architecture))
    z = torch.randn(2, 8)
    want = D(G(z))
    G, D = (net.to(memory_format=torch.channels_last) for net in (G, D))
    seen = outputs({"G": G.synthesis.blocks, "D": D.blocks}, "conv1")
    torch.testing.assert_close(D(G(z)), want)
    assert len(seen) == 7 and all(y.is_contiguous(memory_format=torch.channels_last) for y in seen.values())


def test_other_dtypes_of_the_weights():
    for dtype in (torch.float64, torch.bfloat16):
        G, D = (net.to(dtype) for net in build())
        img = G(torch.randn(2, 8))
        assert img.dtype == dtype and D(img).dtype == dtype and D(img).isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_compiles_into_one_graph(training):
    G, D = (net.train(training) for net in build(style_mixing=0.0))
    z = torch.randn(2, 8)
    torch._dynamo.reset()
    compiled = torch.compile(lambda z: D(G(z, noise="const")), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(z), D(G(z, noise="const")))
