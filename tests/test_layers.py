"""The modules: what equalised learning rate promises, and that each is its formula."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import prune

from gan_engine import backends, layers
from gan_engine.activated import biased, normed
from gan_engine.system import native


def test_equalized_layers_keep_the_variance():
    torch.manual_seed(0)
    x = torch.randn(64, 256)
    for lr_multiplier in (1, 0.01):
        layer = layers.EqualizedLinear(256, 512, act="lrelu", lr_multiplier=lr_multiplier)
        assert layer.weight.std().item() == pytest.approx(1 / lr_multiplier, rel=0.02)
        assert layer(x).square().mean().item() == pytest.approx(1.04, rel=0.05)  # 2 (1 + 0.2^2) / 2
    conv = layers.EqualizedConv2d(64, 128, 3, act="lrelu")
    assert conv(torch.randn(4, 64, 16, 16))[:, :, 1:-1, 1:-1].square().mean().item() == pytest.approx(1.04, rel=0.05)


def test_lr_multiplier_slows_a_layer_down():
    """A step of Adam changes every weight by the learning rate; what it does to y shrinks with the multiplier."""
    x = torch.randn(8, 16)

    def change(lr_multiplier: float) -> float:
        torch.manual_seed(0)
        layer = layers.EqualizedLinear(16, 4, lr_multiplier=lr_multiplier)
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
        before = layer(x)
        before.sum().backward()
        optimizer.step()
        return (layer(x) - before).abs().mean().item()

    assert change(0.01) == pytest.approx(0.01 * change(1), rel=0.05)


def test_bias_init_is_what_the_layer_adds():
    layer = layers.EqualizedLinear(3, 4, bias_init=1, lr_multiplier=0.1)
    torch.testing.assert_close(layer(torch.zeros(2, 3)), torch.ones(2, 4))


def test_classes_stand_beside_z_and_project_features():
    torch.manual_seed(0)
    z, c = torch.randn(4, 6, dtype=torch.bfloat16), torch.eye(3)[[0, 2, 1, 2]]
    embed = layers.ClassEmbedding(3, 5)
    y = embed(z, c)
    assert (
        y.dtype == z.dtype and torch.equal(y[:, :6], z) and torch.equal(y[:, 6:], embed.weight.t()[[0, 2, 1, 2]].to(z))
    )
    project = layers.ClassProjection(3, 5)
    for size in ((), (4, 6), (4, 6, 2)):
        x = torch.randn(4, 5, *size)
        want = (project.weight.t()[[0, 2, 1, 2]] * x.flatten(1).unflatten(1, (5, -1)).sum(2)).sum(1)
        torch.testing.assert_close(project(x, c), want)
    assert [*embed.state_dict(), *project.state_dict()] == ["weight", "weight"]


@pytest.mark.parametrize("layer", [torch.nn.Linear(6, 3, bias=False), torch.nn.ConvTranspose2d(6, 3, 2, bias=False)])
def test_a_bias_and_activation_behind_any_layer(layer):
    x = torch.randn(2, 6) if isinstance(layer, torch.nn.Linear) else torch.randn(2, 6, 4, 4)
    both = layers.BiasAct(layer, name="inner")
    assert set(both.state_dict()) == {"bias", "inner.weight"}
    torch.nn.init.normal_(both.bias)
    want = layer(x) + both.bias.view(3, *[1] * (x.ndim - 2))
    torch.testing.assert_close(both(x), F.leaky_relu(want, 0.2))


@pytest.mark.parametrize("act", ["relu", "lrelu"])
def test_batch_norm_is_that_of_pytorch_with_the_activation_behind_it(act: str, backend: str, device: str):
    if reason := backends.refusal("bias_act", backend, torch.empty(1, device=device)):
        pytest.skip(reason)
    torch.manual_seed(0)
    theirs = torch.nn.BatchNorm2d(5).to(device)
    torch.nn.init.normal_(theirs.weight)
    torch.nn.init.normal_(theirs.bias)
    ours = copy.deepcopy(theirs)
    slope = {"relu": 0.0, "lrelu": 0.2}[act]

    def orders(norm, x):
        y = normed(norm, x, act=act) if norm is ours else F.leaky_relu(norm(x), slope)
        first = torch.autograd.grad(y.sin().sum(), [x, norm.weight, norm.bias], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [x, norm.weight, norm.bias])
        return (y, *first, *second)

    with backends.use(backend):
        for training in (True, True, False):
            ours.train(training), theirs.train(training)
            x = torch.randn(3, 5, 4, 6, device=device).requires_grad_()
            got, want = orders(ours, x), orders(theirs, x)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
        with torch.autocast(device, dtype=torch.bfloat16), torch.no_grad():
            y = normed(ours, x.bfloat16(), act=act)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), F.leaky_relu(theirs(x), slope), rtol=0.02, atol=0.02)
    assert ours.num_batches_tracked.item() == 2


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"momentum": None},
        {"momentum": 0.5, "eps": 0.1},
        {"affine": False},
        {"track_running_stats": False},
        {"momentum": None, "affine": False, "track_running_stats": False},
    ],
    ids=lambda options: " ".join(options),
)
def test_a_batch_norm_of_any_settings_is_that_of_pytorch(options, dims):
    torch.manual_seed(0)
    ours = {2: torch.nn.BatchNorm2d, 3: torch.nn.BatchNorm3d}[dims](5, **options)
    theirs = copy.deepcopy(ours)
    for training in (True, True, True, False):
        ours.train(training), theirs.train(training)
        x = torch.randn(3, 5, *[4] * dims).requires_grad_()
        got, want = normed(ours, x, act="lrelu"), F.leaky_relu(theirs(x), 0.2)
        torch.testing.assert_close(got, want)
        for a, b in zip(torch.autograd.grad(got, x, x), torch.autograd.grad(want, x, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_a_batch_norm_may_lose_its_statistics_and_its_momentum_later():
    torch.manual_seed(0)
    ours, x = torch.nn.BatchNorm2d(5).eval(), torch.randn(3, 5, 4, 4)
    ours.running_mean = ours.running_var = None  # what eval mode has then are the statistics of the batch
    torch.testing.assert_close(normed(ours, x, act="relu"), F.batch_norm(x, None, None, training=True).relu())
    ours = torch.nn.BatchNorm2d(5)
    ours.track_running_stats = False
    normed(ours, x, act="relu")
    assert ours.num_batches_tracked.item() == 0 and not ours.running_mean.any()
    ours.track_running_stats, ours.momentum = True, None
    for i in range(4):
        normed(ours, x + i, act="relu")
    torch.testing.assert_close(ours.running_mean, x.mean([0, 2, 3]) + 1.5)


def test_a_transposed_convolution_has_the_size_that_is_asked_for():
    torch.manual_seed(0)
    ours = layers.ConvTranspose2d(6, 4, 3, stride=2, padding=1)
    theirs = torch.nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 5, 7)
    for size in (None, [9, 13], [10, 13], [2, 4, 10, 14]):
        torch.testing.assert_close(ours(x, output_size=size), theirs(x, output_size=size))
    torch.testing.assert_close(ours(x[0], [10, 14]), theirs(x[0], [10, 14]))
    with pytest.raises(ValueError, match="requested an output size"):
        ours(x, output_size=[11, 14])


def test_batch_norm_refuses_other_activations():
    with pytest.raises(ValueError, match="normed: act must be relu or lrelu, got 'tanh'"):
        normed(torch.nn.BatchNorm2d(4), torch.randn(2, 4, 3, 3), act="tanh")


@pytest.mark.parametrize("k", [1, 3])
def test_resampling_convolutions_are_convolutions_beside_resampling(k: int):
    x = torch.randn(2, 3, 4, 6)
    up, down = layers.UpsampleConv2d(3, 5, k), layers.DownsampleConv2d(3, 5, k)
    want = F.conv2d(F.interpolate(x, scale_factor=2), up.weight, up.bias, padding=k // 2)
    torch.testing.assert_close(up(x), want)
    torch.testing.assert_close(down(x), F.avg_pool2d(F.conv2d(x, down.weight, down.bias, padding=k // 2), 2))
    for resample, shape in ((None, (4, 6)), ("up", (8, 12)), ("down", (2, 3))):
        assert layers.EqualizedConv2d(3, 5, k, resample=resample)(x).shape[2:] == shape
    with pytest.raises(ValueError, match="resample must be None, 'up' or 'down', got 'left'"):
        layers.EqualizedConv2d(3, 5, k, resample="left")


@pytest.mark.parametrize("k", [1, 3])
def test_filters_resample_and_blur(k: int):
    x = torch.randn(2, 3, 4, 6)
    up = layers.EqualizedConv2d(3, 5, k, resample="up", taps=(1, 3, 3, 1))
    assert up(x).shape == (2, 5, 8, 12)
    assert layers.EqualizedConv2d(3, 5, k, resample="down", taps=(1, 3, 3, 1))(x).shape == (2, 5, 2, 3)
    assert "f" not in up.state_dict()
    modulated = layers.ModulatedConv2d(3, 5, k, w_dim=4, up=2)
    assert modulated(x, torch.randn(2, 4)).shape == (2, 5, 8, 12)
    blurred = layers.Blur()(torch.ones(1, 1, 6, 6))
    assert blurred.shape == (1, 1, 6, 6)
    torch.testing.assert_close(blurred[:, :, 2:-2, 2:-2], torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_layers_with_filters_follow_a_network_to_another_dtype(dtype):
    x, w = torch.randn(2, 3, 4, 6, dtype=dtype), torch.randn(2, 4, dtype=dtype)
    for resample in ("up", "down"):
        layer = layers.EqualizedConv2d(3, 5, 3, resample=resample, taps=(1, 3, 3, 1)).to(dtype)
        assert layer(x).dtype == dtype
    assert layers.ModulatedConv2d(3, 5, 3, w_dim=4, up=2).to(dtype)(x, w).dtype == dtype
    assert layers.Blur().to(dtype)(x).dtype == dtype


def test_a_gain_without_bias_is_in_the_weight():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 6)
    for options in ({}, {"clamp": 0.1}, {"act": "lrelu"}):
        torch.manual_seed(1)
        plain = layers.EqualizedConv2d(3, 5, 1, bias=False, **options)
        torch.manual_seed(1)
        layer = layers.EqualizedConv2d(3, 5, 1, bias=False, gain=0.5, **options)
        y = F.conv2d(x, plain.weight) / 3**0.5
        want = {"clamp": (0.5 * y).clamp(-0.1, 0.1), "act": 0.5 * F.leaky_relu(y, 0.2)}
        torch.testing.assert_close(layer(x), want.get(next(iter(options), ""), 0.5 * y))


def test_modulated_layer_starts_without_noise_and_learns_its_strength():
    torch.manual_seed(0)
    layer = layers.ModulatedConv2d(8, 16, 3, w_dim=4, act="lrelu")
    x, w = torch.randn(2, 8, 6, 6), torch.randn(2, 4)
    torch.testing.assert_close(layer(x, w), layer(x, w))
    assert layer(x, w).square().mean().item() == pytest.approx(1, rel=0.3)  # what demodulation is for
    layer(x, w, noise=torch.ones(1, 1, 6, 6)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())


def test_layer_to_colours_has_no_noise_and_the_scale_of_its_fan_in():
    layer = layers.ModulatedConv2d(8, 3, 1, w_dim=4, demodulate=False, noise=False, clamp=256)
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias", "affine.weight", "affine.bias"}
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        layer.affine.weight.zero_()  # styles 1
    torch.testing.assert_close(layer(x, torch.randn(2, 4)), F.conv2d(x, layer.weight) / 8**0.5)


@pytest.mark.parametrize("act", ["linear", "relu", "lrelu"])
def test_instance_norm_is_that_of_pytorch_with_the_activation_behind_it(backend, device, act):
    norm = layers.InstanceNorm2d(3, act=act).to(device)
    with torch.no_grad():
        norm.weight.normal_(), norm.bias.normal_()
    x = torch.randn(2, 3, 5, 4, device=device).contiguous(memory_format=torch.channels_last)
    want = torch.nn.functional.instance_norm(x, weight=norm.weight, bias=norm.bias)
    want = {"linear": want, "relu": want.relu(), "lrelu": torch.nn.functional.leaky_relu(want, 0.2)}[act]
    with backends.use(backend):
        y = norm(x)
    torch.testing.assert_close(y, want)
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("layer", "shape", "added"),
    [
        (torch.nn.Linear(6, 5, bias=False), (3, 6), "AddmmBackward0"),
        (torch.nn.Conv2d(4, 5, 3, 2, 1, bias=False), (2, 4, 6, 6), "ConvolutionBackward0"),
        (layers.UpsampleConv2d(4, 5, 3, bias=False), (2, 4, 6, 6), "AddBackward0"),
        (torch.nn.ConvTranspose2d(4, 5, 4, 2, 1, bias=False), (2, 4, 6, 6), "AddBackward0"),
    ],
    ids=["linear", "convolution", "a convolution that does more", "transposed convolution"],
)
def test_a_bias_before_few_elements_is_added_by_the_layer_if_it_can(layer, shape, added):
    bias, x = torch.randn(5).requires_grad_(), torch.randn(shape, requires_grad=True)

    def gradients(y):
        first = torch.autograd.grad(y, (x, layer.weight, bias), torch.ones_like(y) * 0.3, create_graph=True)
        return [y, *first, *torch.autograd.grad(first[0].square().sum(), layer.weight)]

    y = biased(layer, x, bias, act="lrelu")
    if native.WHY_NO_CPU is None:
        assert y.grad_fn.next_functions[0][0].name() == added
    with backends.use("reference"):
        wanted = biased(layer, x, bias, act="lrelu")
    for ours, theirs in zip(gradients(y), gradients(wanted), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_all_that_hangs_on_a_layer_happens_where_its_bias_is_added_behind_it():
    layer, seen = torch.nn.Linear(6, 5, bias=False), []
    x, bias = torch.randn(3, 6, requires_grad=True), torch.zeros(5)
    handles = [
        layer.register_forward_pre_hook(lambda *_: seen.append("before")),
        layer.register_forward_hook(lambda *_: seen.append("behind")),
        layer.register_full_backward_hook(lambda *_: seen.append("back")),
    ]
    for handle, event in zip(handles, ["before", "behind", "back"], strict=True):
        biased(layer, x, bias, act="lrelu").sum().backward()
        assert event in seen
        handle.remove()
    with torch.nn.modules.module.register_module_forward_hook(lambda *_: seen.append("any")):
        biased(layer, x, bias, act="lrelu")
    assert seen[-1] == "any"
    layer.forward = lambda x: torch.ones(3, 5)
    assert torch.equal(biased(layer, x, bias, act="lrelu"), torch.ones(3, 5))
    layer = torch.nn.Linear(6, 5)
    torch.testing.assert_close(biased(layer, x, bias, act="lrelu"), F.leaky_relu(layer(x), 0.2))
    layer, x = torch.nn.Linear(6, 5, bias=False), torch.randn(2, 5, 6)  # the bias goes along dimension 1
    want = F.leaky_relu(layer(x) + torch.arange(5.0)[:, None], 0.2)
    torch.testing.assert_close(biased(layer, x, torch.arange(5.0), act="lrelu"), want)


def test_a_layer_with_an_activation_is_exported_for_any_batch():
    layer, x = layers.BiasAct(torch.nn.Conv2d(3, 5, 3, bias=False)), torch.randn(4, 3, 8, 8)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    many = torch.randn(7, 3, 8, 8)
    torch.testing.assert_close(program.module()(many), layer(many))


@pytest.mark.parametrize("act", ["relu", "lrelu"])
def test_batch_norm_of_few_elements_in_channels_last_is_pytorchs(act):
    ours, theirs = torch.nn.BatchNorm2d(5), torch.nn.BatchNorm2d(5)
    x = torch.randn(3, 5, 4, 6).to(memory_format=torch.channels_last).requires_grad_()
    y, want = normed(ours, x, act=act), F.leaky_relu(theirs(x), {"relu": 0.0, "lrelu": 0.2}[act])
    if native.WHY_NO_CPU is None:
        assert y.grad_fn.name() == {"relu": "ReluBackward0", "lrelu": "LeakyReluBackward0"}[act]
        assert normed(ours, x.detach().contiguous(), act=act).grad_fn.name() == "_NormActBackward"
        theirs(x)
    for ours_, theirs_ in zip(torch.autograd.grad(y, x, want), torch.autograd.grad(want, x, want), strict=True):
        torch.testing.assert_close(ours_, theirs_)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


_SUBSTITUTES = {
    "pruned": lambda layer: [prune.l1_unstructured(layer, name, 0.5) for name in ("weight", "bias")],
    "normed": torch.nn.utils.parametrizations.weight_norm,
    "normed by a hook": torch.nn.utils.weight_norm,
    "of unit norm": torch.nn.utils.parametrizations.spectral_norm,
    "bias normed": lambda layer: torch.nn.utils.parametrizations.weight_norm(layer, "bias"),
    "without a bias": lambda layer: layer.register_parameter("bias", None),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("change", _SUBSTITUTES)
@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d"])
def test_convolutions_take_what_stands_in_the_place_of_a_parameter(kind, change):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(3, 5, 3)
    ours = getattr(layers, kind)(3, 5, 3)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 6, 6)
    plain = theirs(x)
    for layer in (ours, theirs):
        torch.manual_seed(1)
        _SUBSTITUTES[change](layer)
        layer.eval()  # spectral norm changes its vectors in training
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(1.5)
    assert torch.equal(ours(x), theirs(x)) and not torch.equal(ours(x), plain)
    inner = {name: 2 * parameter.detach() for name, parameter in ours.named_parameters()}
    assert torch.equal(torch.func.functional_call(ours, inner, (x,)), torch.func.functional_call(theirs, inner, (x,)))
