"""A patched network is the network: values, both orders, names, classes, copies. What is not known is left alone."""

import copy
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.fx
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import benchmarks.dialects.stylegan as stylegan_networks
from benchmarks.dialects import basicsr, mmagic, rosinality, stylegan, stylegan_ops
from gan_engine.compat.stylegan import bias_act as bias_act_face
from gan_engine.ops import modulated_conv2d
from gan_engine.ops.kernel_op import layout
from gan_engine.patch import gain, patch

SMALL = {"resolution": 16, "base": 128, "most": 16}
NETWORKS = {
    "stylegan G": lambda: stylegan.Generator(**SMALL, z_dim=16, layers=2),
    "stylegan D": lambda: stylegan.Discriminator(**SMALL),
    "rosinality G": lambda: rosinality.Generator(**SMALL, style_dim=16, layers=2),
    "rosinality D": lambda: rosinality.Discriminator(**SMALL),
    "basicsr G": lambda: basicsr.Generator(**SMALL, style_dim=16, layers=2),
    "mmagic G": lambda: mmagic.Generator(**SMALL, style_dim=16, layers=2),
}


def sample(name: str) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(4, 16) if name.endswith("G") else torch.randn(4, 3, 16, 16)


def built(name: str) -> nn.Module:
    """With random numbers where layers begin with zeros"""
    torch.manual_seed(0)
    net = NETWORKS[name]()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def orders(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, its gradients by x and the parameters, and the gradients of |dy/dx|^2 by the parameters"""
    x, wanted = x.detach().requires_grad_(), list(net.parameters())
    torch.manual_seed(2)  # of the noise
    y = net(x)
    total = (y * torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)).sum()
    first = torch.autograd.grad(total, [x, *wanted], create_graph=True, allow_unused=True)
    second = torch.autograd.grad(first[0].square().sum(), wanted, allow_unused=True)
    zeros = [torch.zeros(()).to(y) if g is None else g.detach() for g in (*first, *second)]
    return [y.detach(), *zeros]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_patched_network_is_the_network(name):
    net, x = built(name).double(), sample(name).double()
    drawn, want, names = orders(net.eval(), x), orders(net.train(), x), list(net.state_dict())
    classes = [type(m) for m in net.modules()]
    with patch(net) as done:
        assert list(net.state_dict()) == names and any(row.replaced for row in done.rows)
        in_training, in_eval = orders(net, x), orders(net.eval(), x)
        net.train()
        for got, expected in zip(in_training + in_eval, want + drawn, strict=True):
            bound = 1e-10 * max(1.0, float(expected.abs().max()))
            torch.testing.assert_close(got.expand_as(expected), expected, rtol=1e-10, atol=bound)
    assert [type(m) for m in net.modules()] == classes
    assert all(torch.equal(a, b) for a, b in zip(orders(net, x), want))


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_replaced_as_a_whole(name):
    net = built(name)
    rows = {row.kind: row.note for row in patch(net).rows if row.replaced}
    wanted = {
        "stylegan G": ("SynthesisLayer", "ToRGBLayer"),
        "stylegan D": ("Conv2dLayer",),
        "rosinality G": ("StyledConv", "ModulatedConv2d", "Upsample"),
        "rosinality D": ("EqualConv2d", "FusedLeakyReLU", "Blur"),
        "basicsr G": ("StyleConv", "ModulatedConv2d", "Upsample"),
        "mmagic G": ("ModulatedStyleConv", "ModulatedConv2d", "Upsample"),
    }[name]
    assert all("calls" not in rows[kind] for kind in wanted)
    net(sample(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_patched_network_compiles_as_one_graph(name):
    net, x = built(name), sample(name)
    patch(net)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for got, expected in zip(gradients(compiled, net, x), gradients(net, net, x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def gradients(call: Callable, net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of a weighted sum of it"""
    torch.manual_seed(2)  # of the noise
    y = call(x)
    total = (y * torch.linspace(0.5, 1.5, y.numel()).reshape(y.shape)).sum()
    grads = torch.autograd.grad(total, list(net.parameters()), allow_unused=True)
    return [y.detach(), *(g for g in grads if g is not None)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_patched_network_takes_tensors_as_parameters(name):
    net, x = built(name), sample(name)
    patch(net)
    torch.manual_seed(2)  # of the noise
    want = net(x)
    given = {name: p.detach().clone() for name, p in net.named_parameters()}
    torch.manual_seed(2)
    torch.testing.assert_close(torch.func.functional_call(net, given, (x,)), want)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_keep_the_layout_of_the_original(name):
    """The numbers of torch.randn_like depend on it, and whether x.view works."""
    net, x = built(name), sample(name)
    want = layouts(net, x)
    assert not any(last for _, last in want.values())
    with patch(net):
        got = layouts(net, x)
        assert got == {layer: want[layer] for layer in got} and len(got) > 8
    for p in net.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    want = layouts(net, x)
    patch(net)
    got = layouts(net, x)
    assert all(got[layer][1] for layer in got if want[layer][1])


def test_a_convolution_that_doubles_keeps_the_layout_of_the_original():
    layer, x = stylegan.Conv2dLayer(4, 4, 3, up=2), torch.randn(2, 4, 6, 6)
    patch(layer)
    assert layout(layer(x)) == torch.contiguous_format
    x = x.contiguous(memory_format=torch.channels_last)
    assert layout(layer(x)) == torch.channels_last


def layouts(net: nn.Module, x: torch.Tensor) -> dict[str, tuple[bool, bool]]:
    """Whether the images that each layer gives are contiguous, and whether they are in channels_last alone"""
    found, hooks = {}, []
    for name, layer in net.named_modules():

        def see(layer, args, y, name=name):
            if isinstance(y, torch.Tensor) and y.ndim == 4:
                found[name] = y.is_contiguous(), layout(y) == torch.channels_last

        hooks.append(layer.register_forward_hook(see))
    net(x)
    for hook in hooks:
        hook.remove()
    return found


def test_networks_of_synthetic_modules():
    """As a pickle makes them that brings its source along: the classes are in no module that can be imported."""
    modules = {}
    for file in ("stylegan_ops", "stylegan"):
        source = (Path(stylegan.__file__).parent / f"{file}.py").read_text()
        source = source.replace("from benchmarks.dialects import stylegan_ops as ops", "ops = given")
        source = source.replace("from benchmarks.dialects.stylegan_ops import", "from given import")
        modules[file] = types.ModuleType(f"_imported_module_{file}")
        sys.modules["given"] = modules.get("stylegan_ops")
        modules[file].given = modules["stylegan_ops"]
        exec(compile(source, file, "exec"), vars(modules[file]))
    del sys.modules["given"]
    torch.manual_seed(0)
    net = modules["stylegan"].Generator(**SMALL, z_dim=16, layers=2).double()
    x = sample("stylegan G").double()
    want = orders(net, x)
    done = patch(net)
    assert {"SynthesisLayer", "SynthesisBlock", "ToRGBLayer"} <= {row.kind for row in done.rows if row.replaced}
    for got, expected in zip(orders(net, x), want, strict=True):
        torch.testing.assert_close(got.expand_as(expected), expected, rtol=1e-10, atol=1e-10)


def test_copies_stay_patched_and_pickles_hold_the_original():
    net, x = built("rosinality D"), sample("rosinality D")
    want, done = net(x), patch(net)
    copied = copy.deepcopy(net)
    assert type(copied.final_conv[0]) is type(net.final_conv[0]) is not rosinality.EqualConv2d
    assert copied.final_conv[0].weight is not net.final_conv[0].weight
    torch.testing.assert_close(copied(x), want)
    loaded = pickle.loads(pickle.dumps(net))
    assert type(loaded.final_conv[0]) is rosinality.EqualConv2d
    assert torch.equal(loaded(x), want)
    assert patch(net).rows and not any(row.replaced for row in patch(net).rows)
    done.undo()
    assert type(net.final_conv[0]) is rosinality.EqualConv2d


class OtherSlope(rosinality.FusedLeakyReLU):
    def forward(self, input):
        return super().forward(input) * 1.001


class OtherNoise(basicsr.StyleConv):
    def forward(self, x, style, noise=None):
        return super().forward(x, style, noise) + 1e-6 * x.mean()


class Weird(stylegan.Conv2dLayer):
    def forward(self, x, gain=1):
        return super().forward(x, gain=gain).tanh()


@pytest.mark.parametrize(
    "layer", [OtherSlope(4), OtherNoise(4, 4, 3, 8), Weird(4, 4, 3)], ids=lambda m: type(m).__name__
)
def test_a_layer_that_computes_something_else_is_left_with_the_reason(layer):
    row = patch(layer).rows[0]
    assert not row.replaced and "its numbers differ by" in row.note


class Clamped(stylegan.Conv2dLayer):
    def forward(self, x, gain=1):
        return super().forward(x, gain).clamp(max=200)


class DoubledNoise(rosinality.NoiseInjection):
    def forward(self, image, noise=None):
        return super().forward(image, noise) + self.weight


def test_hidden_differences_are_found():
    """A clamp that small numbers do not reach, and a strength of noise that is still zero."""
    assert "its numbers differ by" in patch(Clamped(4, 4, 3, conv_clamp=256)).rows[0].note
    styled = rosinality.StyledConv(4, 4, 3, 8)
    styled.noise = DoubledNoise()
    assert not any(row.replaced and row.name == "" for row in patch(styled).rows)


class Tuple(basicsr.StyleConv):
    def forward(self, x, style, noise=None):
        return (super().forward(x, style, noise),)


class Root(basicsr.StyleConv):
    def forward(self, x, style, noise=None):
        return super().forward(x, style, noise) * (-self.weight.abs()).sqrt()  # NaN, unless the weight is 0


@pytest.mark.parametrize("kind, note", [(Tuple, "in another form"), (Root, "not finite")])
def test_another_form_and_numbers_that_are_not_finite_are_left(kind, note):
    row = patch(kind(4, 4, 3, 8)).rows[0]
    assert not row.name and not row.replaced and note in row.note


def test_patching_leaves_the_random_numbers(monkeypatch):
    net, seeded = built("rosinality G"), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    assert any(row.replaced for row in patch(net).rows)
    assert torch.get_rng_state().equal(before) and not seeded
    drops = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout())
    before = torch.get_rng_state()
    patch(drops, example=torch.ones(2, 3, 8, 8))
    assert torch.get_rng_state().equal(before)


def test_functions_of_modules_and_where_they_were_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    original, imported = stylegan_ops.bias_act, stylegan_networks.bias_act
    layer, x = stylegan.FullyConnectedLayer(4, 4, "lrelu"), torch.randn(3, 4)
    want = layer(x)
    with patch("benchmarks.dialects.stylegan_ops") as done:
        names = {row.name.rpartition(".")[2] for row in done.rows if row.replaced}
        assert names == {"bias_act", "upfirdn2d", "upsample2d", "downsample2d", "conv2d_resample", "modulated_conv2d"}
        assert stylegan_networks.bias_act is stylegan_ops.bias_act is bias_act_face.bias_act
        torch.testing.assert_close(layer(x), want)
    assert stylegan_ops.bias_act is original and stylegan_networks.bias_act is imported
    with pytest.raises(ValueError, match="want the name of a module that can be imported, got 'no_such_ops'"):
        patch("no_such_ops")
    Path("needy_ops.py").write_text("import no_such_dependency")
    with pytest.raises(ValueError, match="got 'needy_ops': No module named 'no_such_dependency'"):
        patch("needy_ops")
    with pytest.raises(TypeError, match="want a network, a module or its name, got int"):
        patch(3)


def test_functions_of_another_meaning_are_left(monkeypatch):
    module = types.ModuleType("other_ops")

    def upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)):
        return rosinality.upfirdn2d(input, kernel.flip([0, 1]), up, down, pad)

    def bias_act(x, b, slope):
        return x

    def fma(a, b, c):
        raise RuntimeError("no kernel")

    for function in (upfirdn2d, bias_act, fma):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, "other_ops", module)
    with patch("other_ops") as done:
        notes = {row.name: row.note for row in done.rows}
        assert notes["other_ops.upfirdn2d"] == "its numbers differ from those of the known function"
        assert notes["other_ops.bias_act"] == "its arguments (x, b, slope) are not known"
        assert "not compared: the original raised RuntimeError" in notes["other_ops.fma"]
        assert module.upfirdn2d is upfirdn2d and module.fma is not fma


@pytest.mark.parametrize("slope, replaced", [(0.2, True), (0.1, False)])
def test_a_function_that_refuses_some_inputs_is_compared_on_the_others(monkeypatch, slope, replaced):
    def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
        if act == "swish" or clamp is not None:
            raise KeyError(act)
        return bias_act_face.bias_act(x, b, dim, act, slope if act == "lrelu" else alpha, gain)

    module = types.ModuleType("narrow_ops")
    module.bias_act = bias_act
    monkeypatch.setitem(sys.modules, "narrow_ops", module)
    with patch("narrow_ops") as done:
        (row,) = done.rows
    assert row.replaced is replaced
    if replaced:
        assert row.kind == "function, 1 place"
        remark = "(not compared on 2 of 5 inputs: the original raised KeyError on a CPU)"
        assert row.note.endswith(remark)
        exec("def forward(self, x):\n    return bias_act(x)", vars(module))
        (row,) = patch(type("Layer", (nn.Module,), {"forward": module.forward})()).rows
        assert row.note == f"its forward pass calls bias_act {remark} of gan_engine.compat"
    else:
        assert row.note == "its numbers differ from those of the known function"


class PlainModulated(nn.Module):
    """A modulated convolution in a style of its own: a weight for each image, and groups of `F.conv2d`."""

    def __init__(self, channels: int, w_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3))
        self.style, self.bias = nn.Linear(w_dim, channels), nn.Parameter(torch.randn(channels))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        weight = self.weight * self.style(w)[:, None, :, None, None]
        weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), padding=1, groups=len(x))
        return 2**0.5 * F.leaky_relu(y.view_as(x) + self.bias[:, None, None], 0.2)


def test_a_layer_of_ones_own_with_plain_calls_is_left_and_an_operator_stands_for_it():
    layer = PlainModulated(8, 4).double()
    x, w = torch.randn(3, 8, 5, 5).double(), torch.randn(3, 4).double()
    with patch(layer) as done:
        assert not any(row.replaced for row in done.rows)
        assert "PlainModulated: no structure that is known" in str(done)
    y = modulated_conv2d(x, layer.weight, layer.style(w), bias=layer.bias, act="lrelu")
    torch.testing.assert_close(y, layer(x, w), rtol=1e-10, atol=1e-10)


def test_layers_of_pytorch():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(32, 3, 4, 2, 1),
        nn.Conv2d(3, 3, 3, padding="same"),
    ).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    want, state = orders(net, x), copy.deepcopy(net.state_dict())
    net.load_state_dict(state)
    with patch(net) as done:
        replaced = {row.name: row.note for row in done.rows if row.replaced}
        assert replaced.keys() == {"", "0", "2", "5"} and replaced[""].startswith("2 pairs of a layer")
        left = [(row.name, row.note) for row in done.rows if not row.replaced]
        assert left == [("6", "its padding is the word 'same'")]
        assert isinstance(net[0], nn.Conv2d) and all(torch.equal(a, state[n]) for n, a in net.state_dict().items())
        for got, expected in zip(orders(net, x), want, strict=True):
            torch.testing.assert_close(got.expand_as(expected), expected, rtol=1e-9, atol=1e-9)
        seen = []
        net[3].register_forward_hook(lambda *_: seen.append(1))
        net(x)
        assert seen  # a layer with a hook is called
    alone = nn.Sequential(nn.BatchNorm2d(4), nn.LeakyReLU(0.3), parametrizations.spectral_norm(nn.Linear(4, 4)))
    assert [(row.name, row.note) for row in patch(alone).rows] == [
        ("0", "no ReLU, and no leaky ReLU of slope 0.2, is behind it in an nn.Sequential"),
        ("2", "no structure that is known"),
    ]


def test_the_table_says_what_was_done_and_the_gain():
    net = built("stylegan D")
    done = patch(net, example=sample("stylegan D"))
    text = str(done)
    assert (
        "Conv2dLayer: convolution, resampling, bias and activation in one layer (blocks.0.fromrgb and 7 more)" in text
    )
    assert (
        "forward: " in text
        and "forward and backward: " in text
        and done.gains.keys() == {"forward", "forward and backward"}
    )
    assert done.active and all(p.grad is None for p in net.parameters())
    with pytest.raises(ValueError, match="an example wants a network"):
        patch("benchmarks.dialects.stylegan_ops", example=1)


def test_other_work_on_the_machine_does_not_change_the_gain(monkeypatch):
    """Two of three calls of the patched network take ten times as long."""
    net, reads, now = nn.Sequential(nn.Conv2d(3, 4, 3)), 0, 0.0

    def clock():
        nonlocal reads, now
        reads += 1
        if reads % 2 == 0:
            now += 10.0 if type(net[0]) is not nn.Conv2d and reads // 4 % 3 else 1.0
        return now

    monkeypatch.setattr(gain, "_clock", clock)
    assert patch(net, example=torch.ones(1, 3, 8, 8)).gains == {"forward": 1.0, "forward and backward": 1.0}


class Normed(nn.Module):
    """Its call number `fails` raises an error."""

    def __init__(self, fails=None):
        super().__init__()
        self.conv, self.norm, self.calls, self.fails = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), 0, fails

    def forward(self, x):
        y, self.calls = self.norm(self.conv(x)), self.calls + 1
        if self.calls == self.fails:
            raise RuntimeError("this call fails")
        return y


@pytest.mark.parametrize("fails", [1, 2, 3])  # the original, the patched network, and the original again
def test_an_example_that_fails_leaves_the_network_as_it_was(fails):
    net = Normed(fails)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RuntimeError, match="this call fails"):
        patch(net, example=torch.randn(2, 3, 8, 8))
    assert type(net.conv) is nn.Conv2d
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())


def test_an_output_without_a_gradient_has_a_gain_forward_alone():
    class Detached(Normed):
        def forward(self, x):
            return super().forward(x).detach()

    net = Detached()
    before = copy.deepcopy(net.state_dict())
    assert patch(net, example=torch.randn(2, 3, 8, 8)).gains.keys() == {"forward"}
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())


def pairs() -> nn.Sequential:
    """A convolution and a batch norm, each with its activation"""
    torch.manual_seed(0)
    pair = nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.2)
    return nn.Sequential(*pair, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()


@pytest.mark.parametrize("side", [8, 6])  # with as many rows as the convolution has channels, and with others
def test_one_image_without_a_batch(side):
    net, x = pairs()[:2], torch.randn(3, side, side)
    want = net(x)
    patch(net)
    torch.testing.assert_close(net(x), want)


def test_a_row_of_layers_that_changes_after_the_patch():
    net, x = pairs(), torch.randn(2, 3, 8, 8)
    want = net(x)
    patch(net)
    torch.testing.assert_close(net(input=x), want)
    torch.testing.assert_close(torch.fx.symbolic_trace(net)(x), want)
    torch.testing.assert_close(net[3:](net[:3](x)), want)
    del net[4], net[3]
    torch.testing.assert_close(net(x), net[2](net[1](net[0](x))))


class Seen(nn.ReLU):
    """An activation that keeps its result"""

    def forward(self, input):
        self.result = super().forward(input)
        return self.result


def test_layers_that_do_more_than_compute_are_called():
    net, x = pairs(), torch.randn(2, 3, 8, 8)
    net[1], net[3] = Seen(), Seen()
    patch(net)
    net(x)
    assert net[1].result.shape == net[3].result.shape == (2, 8, 8, 8)
    net, seen = pairs(), []
    patch(net)
    with nn.modules.module.register_module_forward_hook(lambda layer, *_: seen.append(type(layer).__name__)):
        net(x)
    assert seen == ["Conv2d", "LeakyReLU", "BatchNorm2d", "ReLU", "Conv2d", "Sequential"]


def test_patching_leaves_a_spectral_norm_that_trains():
    net = nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(4, 8, 3)), nn.ReLU())
    before = copy.deepcopy(net.state_dict())
    assert net.training and patch(net).rows and all(m.training for m in net.modules())
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize("order", ["before and removed", "before", "after and removed", "after", "after and undone"])
def test_parametrizations_come_and_go(order):
    net, x = pairs(), torch.randn(2, 3, 8, 8)
    want, names = net(x), list(net.state_dict())
    if order.startswith("before"):
        parametrizations.weight_norm(net[0])
    done = patch(net)
    assert [row.name for row in done.rows if row.replaced] == ["", "0", "4"]
    if order.startswith("after"):
        parametrizations.weight_norm(net[0])
    torch.testing.assert_close(net(x), want)
    copied = copy.deepcopy(net)
    with torch.no_grad():
        copied[0].parametrizations.weight.original1.zero_()
    torch.testing.assert_close(net(x), want)
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        pickle.dumps(net)
    if order.endswith("undone"):
        done.undo()
        torch.testing.assert_close(net(x), want)
    if order.endswith("removed") or order.endswith("undone"):
        parametrize.remove_parametrizations(net[0], "weight")
    torch.testing.assert_close(net(x), want)
    done.undo()
    torch.testing.assert_close(net(x), want)
    if order.endswith("removed") or order.endswith("undone"):
        assert sorted(net.state_dict()) == sorted(names) and type(net[0]) is nn.Conv2d
    else:
        assert type(net[0]).__bases__ == (nn.Conv2d,)


class Watched(nn.Conv2d):
    def see(self, *_):
        self.calls = getattr(self, "calls", 0) + 1


def test_a_deep_copy_refers_to_itself():
    layer = Watched(3, 4, 3)
    layer.register_forward_hook(layer.see)
    patch(layer)
    copied = copy.deepcopy(layer)
    copied(torch.randn(1, 3, 8, 8))
    assert copied.calls == 1 and not hasattr(layer, "calls") and type(copied) is type(layer)


def test_registries_of_subclasses_do_not_hear_of_a_patch():
    kinds: dict = {}

    class Registered(nn.Conv2d):
        def __init_subclass__(cls, *, key):
            kinds[key] = cls

    class Known(Registered, key="known"):
        pass

    layer = Known(3, 4, 3)
    assert patch(layer).rows[0].replaced and kinds == {"known": Known}


@pytest.mark.parametrize("around", [lambda: torch.device("meta"), torch.inference_mode, torch.no_grad])
def test_what_the_program_has_set_around_a_patch(around):
    net = pairs()
    with around():
        done = patch(net)
    assert [row.name for row in done.rows if row.replaced] == ["", "0", "4"]


def test_lazy_layers_are_refused():
    with pytest.raises(ValueError, match="want a network whose parameters have shapes, got lazy layers"):
        patch(nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU()))


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_layer_that_halves_takes_odd_sides(kernel_size):
    layer = stylegan.Conv2dLayer(3, 4, kernel_size, activation="lrelu", down=2, conv_clamp=1).double()
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    want = orders(layer, x)
    assert patch(layer).rows[0].replaced
    for got, expected in zip(orders(layer, x), want, strict=True):
        torch.testing.assert_close(got.expand_as(expected), expected, rtol=1e-10, atol=1e-10)


def test_a_mode_of_noise_that_is_not_known_is_left_to_the_original():
    layer, x, w = stylegan.SynthesisLayer(4, 4, 8, 4), torch.randn(2, 4, 4, 4), torch.randn(2, 8)
    with torch.no_grad():
        layer.noise_strength.fill_(1)
    want = layer(x, w, noise_mode="of tomorrow")
    patch(layer)
    torch.testing.assert_close(layer(x, w, noise_mode="of tomorrow"), want)


def test_each_patch_reads_the_globals_anew():
    names = {"bias_act": stylegan_networks.bias_act, "nn": nn, "doubled": False}
    exec("class Layer(nn.Module):\n def forward(self, x):\n  return bias_act(x * (2 if doubled else 1))", names)
    net, x = names["Layer"](), torch.randn(2, 3)
    with patch(net) as done:
        assert done.rows[0].replaced
        torch.testing.assert_close(net(x), x)
    names["doubled"] = True
    with patch(net):
        torch.testing.assert_close(net(x), 2 * x)
