"""Families that make images of images: shapes, range, gradients, sources, and the same values from every backend."""

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine import backends, models
from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.families import objective_of
from gan_engine.losses.objective import Batch
from gan_engine.losses.translation import Pool
from gan_engine.models import cyclegan, pix2pix, srgan
from gan_engine.models.patchgan import PatchDiscriminator
from gan_engine.models.pix2pix import edges, grey

SIZES = {
    "pix2pix": lambda **sizes: pix2pix.Config(width=4, max_width=8, d_width=4, **sizes),
    "cyclegan": lambda **sizes: cyclegan.Config(width=4, blocks=1, d_width=4, **sizes),
    "published pix2pix": lambda **sizes: pix2pix.Config(width=4, max_width=8, d_width=4, published=True, **sizes),
    "published cyclegan": lambda **sizes: cyclegan.Config(width=4, blocks=1, d_width=4, published=True, **sizes),
    "srgan": lambda **sizes: srgan.Config(width=4, blocks=1, d_width=2, **sizes),
    "rrdb": lambda **sizes: srgan.Config(variant="rrdb", width=4, blocks=1, growth=2, d_width=2, **sizes),
    "no base": lambda **sizes: srgan.Config(
        variant="rrdb", base="none", width=4, blocks=1, growth=2, d_width=2, **sizes
    ),
}


def build(config):
    torch.manual_seed(0)
    return models.build(config)


def make_batch(config, num=2, dtype=torch.float32, device="cpu"):
    shape = (num, config.channels, config.resolution, config.resolution)
    real_img, source = (torch.rand(shape, dtype=dtype, device=device) * 2 - 1 for _ in range(2))
    if isinstance(config, srgan.Config):
        source = srgan.shrink(real_img, config.scale)
    return Batch(real_img, torch.empty(num, 0), None, source)


def objective(G, D, loss="least_squares"):
    kind = objective_of(models.family(G.config), models.capabilities(G.config).objective)
    return kind(G, D, LOSSES[loss], lambda *_: None, rng=torch.Generator())


def test_every_family_is_tested():
    tested = {models.family(make()) for make in SIZES.values()}
    assert tested == set(models.names(lambda family: not family.from_noise))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [32, 64, 128])
@pytest.mark.parametrize("family", SIZES)
def test_shapes_range_and_gradients(family, resolution, channels):
    config = SIZES[family](resolution=resolution, channels=channels)
    G, D = build(config)
    batch = make_batch(config)
    img = G(batch.source)
    assert img.shape == batch.real_img.shape
    assert img.abs().max() <= 1 or isinstance(config, srgan.Config)
    both = objective(G, D)
    terms = both.discriminator(batch) | both.generator(batch)
    assert all(values.shape == (2,) for values in terms.values())
    sum(values.sum() for values in terms.values()).backward()
    for name, p in [*G.named_parameters(), *D.named_parameters()]:
        assert p.grad is not None and p.grad.isfinite().all(), name


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("family", SIZES)
def test_every_adversarial_loss_has_terms_of_one_number_for_each_image(family, loss):
    config = SIZES[family](resolution=32)
    both = objective(*build(config), loss)
    batch = make_batch(config)
    assert all(values.shape == (2,) for values in (both.discriminator(batch) | both.generator(batch)).values())


@pytest.mark.parametrize("family", SIZES)
def test_gradients_equal_the_reference(family, backend, device):
    config = SIZES[family](resolution=32)
    nets = [net.to(device).double() for net in build(config)]
    batch = make_batch(config, dtype=torch.float64, device=device)
    parameters = [p for net in nets for p in net.parameters()]
    with torch.no_grad():
        for p in parameters:
            if not p.any():  # what begins at zero would hide what stands before it
                p.normal_(0, 0.3)

    def grads():
        torch.manual_seed(1)  # dropout
        both = objective(*nets)
        return torch.autograd.grad(
            sum(v.sum() for v in (both.discriminator(batch) | both.generator(batch)).values()), parameters
        )

    with backends.use("reference"):
        want = grads()
    with backends.use(backend):
        got = grads()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # the objective widens logits to float32


def test_pix2pix_is_that_of_the_paper():
    """C64-C128-C256-C512 x5 down, and up beside the way down (arXiv:1611.07004, section 6.1.1)."""
    config = pix2pix.Config()
    assert config.widths == [64, 128, 256, 512, 512, 512, 512, 512]
    G, _ = build(config)
    assert [up.conv.in_channels for up in G.up] == [512, 1024, 1024, 1024, 1024, 512, 256]
    assert G.to_rgb.in_channels == 128 and [up.dropout.p for up in G.up] == [0.5] * 3 + [0] * 4
    assert [down.norm is None for down in G.down] == [True] + [False] * 6 + [True]


def test_cyclegan_has_the_blocks_of_the_paper():
    """arXiv:1703.10593, section 7.2: 6 blocks for 128x128, 9 for 256x256 and more"""
    for resolution, blocks in ((64, 6), (128, 6), (256, 9)):
        G, D = build(cyclegan.Config(resolution=resolution, width=2, d_width=2))
        assert sum(isinstance(layer, cyclegan.Residual) for layer in G.A2B.layers) == blocks
    assert D.A is not D.B


def test_a_patch_is_70_pixels_wide():
    D = PatchDiscriminator(1, 2).double()
    img = torch.rand(1, 1, 256, 256, dtype=torch.float64, requires_grad=True)
    logits = D(img)
    assert logits.shape == (1, 30 * 30)
    # Instance norms look at the whole image, a little; what is in the patch decides.
    for norm in D.norms:
        norm.forward = lambda x: x
    (gradient,) = torch.autograd.grad(D(img)[0, 15 * 30 + 15], img)
    touched = (gradient[0, 0] != 0).nonzero()
    assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [70, 70]


def test_sources_made_of_targets():
    assert grey(torch.tensor([1.0, 0.0, -1.0])[None, :, None, None]).item() == pytest.approx(0.299 - 0.114)
    img = -torch.ones(1, 3, 8, 8)
    assert edges(img).eq(1).all()
    img[..., 4:] = 1
    assert edges(img)[0, 0, 3].tolist() == [1, 1, 1, -1, -1, 1, 1, 1]
    assert torch.equal(edges(img.mT), edges(img).mT)
    for source in ("grey", "edges"):
        G, _ = build(pix2pix.Config(resolution=32, width=4, source=source))
        assert G.source_of(torch.zeros(2, 3, 32, 32)).shape == (2, 1, 32, 32) and G.config.data_kind == "image"


def test_srgan_is_that_of_the_paper():
    """Figure 4 of arXiv:1609.04802, and figures 3 and 4 of 1809.00219: 1.55 and 16.7 million parameters at x4."""
    G, D = build(srgan.Config())
    norms = [64] * 33
    kernels = [3 * 81 * 64, *[9 * 64 * 64] * 33, *[9 * 64 * 256] * 2, 64 * 81 * 3]
    slopes = 1 + 16 + 2
    assert sum(p.numel() for p in G.parameters()) == sum(kernels) + 2 * sum(norms) + slopes + 64 + 2 * 256 + 3
    assert [conv.out_channels for conv in D.convs] == [64, 128, 128, 256, 256, 512, 512]
    assert [conv.stride[0] for conv in D.convs] == [2, 1, 2, 1, 2, 1, 2]
    assert D.dense.in_features == 512 * 6 * 6 and D.dense.out_features == 1024
    G, _ = build(srgan.Config(variant="rrdb"))
    assert sum(p.numel() for p in G.parameters()) == pytest.approx(16.7e6, rel=0.003)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_source_is_the_target_as_a_file_made_smaller(scale):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((48 // scale, 32 // scale), Image.Resampling.BICUBIC)
    img = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    source = (srgan.shrink(img, scale) + 1) * 127.5
    torch.testing.assert_close(source, source.round(), rtol=0, atol=1e-4)
    difference = (source.round()[0].permute(1, 2, 0) - torch.from_numpy(np.array(image))).abs()
    assert difference.max() <= 1 and difference.mean() < 0.2  # Pillow rounds between its two passes


def test_G_of_srgan_takes_pictures_of_any_size():
    for variant in ("srresnet", "rrdb"):
        G, _ = build(SIZES["srgan"](variant=variant, scale=4))
        assert G(torch.zeros(1, 3, 7, 13)).shape == (1, 3, 28, 52)


def test_a_cycle_leads_back():
    """All is known if the generators change nothing: the cycle and identity terms are 0, whatever D says."""
    config = cyclegan.Config(resolution=32, width=2, d_width=2)
    G, D = build(config)
    both, batch = objective(G, D), make_batch(config)
    G.A2B = G.B2A = torch.nn.Identity()
    terms = both.generator(batch)
    assert terms.keys() == {"G/A", "G/B", "cycle/A2B", "cycle/B2A", "identity/A", "identity/B"}
    assert all(values.eq(0).all() for name, values in terms.items() if not name.startswith("G"))
    torch.testing.assert_close(terms["G/B"], (D(batch.source, "B") - 1).square().mean(1))


def test_a_pool_keeps_half_of_what_comes():
    pool, rng = Pool(10), torch.Generator().manual_seed(0)
    first = torch.arange(10.0)[:, None, None, None]
    assert torch.equal(pool.exchange(first, rng), first) and len(pool.images) == 10
    later = torch.arange(10.0, 1010.0)[:, None, None, None]
    out = pool.exchange(later, rng)
    old = (out != later).flatten()
    assert 430 < old.sum() < 570 and len(pool.images) == 10
    shown = out.flatten()[old].tolist()
    assert len(set(shown)) == len(shown)  # what has left does not come back
    assert torch.equal(Pool(0).exchange(later, rng), later)


def test_a_pool_on_a_gpu_keeps_half_of_what_comes():
    """The exchange that never asks the host, here on the CPU."""
    torch.manual_seed(0)
    pool = Pool(10)
    batches = torch.arange(1.0, 1009.0)[:, None, None, None].split(4)
    out = torch.cat([pool._exchange_on_gpu(batch) for batch in batches])
    came = torch.cat(batches)
    assert torch.equal(out[:10], came[:10]) and pool.filled == 10
    old = (out != came).flatten()
    assert 430 < old.sum() < 570
    shown = out.flatten()[old].tolist()
    assert len(set(shown)) == len(shown) and 0 not in shown  # what has left does not come back
    kept = pool.kept()
    assert len({float(img) for img in kept}) == len(kept) == 10
    assert not {float(img) for img in kept} & set(shown)
    resumed = Pool(10)
    resumed.images = kept
    state = torch.get_rng_state()
    expected = pool._exchange_on_gpu(batches[0])
    torch.set_rng_state(state)
    assert torch.equal(resumed._exchange_on_gpu(batches[0]), expected)
    assert all(map(torch.equal, resumed.tensors(), pool.tensors()))


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (lambda: pix2pix.Config(resolution=48), "resolution: want a power of two from 32 to 1024, got 48"),
        (lambda: pix2pix.Config(resolution=16), "resolution: want a power of two from 32 to 1024, got 16"),
        (lambda: pix2pix.Config(source="sketch"), "source: want one of pairs, grey, edges, got 'sketch'"),
        (lambda: pix2pix.Config(source="grey", channels=1), "channels: want 3 to colour grey images, got 1"),
        (lambda: pix2pix.Config(dropout=1), "dropout: want 0 to below 1, got 1"),
        (lambda: pix2pix.Config(l1_weight=-1), "l1_weight: want at least 0, got -1"),
        (lambda: cyclegan.Config(resolution=34), "resolution: want a multiple of 4, at least 32, got 34"),
        (lambda: cyclegan.Config(blocks=0), "blocks: want at least 1 or None, got 0"),
        (lambda: srgan.Config(resolution=40), "resolution: want a multiple of 16, at least 32, got 40"),
        (lambda: srgan.Config(scale=3), "scale: want 2 or 4, got 3"),
        (lambda: srgan.Config(variant="edsr"), "variant: want one of srresnet, rrdb, got 'edsr'"),
        (lambda: srgan.Config(blocks=0), "blocks: want at least 1 or None, got 0"),
        (lambda: srgan.Config(perceptual_weight=-1), "perceptual_weight: want at least 0, got -1"),
        (lambda: cyclegan.Config(pool_size=-1), "pool_size: want at least 0, got -1"),
    ],
)
def test_wrong_sizes_are_refused(make, want):
    with pytest.raises(ValueError, match=want):
        make()


@pytest.mark.parametrize("family", SIZES)
def test_a_config_survives_plain_types(family):
    config = SIZES[family](resolution=32)
    assert models.from_dict(models.to_dict(config)) == config
