"""One chooser decides every call: what stands against a backend, and what a request by name overrides."""

import contextlib

import pytest
import torch
from torch import nn

from gan_engine import backends, ops
from gan_engine.activated import biased, normed
from gan_engine.layers import Conv2d
from gan_engine.losses.closed_ops import ClosedOps
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.ops import convolution
from gan_engine.ops.convolution import forms, maps
from gan_engine.ops.thresholds import TABLE
from gan_engine.ops.weight_squares import weight_squares
from gan_engine.system import native

needs_cpu_kernels = pytest.mark.skipif(native.WHY_NO_CPU is not None, reason=str(native.WHY_NO_CPU))
LAST = torch.channels_last


def chosen(op: str, call) -> backends.Choice:
    """The last choice for `op` in a call."""
    with backends.watched() as choices:
        call()
    return [choice for choice in choices if choice.op == op][-1]


def linear(elements: int):
    layer = nn.Linear(4, 8, bias=False)
    return lambda: biased(layer, torch.ones(elements // 8, 4), torch.zeros(8), act="lrelu")


def convolved(channels: int, side: int = 32, stride: int = 1, k: int = 3):
    x, weight = torch.ones(2, channels, side, side), torch.ones(channels, channels, k, k)
    return lambda: convolution.conv2d(x, weight, stride=stride, padding=k // 2)


def pixels(num: int):
    return torch.ones(1, 2, 2, num // 2), torch.ones(2, 2, 3, 3)


def level_1(side: int, stride: int = 1):
    x, weight = torch.ones(2, 16, side, side), torch.ones(16, 16, 3, 3)

    def call():
        with ClosedOps():
            torch.nn.functional.conv2d(x, weight, stride=stride, padding=1)

    return call


def norm_at_level_1(channels: int):
    def call():
        with ClosedOps():
            torch.nn.functional.instance_norm(torch.ones(1, channels, 32, 64))

    return call


def level_2(width: int):
    D = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 1), nn.Flatten(0))
    return lambda: backward_with_penalty(D, torch.ones(8, width), None, gamma=1.0)


# By threshold: a call that gains nothing, and one beyond the threshold.
SIDES = {
    "few elements": tuple(
        lambda n=n: ops.bias_act(torch.ones(n), act="lrelu", dim=0) for n in (1 << 19, (1 << 19) + 1)
    ),
    "few elements of tanh": tuple(
        lambda n=n: ops.bias_act(torch.ones(n), act="tanh", dim=0) for n in (1 << 16, (1 << 16) + 1)
    ),
    "few elements behind a layer": (linear(1 << 20), linear((1 << 20) + 8)),
    "few elements of a batch norm": tuple(
        lambda n=n: normed(nn.BatchNorm2d(2), torch.ones(n, 2, 512, 512).to(memory_format=LAST), act="relu")
        for n in (1, 2)
    ),
    "few channels": (convolved(31), convolved(64)),
    "few elements of a 1x1 convolution": tuple(
        lambda n=n: convolution.conv2d(torch.ones(1, 3, 8, n), torch.ones(64, 3, 1, 1)) for n in (511, 512)
    ),
    "small gain": (convolved(40, side=16), convolved(64)),
    "few channels for layouts": (convolved(255, 9, 2, 5), convolved(256, 9, 2, 5)),
    "few pixels to double": tuple(lambda n=n: ops.upsample_conv2d(*pixels(n)) for n in (254, 256)),
    "few products at level 1": tuple(level_1(side) for side in (64, 96)),
    "few products with a stride at level 1": tuple(level_1(side, stride=2) for side in (256, 512)),
    "few elements of a norm at level 1": (norm_at_level_1(31), norm_at_level_1(32)),
    "few products at level 2": tuple(level_2(width) for width in (64, 2048)),
    "few elements to halve": tuple(lambda n=n: ops.avg_pool2d(torch.ones(n, 1, 2, 128), 2) for n in (127, 128)),
    "many channels to halve": tuple(
        lambda c=c: ops.avg_pool2d(torch.ones(4, c, 32, 32).to(memory_format=LAST), 2) for c in (32, 31)
    ),
    "few squares of a weight": tuple(lambda n=n: weight_squares(torch.ones(n, 256, 4, 4)) for n in (15, 16)),
    "few pixels to halve": tuple(lambda n=n: ops.downsample_conv2d(*pixels(n)) for n in (1020, 1024)),
}


@needs_cpu_kernels
@pytest.mark.parametrize("name", TABLE)
def test_both_sides_of_a_threshold(name: str):
    few, many = SIDES[name]
    threshold = TABLE[name]
    choice = chosen(threshold.op, few)
    assert choice.backend == threshold.instead
    assert threshold.sentence in choice.reasons[threshold.backend]
    gains = name != "few channels for layouts" or forms.costs().layouts  # with AVX2 PyTorch's layouts gain nothing
    assert chosen(threshold.op, many).backend == (threshold.backend if gains else threshold.instead)


@needs_cpu_kernels
def test_a_request_by_name_runs_what_gains_nothing():
    x = torch.randn(4, 5)
    assert chosen("bias_act", lambda: ops.bias_act(x, act="lrelu")).backend == "pytorch"
    image, weight = torch.ones(1, 2, 4, 4), torch.ones(2, 2, 3, 3)
    for op, call in {
        "bias_act": lambda: ops.bias_act(x, act="lrelu", backend="cpu"),
        "conv2d": lambda: ops.conv2d(image, weight, stride=2, backend="cpu"),
    }.items():
        choice = chosen(op, call)
        assert (choice.backend, choice.asked, choice.reasons) == ("cpu", "cpu", {})
    with backends.use("cpu"):
        assert chosen("bias_act", lambda: ops.bias_act(x, act="lrelu")).asked == "cpu"


@needs_cpu_kernels
def test_a_request_for_a_block_concerns_the_ops_that_have_the_backend():
    x = torch.randn(4, 3, 4, 4)
    with backends.use("pytorch"):
        assert chosen("bias_act", lambda: ops.bias_act(x, act="swish")).asked == "pytorch"
        assert chosen("minibatch_stddev", lambda: ops.minibatch_stddev(x)) == (
            *("minibatch_stddev", "reference", (4, 3, 4, 4), torch.float32, None, {}),
        )
        assert chosen("pixel_norm", lambda: ops.pixel_norm(x)).backend == "cpu"
    with backends.use("cpu"):
        assert chosen("avg_pool2d", lambda: ops.avg_pool2d(x, 2)).backend == "pytorch"
    with pytest.raises(
        RuntimeError, match=r"minibatch_stddev: backend 'cpu' was asked for and cannot run: .* has no cpu"
    ):
        ops.minibatch_stddev(x, backend="cpu")


@needs_cpu_kernels
@pytest.mark.parametrize("op", [ops.upsample_conv2d, ops.downsample_conv2d], ids=["up", "down"])
def test_a_request_for_a_block_reaches_the_ops_inside_of_an_op(op):
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(4, 4, 3, 3)
    with backends.use("pytorch"):
        choice = chosen("bias_act", lambda: op(x, weight, act="relu"))
        assert (choice.backend, choice.asked) == ("pytorch", "pytorch")
    assert chosen("bias_act", lambda: op(x, weight, act="relu")).backend == "cpu"


@needs_cpu_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_weight_of_any_dtype_is_transposed(dtype: torch.dtype):
    weight = torch.randn(4, 3, 3, 2).to(dtype)
    want = weight.transpose(0, 1).flip([2, 3])
    with backends.use("cpu"):
        assert chosen("transposed_weight", lambda: convolution.transposed(weight)).backend == "cpu"
        torch.testing.assert_close(convolution.transposed(weight), want, rtol=0, atol=0)
    assert (chosen("transposed_weight", lambda: convolution.transposed(weight)).backend == "cpu") == (
        dtype == torch.float32
    )


@needs_cpu_kernels
def test_reasons_name_the_rules_that_concern_the_call():
    layouts = TABLE["few channels for layouts"].sentence
    assert layouts not in chosen("conv2d", convolved(40, side=16)).reasons["cpu"]
    assert layouts in chosen("conv2d", convolved(64, 9, 2, 5)).reasons["cpu"]


def test_a_request_for_a_block_raises_where_the_backend_cannot_run():
    missing = next((name for name in ("cuda", "triton", "cpu") if backends.MISSING[name]), None)
    if missing is None:
        pytest.skip("every backend runs here")
    with backends.use(missing), pytest.raises(RuntimeError, match=f"'{missing}' was asked for and cannot run: "):
        ops.upfirdn2d(torch.ones(1, 1, 4, 4), ops.setup_filter([1, 2, 1]))


@pytest.mark.parametrize("backend", ["cpu", "pytorch", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_convolution_of_any_dtype_runs_on_each_of_its_backends(backend: str, dtype: torch.dtype):
    if backends.MISSING[backend]:
        pytest.skip(backends.MISSING[backend])
    torch.manual_seed(0)
    layer, x = Conv2d(8, 4, 3, stride=2).to(dtype), torch.randn(2, 8, 9, 9, dtype=dtype)
    want = nn.Conv2d._conv_forward(layer, x, layer.weight, layer.bias)
    with backends.use(backend):
        torch.testing.assert_close(layer(x), want)
        assert chosen("conv2d", lambda: layer(x)).backend == backend


@needs_cpu_kernels
def test_a_form_of_minimal_filtering_is_looked_for_once_for_sizes(monkeypatch):
    from gan_engine.ops.convolution import forms

    calls = []
    monkeypatch.setattr(forms, "_answers", {})
    search = forms._fastest
    monkeypatch.setattr(forms, "_fastest", lambda *args, **options: calls.append(1) or search(*args, **options))
    layer = Conv2d(64, 64, 3, padding=1)
    y = layer(torch.ones(8, 64, 32, 32, requires_grad=True))
    assert len(calls) == 1
    y.sum().backward()
    assert len(calls) == 3  # a map each: forward, gradient by the image, gradient by the weight
    layer(torch.ones(8, 64, 32, 32, requires_grad=True)).sum().backward()
    assert len(calls) == 3
    layer(torch.ones(8, 64, 32, 32).to(memory_format=torch.channels_last))
    assert len(calls) == 4


def test_what_is_noted_holds_no_tensor():
    with backends.watched() as choices:
        ops.bias_act(torch.ones(2, 3), act="relu")
    (choice,) = choices
    assert choice.op == "bias_act" and choice.shape == (2, 3)
    assert not any(isinstance(value, torch.Tensor) for value in choice)
    with backends.watched() as outer:
        with backends.watched():
            ops.bias_act(torch.ones(2, 3))
        ops.pixel_norm(torch.ones(2, 3))
    assert [choice.op for choice in outer] == ["bias_act", "pixel_norm"]


@pytest.mark.parametrize("asked", [None, pytest.param("cpu", marks=needs_cpu_kernels)])
def test_a_convolution_under_autocast_asks_the_chooser_and_is_pytorchs(asked: str | None, monkeypatch):
    monkeypatch.setattr(maps, "BFLOAT16_TIME", 0.2)  # a CPU whose bfloat16 is fast
    x, layer = torch.randn(2, 64, 32, 32), Conv2d(64, 64, 3, padding=1)
    with contextlib.nullcontext() if asked is None else backends.use(asked), torch.autocast("cpu", torch.bfloat16):
        choice = chosen("conv2d", lambda: layer(x))
        got = layer(x)
        want = torch.nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    assert got.dtype == torch.bfloat16 and torch.equal(got, want)
    if asked is None:
        assert choice.backend == "pytorch"
        assert native.WHY_NO_CPU is not None or "bfloat16" in choice.reasons["cpu"]
