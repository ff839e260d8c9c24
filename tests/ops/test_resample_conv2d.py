"""The promises of upsample_conv2d and downsample_conv2d beyond the properties that every op has."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from gan_engine import backends
from gan_engine.ops import (
    downsample_conv2d,
    modulated_conv2d,
    setup_filter,
    upfirdn2d,
    upsample_conv2d,
)
from gan_engine.ops.thresholds import TABLE

OP = "upsample_conv2d"  # downsample_conv2d has the same backends


@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_equals_resampling_beside_the_convolution(k: int, backend: str, device: str):
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64, device=device)
    weight = torch.randn(4, 3, k, k, dtype=torch.float64, device=device)
    up = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=k // 2)
    torch.testing.assert_close(upsample_conv2d(x, weight, backend=backend), up)
    down = F.avg_pool2d(F.conv2d(x, weight, padding=k // 2), 2)
    torch.testing.assert_close(downsample_conv2d(x, weight, backend=backend), down)


def set_threshold(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    monkeypatch.setitem(TABLE, name, TABLE[name]._replace(number=number))


@pytest.fixture
def whatever_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny images are resampled as larger ones are, and convolved as with more channels."""
    set_threshold(monkeypatch, "few channels for layouts", TABLE["few channels"].number)
    set_threshold(monkeypatch, "few pixels to double", 0)
    set_threshold(monkeypatch, "few pixels to halve", 0)


@pytest.mark.parametrize(
    ("op", "threshold"), [(upsample_conv2d, "few pixels to double"), (downsample_conv2d, "few pixels to halve")]
)
def test_few_pixels_are_resampled_beside_the_convolution(op, threshold: str, monkeypatch):
    x, weight = torch.randn(1, 3, 6, 8), torch.randn(4, 3, 3, 3)
    found, flops = [], []
    for fewest in (48, 49):
        set_threshold(monkeypatch, threshold, fewest)
        with FlopCounterMode(display=False) as counter:
            found.append(op(x, weight))
        flops.append(counter.get_flop_counts()["Global"].get(torch.ops.aten.convolution, 0))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    assert flops[1] == 9 * 4 * flops[0] / 16  # in each direction: 3x3 taps at four pixels, or 4x4 at one


@pytest.mark.parametrize("taps", [[1, 3, 3, 1], [1, 2, 1], [[1, 2], [3, 4], [5, 6]]], ids=["1331", "121", "3x2"])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_fir_equals_its_definition(k: int, taps: list, backend: str, device: str):
    """Up: zeros behind every pixel, the filter, the convolution. Down: the filter, the convolution, every second."""
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64, device=device)
    weight = torch.randn(4, 3, k, k, dtype=torch.float64, device=device)
    f = setup_filter(taps, device=device)
    fh, fw = f.shape[0], f.shape[-1]

    sides = [(fw + 1) // 2, (fw - 2) // 2, (fh + 1) // 2, (fh - 2) // 2]
    doubled = upfirdn2d(x, f, up=2, padding=[side + k // 2 for side in sides], gain=4, backend="reference")
    got = upsample_conv2d(x, weight, mode="fir", f=f, backend=backend)
    torch.testing.assert_close(got, F.conv2d(doubled, weight))
    assert got.shape == (2, 4, 12, 16)

    sides = [(fw - 1) // 2, (fw - 2) // 2, (fh - 1) // 2, (fh - 2) // 2]
    filtered = upfirdn2d(x, f, padding=[side + k // 2 for side in sides], backend="reference")
    got = downsample_conv2d(x, weight, mode="fir", f=f, backend=backend)
    torch.testing.assert_close(got, F.conv2d(filtered, weight)[:, :, ::2, ::2])
    assert got.shape == (2, 4, 3, 4)


@pytest.mark.parametrize(("up", "down"), [(2, 1), (1, 2), (3, 1)])
def test_modulated_resampling_is_that_of_the_scaled_input(up: int, down: int, backend: str, device: str):
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, device=device)
    if (reason := backends.refusal("modulated_conv2d", backend, x)) is not None:
        pytest.skip(f"{backend}: {reason}")
    weight, styles = torch.randn(4, 3, 3, 3).to(x), torch.randn(2, 3).to(x)
    f = setup_filter([1, 3, 3, 1], device=device)
    got = modulated_conv2d(x, weight, styles, up=up, down=down, f=f, demodulate=False, backend=backend)
    scaled = x * styles[:, :, None, None]
    if (up, down) == (2, 1):
        want = upsample_conv2d(scaled, weight, mode="fir", f=f, backend="reference")
    elif (up, down) == (1, 2):
        want = downsample_conv2d(scaled, weight, mode="fir", f=f, backend="reference")
    else:
        want = F.conv2d(upfirdn2d(scaled, f, up=3, padding=[4, 1, 4, 1], gain=9, backend="reference"), weight)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("op", [upsample_conv2d, downsample_conv2d])
@pytest.mark.usefixtures("whatever_the_size")
def test_layouts_of_the_passes_do_not_show(op, layout: torch.memory_format):
    """The passes of a strided convolution on a CPU run in layouts of their own if there are enough channels."""
    x = torch.randn(2, 32, 6, 10).to(memory_format=layout).requires_grad_()
    weight = torch.randn(48, 32, 3, 3, requires_grad=True)

    def orders(backend: str) -> list[torch.Tensor]:
        y = op(x, weight, backend=backend)
        first = torch.autograd.grad(y.square().sum(), (x, weight), create_graph=True)
        second = torch.autograd.grad(sum(g.square().mean() for g in first), (x, weight))
        return [y, *first, *second]

    names = ("y", "dx", "dweight", "ddx", "ddweight")
    for name, got, want in zip(names, orders(None), orders("reference"), strict=True):
        torch.testing.assert_close(
            got, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()), msg=lambda m, n=name: f"{n}: {m}"
        )
        assert name not in ("y", "dx") or got.stride() == want.stride(), name


@pytest.mark.parametrize("op", [upsample_conv2d, downsample_conv2d])
def test_the_chooser_finds_the_convolution_of_few_pixels(op):
    x, weight = torch.randn(1, 64, 8, 8), torch.randn(64, 64, 3, 3)
    with backends.watched() as choices:
        op(x, weight)
        op(x, weight, backend="reference")
    assert [choice.shape[2] for choice in choices if choice.op == "conv2d"] == [16 if op is upsample_conv2d else 8]


@pytest.mark.parametrize("op", [upsample_conv2d, downsample_conv2d])
def test_saves_multiplications_in_every_pass(op, backend: str, device: str):
    if backend == "reference":
        pytest.skip("reference: the definition saves nothing")
    x = torch.randn(2, 8, 8, 8, device=device).requires_grad_()
    weight = torch.randn(8, 8, 3, 3, device=device).requires_grad_()

    def flops(backend: str) -> int:
        with FlopCounterMode(display=False) as counter:
            y = op(x, weight, backend=backend)
            torch.autograd.grad(y.sum(), (x, weight))
        counts = counter.get_flop_counts()["Global"]
        return sum(n for name, n in counts.items() if "convolution" in str(name))

    assert flops(backend) * 2.25 == flops("reference")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: upsample_conv2d(torch.randn(1, 2, 4, 4), torch.randn(3, 2, 2, 2)), r"k odd, got \[2, 2\]"),
        (lambda: upsample_conv2d(torch.randn(1, 2, 4, 4), torch.randn(3, 4, 3, 3)), r"got x \[1, 2, 4, 4\] and weight"),
        (
            lambda: upsample_conv2d(torch.randn(1, 2, 4, 4), torch.randn(3, 2, 3, 3), mode="fir"),
            "mode fir takes a filter f, and no other does, got mode 'fir' with f None",
        ),
        (
            lambda: upsample_conv2d(torch.randn(1, 2, 4, 4), torch.randn(3, 2, 3, 3), mode="mean"),
            "mode must be nearest or fir, got 'mean'",
        ),
        (
            lambda: modulated_conv2d(torch.randn(1, 2, 4, 4), torch.randn(3, 2, 3, 3), torch.ones(1, 2), up=2, down=2),
            "up or down must be 1, .* got up 2, down 2",
        ),
        (lambda: downsample_conv2d(torch.randn(1, 2, 5, 4), torch.randn(3, 2, 3, 3)), r"must be even, got \[5, 4\]"),
    ],
)
def test_bad_input_is_refused_with_want_and_got(call, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("op", [upsample_conv2d, downsample_conv2d])
@pytest.mark.usefixtures("whatever_the_size")
def test_autocast_with_two_gradients(op):
    """Has enough channels for the layouts of a strided convolution, which are not for autocast to meet."""
    x = torch.randn(2, 32, 8, 8, requires_grad=True)
    weight = torch.randn(32, 32, 3, 3, requires_grad=True)
    found = {}
    for precise in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            y = op(x, weight)
            (g,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        found[precise] = (y, g, *torch.autograd.grad(g.square().sum(), (x, weight)))
    for got, want in zip(found[False], found[True], strict=True):
        assert (got.float() - want).norm() < 0.03 * want.norm()
