"""The faces of other libraries: each function against its behaviour in plain PyTorch, in float64, both orders."""

import math

import numpy as np
import plain_ops as plain
import pytest
import torch
from plain_ops import assert_same
from torch._subclasses.fake_tensor import FakeTensorMode

from gan_engine.compat import basicsr, mmcv, rosinality, stylegan
from gan_engine.compat.stylegan import conv2d_gradfix, grid_sample_gradfix
from gan_engine.compat.stylegan.bias_act import activation_funcs, bias_act
from gan_engine.compat.stylegan.conv2d_resample import conv2d_resample
from gan_engine.compat.stylegan.filtered_lrelu import filtered_lrelu
from gan_engine.compat.stylegan.fma import fma
from gan_engine.compat.stylegan.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("act", activation_funcs)
def test_bias_act(act):
    x, b = randn(2, 3, 4, 5), randn(3)
    assert_same(lambda x, b: bias_act(x, b, 1, act), lambda x, b: plain.bias_act(x, b, 1, act), x, b)
    options = 3, act, 0.3, np.float32(0.5), 0.4
    want = lambda x, b: plain.bias_act(x, b, 3, act, 0.3, 0.5, 0.4)  # noqa: E731
    assert_same(lambda x, b: bias_act(x, b, *options), want, x, randn(5))
    assert_same(lambda x: bias_act(x, None, 1, act, impl="ref"), lambda x: plain.bias_act(x, act=act), x)
    row = activation_funcs[act]
    assert_same(lambda x: row.func(x, alpha=row.def_alpha), lambda x: plain.bias_act(x, act=act, gain=1), x)


def test_bias_act_returns_its_input_where_nothing_changes():
    x = randn(2, 3)
    assert bias_act(x) is x and bias_act(x, gain=np.float64(1)) is x
    assert bias_act(x.float(), randn(3)).dtype == torch.float32
    with pytest.raises(ValueError, match="impl: want 'cuda' or 'ref', got 'triton'"):
        bias_act(x, impl="triton")


def test_setup_filter_keeps_matrices_below_8_taps():
    taps = torch.tensor([1.0, 3, 3, 1])
    matrix = setup_filter(taps)
    torch.testing.assert_close(matrix, taps.outer(taps) / 64)
    assert matrix.dtype == torch.float32 and setup_filter(matrix).shape == (4, 4)
    assert setup_filter([1.0] * 8).shape == (8,) and setup_filter(None).shape == (1, 1)
    torch.testing.assert_close(setup_filter([1, 2], flip_filter=True, gain=4)[0], torch.tensor([16 / 9, 8 / 9]))
    torch.testing.assert_close(setup_filter([1.0, 2], normalize=False, separable=True), torch.tensor([1.0, 2]))


FILTERS = {
    "taps": torch.tensor([0.1, 0.7, 0.4], dtype=torch.float32),
    "matrix": torch.rand(2, 3),
    "double": torch.rand(3, 4, dtype=torch.float64),
    "none": None,
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("flip", [False, True])
def test_upfirdn2d(name, flip):
    x, f = randn(2, 2, 6, 7), FILTERS[name]
    plain_f = lambda *a: lambda x: plain.upfirdn2d(x, f, *a)  # noqa: E731
    ours = lambda x: upfirdn2d(x, f, [2, 3], np.int64(2), [np.int64(2), 3, -1, 4], flip, np.float32(1.5))  # noqa: E731
    assert_same(ours, plain_f((2, 3), (2, 2), (2, 3, -1, 4), flip, 1.5), x)
    assert_same(lambda x: upfirdn2d(x, f, padding=[4, 2], impl="ref"), plain_f((1, 1), (1, 1), (4, 4, 2, 2)), x)
    w, h = stylegan.upfirdn2d._get_filter_size(f)
    around = (w // 2 + 1, (w - 1) // 2 + 1, h // 2 + 1, (h - 1) // 2 + 1)
    assert_same(lambda x: filter2d(x, f, 1, flip), plain_f((1, 1), (1, 1), around, flip), x)
    around = ((w + 1) // 2, (w - 2) // 2, (h + 1) // 2, (h - 2) // 2)
    assert_same(lambda x: upsample2d(x, f, flip_filter=flip), plain_f((2, 2), (1, 1), around, flip, 4), x)
    around = ((w - 1) // 2, (w - 2) // 2, (h - 1) // 2, (h - 2) // 2)
    assert_same(lambda x: downsample2d(x, f, flip_filter=flip), plain_f((1, 1), (2, 2), around, flip), x)


def test_readers_of_arguments():
    module = stylegan.upfirdn2d
    assert module._parse_padding(np.int64(2)) == (2, 2, 2, 2) and module._parse_padding((1, 2)) == (1, 1, 2, 2)
    assert module._parse_scaling([2, 3]) == (2, 3) and module._get_filter_size(torch.zeros(2, 3)) == (3, 2)


def test_a_matrix_that_is_an_outer_product_runs_as_taps(monkeypatch):
    f, x, seen = setup_filter([1, 3, 3, 1]), torch.randn(2, 3, 8, 8), []
    of_ops = stylegan.upfirdn2d.fir.__globals__["ops"].upfirdn2d
    watched = lambda x, f, **options: seen.append(f.ndim) or of_ops(x, f, **options)  # noqa: E731
    monkeypatch.setattr("gan_engine.ops.upfirdn2d", watched)
    torch.testing.assert_close(upsample2d(x, f), plain.upfirdn2d(x, f, (2, 2), (1, 1), (2, 1, 2, 1), False, 4))
    with torch.no_grad():
        f[0, 0] = 1  # no outer product any more
    torch.testing.assert_close(upsample2d(x, f), plain.upfirdn2d(x, f, (2, 2), (1, 1), (2, 1, 2, 1), False, 4))
    upsample2d(x.double(), setup_filter([1, 3, 3, 1]))
    assert seen == [1, 2, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda f, other: f.data.copy_(other),
        lambda f, other: setattr(f, "data", other.double()),
        lambda f, other: np.copyto(f.numpy(), other.numpy()),
    ],
)
def test_a_filter_that_changes_unseen_by_its_version(change):
    f, other, x = setup_filter([1, 3, 3, 1]), setup_filter([1, 2, 3, 4]), torch.randn(2, 3, 8, 8)
    upsample2d(x, f)
    change(f, other)
    torch.testing.assert_close(upsample2d(x, f), plain.upfirdn2d(x, other, (2, 2), (1, 1), (2, 1, 2, 1), False, 4))


def test_a_filter_without_numbers():
    f = setup_filter([1, 3, 3, 1])
    with FakeTensorMode() as mode:
        assert upsample2d(torch.randn(2, 3, 8, 8), mode.from_tensor(f)).shape == (2, 3, 16, 16)


def test_numbers_that_are_no_integers_are_refused():
    x, w, f = torch.randn(1, 2, 6, 6), torch.randn(2, 2, 3, 3), setup_filter([1, 3, 3, 1])
    assert upfirdn2d(x, f, up=2.0).shape == (1, 2, 9, 9)
    calls = (
        lambda: upfirdn2d(x, f, up=2.5),
        lambda: upfirdn2d(x, f, padding=[1, 1.5]),
        lambda: bias_act(x, torch.zeros(2), dim=1.5),
        lambda: conv2d_resample(x, w, f, up=1.5),
        lambda: stylegan.networks_stylegan2.modulated_conv2d(x, w, torch.ones(1, 2), padding=0.5),
        lambda: rosinality.upfirdn2d(x, f, pad=(1, 1.5)),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"want integers, got [0-9]\.5"):
            call()
    with pytest.raises(ValueError, match="conv2d_resample: up and down must be at least 1, got 0 and 1"):
        conv2d_resample(x, w, f, up=0)


def test_a_filter_of_inference_mode():
    with torch.inference_mode():
        f, x = setup_filter([1, 3, 3, 1]), torch.randn(2, 3, 8, 8)
        torch.testing.assert_close(upsample2d(x, f), plain.upfirdn2d(x, f, (2, 2), (1, 1), (2, 1, 2, 1), False, 4))


@pytest.mark.parametrize("face", [upfirdn2d, mmcv.upfirdn2d, rosinality.upfirdn2d, basicsr.upfirdn2d])
def test_upfirdn2d_compiles_as_one_graph(face):
    f, x = setup_filter([1, 3, 3, 1]), torch.randn(2, 3, 8, 8)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: face(x, f, 2, 1, (2, 1)), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), face(x, f, 2, 1, (2, 1)))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("factors", [(1, 1), (2, 1), (1, 2), (2, 2)], ids=str)
@pytest.mark.parametrize("flip", [False, True])
def test_conv2d_resample(k, factors, flip):
    x, f = randn(2, 4, 6, 6), torch.rand(4)
    for groups in (1, 2):
        w = randn(6, 4 // groups, k, k)
        options = dict(zip(("up", "down"), factors), padding=k // 2, groups=groups, flip_weight=flip, flip_filter=flip)
        assert_same(
            lambda x, w: conv2d_resample(x, w, f, **options),  # noqa: B023
            lambda x, w: plain.conv2d_resample(x, w, f, **options),  # noqa: B023
            x,
            w,
        )


def test_conv2d_resample_pads_each_side_by_itself():
    x, w = randn(2, 4, 6, 6), randn(6, 4, 3, 3)
    ours = lambda x, w: conv2d_resample(x, w, padding=[1, 0, 2, -1])  # noqa: E731
    assert_same(ours, lambda x, w: torch.conv2d(plain.upfirdn2d(x, sides=(1, 0, 2, -1)), w), x, w)


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_conv2d_of_stylegan2(up, demodulate):
    x, w, s, noise = randn(2, 3, 4, 4), randn(5, 3, 3, 3), randn(2, 3) + 2, randn(4 * up, 4 * up)
    f = setup_filter([1, 3, 3, 1])
    options = {"up": up, "padding": 1, "demodulate": demodulate, "flip_weight": up == 1}
    face = stylegan.networks_stylegan2.modulated_conv2d
    ours = lambda x, w, s, noise: face(x, w, s, noise, resample_filter=f, fused_modconv=False, **options)  # noqa: E731
    assert_same(ours, lambda x, w, s, noise: plain.modulated_conv2d(x, w, s, f=f, **options) + noise, x, w, s, noise)


@pytest.mark.parametrize("gain", [None, (), (3,), (2, 3)], ids=str)
def test_modulated_conv2d_of_stylegan3(gain):
    x, w, s = randn(2, 3, 4, 4), randn(5, 3, 3, 3), randn(2, 3)
    gains = [] if gain is None else [randn(*gain)]

    def by_norms(x, w, s, *gain):
        w = w / w.square().mean([1, 2, 3], keepdim=True).sqrt()
        return plain.modulated_conv2d(x, w, s / s.square().mean().sqrt(), True, *gain, padding=2)

    face = stylegan.networks_stylegan3.modulated_conv2d
    assert_same(lambda x, w, s, *g: face(x, w, s, True, 2, *g), by_norms, x, w, s, *gains)
    options = {"padding": 2, "demodulate": False}
    assert_same(lambda x, w, s: face(x, w, s, **options), lambda *t: plain.modulated_conv2d(*t, **options), x, w, s)


@pytest.mark.parametrize("double", [False, True])
def test_filtered_lrelu(double):
    x, b, fu, fd = randn(2, 3, 5, 6), randn(3), torch.rand(6), torch.rand(4, 4)
    fu, fd = (fu.double(), fd.double()) if double else (fu, fd)
    ours = lambda x, b: filtered_lrelu(x, fu, fd, b, 2, 2, [3, 4, 2, 1], slope=0.1, clamp=0.5)  # noqa: E731
    assert_same(ours, lambda x, b: plain.filtered_lrelu(x, fu, fd, b, 2, 2, (3, 4, 2, 1), 2**0.5, 0.1, 0.5), x, b)
    assert_same(filtered_lrelu, lambda x: plain.bias_act(x, act="lrelu"), x)


def test_fma_and_grid_sample():
    assert_same(fma, lambda a, b, c: a * b + c, randn(2, 3, 1, 1), randn(2, 3, 4, 4), randn(2, 1, 4, 4))
    assert_same(grid_sample_gradfix.grid_sample, plain.grid_sample, randn(2, 2, 4, 5), randn(2, 3, 3, 2) / 2)


@pytest.mark.parametrize("groups", [1, 2])
def test_gradfix_convolutions(groups):
    x, w, b = randn(2, 4, 5, 5), randn(4, 4 // groups, 3, 3), randn(4)
    options = {"stride": 2, "padding": 1, "groups": groups}
    for name in ("conv2d", "conv_transpose2d"):
        ours, theirs = getattr(conv2d_gradfix, name), getattr(torch.nn.functional, name)
        assert_same(lambda *t: ours(*t, **options), lambda *t: theirs(*t, **options), x, w, b)  # noqa: B023


def test_a_convolution_to_one_channel_in_channels_last():
    x, w = (t.contiguous(memory_format=torch.channels_last) for t in (randn(2, 3, 5, 5), randn(1, 3, 3, 3)))
    assert_same(conv2d_gradfix.conv2d, torch.conv2d, x, w)


def test_no_weight_gradients():
    x, w = randn(2, 4, 5, 5).requires_grad_(), randn(4, 4, 3, 3).requires_grad_()
    y = conv2d_gradfix.conv2d(x, w).sin()
    with pytest.raises(RuntimeError), conv2d_gradfix.no_weight_gradients():
        (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        y.sum().backward(retain_graph=True)
        raise RuntimeError
    assert x.grad is not None and w.grad is None and not conv2d_gradfix.weight_gradients_disabled
    dx.square().sum().backward()  # R1: its weights are wanted
    (want,) = torch.autograd.grad(torch.conv2d(x, w).sin().sum(), x, create_graph=True)
    torch.testing.assert_close(w.grad, torch.autograd.grad(want.square().sum(), w)[0])
    with conv2d_gradfix.no_weight_gradients(disable=False):
        conv2d_gradfix.conv2d(x, w).sum().backward()


@pytest.mark.parametrize("library", [rosinality, basicsr])
def test_rosinality_and_basicsr(library):
    x, b, f = randn(2, 3, 5, 6), randn(3), torch.rand(4, 3)
    ours = lambda x, b: library.fused_leaky_relu(x, b, 0.3, 1.1)  # noqa: E731
    assert_same(ours, lambda x, b: plain.bias_act(x, b, 1, "lrelu", 0.3, 1.1), x, b)
    for pad, sides in (((2, 1), (2, 1, 2, 1)), ((1, 2, 3, 4), (1, 2, 3, 4))):
        ours = lambda x: library.upfirdn2d(x, f, 2, 1, pad)  # noqa: B023, E731
        assert_same(ours, lambda x: plain.upfirdn2d(x, f, (2, 2), (1, 1), sides), x)  # noqa: B023
    layer = library.FusedLeakyReLU(3).double()
    assert list(layer.state_dict()) == ["bias"]
    assert_same(layer, lambda x: plain.bias_act(x, None, 1, "lrelu"), x)
    assert rosinality.FusedLeakyReLU(3, bias=False).bias is None
    assert rosinality.conv2d_gradfix is conv2d_gradfix


def test_mmcv():
    x, b, f = randn(2, 3, 6, 6), randn(3), torch.rand(4, 3)
    for custom in (True, False):
        ours = lambda x: mmcv.upfirdn2d(x, f, 2, 1, [2, 1, 3, 0], True, 1.5, custom)  # noqa: B023, E731
        assert_same(ours, lambda x: plain.upfirdn2d(x, f, (2, 2), (1, 1), (2, 1, 3, 0), True, 1.5), x)
    lrelu = lambda x, b: plain.bias_act(x, b, 1, "lrelu")  # noqa: E731
    assert_same(mmcv.fused_bias_leakyrelu, lrelu, x, b)
    assert_same(mmcv.FusedBiasLeakyReLU(3).double(), lambda x: lrelu(x, None), x)
    assert_same(lambda x, b: mmcv.bias_act(x, b, 1, "lrelu"), lrelu, x, b)
    for name in ("filter2d", "upsample2d", "downsample2d"):
        ours, theirs = getattr(mmcv, name), getattr(stylegan.upfirdn2d, name)
        assert_same(lambda x: ours(x, f, gain=2), lambda x: theirs(x, f, gain=2), x)  # noqa: B023
    face = lambda x, b: mmcv.filtered_lrelu(x, f, None, b, 2, 1, 3, math.sqrt(2), 0.2, 0.5)  # noqa: E731
    assert_same(face, lambda x, b: plain.filtered_lrelu(x, f, None, b, 2, 1, (3,) * 4, 2**0.5, 0.2, 0.5), x, b)
    assert mmcv.conv2d is conv2d_gradfix.conv2d and mmcv.conv_transpose2d is conv2d_gradfix.conv_transpose2d
