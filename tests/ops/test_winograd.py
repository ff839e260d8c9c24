"""Minimal filtering: every form of it is a convolution, and those in use are as accurate as PyTorch's kernels."""

import itertools
import platform
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine import backends
from gan_engine.layers import Conv2d, ConvTranspose2d
from gan_engine.losses import penalties
from gan_engine.ops import conv2d, convolution
from gan_engine.ops.convolution import forms, maps
from gan_engine.ops.convolution.arguments import ConvolutionArguments
from gan_engine.ops.convolution.forms import FORMS
from gan_engine.ops.kernel_op import operators
from gan_engine.ops.thresholds import TABLE
from gan_engine.system import native
from gan_engine.system.cpu import halves_512_bits

pytestmark = [
    pytest.mark.skipif(native.WHY_NO_CPU is not None, reason=str(native.WHY_NO_CPU)),
]

ISAS = native.cpu.module.isas() if native.WHY_NO_CPU is None else []
LAYOUTS = [torch.contiguous_format, torch.channels_last]
EACH = [
    pytest.param(kind, form, id=f"{kind[0]}x{kind[0]}-stride-{kind[1]}{'-transposed' * kind[2]}-{form.number}")
    for kind, forms in FORMS.items()
    for form in forms
]


@pytest.fixture(autouse=True)
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose forms on every instruction set. Without this fixture some sets run a form only if asked by name."""
    monkeypatch.setattr(forms, "WHY_NOT", None)
    monkeypatch.setattr(forms, "_answers", {})


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = native.cpu.module.isa()
    native.cpu.module.use_isa(request.param)
    yield request.param
    native.cpu.module.use_isa(before)


def alone(monkeypatch: pytest.MonkeyPatch, kind: tuple, form: forms.Form) -> None:
    """Every convolution of the kind is computed by this form, however small."""
    # A weight's gradient is that of the convolution without transposition, of which any form will do.
    anywhere = {"channels": 1, "pixels": 1, "paddings": (0, 1, 2, 3), "side": 1}
    others = {other: tuple(f._replace(**anywhere) for f in FORMS[other]) for other in FORMS}
    monkeypatch.setattr(forms, "FORMS", others | {kind: (form._replace(**anywhere),)})
    monkeypatch.setattr(forms, "_answers", {})
    monkeypatch.setitem(TABLE, "few channels", TABLE["few channels"]._replace(number=1))
    monkeypatch.setitem(TABLE, "small gain", TABLE["small gain"]._replace(number=float("inf")))


def drawn(*shape: int, seed: int = 0, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.float().to(memory_format=layout)


def relative(got: Tensor, want: Tensor) -> float:
    return float((got.detach().double() - want.detach()).norm() / want.detach().norm())


def call_of(kind: tuple, padding: int, rest: int = 0) -> ConvolutionArguments:
    _, stride, transposed = kind
    return (
        ConvolutionArguments.from_conv_transpose(2, stride, padding, rest)
        if transposed
        else ConvolutionArguments.from_conv(2, stride, padding)
    )


def takes(x: Tensor, weight: Tensor, call: ConvolutionArguments) -> bool:
    """Whether the chooser takes minimal filtering for the forward pass."""
    request = maps.forward_request(x, weight, None, call)
    return request.way(backends.choose(maps.forward_op(call), x, None, request)) >= 0


def kernels(x: Tensor, w: Tensor, dy: Tensor, call: ConvolutionArguments) -> list[Tensor]:
    """y, dx and dw of <y, dy>."""
    return [maps.forward(x, w, None, call), maps.image_gradient(dy, w, x, call), maps.weight_gradient(x, dy, w, call)]


def oracle(x: Tensor, w: Tensor, dy: Tensor, call: ConvolutionArguments) -> list[Tensor]:
    x, w, dy = (t.double() for t in (x, w, dy))
    return [
        torch.convolution(x, w, None, *call),
        *torch.ops.aten.convolution_backward(dy, x, w, None, *call, (True, True, False))[:2],
    ]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("kind", "form"), EACH)
@pytest.mark.usefixtures("poisoned_memory")
def test_every_form_is_a_convolution(kind: tuple, form, layout, isa: str, monkeypatch):
    """Sides that no tile divides, channels that no vector does, every padding, more tiles than one block of them, and
    more channels out than one group."""
    alone(monkeypatch, kind, form)
    k, stride, transposed = kind
    for n, i, o, h, w, padding, rest in (
        (2, 5, 37, 9, 6, 0, 0),
        (1, 33, 3, 6, 13, 1, stride - 1),
        (3, 16, 64, 14, 8, k - 1, 0),
        (1, 130, 7, 5, 4, 1, 0),
        (4, 20, 290, 13, 11, 1, 0),
        (4, 80, 160, 9, 7, 1, 0),  # blocks of tiles, parts of channels in, and panels that take turns
        (1, 200, 48, 5, 4, 1, 0),  # few tiles of many channels, whose weights in channels_last move in long runs
    ):
        call = call_of(kind, padding, rest if transposed else 0)
        weight = drawn(*((i, o) if transposed else (o, i)), k, k, seed=1, layout=layout)
        x = drawn(n, i, h, w, layout=layout)
        assert takes(x, weight, call)
        dy = drawn(*torch.convolution(x, weight, None, *call).shape, seed=2, layout=layout)
        for name, got, want in zip(
            ["y", "dx", "dw"], kernels(x, weight, dy, call), oracle(x, weight, dy, call), strict=True
        ):
            assert got.shape == want.shape
            assert relative(got, want) < 3e-6, (name, got.shape)
        assert maps.forward(x, weight, None, call).stride() == torch.convolution(x, weight, None, *call).stride()
        assert maps.image_gradient(dy, weight, x, call).stride() == x.stride()
        assert maps.weight_gradient(x, dy, weight, call).stride() == weight.stride()


@pytest.mark.parametrize(("kind", "form"), EACH)
@pytest.mark.usefixtures("poisoned_memory")
def test_images_in_any_layout_have_the_same_bits(kind: tuple, form, isa: str, monkeypatch):
    """Images so wide that a window has some of the tiles of a row, and so deep that it has some of their channels."""
    alone(monkeypatch, kind, form)
    k, _, transposed = kind
    call = call_of(kind, 1, 0)
    for n, i, o, h, w in ((2, 40, 37, 7, 6), (1, 72, 20, 5, 330), (1, 17, 33, 33, 4)):
        weight = drawn(*((i, o) if transposed else (o, i)), k, k, seed=1)
        x = drawn(n, i, h, w)
        dy = drawn(*torch.convolution(x, weight, None, *call).shape, seed=2)
        layouts = {
            "last": lambda t: t.to(memory_format=torch.channels_last),
            "planes": Tensor.contiguous,
            "gaps": lambda t: F.pad(t, (1, 2))[..., 1:-2],
        }
        of_weight = layouts["last"](weight)
        y, dx, dw = kernels(layouts["last"](x), of_weight, layouts["last"](dy), call)
        for one, other in itertools.product(layouts.values(), repeat=2):
            for name, got, want in zip(
                ["y", "dx", "dw", "y of contiguous tensors"],
                [*kernels(one(x), of_weight, other(dy), call), maps.forward(x, weight, None, call)],
                [y, dx, dw, y],
                strict=True,
            ):
                assert torch.equal(got, want), name


@pytest.mark.parametrize("slope", [1.0, 0.2, 0.0])
@pytest.mark.parametrize(
    ("kind", "n", "i", "o", "h", "on_x86"),
    [
        ((3, 1, False), 8, 64, 64, 32, (2.9, 4.2, 11.3)),
        ((3, 1, False), 8, 64, 64, 12, (2.8, 4.1, 4.0)),
        ((3, 1, False), 1, 64, 96, 48, (2.9, 5.2, 5.9)),
        ((3, 1, False), 4, 256, 128, 16, (5.9, 5.9, 3.9)),
        ((3, 1, False), 8, 512, 512, 8, (8.1, 11.4, 2.6)),
        ((3, 1, False), 2, 32, 48, 64, (2.0, 3.7, 11.4)),
        ((4, 1, False), 8, 64, 64, 32, (4.0, 2.9, 7.8)),
        ((4, 1, False), 1, 256, 128, 31, (8.0, 4.0, 3.7)),
        ((4, 1, False), 8, 64, 128, 9, (3.9, 3.8, 2.7)),
        ((4, 1, False), 2, 192, 192, 16, (6.9, 4.8, 2.6)),
        ((3, 2, False), 4, 128, 256, 65, (4.3, 4.7, 8.2)),
        ((3, 2, False), 16, 128, 256, 9, (4.4, 4.3, 2.0)),
        ((3, 2, True), 8, 256, 128, 32, (3.3, 6.0, 11.5)),
        ((4, 2, False), 16, 64, 128, 32, (3.9, 2.8, 7.9)),
        ((4, 2, False), 16, 64, 128, 8, (3.7, 2.8, 1.8)),
        ((4, 2, False), 8, 32, 64, 24, (2.8, 2.0, 4.1)),
        ((4, 2, True), 16, 128, 64, 32, (2.0, 5.6, 15.8)),
        ((4, 2, True), 16, 128, 64, 4, (1.9, 5.2, 1.8)),
    ],
)
def test_errors_are_at_most_twice_those_of_pytorch(
    kind: tuple, n: int, i: int, o: int, h: int, on_x86: tuple, slope: float
):
    """Of the one of PyTorch's layouts that rounds more, as any of its users might have it.

    On AArch64 PyTorch's kernels round less, and no form is chosen. There, the errors are held to those of PyTorch on
    x86-64: `on_x86`, for y, dx and dw in 1e-7, the least of the three slopes (PyTorch 2.13, AVX-512, 2026-11).
    """
    k, _, transposed = kind
    call = call_of(kind, 0 if kind[:2] == (3, 2) else 1)
    x = F.leaky_relu(drawn(n, i, h, h), slope).to(memory_format=torch.channels_last)
    weight = drawn(*((i, o) if transposed else (o, i)), k, k, seed=1, layout=torch.channels_last)
    assert takes(x, weight, call)
    dy = drawn(*torch.convolution(x, weight, None, *call).shape, seed=2, layout=torch.channels_last)
    want = oracle(x, weight, dy, call)
    ours = [relative(a, b) for a, b in zip(kernels(x, weight, dy, call), want, strict=True)]
    aarch64 = platform.machine() == "aarch64"
    theirs = [error * 1e-7 for error in on_x86] if aarch64 else [0.0] * 3
    for layout in () if aarch64 else LAYOUTS:
        inputs = [t.contiguous(memory_format=layout) for t in (x, weight, dy)]
        with backends.use("reference"):
            found = kernels(*inputs, call)
        theirs = [max(worst, relative(a, b)) for worst, a, b in zip(theirs, found, want, strict=True)]
    for name, got, limit in zip(["y", "dx", "dw"], ours, theirs, strict=True):
        assert got <= 2 * limit + torch.finfo(torch.float32).eps, (name, got, limit)


def test_a_bias_is_added():
    x, w, b = drawn(4, 64, 16, 16), drawn(64, 64, 3, 3, seed=1), drawn(64, seed=2)
    call = ConvolutionArguments.from_conv(2, 1, 1)
    assert takes(x, w, call)
    assert relative(maps.forward(x, w, b, call), F.conv2d(x.double(), w.double(), b.double(), padding=1)) < 1e-6


@pytest.mark.parametrize("wrong", [drawn(32), drawn(64).double(), drawn(64, 1)])
def test_a_bias_that_does_not_fit_is_refused_by_pytorch(wrong: Tensor):
    x, w = drawn(4, 64, 16, 16), drawn(64, 64, 3, 3, seed=1)
    with pytest.raises(RuntimeError):
        conv2d(x, w, wrong, padding=1)


def test_a_bias_may_have_any_strides():
    x, w, b = drawn(4, 64, 16, 16), drawn(64, 64, 3, 3, seed=1), drawn(128, seed=2)[::2]
    want = F.conv2d(x.double(), w.double(), b.double(), padding=1)
    assert relative(conv2d(x, w, b, padding=1), want) < 1e-6


def test_another_default_dtype_changes_nothing():
    x, w = drawn(4, 64, 16, 16), drawn(64, 64, 3, 3, seed=1)
    want = conv2d(x, w, padding=1)
    try:
        torch.set_default_dtype(torch.bfloat16)
        assert torch.equal(conv2d(x, w, padding=1), want)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(128, 160), (168, 96), (112, 64), (33, 32)], ids=str)  # the longer side is cut
@pytest.mark.parametrize("size", [(2, 64, 64, torch.contiguous_format), (4, 5, 4, torch.channels_last)], ids=str)
def test_one_thread_or_several_make_no_difference(size: tuple, channels: tuple, stride: int, monkeypatch):
    monkeypatch.setitem(TABLE, "small gain", TABLE["small gain"]._replace(number=float("inf")))  # no map is PyTorch's
    anywhere = {kind: tuple(form._replace(pixels=1) for form in forms_of) for kind, forms_of in FORMS.items()}
    monkeypatch.setattr(forms, "FORMS", anywhere)
    monkeypatch.setattr(forms, "_answers", {})
    n, h, width, layout = size
    i, o = channels
    x, w = drawn(n, i, h, width, layout=torch.channels_last), drawn(o, i, 3, 3, seed=1, layout=layout)
    call = ConvolutionArguments.from_conv(2, stride, 1)
    dy = drawn(*torch.convolution(x, w, None, *call).shape, seed=2)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        found.append(kernels(x, w, dy, call))
    torch.set_num_threads(before)
    assert takes(x, w, call)
    assert forms.for_image_gradient(dy, w, x, call)[0] is not None
    assert forms.for_weight_gradient(x, dy, w, call)[0] is not None
    assert all(torch.equal(a, b) for others in found[1:] for a, b in zip(found[0], others, strict=True))


def test_what_it_does_not_take_is_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(maps, "BFLOAT16_TIME", 0.2)  # a CPU whose bfloat16 is fast
    x, w, call = drawn(4, 64, 16, 16), drawn(64, 64, 3, 3, seed=1), ConvolutionArguments.from_conv(2, 1, 1)
    assert takes(x, w, call)
    others = {
        "float64": (x.double(), w.double(), call),
        "bfloat16": (x.bfloat16(), w.bfloat16(), call),
        "5x5": (x, drawn(64, 64, 5, 5), call),
        "3x1": (x, drawn(64, 64, 3, 1), call),
        "groups": (x, drawn(64, 32, 3, 3), call._replace(groups=2)),
        "dilation": (x, w, call._replace(dilation=(2, 2))),
        "one stride of two": (x, w, call._replace(stride=(1, 2))),
        "uneven padding": (x, w, call._replace(padding=(1, 0))),
        "wide padding": (x, w, call._replace(padding=(3, 3))),
        "few channels": (x[:, :16], w[:, :16], call),
        "a small gain": (drawn(2, 40, 16, 16), drawn(40, 40, 3, 3), call),
        # With vectors of 256 bits few pixels gain, too.
        **({"few pixels": (x[:1, :, :2, :2], w, call)} if forms.costs() == forms.COSTS["avx512"] else {}),
        "an empty batch": (x[:0], w, call),
        "other channels": (x, drawn(64, 48, 3, 3), call),
        "negative padding": (x, w, call._replace(padding=(-1, -1))),
        "a weight without numbers": (x, w.to("meta"), call),
        "volume": (x[..., None], w[..., None], ConvolutionArguments.from_conv(3, 1, 1)),
    }
    for name, arguments in others.items():
        assert not takes(*arguments), name
    with backends.use("reference"):
        assert not takes(x, w, call)
        assert torch.equal(conv2d(x, w, padding=1), F.conv2d(x, w, padding=1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(convolution.conv2d(x, w, padding=1), F.conv2d(x, w, padding=1))


@pytest.mark.parametrize(
    ("cpu", "gains"), [("AuthenticAMD 25", True), ("AuthenticAMD 26", False), ("GenuineIntel 25", False), ("", False)]
)
def test_small_images_gain_with_avx512_where_the_cpu_halves_its_vectors(cpu: str, gains: bool, tmp_path, monkeypatch):
    told = tmp_path / "cpuinfo"
    told.write_text("vendor_id\t: {}\ncpu family\t: {}\n\nvendor_id\t: other\n".format(*cpu.split()) if cpu else "")
    monkeypatch.setattr("gan_engine.system.cpu.Path", lambda path: told)
    monkeypatch.setattr(forms, "halves_512_bits", halves_512_bits.__wrapped__)
    monkeypatch.setattr(native.cpu, "module", SimpleNamespace(isa=lambda: "avx512"))
    call = ConvolutionArguments.from_conv(2, 1, 1)
    _, share = forms.for_forward(torch.empty(8, 512, 4, 4), torch.empty(512, 512, 3, 3), None, call)
    assert (share < TABLE["small gain"].number) is gains


NUMBERS = [form.number for forms in FORMS.values() for form in forms]
TRANSPOSED = [form.number for kind in FORMS if kind[2] for form in FORMS[kind]]


@pytest.mark.parametrize("number", [*TRANSPOSED, max(NUMBERS) + 1])
def test_a_form_that_has_no_gradient_by_the_weight_is_refused(number: int):
    with pytest.raises(ValueError, match="transposed" if number in TRANSPOSED else "no form"):
        operators.winograd_wgrad(drawn(1, 32, 8, 8), drawn(1, 32, 8, 8, seed=1), 3, number, 1, False)


@pytest.mark.parametrize("make", [Conv2d, ConvTranspose2d])
def test_the_layers_are_those_of_pytorch(make: type):
    theirs = {Conv2d: torch.nn.Conv2d, ConvTranspose2d: torch.nn.ConvTranspose2d}[make]
    plain = theirs(64, 96, 4, 2, 1)
    ours = make(64, 96, 4, 2, 1)
    ours.load_state_dict(plain.state_dict())
    x = drawn(16, 64, 32, 32, layout=torch.channels_last)
    assert takes(x, ours.weight, call_of((4, 2, make is ConvTranspose2d), 1))
    assert relative(ours(x), plain.double()(x.double())) < 1e-6


def test_a_layer_with_other_edges_pads_them_first():
    plain = torch.nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect")
    ours = Conv2d(64, 64, 3, padding=1, padding_mode="reflect")
    ours.load_state_dict(plain.state_dict())
    x = drawn(4, 64, 16, 16)
    assert relative(ours(x), plain.double()(x.double())) < 1e-6


def squared_gradient(function) -> object:
    """The gradients by all inputs of the sum of squared gradients by the first."""

    def total(*inputs: Tensor) -> Tensor:
        return torch.func.grad(lambda x: function(x, *inputs[1:]).cos().sum())(inputs[0]).square().sum()

    return lambda *inputs: torch.func.grad(total, argnums=tuple(range(len(inputs))))(*inputs)


@pytest.mark.parametrize("padding", ["valid", "same", 1])
def test_padding_may_be_a_word(padding: str | int):
    ours, x = Conv2d(64, 64, 3, padding=padding, stride=1 if padding == "same" else 2), drawn(4, 64, 33, 33)
    assert relative(ours(x), torch.nn.Conv2d._conv_forward(ours, x, ours.weight, ours.bias).double()) < 1e-6


def test_compiled_for_any_size():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, w: convolution.conv2d(x, w, padding=1), dynamic=True, backend="aot_eager")
    for n, side in ((4, 16), (6, 20)):
        x, w = drawn(n, 64, side, side), drawn(64, 64, 3, 3, seed=1)
        assert relative(compiled(x, w), F.conv2d(x.double(), w.double(), padding=1)) < 1e-6


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_second_gradients_are_those_of_pytorch_compiled_or_not(backend: str):
    x, w, v = drawn(4, 64, 16, 16), drawn(64, 64, 3, 3, seed=1) / 24, drawn(64, 64, 4, 4, seed=2) / 32

    def ours(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
        return convolution.conv2d(convolution.conv2d(x, w, padding=1).sin(), v, stride=2, padding=1)

    def plain(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, w, padding=1).sin(), v, stride=2, padding=1)

    assert takes(x, w, ConvolutionArguments.from_conv(2, 1, 1))
    function = squared_gradient(ours)
    if backend != "eager":
        torch._dynamo.reset()
        function = torch.compile(function, fullgraph=True, backend=backend)
    wanted = squared_gradient(plain)(x.double(), w.double(), v.double())
    for got, want in zip(function(x, w, v), wanted, strict=True):
        assert relative(got, want) < 3e-6


@pytest.mark.parametrize("level", [2, 1])
def test_a_penalty_is_as_exact_as_autograd(level: int):
    """At most twice the error of autograd on PyTorch's kernels, in all parameter gradients together."""

    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        lrelu = torch.nn.LeakyReLU(0.2)
        layers = [torch.nn.Conv2d(3, 64, 3, padding=1), lrelu, torch.nn.Conv2d(64, 64, 3, padding=1), lrelu]
        layers += [torch.nn.Conv2d(64, 128, 4, 2, 1), lrelu, torch.nn.Flatten(), torch.nn.Linear(128 * 64, 1)]
        return torch.nn.Sequential(*layers)

    def gradients(level: int | str, dtype: torch.dtype, *, plain: bool) -> Tensor:
        D = network().to(dtype)
        with backends.use("reference" if plain else "cpu"):
            penalties.backward_with_penalty(D, drawn(8, 3, 16, 16).to(dtype), F.softplus, gamma=1.0, level=level)
        return torch.cat([p.grad.double().flatten() for p in D.parameters()])

    assert takes(drawn(8, 64, 16, 16), network()[2].weight, ConvolutionArguments.from_conv(2, 1, 1))
    want = gradients("autograd", torch.float64, plain=True)
    ours = relative(gradients(level, torch.float32, plain=False), want)
    assert ours <= 2 * relative(gradients("autograd", torch.float32, plain=True), want)
