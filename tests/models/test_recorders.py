"""torch.jit.trace and torch.export record networks in operators of PyTorch, for batches of any size.

What takes seconds is done once: tests/test_export.py has torch.export for every generator, and goes on to ONNX with it.
"""

import pytest
import torch

from gan_engine import backends, models
from tests.models.networks import RUNS, build

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")


def assert_same(recorded, net, args):
    with torch.no_grad():
        torch.testing.assert_close(recorded(*args), net(*args), rtol=1e-3, atol=1e-4)


def repeated(args, times):
    return tuple(torch.cat([t.flip(0) for _ in range(times)]) for t in args)


@pytest.mark.parametrize("name", RUNS)
def test_a_traced_generator_makes_the_same_images(name, tmp_path):
    G, args = build(name)
    torch.jit.trace(G, args).save(tmp_path / "G.pt")
    traced = torch.jit.load(tmp_path / "G.pt")
    foreign = {
        node.kind() for node in traced.inlined_graph.nodes() if node.kind().split("::")[0] not in ("aten", "prim")
    }
    assert not foreign
    for batch in (args, repeated(args, 3)):
        assert_same(traced, G, batch)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("family", [models.dcgan, models.upsample_gan, models.sngan])
def test_wide_networks_are_recorded_too(family, channels_last):
    """Convolutions of 32 channels and more have kernels of their own, which depend on the size of a batch."""
    torch.manual_seed(0)
    G = family.Generator(family.Config(resolution=32, width=64)).eval()
    if channels_last:
        G = G.to(memory_format=torch.channels_last)
    args = (torch.randn(2, G.config.z_dim),)
    exported = torch.export.export(G, args, dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (args, repeated(args, 4)):
        assert_same(torch.jit.trace(G, args), G, batch)
        assert_same(exported.module(), G, batch)


@pytest.mark.parametrize("name", ["dcgan", "stylegan2", "r3gan", "sngan"])
def test_a_discriminator_is_recorded_too(name):
    config = RUNS[name].model
    torch.manual_seed(0)
    D = models.build(config)[1].eval()
    c = (torch.eye(config.c_dim)[[0, 1, 2, 3]],) if config.c_dim else ()
    args = (torch.randn(4, config.channels, config.resolution, config.resolution), *c)
    assert_same(torch.jit.trace(D, args), D, args)
    assert_same(torch.export.export(D, args).module(), D, args)


def test_a_backend_that_is_asked_for_by_name_refuses_to_be_recorded():
    G, args = build("stylegan2")
    if backends.MISSING["cpu"] is not None:
        pytest.skip(backends.MISSING["cpu"])
    with backends.use("cpu"):
        with pytest.raises(
            RuntimeError, match=r"'cpu' was asked for and cannot run: torch\.jit\.trace and torch\.export"
        ):
            torch.jit.trace(G, args)
        assert G(*args).isfinite().all()
