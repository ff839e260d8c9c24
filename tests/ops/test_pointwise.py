"""1x1 convolutions between few channels and many: their kernels, and where they are chosen."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine import backends, ops
from gan_engine.losses import penalties
from gan_engine.ops import convolution
from gan_engine.ops.convolution import maps, pointwise
from gan_engine.ops.convolution.arguments import ConvolutionArguments
from gan_engine.ops.kernel_op import operators
from gan_engine.ops.thresholds import TABLE
from gan_engine.system import native

pytestmark = pytest.mark.skipif(native.WHY_NO_CPU is not None, reason=str(native.WHY_NO_CPU))

ISAS = native.cpu.module.isas() if native.WHY_NO_CPU is None else []
LAYOUTS = [torch.contiguous_format, torch.channels_last]
PLAIN = ConvolutionArguments.from_conv(2)
SHAPES = [  # batch, height, width: pixels that fill no vector, several pieces of pixels, and one pixel
    (2, 5, 7),
    (3, 32, 21),
    (1, 1, 1),
    (4, 16, 16),
    (1, 1, 519),
]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = native.cpu.module.isa()
    native.cpu.module.use_isa(request.param)
    yield request.param
    native.cpu.module.use_isa(before)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are chosen for small images too."""
    name = "few elements of a 1x1 convolution"
    monkeypatch.setitem(TABLE, name, TABLE[name]._replace(number=1))


def drawn(*shape: int, seed: int = 0, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(memory_format=layout) if len(shape) == 4 else x


def relative(got: Tensor, want: Tensor) -> float:
    return float((got.detach().double() - want.detach()).norm() / want.detach().norm())


def kernels(x: Tensor, w: Tensor, dy: Tensor, bias: Tensor | None = None) -> list[Tensor]:
    """y, dx and dw of <y, dy>."""
    return [
        pointwise.forward(x, w, bias),
        pointwise.image_gradient(dy, w, x),
        pointwise.weight_gradient(x, dy, w),
    ]


def by_pytorch(x: Tensor, w: Tensor, dy: Tensor, bias: Tensor | None = None) -> list[Tensor]:
    return [
        torch.convolution(x, w, bias, *PLAIN),
        *torch.ops.aten.convolution_backward(dy, x, w, None, *PLAIN, (True, True, False))[:2],
    ]


def way_of(x: Tensor, w: Tensor, arguments: ConvolutionArguments = PLAIN, bias: Tensor | None = None) -> int:
    request = maps.forward_request(x, w, bias, arguments)
    return request.way(backends.choose("conv2d", x, None, request))


@pytest.mark.parametrize("dy_layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("few", [1, 2, 3, 4])
@pytest.mark.parametrize("to_many", [True, False], ids=["to many", "to few"])
@pytest.mark.usefixtures("poisoned_memory")
def test_the_maps_are_those_of_pytorch(to_many: bool, few: int, layout, dy_layout, isa: str):
    for n, h, w in SHAPES:
        for many in (16, 37, 64, 130):
            i, o = (few, many) if to_many else (many, few)
            x, dy = drawn(n, i, h, w, layout=layout), drawn(n, o, h, w, seed=1, layout=dy_layout)
            weight, bias = drawn(o, i, 1, 1, seed=2, layout=layout), drawn(2 * o, seed=3)[::2]
            wide = [t.double() for t in (x, weight, dy, bias)]
            sums = by_pytorch(*(t.abs() for t in wide))  # rounding is a share of the numbers that are added
            for name, got, want, added in zip(
                ("y", "dx", "dw"), kernels(x, weight, dy, bias), by_pytorch(*wide), sums, strict=True
            ):
                assert got.shape == want.shape
                assert (got - want).norm() < 5e-7 * added.norm(), (name, got.shape)
            y, dx, dw = kernels(x, weight, dy)
            assert (y - by_pytorch(*wide[:3])[0]).norm() < 5e-7 * sums[0].norm()
            assert y.stride() == by_pytorch(x, weight, dy)[0].stride()
            assert dx.stride() == x.stride() and dw.stride() == weight.stride()


def test_weights_and_images_may_have_any_strides():
    x, dy = drawn(2, 6, 9, 8)[:, ::2], drawn(2, 8, 9, 32).permute(0, 3, 2, 1)
    weight = drawn(3, 64, 1, 1)[:, ::2].transpose(0, 1)
    assert [t.shape for t in (x, dy, weight)] == [(2, 3, 9, 8), (2, 32, 9, 8), (32, 3, 1, 1)]
    for got, want in zip(kernels(x, weight, dy), by_pytorch(*(t.double() for t in (x, weight, dy))), strict=True):
        assert relative(got, want) < 1e-6


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_large_image_goes_around_the_caches(layout, isa: str):
    """Of more than 24 MB, where it begins at a line of the cache; else it is written as any other."""
    w = drawn(16, 1, 1, 1)
    for pixels in (640, 641):
        x = drawn(1, 1, 640, pixels, layout=layout)
        torch.testing.assert_close(pointwise.forward(x, w, None), x * w.reshape(1, 16, 1, 1))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("i, o", [(3, 64), (64, 3)])
def test_the_result_does_not_depend_on_the_number_of_threads(i: int, o: int, layout):
    x, w, dy = drawn(5, i, 33, 29, layout=layout), drawn(o, i, 1, 1), drawn(5, o, 33, 29, layout=layout)
    threads = torch.get_num_threads()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(kernels(x, w, dy))
    torch.set_num_threads(threads)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_errors_are_at_most_twice_those_of_pytorch(layout):
    for i, o in ((3, 256), (256, 3), (1, 64)):
        x, w, dy = drawn(8, i, 64, 64, layout=layout), drawn(o, i, 1, 1, seed=1), drawn(8, o, 64, 64, seed=2)
        want = by_pytorch(*(t.double() for t in (x, w, dy)))
        ours, theirs = kernels(x, w, dy), by_pytorch(x, w, dy)
        for a, b, c in zip(ours, theirs, want, strict=True):
            assert relative(a, c) <= 2 * relative(b, c) + torch.finfo(torch.float32).eps


@pytest.mark.usefixtures("always")
def test_where_the_kernels_are_chosen():
    x, w = drawn(2, 3, 8, 8), drawn(16, 3, 1, 1)
    assert way_of(x, w) == way_of(drawn(2, 16, 8, 8), drawn(4, 16, 1, 1)) == maps.POINTWISE
    for other, weight, arguments in (
        (x, w, ConvolutionArguments.from_conv(2, stride=2)),
        (x, w, ConvolutionArguments.from_conv(2, padding=1)),
        (x, drawn(16, 3, 3, 3), PLAIN),
        (x, drawn(15, 3, 1, 1), PLAIN),
        (drawn(2, 5, 8, 8), drawn(16, 5, 1, 1), PLAIN),
        (drawn(2, 32, 8, 8), drawn(32, 1, 1, 1), ConvolutionArguments.from_conv(2, groups=32)),
        (x.double(), w.double(), PLAIN),
        (x[:0], w, PLAIN),
        (x, w, ConvolutionArguments.from_conv_transpose(2)),
    ):
        assert way_of(other, weight, arguments) != maps.POINTWISE


def test_a_request_by_name_takes_few_elements():
    request = maps.forward_request(drawn(1, 3, 8, 8), drawn(64, 3, 1, 1), None, PLAIN)
    assert (request.way("cpu"), request.way("pytorch")) == (maps.POINTWISE, maps.PYTORCH)


@pytest.mark.parametrize("wrong", [drawn(3), drawn(16, 1)])
@pytest.mark.usefixtures("always")
def test_a_bias_that_does_not_fit_is_refused_by_pytorch(wrong: Tensor):
    with pytest.raises(RuntimeError):
        ops.conv2d(drawn(2, 3, 8, 8), drawn(16, 3, 1, 1), wrong)


@pytest.mark.usefixtures("always")
def test_other_channels_than_those_of_the_weight_are_refused_by_pytorch():
    with pytest.raises(RuntimeError, match=r"expected input\[2, 4, 8, 8\] to have 3 channels"):
        ops.conv2d(drawn(2, 4, 8, 8), drawn(16, 3, 1, 1))


def orders(function, inputs: list[Tensor]) -> list[Tensor]:
    """The value and the gradients of three orders, each of a curved function of the one before."""
    found = [function(*inputs)]
    for _ in range(3):
        total = sum(t.sin().mean() for t in found[-len(inputs) :])
        found += torch.autograd.grad(total, inputs, create_graph=True)
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("i, o", [(3, 32), (32, 2)])
@pytest.mark.usefixtures("always")
def test_gradients_of_three_orders_are_those_of_pytorch(i: int, o: int, layout):
    inputs = [drawn(2, i, 12, 9, layout=layout), drawn(o, i, 1, 1, seed=1) / i**0.5, drawn(o, seed=2)]
    got = orders(convolution.conv2d, [t.requires_grad_() for t in inputs])
    want = orders(F.conv2d, [t.detach().double().requires_grad_() for t in inputs])
    for a, b in zip(got, want, strict=True):
        assert relative(a, b) < 1e-5


class FromColours(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(drawn(32, 3, 1, 1))

    def forward(self, img: Tensor) -> Tensor:
        return F.leaky_relu(F.conv2d(img, self.weight), 0.2).mean([1, 2, 3])


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.usefixtures("always")
def test_penalties_run_on_the_kernels(level: int, monkeypatch):
    """R1 of a D that begins with such a convolution, against autograd in float64."""
    run, seen = operators.pointwise, []
    monkeypatch.setattr(operators, "pointwise", lambda *args: seen.append(args) or run(*args))
    D, img = FromColours(), drawn(4, 3, 16, 16)
    x = img.double().requires_grad_()
    wide = FromColours().double()
    (g,) = torch.autograd.grad(wide(x).sum(), x, create_graph=True)
    (5 * g.square().sum([1, 2, 3]).mean()).backward()
    penalties.backward_with_penalty(D, img, None, gamma=10.0, level=level)
    assert seen
    assert relative(D.weight.grad, wide.weight.grad) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.usefixtures("always")
def test_compiled_second_gradients_are_those_of_pytorch(layout):
    x, w, b = drawn(2, 3, 6, 6, layout=layout), drawn(16, 3, 1, 1), drawn(16, seed=2)

    def squared_gradient(conv):
        def total(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
            return torch.func.grad(lambda x: conv(x, w, b).cos().sum())(x).square().sum()

        return lambda *inputs: torch.func.grad(total, argnums=(0, 1, 2))(*inputs)

    torch._dynamo.reset()
    compiled = torch.compile(squared_gradient(convolution.conv2d), fullgraph=True, backend="aot_eager")
    for a, want in zip(compiled(x, w, b), squared_gradient(F.conv2d)(x, w, b), strict=True):
        torch.testing.assert_close(a, want, rtol=1e-4, atol=1e-4)


def test_wrong_arguments_of_the_kernels_are_told():
    x, y, w = drawn(1, 5, 4, 4), torch.empty(1, 16, 4, 4), drawn(16, 5, 1, 1)
    with pytest.raises(ValueError, match="want 1 to 4 channels on one side, got 5"):
        native.cpu.pointwise(x, w, None, y, [1, 16, 0], [5, 16, 1, 5], 1)
    with pytest.raises(ValueError, match="want images and channels, got none"):
        native.cpu.pointwise(x, w, None, y, [0, 16, 0], [3, 16, 1, 3], 1)
