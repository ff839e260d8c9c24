"""Every family: shapes, range, classes, gradients everywhere, and the same values from every backend."""

import copy
import dataclasses

import pytest
import torch

from gan_engine import backends, models
from gan_engine.models import cgan, dcgan, gan3d, lapgan, r3gan, sngan, stylegan2, stylegan3, upsample_gan, vanilla

SIZES = {
    "vanilla": lambda **sizes: vanilla.Config(z_dim=8, hidden=(12, 16), **sizes),
    "dcgan": lambda **sizes: dcgan.Config(z_dim=8, width=4, max_width=16, embed_dim=3, **sizes),
    "upsample_gan": lambda channels=1, **sizes: upsample_gan.Config(
        z_dim=8, width=4, d_width=2, embed_dim=3, channels=channels, **sizes
    ),
    "stylegan2": lambda channels=1, **sizes: stylegan2.Config(
        z_dim=8, w_dim=6, mapping_layers=2, channel_base=512, channel_max=8, channels=channels, **sizes
    ),
    "stylegan3": lambda channels=1, **sizes: stylegan3.Config(
        z_dim=8, w_dim=6, channel_base=512, channel_max=8, num_layers=6, channels=channels, **sizes
    ),
    "r3gan": lambda **sizes: r3gan.Config(z_dim=8, width=4, max_width=8, blocks=1, group=2, embed_dim=3, **sizes),
    "cgan": lambda **sizes: cgan.Config(z_dim=8, width=4, max_width=8, embed_dim=3, **sizes),
    "sngan": lambda **sizes: sngan.Config(z_dim=8, width=4, d_width=4, max_width=8, attention=8, **sizes),
    "lapgan": lambda **sizes: lapgan.Config(base_z_dim=8, hidden=6, width=3, **sizes),
    "gan3d": lambda **sizes: gan3d.Config(z_dim=8, width=2, embed_dim=3, **sizes),
}
OF_IMAGES = [family for family in SIZES if family != "gan3d"]  # what it makes is in test_gan3d.py
SQUARE = {"stylegan3", "lapgan"}  # families of images that make no rectangles
# Ops without which a family does not run: not every backend has all of them.
NEEDS = {
    "stylegan2": ("modulated_conv2d", "pixel_norm", "upfirdn2d"),
    "stylegan3": ("filtered_lrelu", "modulated_conv2d", "pixel_norm", "upfirdn2d"),
    "r3gan": ("upfirdn2d",),
    "lapgan": ("upfirdn2d",),
}
UNBOUNDED = {"stylegan2", "stylegan3", "r3gan", "lapgan"}  # families whose images are close to [-1, 1] and no more


def build(config):
    torch.manual_seed(0)
    return models.build(config)


def test_every_family_is_tested():
    translation = models.names(lambda family: not family.from_noise)
    elsewhere = {"points", *translation}  # test_points.py, test_translation.py
    assert SIZES.keys() | elsewhere == models.FAMILIES.keys()


@pytest.mark.parametrize("c_dim", [0, 10])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("family", OF_IMAGES)
def test_shapes_range_and_gradients(family, resolution, channels, c_dim):
    G, D = build(SIZES[family](resolution=resolution, channels=channels, c_dim=c_dim))
    c = torch.eye(10)[:2] if c_dim else None
    img = G(torch.randn(2, G.config.z_dim), c)
    assert img.shape == (2, channels, resolution, resolution)
    assert img.abs().max() <= 1 or family in UNBOUNDED
    logits = D(img, c)
    assert logits.shape == (2,)
    logits.sum().backward()
    for name, p in [*G.named_parameters(), *D.named_parameters()]:
        assert p.grad is not None and p.grad.isfinite().all(), name


@pytest.mark.parametrize("family", SIZES)
def test_classes_matter(family):
    G, D = build(SIZES[family](resolution=16, c_dim=10))
    G, D = G.eval(), D.eval()
    with torch.no_grad():
        for p in [*G.parameters(), *D.parameters()]:
            p.normal_(0, 0.3)
        z, one, two = torch.randn(1, G.config.z_dim), torch.eye(10)[:1], torch.eye(10)[1:2]
        img = G(z, one)
        assert not torch.equal(img, G(z, two))
        assert not torch.equal(D(img, one), D(img, two))


@pytest.mark.parametrize("family", SIZES)
def test_wrong_classes_are_refused(family):
    with_classes, without = build(SIZES[family](resolution=16, c_dim=10)), build(SIZES[family](resolution=16))
    z, img = torch.randn(2, without[0].config.z_dim), torch.randn(2, 1, 16, 16)
    for net, x in zip(with_classes, (z, img), strict=True):
        with pytest.raises(ValueError, match=r"want c \[N, 10\], got none"):
            net(x)
        with pytest.raises(ValueError, match=r"want c \[N, 10\], got c \[2, 4\]"):
            net(x, torch.eye(4)[:2])
    for net, x in zip(without, (z, img), strict=True):
        with pytest.raises(ValueError, match=r"want no c .*, got c \[2, 10\]"):
            net(x, torch.eye(10)[:2])


SIDES = [*((family, 16) for family in SIZES), *((family, (24, 32)) for family in OF_IMAGES if family not in SQUARE)]


@pytest.mark.parametrize(("family", "resolution"), SIDES)
def test_gradients_equal_the_reference(family, resolution, backend, device):
    """One pass through both networks, every parameter's gradient, under a backend and under plain PyTorch."""
    for op in NEEDS.get(family, ()):
        if reason := backends.refusal(op, backend, torch.empty(1, device=device)):
            pytest.skip(reason)
    nets = [net.to(device).double() for net in build(SIZES[family](resolution=resolution))]
    with torch.no_grad():
        for p in [p for net in nets for p in net.parameters()]:
            if not p.any():  # what begins at zero would hide what stands before it
                p.normal_(0, 0.3)
    z = torch.randn(4, nets[0].config.z_dim, dtype=torch.float64, device=device)

    def grads():
        torch.manual_seed(1)  # dropout, mixing of styles
        G, D = copy.deepcopy(nets)  # a pass moves the estimates of singular values
        return torch.autograd.grad(D(G(z)).square().sum(), [*G.parameters(), *D.parameters()])

    with backends.use("reference"):
        want = grads()
    with backends.use(backend):
        got = grads()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_dcgan_is_that_of_the_paper():
    """64x64 and 128 feature maps at 32x32 in the generator: 1024 at 4x4 (figure 1 of arXiv:1511.06434)."""
    config = dcgan.Config(resolution=64, channels=3, width=128, max_width=1024)
    assert config.widths == [1024, 512, 256, 128]
    G, D = build(config)
    kernels = [100 * 1024, 1024 * 512, 512 * 256, 256 * 128, 128 * 3]
    norms = [1024, 512, 256, 128]
    assert sum(p.numel() for p in G.parameters()) == 16 * sum(kernels) + 2 * sum(norms) + 3
    assert [type(m).__name__ for m in D.modules()].count("BatchNorm2d") == 3
    assert G.blocks[1].layer.weight.std().item() == pytest.approx(0.02, rel=0.01)


def test_upsample_gan_is_that_of_the_tutorials():
    """z 100 -> 128x8x8 -> 128x16x16 -> 64x32x32 -> 3x32x32"""
    G, D = build(upsample_gan.Config())
    kernels = [128 * 128, 128 * 64, 64 * 3]
    assert sum(p.numel() for p in G.parameters()) == 101 * 8192 + 9 * sum(kernels) + 2 * (128 + 64) + 3
    assert D.logit.in_features == 256 * 4 * 4


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (lambda: dcgan.Config(resolution=48), "want a power of two from 16 to 256, got 48; 32 or 64 is near"),
        (lambda: dcgan.Config(resolution=512), "want a power of two from 16 to 256, got 512; 256 is near"),
        (lambda: dcgan.Config(resolution=-3), "want a power of two from 16 to 256, got -3; 16 is near"),
        (lambda: dcgan.Config(resolution=200), "want a power of two from 16 to 256, got 200; 128 or 256 is near"),
        (lambda: dcgan.Config(channels=65), "channels: want 1 to 64, got 65"),
        (lambda: dcgan.Config(width=0), "width: want at least 1, got 0"),
        (lambda: upsample_gan.Config(resolution=20), "resolution: want a multiple of 8 from 16 to 256, got 20"),
        (lambda: upsample_gan.Config(dropout=1), "dropout: want 0 to below 1, got 1"),
        (lambda: r3gan.Config(width=24, group=32), "group: want a divisor of expansion . width = 48, got 32"),
        (lambda: cgan.Config(method="sum"), "method: want one of concat, projection, none, got 'sum'"),
        (
            lambda: cgan.Config(method="concat", class_weight=1),
            "class_weight: want method projection or none, got concat",
        ),
        (lambda: cgan.Config(method="none"), "method: want class_weight > 0 beside none, got 0"),
        (lambda: sngan.Config(attention=32), r"attention: want 0 or a resolution that both .* \(8, 16\), got 32"),
        (lambda: lapgan.Config(resolution=40), "resolution: want a multiple of 16 for 3 levels, got 40"),
        (lambda: lapgan.Config(level=4), "level: want one of 8, 16, 32 or None, got 4"),
        (lambda: vanilla.Config(channels=0), "channels: want 1 to 64, got 0"),
        (lambda: vanilla.Config(hidden=()), "hidden: want at least one width"),
        (
            lambda: models.from_dict({"family": "biggan"}),
            f"model family: want one of {', '.join(models.FAMILIES)}, got 'biggan'",
        ),
    ],
)
def test_wrong_sizes_are_refused(make, want):
    with pytest.raises(ValueError, match=want):
        make()


@pytest.mark.parametrize("family", SIZES)
def test_a_config_survives_plain_types(family):
    config = SIZES[family](resolution=16, c_dim=10)
    assert models.family(config) == family
    assert models.from_dict(models.to_dict(config)) == config


def test_the_weights_of_a_dcgan_d_with_spectral_norms_have_norm_1():
    config = models.dcgan.Config(resolution=32, channels=3, width=8, d_norm=False, d_spectral_norm=True)
    D = models.dcgan.Discriminator(config)
    D(torch.randn(4, 3, 32, 32))
    weights = [layer.weight for layer in D.modules() if hasattr(layer, "parametrizations")]
    assert len(weights) == 4
    for weight in weights:
        assert float(torch.linalg.matrix_norm(weight.flatten(1), 2)) == pytest.approx(1, abs=0.05)
    plain = models.dcgan.Discriminator(dataclasses.replace(config, d_spectral_norm=False))
    assert float(torch.linalg.matrix_norm(plain.blocks[1].layer.weight.flatten(1), 2)) < 0.9
