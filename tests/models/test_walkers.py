"""Code that walks the modules of a network by their types finds layers of PyTorch that keep PyTorch's contract.

It converts, replaces, fuses, prunes and quantises layers; the images must stay what they are.
"""

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.nn.utils import fusion, parametrizations, prune
from torch.optim.swa_utils import update_bn

from gan_engine import backends, layers, models
from tests.models.networks import RUNS, build
from tests.training.runs import CGAN, DCGAN, GAN3D

NORMED = ("dcgan", "dcgan with classes", "upsample_gan", "cgan", "sngan", "gan3d", "srgan")
BatchNorm = nn.modules.batchnorm._BatchNorm


def assert_same_images(changed, G, args):
    with torch.no_grad():
        torch.testing.assert_close(changed(*args), G(*args), rtol=1e-3, atol=1e-4)


def replaced(G, kind, make):
    """A copy of G with make(layer) in the place of every layer of the kind."""
    G = copy.deepcopy(G)
    for module in list(G.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kind):
                setattr(module, name, make(child))
    return G


def weighted(G):
    return [m for m in G.modules() if isinstance(m._parameters.get("weight"), nn.Parameter) and m.weight.ndim > 1]


class Adapted(nn.Module):
    """A layer as an adapter of low rank wraps it: called with x alone, by a delta of its own output's shape."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def plain(layer):
    """The layer of torch.nn itself that has the settings of `layer`."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        made = nn.Linear(layer.in_features, layer.out_features, bias)
    else:
        options = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": layer.groups}
        options |= {"bias": bias, "padding_mode": layer.padding_mode}
        if isinstance(layer, nn.ConvTranspose2d):
            options["output_padding"] = layer.output_padding
        kind = nn.ConvTranspose2d if isinstance(layer, nn.ConvTranspose2d) else nn.Conv2d
        made = kind(layer.in_channels, layer.out_channels, layer.kernel_size, **options)
    with torch.no_grad():
        made.weight.copy_(layer.weight)
        if bias:
            made.bias.copy_(layer.bias)
    return made


@pytest.mark.parametrize("name", RUNS)
def test_layers_may_be_replaced_by_those_of_pytorch(name):
    G, args = build(name)
    assert_same_images(replaced(G, nn.Linear | nn.Conv2d | nn.ConvTranspose2d, plain), G, args)
    every = nn.Linear | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d | BatchNorm
    assert_same_images(replaced(G, every, Adapted), G, args)


@pytest.mark.parametrize("name", NORMED)
def test_norms_may_be_converted_to_synchronised_ones(name):
    G, args = build(name)
    norms = [m for m in G.modules() if isinstance(m, BatchNorm)]
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(G)).eval()
    assert [type(m) for m in converted.modules()].count(nn.SyncBatchNorm) == len(norms) > 0
    assert_same_images(converted, G, args)


@pytest.mark.parametrize("name", ["dcgan", "upsample_gan", "gan3d"])
def test_norms_of_discriminators_may_be_converted_too(name):
    config = RUNS[name].model
    torch.manual_seed(0)
    D = models.build(config)[1].eval()
    c = (torch.eye(config.c_dim)[[0, 1]],) if config.c_dim else ()
    img = torch.randn(2, config.channels, *[config.resolution] * (3 if name == "gan3d" else 2))
    assert_same_images(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(D)).eval(), D, (img, *c))


@pytest.mark.parametrize("name", NORMED)
def test_statistics_may_be_taken_anew(name):
    """torch.optim.swa_utils.update_bn takes the plain mean over batches, by momentum None."""
    G, args = build(name)
    ours, theirs = copy.deepcopy(G), copy.deepcopy(G)
    batches = [tuple(t.roll(i, 0) * (1 + i) for t in args) for i in range(3)]
    for net, backend in ((ours, None), (theirs, "reference")):
        whole = nn.Module()
        whole.net = net
        whole.forward = lambda batch, net=net: net(*batch)
        with backends.use(backend) if backend else torch.enable_grad():
            update_bn(((list(batch),) for batch in batches), whole)
    changed = [not torch.equal(a, b) for a, b in zip(ours.buffers(), G.buffers(), strict=True)]
    assert any(changed)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["dcgan", "upsample_gan"])
def test_norms_may_be_fused_into_the_convolutions_before_them(kind):
    G, args = build(kind)
    fused = copy.deepcopy(G)
    if kind == "dcgan":
        for block in fused.blocks[:-1]:
            block.layer = fusion.fuse_conv_bn_eval(block.layer, block.norm, transpose=True)
            block.norm = nn.Identity()
    else:
        for i, (conv, norm) in enumerate(zip(fused.convs, fused.norms, strict=True)):
            fused.convs[i], fused.norms[i] = fusion.fuse_conv_bn_eval(conv, norm), nn.Identity()
    assert_same_images(fused, G, args)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["dcgan with classes", "cgan", "r3gan", "lapgan", "gan3d"])
def test_linear_layers_may_be_quantised(name):
    G, args = build(name)
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(G), {nn.Linear})
    with torch.no_grad():
        img, want = quantised(*args), G(*args)
    assert (img - want).abs().max() < 0.1 * want.abs().max()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(
    "change",
    [nn.utils.weight_norm, parametrizations.weight_norm, lambda layer: prune.identity(layer, "weight")],
    ids=["weight norm by hooks", "weight norm", "pruning"],
)
def test_weights_may_be_computed(name, change):
    G, args = build(name)
    changed = copy.deepcopy(G)
    found = weighted(changed)
    for layer in found:
        change(layer)
    assert found or name == "sagan"  # whose weights are computed already
    assert_same_images(changed, G, args)


@pytest.mark.parametrize("spectral_norm", [nn.utils.spectral_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Conv2d(4, 6, 3),
        lambda: layers.ConvTranspose2d(4, 6, 3),
        lambda: layers.UpsampleConv2d(4, 6, 3),
        lambda: layers.DownsampleConv2d(4, 6, 3),
    ],
)
def test_every_layer_takes_a_spectral_norm(make, spectral_norm):
    torch.manual_seed(0)
    layer = spectral_norm(make())
    x = torch.randn(2, 4, 6, 6)
    for _ in range(100):  # a power iteration each
        layer(x)
    weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
    largest = torch.linalg.matrix_norm(weight.detach().flatten(1), 2)
    torch.testing.assert_close(largest, torch.ones(()), rtol=1e-3, atol=0)


def test_hooks_see_what_a_norm_makes_and_not_the_activation():
    G, args = build("dcgan")
    seen = []
    for block in G.blocks[:-1]:
        nn.init.constant_(block.norm.bias, -1)
        block.norm.register_forward_hook(lambda module, inputs, output: seen.append(float(output.min())))
    before = copy.deepcopy(G)
    for block in before.blocks[:-1]:
        block.norm._forward_hooks.clear()
    assert_same_images(G, before, args)
    assert len(seen) == len(G.blocks) - 1 and max(seen) < 0


def test_only_layers_that_keep_the_contract_derive_from_layers_of_pytorch():
    """Two do: their calls take the same arguments and have the same results."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.Embedding)
    found = set()
    for module in (layers, *models.FAMILIES.values(), models.patchgan):
        for value in vars(module).values():
            if inspect.isclass(value) and value.__module__.startswith("gan_engine") and issubclass(value, kinds):
                found.add(value)
    assert found == {layers.Conv2d, layers.ConvTranspose2d}
    for ours in found:
        theirs = ours.__mro__[1]
        assert inspect.signature(ours).parameters.keys() == inspect.signature(theirs).parameters.keys()
        assert list(inspect.signature(ours.forward).parameters) == list(inspect.signature(theirs.forward).parameters)


NAMES = {
    "dcgan": (DCGAN, ["blocks.0.layer.weight", *(f"blocks.0.norm.{name}" for name in ("weight", "bias"))]),
    "gan3d": (GAN3D, ["embed.weight", "layers.0.weight", "layers.1.weight", "layers.1.bias"]),
    "cgan": (CGAN, ["embed.weight", "linear.weight", "norms.0.weight", "norms.0.bias"]),
}


@pytest.mark.parametrize(("config", "first"), NAMES.values(), ids=NAMES)
def test_parameters_have_the_names_that_checkpoints_know(config, first):
    G, _ = models.build(config.model)
    names = [name for name, _ in G.named_parameters() if name != "bias"]
    assert names[: len(first)] == first
    norm = first[-1].removesuffix("bias")
    assert {f"{norm}running_mean", f"{norm}running_var", f"{norm}num_batches_tracked"} <= G.state_dict().keys()
