"""Triton kernels compute places in 32 bits only where all of them fit. No tensor is made: launches are looked at."""

import importlib
import itertools
from typing import Any

import pytest
import torch

from gan_engine.ops.fir import FirArguments
from gan_engine.ops.upfirdn2d_act_kernels import in_one_pass

triton = pytest.importorskip("triton")

LIMIT = 2**31
SIZES = (1, 3, 64, 512, 1 << 12, 1 << 20, (1 << 25) + 8, (1 << 26) - 8, 1 << 26, 1 << 31, (1 << 31) + 16, 1 << 33)
NUMBERS = (torch.bfloat16, 0.2, 1.0, -1.0)


class Launched:
    """Takes the place of a kernel, and keeps the constants INDEX, ROWS and COLS of a launch."""

    def __getitem__(self, grid: Any) -> "Launched":
        return self

    def __call__(self, *args: Any) -> None:
        self.bits, self.rows, self.cols = args[-3].primitive_bitwidth, *args[-2:]


@pytest.fixture
def launched(monkeypatch):
    """launched(op, name): the module of the kernels of an op, and the last launch of a kernel."""
    monkeypatch.setattr("gan_engine.backends.MISSING", {"triton": None})

    def replaced(op: str, name: str) -> tuple[Any, Launched]:
        module, launch = importlib.import_module(f"gan_engine.kernels.{op}"), Launched()
        monkeypatch.setattr(module, name, launch)
        return module, launch

    return replaced


def end(size: int, tile: int) -> int:
    """The end of the last tile."""
    return -(-size // tile) * tile


def check(bits: int, places: int) -> None:
    """`places` are computed, from 0 on."""
    assert bits in (32, 64)
    assert bits == 64 or places <= LIMIT
    assert bits == 32 or places > LIMIT // 2, "64 bits where 32 would do"


def test_bias_act(launched):
    module, launch = launched("bias_act", "_forward_kernel")
    dtype, *others = NUMBERS
    for inner, channels, images in itertools.product(SIZES, (1, 3, 64, 512), (1, 5)):
        n = inner * channels * images
        for b in ("b", None):
            module.bias_act(None, b, None, None, None, n, inner, channels, dtype, 2, *others)
            by_column, by_row = inner == 1 and b, inner % 8 == 0 and b
            width = module._width(n, channels) if by_column else inner if by_row else min(n, module.TILE)
            places = (end(-(-n // width), launch.rows) - 1) * width + end(width, launch.cols)
            check(launch.bits, places)


def test_the_gradient_of_bias_act(launched):
    module, launch = launched("bias_act", "_backward_kernel")
    dtype, *others = NUMBERS
    for inner, channels, images in itertools.product(SIZES, (1, 3, 64, 512), (1, 5)):
        n = inner * channels * images
        slots = module.bias_act_grad_slots(n, inner, channels)
        module.bias_act_grad(*[None] * 8, slots, n, inner, channels, dtype, 2, *others)
        if inner == 1:
            width = module._width(n, channels)
            places = (end(-(-n // width), launch.rows) - 1) * width + end(width, launch.cols)
        else:
            places = (end(images, launch.rows) * channels - 1) * inner + end(inner, launch.cols)
        check(launch.bits, places)


@pytest.mark.parametrize("kernel", ["_forward_kernel", "_backward_kernel", "_second_kernel"])
def test_scale_bias_act(launched, kernel: str):
    module, launch = launched("scale_bias_act", kernel)
    dtype, *others = NUMBERS
    for rows, cols, n in itertools.product(SIZES, (1, 3, 64, 512, 1 << 20), (1, 5)):
        sizes = n, rows, cols
        if kernel == "_forward_kernel":
            module.scale_bias_act(*[None] * 7, *sizes, n, dtype, True, *others)
        elif kernel == "_backward_kernel":
            module.scale_bias_act_grad(*[None] * 9, 1, *sizes, dtype, True, *others[:2])
        else:
            module.scale_bias_act_second(*[None] * 12, 1, *sizes, n, dtype, True, *others[:2])
        lines = (n - 1) * rows + end(rows, launch.rows)
        places = max((lines - 1) * cols + end(cols, launch.cols), lines * module._mask_bytes(cols))
        check(launch.bits, places)


def test_strips_take_planes_whose_places_fit():
    strips = importlib.import_module("gan_engine.kernels.strips")
    for side, channels, last in itertools.product((4, 1 << 10, 1 << 14, 1 << 15, 1 << 16), (1, 3, 64), (True, False)):
        axis = side, side, 1, 1, 1, 4
        if strips.fits(1, channels, axis, axis, True, last):
            assert (side + 4) ** 2 * (channels if last else 1) < LIMIT
        else:
            assert side**2 * channels >= strips.LARGEST


def test_one_pass_of_upfirdn2d_act_takes_what_strips_of_cuda_take_forward_and_backward():
    """StripPlan::fits in csrc/cuda/strips.h."""
    largest, f = (2**31 - 1) // 4, torch.empty(4, device="meta")

    def fits(n: int, c: int, size: list[int], fir: FirArguments) -> bool:
        (h, w), (out_h, out_w), (pad_x, pad_y) = size, fir.size, fir.start
        reach_h, reach_w = h + out_h + abs(pad_y), w + out_w + abs(pad_x)
        places = h * w * c, out_h * out_w * c, reach_h * w * c, reach_w * c
        return max(*places, n * c * (out_h + 2) * (out_w + 2) // 8) < largest

    taken = []
    sides = (1, 4, 1000, 8191, 8192, 1 << 21, 12 << 20, 16_777_100)
    for n, c, h, w, start, more in itertools.product((1, 400), (8, 64), sides, sides, (-9, 0, 1, 2), (0, 1, 9, 10**7)):
        size = [h + start - 2, w + start + more - 2]
        if min(size) < 1:
            continue
        fir = FirArguments([1, 1], [1, 1], [start, start], size, False, 1.0)
        x = torch.empty((), device="meta").expand(n, c, h, w)
        if in_one_pass("cuda", x, f, fir, True):
            taken.append(max(x.numel(), size[0] * size[1] * n * c))
            assert fits(n, c, [h, w], fir) and fits(n, c, size, fir.transposed(f, [h, w])), (n, c, h, w, start, more)
    assert max(taken) > 2**28
