"""The promises of upfirdn2d and its shorthands beyond the properties that every op has."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine import backends
from gan_engine.ops import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d
from gan_engine.system import native

LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])


def by_loops(x: Tensor, f: Tensor, up, down, padding, flip_filter, gain) -> Tensor:
    """The definition, one multiplication after the other, on [H, W]."""
    (h, w), (taps_y, taps_x) = x.shape, f.shape
    x0, x1, y0, y1 = padding
    u = {(iy * up[1] + y0, ix * up[0] + x0): float(x[iy, ix]) for iy in range(h) for ix in range(w)}
    there = h * up[1] + y0 + y1, w * up[0] + x0 + x1
    y = torch.zeros((there[0] - taps_y) // down[1] + 1, (there[1] - taps_x) // down[0] + 1, dtype=torch.float64)
    for oy in range(y.shape[0]):
        for ox in range(y.shape[1]):
            for ky in range(taps_y):
                for kx in range(taps_x):
                    at = oy * down[1] + ky, ox * down[0] + kx
                    weight = f[ky, kx] if flip_filter else f[taps_y - 1 - ky, taps_x - 1 - kx]
                    if at[0] < there[0] and at[1] < there[1]:
                        y[oy, ox] += gain * float(weight) * u.get(at, 0.0)
    return y


def some_call(seed: int) -> tuple[Tensor, Tensor, dict]:
    number = random.Random(seed).randint
    torch.manual_seed(seed)
    x = torch.randn(1, 2, number(1, 7), number(1, 40))
    f = torch.randn(number(1, 5)) if seed % 2 else torch.randn(number(1, 4), number(1, 5))
    return x, f, {
        "up": [number(1, 4), number(1, 3)],
        "down": [number(1, 4), number(1, 3)],
        "padding": [number(-2, 6) for _ in range(4)],
        "flip_filter": bool(number(0, 1)),
        "gain": number(1, 5) / 2,
    }  # fmt: skip


@LAYOUTS
@pytest.mark.parametrize("seed", range(16))
def test_it_is_the_sum_that_defines_it(seed: int, layout, backend: str, device: str):
    x, f, options = some_call(seed)
    if backends.refusal("upfirdn2d", backend, x.to(device)):
        pytest.skip(backends.refusal("upfirdn2d", backend, x.to(device)))
    try:
        y = upfirdn2d(x.to(device, memory_format=layout), f.to(device), **options, backend=backend).cpu()
    except ValueError as error:
        assert "must hold the" in str(error)
        return
    matrix = f.outer(f) if f.ndim == 1 else f
    for c in range(2):
        torch.testing.assert_close(y[0, c].double(), by_loops(x[0, c], matrix, **options), rtol=1e-5, atol=1e-5)


@LAYOUTS
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.skipif(native.WHY_NO_CPU is not None, reason=str(native.WHY_NO_CPU))
def test_threads_meet_anywhere(threads: int, layout):
    """Rows are shared out evenly, in the middle of an image or of a batch of rows."""
    x = torch.randn(1, 3, 70, 401).to(memory_format=layout)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for options in ({"up": 2, "padding": 3}, {"down": 2, "padding": 1}, {"padding": 2}):
            for f in (setup_filter([1, 3, 3, 1]), torch.randn(3, 4)):
                y = upfirdn2d(x, f, **options, backend="cpu")
                torch.testing.assert_close(y, upfirdn2d(x, f, **options, backend="reference"), rtol=1e-5, atol=1e-5)
    finally:
        torch.set_num_threads(before)


@LAYOUTS
@pytest.mark.parametrize("padding", [[90, 3, 40, 0], [1, 90, 2, 40], [70, 70, 0, 50]])
def test_padding_may_be_wider_than_the_image(padding, layout, backend: str, device: str):
    """A strip of a row, or a whole row, may lie outside the image."""
    x = torch.randn(1, 40, 3, 2).to(device, memory_format=layout)
    if backends.refusal("upfirdn2d", backend, x):
        pytest.skip(backends.refusal("upfirdn2d", backend, x))
    for f in (setup_filter([1, 3, 3, 1]), torch.randn(3, 4)):
        for options in ({}, {"up": 2}, {"down": 2}):
            y = upfirdn2d(x, f.to(device), padding=padding, **options, backend=backend)
            want = upfirdn2d(x, f.to(device), padding=padding, **options, backend="reference")
            torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-5)


@LAYOUTS
@pytest.mark.parametrize("options", [{}, {"up": 2}, {"down": 2}], ids=str)
def test_padding_may_need_64_bits(options, layout, backend: str, device: str):
    """Zeros that a negative padding crops again, on one axis or the other; the reference would need their memory."""
    x = torch.ones(1, 16, 9, 9).to(device, memory_format=layout)
    if backend in ("pytorch", "reference") or backends.refusal("upfirdn2d", backend, x):
        pytest.skip("needs a kernel")
    for zeros in (2**32, 2**29 + 2):
        for padding in ([zeros, 12 - zeros, 2, 2], [2, 2, zeros, 12 - zeros]):
            y = upfirdn2d(x, setup_filter([1, 3, 3, 1]).to(device), padding=padding, **options, backend=backend)
            assert y.numel() > 0 and not y.any()


def test_upsampling_by_1331_is_bilinear_interpolation_inside():
    x = torch.randn(2, 3, 8, 9)
    y = upsample2d(x, setup_filter([1, 3, 3, 1]))
    want = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert y.shape == want.shape
    torch.testing.assert_close(y[..., 1:-1, 1:-1], want[..., 1:-1, 1:-1])


def test_downsampling_by_11_is_the_mean_of_two():
    x = torch.randn(2, 3, 8, 6)
    torch.testing.assert_close(downsample2d(x, setup_filter([1, 1])), F.avg_pool2d(x, 2))


@pytest.mark.parametrize("taps", [[1.0], [1, 2, 1], [1, 3, 3, 1], [[1, 2], [3, 4], [5, 6]]])
def test_the_three_shorthands_keep_double_and_halve_the_size_and_a_constant(taps):
    f = setup_filter(taps)
    x = torch.ones(1, 1, 12, 12)
    for y, size in ((filter2d(x, f), 12), (upsample2d(x, f), 24), (downsample2d(x, f), 6)):
        assert y.shape == (1, 1, size, size)
    for y in (filter2d(x, f), downsample2d(x, f)):
        torch.testing.assert_close(y[..., 2:-2, 2:-2], torch.ones_like(y[..., 2:-2, 2:-2]))
    assert upsample2d(x, f).shape[2:] == upsample2d(x, f, up=[2, 2], padding=[1, -1, 1, -1]).shape[2:]
    assert upsample2d(x, f, up=[3, 1]).shape == (1, 1, 12, 36)
    assert downsample2d(x, f, down=[1, 4]).shape == (1, 1, 3, 12)


@pytest.mark.parametrize("seed", range(6))
def test_the_gradient_is_the_adjoint(seed: int, backend: str, device: str):
    x, f, options = some_call(200 + seed)
    x, f = x.double().to(device).requires_grad_(), f.to(device)
    options["padding"] = [6, 5, 4, 6]
    if backends.refusal("upfirdn2d", backend, x):
        pytest.skip(backends.refusal("upfirdn2d", backend, x))
    y = upfirdn2d(x, f, **options, backend=backend)
    v = torch.randn_like(y).requires_grad_()
    (dx,) = torch.autograd.grad(y, x, v, create_graph=True)
    torch.testing.assert_close((y * v).sum(), (x * dx).sum())
    w = torch.randn_like(dx)
    second = torch.autograd.grad(dx, (v, x), w, allow_unused=True)
    torch.testing.assert_close(second[0], upfirdn2d(w, f, **options, backend=backend))
    if backend != "reference":
        assert second[1] is None


def some_long_call(seed: int) -> tuple[Tensor, Tensor, dict]:
    number, choice = random.Random(seed).randint, random.Random(1000 + seed).choice
    torch.manual_seed(seed)
    x = torch.randn(number(1, 2), choice([1, 3, 16, 21, 70]), number(1, 22), number(1, 50))
    f = torch.randn(number(5, 32)) / 4
    around = 2 * len(f)
    return x, f, {
        "up": [number(1, 4), number(1, 4)] if seed % 3 == 0 else choice([1, 2]),
        "down": [number(1, 4), number(1, 4)] if seed % 3 == 1 else choice([1, 2]),
        "padding": [around + number(-9, 0), -number(0, 3), number(0, 9), around + number(-9, 0)],
        "flip_filter": bool(number(0, 1)),
        "gain": choice([1, 4, -0.5]),
    }  # fmt: skip


def axis_matrix(size: int, f: Tensor, up: int, down: int, before: int, after: int, flip: bool) -> Tensor:
    """upfirdn2d along one axis as a matrix [out, size]: output o has tap i up + before - o down of element i."""
    out = torch.arange((size * up + before + after - len(f)) // down + 1)
    tap = torch.arange(size) * up + before - out[:, None] * down
    weights = f if flip else f.flip(0)
    return torch.where((tap >= 0) & (tap < len(f)), weights[tap.clamp(0, len(f) - 1)], 0).double()


def by_matrices(x: Tensor, f: Tensor, up, down, padding, flip_filter, gain) -> Tensor:
    """The filter f[:, None] * f in float64, as products of matrices, which cost little where there are many taps"""
    x0, x1, y0, y1 = padding
    up, down = ([n, n] if isinstance(n, int) else n for n in (up, down))
    across = axis_matrix(x.shape[3], f, up[0], down[0], x0, x1, flip_filter)
    along = axis_matrix(x.shape[2], f, up[1], down[1], y0, y1, flip_filter)
    return gain * (along @ x.double() @ across.T)


def of_float64(f: Tensor, options: dict):
    """(filter, filter of magnitudes), in float64 by the definition; the latter bounds the rounding of the former."""
    sizes = {**options, "gain": abs(options["gain"])}
    if f.ndim == 1:
        return lambda x: by_matrices(x, f, **options), lambda x: by_matrices(x.double().abs(), f.abs(), **sizes)
    return (
        lambda x: upfirdn2d(x.double(), f, **options, backend="reference"),
        lambda x: upfirdn2d(x.double().abs(), f.abs(), **sizes, backend="reference"),
    )


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_matrices_of_the_axes_are_the_definition(seed: int):
    x, f, options = some_long_call(seed)
    x = x[:1, :2]
    want = upfirdn2d(x.double(), f, **options, backend="reference")
    torch.testing.assert_close(by_matrices(x, f, **options), want, rtol=1e-13, atol=1e-13)


@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_many_taps_are_right_to_the_second_order(seed: int, dtype, layout):
    """Two rows, two phases or two pixels at once, each of which may be the last one or have no partner."""
    x, f, options = some_long_call(seed)
    x = x.to(dtype, memory_format=layout)
    if backends.refusal("upfirdn2d", "cpu", x):
        pytest.skip(backends.refusal("upfirdn2d", "cpu", x))
    filtered, size = of_float64(f, options)
    tolerance = {torch.float32: 4e-6, torch.float64: 1e-14, torch.bfloat16: 8e-3}[dtype]

    def near(got: Tensor, want: Tensor, bound: Tensor) -> bool:
        return got.dtype == dtype and bool(((got.double() - want).abs() <= tolerance * bound + 1e-30).all())

    x = x.requires_grad_()
    y = upfirdn2d(x, f, **options, backend="cpu")
    assert near(y, filtered(x), size(x))
    dy = torch.randn(y.shape).to(dtype, memory_format=layout).requires_grad_()
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    wide = x.detach().double().requires_grad_()
    (want,) = torch.autograd.grad(filtered(wide), wide, dy.detach().double())
    # The sum of magnitudes is a gradient too: of the filter of magnitudes, by |x|.
    positive = x.detach().double().abs().requires_grad_()
    (bound,) = torch.autograd.grad(size(positive), positive, dy.detach().double().abs())
    assert near(dx, want, bound)
    v = torch.randn(x.shape).to(dtype, memory_format=layout)
    (d_dy,) = torch.autograd.grad(dx, dy, v)
    assert near(d_dy, filtered(v), size(v))


@LAYOUTS
@pytest.mark.parametrize("options", [{"up": 2, "padding": 11}, {"down": 2, "padding": 5}, {"padding": 6}], ids=str)
def test_many_taps_compile(options, layout):
    x = torch.randn(1, 3, 9, 37).to(memory_format=layout)
    if backends.refusal("upfirdn2d", "cpu", x):
        pytest.skip(backends.refusal("upfirdn2d", "cpu", x))
    f = setup_filter(torch.arange(1.0, 13.0))
    for taps in (f, f.outer(f)):
        torch.compiler.reset()  # else PyTorch counts these calls as recompilations of one function
        compiled = torch.compile(lambda x, taps=taps: upfirdn2d(x, taps, **options).square().sum(), fullgraph=True)
        one, two = (x.clone().requires_grad_() for _ in range(2))
        compiled(one).backward()
        upfirdn2d(two, taps, **options).square().sum().backward()
        torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=0)


@LAYOUTS
@pytest.mark.parametrize("options", [{"up": 2, "padding": 12}, {"down": 2, "padding": 12}, {"padding": 12}], ids=str)
@pytest.mark.parametrize("taps", [(5, 12), (12, 12), (24, 1), (1, 24), (4, 4)], ids=str)
def test_a_matrix_that_is_an_outer_product_is_filtered_axis_by_axis(taps, options, layout):
    """The bits are those of the axes where the factors are exact, so no other filter can have run."""
    if backends.refusal("upfirdn2d", "cpu", torch.ones(1)):
        pytest.skip(backends.refusal("upfirdn2d", "cpu", torch.ones(1)))
    x = torch.randn(2, 19, 13, 40).to(memory_format=layout)
    column, row = (torch.randn(n) for n in taps)
    matrix = column[:, None] * row
    filtered, size = of_float64(matrix, {**options, "gain": 1})
    y = upfirdn2d(x, matrix, **options, backend="cpu")
    assert ((y.double() - filtered(x)).abs() <= 4e-6 * size(x) + 1e-30).all()
    if taps[0] != taps[1]:
        return
    small = torch.randint(1, 8, (taps[0],)).float()  # products and quotients by a power of two are exact
    small[1] = 8.0
    one = upfirdn2d(x, small, **options, backend="cpu")
    two = upfirdn2d(x, small.outer(small), **options, backend="cpu")
    # small.outer(small) = (8 small) * (small / 8): the two scales are powers of two, which no rounding sees.
    assert torch.equal(one, two)


@LAYOUTS
def test_a_matrix_that_is_almost_an_outer_product_is_not_factored(layout):
    if backends.refusal("upfirdn2d", "cpu", torch.ones(1)):
        pytest.skip(backends.refusal("upfirdn2d", "cpu", torch.ones(1)))
    x = torch.randn(1, 2, 20, 20, dtype=torch.float64).to(memory_format=layout)
    f = torch.linspace(0.1, 1, 6)
    for change in (1e-7, 1e-3):  # in float64, the rounding of a product in float32 is a difference too
        matrix = f.outer(f)
        matrix[2, 3] *= 1 + change
        want = upfirdn2d(x, matrix, backend="reference")
        torch.testing.assert_close(upfirdn2d(x, matrix, backend="cpu"), want, rtol=1e-13, atol=1e-13)
    matrix = f.outer(f)
    matrix[0, 0] = 0
    y, want = (upfirdn2d(x.float(), matrix, backend=backend) for backend in ("cpu", "reference"))
    torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"up": 2, "padding": 12}, {"down": 2}, {"padding": 3}], ids=str)
@LAYOUTS
def test_an_infinite_pixel_spoils_only_what_many_taps_reach(options, layout):
    x = torch.randn(1, 17, 29, 60).to(memory_format=layout)
    x[0, 3, 14, 31] = float("inf")
    f = torch.linspace(0.1, 1, 12)
    y, want = upfirdn2d(x, f, **options), upfirdn2d(x.nan_to_num(posinf=1e6), f, **options)
    clean = upfirdn2d((x == float("inf")).float(), f, **options) == 0
    assert not clean.all()
    torch.testing.assert_close(y[clean], want[clean])
    assert (y[~clean] == float("inf")).all()


def test_padding_is_one_number_two_or_four():
    x, f = torch.randn(1, 1, 4, 5), torch.randn(2, 3)
    for short, full in ((1, [1, 1, 1, 1]), ([1, 2], [1, 1, 2, 2]), ((0, 3), [0, 0, 3, 3])):
        torch.testing.assert_close(upfirdn2d(x, f, padding=short), upfirdn2d(x, f, padding=full), rtol=0, atol=0)
    padded = F.pad(x, [2, 0, 3, 0])
    torch.testing.assert_close(upfirdn2d(x, f, padding=[2, 0, 3, 0]), upfirdn2d(padded, f))
    torch.testing.assert_close(upfirdn2d(x, f, padding=[-1, 0, 0, -1]), upfirdn2d(x[:, :, :-1, 1:], f))
    torch.testing.assert_close(upfirdn2d(x, None, padding=[-9, 8, 2, 0]), F.pad(x[..., 5:], [0, 4, 2, 0]))


def test_no_filter_is_one_tap():
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(upfirdn2d(x, None), x, rtol=0, atol=0)
    y = upfirdn2d(x, None, up=2, gain=3)
    torch.testing.assert_close(y[..., ::2, ::2], 3 * x)
    assert y[..., 1::2].abs().max() == 0 and y[..., 1::2, :].abs().max() == 0


@pytest.mark.parametrize("options", [{}, {"up": 2, "padding": 2}, {"down": 2}])
def test_a_separable_filter_is_the_outer_product_of_its_taps(options):
    x, f = torch.randn(1, 2, 9, 20), torch.randn(4)
    torch.testing.assert_close(
        upfirdn2d(x, f, gain=2, **options), upfirdn2d(x, f.outer(f), gain=2, **options), rtol=1e-4, atol=1e-5
    )


def test_channels_last_without_neighbouring_pixels_stays_so():
    x = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    y = filter2d(x, setup_filter([1, 2, 1]))
    assert y.is_contiguous(memory_format=torch.channels_last)
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y, memory_format=torch.contiguous_format))
    assert dx.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("options", [{"up": 2, "padding": 2}, {"down": 2}, {"padding": 1}])
def test_an_infinite_pixel_spoils_only_what_it_reaches(options):
    x = torch.randn(1, 1, 9, 40)
    x[0, 0, 4, 20] = float("inf")
    f = setup_filter([1, 3, 3, 1])
    y, want = upfirdn2d(x, f, **options), upfirdn2d(x.nan_to_num(posinf=1e6), f, **options)
    clean = upfirdn2d((x == float("inf")).float(), f, **options) == 0
    torch.testing.assert_close(y[clean], want[clean])
    assert (y[~clean] == float("inf")).all()


def test_setup_filter_normalises_flips_and_finds_taps():
    f = setup_filter([1, 3, 3, 1])
    assert f.dtype == torch.float32
    torch.testing.assert_close(f, torch.tensor([1.0, 3, 3, 1]) / 8)
    torch.testing.assert_close(setup_filter(f.outer(f).numpy()), f)
    torch.testing.assert_close(setup_filter([1, 2], gain=4), torch.tensor([2.0, 4]) / 3)
    reversed_matrix = torch.tensor([[16.0, 12], [8, 4]]) / 10
    torch.testing.assert_close(setup_filter([[1, 2], [3, 4]], gain=4, flip_filter=True), reversed_matrix)
    torch.testing.assert_close(setup_filter([1, 2], normalize=False, separable=False), torch.tensor([[1.0, 2], [2, 4]]))
    torch.testing.assert_close(
        setup_filter([0, 1, -2], normalize=False, separable=False).diagonal(), torch.tensor([0.0, 1, 4])
    )
    torch.testing.assert_close(
        setup_filter([[0, 0, 0], [0, 1, -2], [0, -2, 4]], normalize=False), torch.tensor([0.0, -1, 2])
    )
    assert setup_filter([[1, 2], [2, 5]]).shape == (2, 2)
    assert setup_filter([[1, 2, 1], [2, 4, 2]]).shape == (2, 3)
    assert setup_filter([[1, 0], [0, -1]], normalize=False).shape == (2, 2)
    assert setup_filter(None).tolist() == [1.0]
    assert setup_filter(7, normalize=False).tolist() == [7.0]


X, TAPS = torch.randn(1, 2, 4, 4), torch.ones(3)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: upfirdn2d(X[0], TAPS), ValueError, r"x must be \[N, C, H, W\], got \[2, 4, 4\]"),
        (lambda: upfirdn2d(X.int(), TAPS), TypeError, "x must be float32, .* got torch.int32"),
        (lambda: upfirdn2d(X, TAPS.double()), TypeError, "f must be torch.float32 .* got torch.float64"),
        (lambda: upfirdn2d(X, torch.ones(1, 1, 3)), ValueError, r"f must be \[taps\] or .* got \[1, 1, 3\]"),
        (lambda: upfirdn2d(X, TAPS.clone().requires_grad_()), RuntimeError, "f has no gradient, but requires one"),
        (lambda: upfirdn2d(X, TAPS, up=0), ValueError, r"up must be an integer or \[x, y\], at least 1, got 0"),
        (lambda: downsample2d(X, TAPS, down=[2]), ValueError, r"downsample2d: down must be .* got \[2\]"),
        (lambda: filter2d(X, TAPS, padding=[1, 2, 3]), ValueError, r"filter2d: padding must be .* got \[1, 2, 3\]"),
        (lambda: upfirdn2d(X, torch.ones(5)), ValueError, "upsampled and padded must hold the 5 taps along y, got 4"),
        (lambda: upfirdn2d(X, TAPS, padding=[-1, -1, 0, 0]), ValueError, "must hold the 3 taps along x, got 2"),
        (lambda: setup_filter(torch.ones(1, 2, 3)), ValueError, r"got \[1, 2, 3\]"),
        (lambda: setup_filter([1, -1]), ValueError, "sums to 0"),
        (lambda: setup_filter([[1, 2], [3, 4]], separable=True), ValueError, "outer product of taps with themselves"),
        (lambda: setup_filter([1, 2], gain=-1), ValueError, "a gain of at least 0, got -1"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_want_and_got(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
