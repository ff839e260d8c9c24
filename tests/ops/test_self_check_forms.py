"""On Triton, the self-check runs every form of a kernel that a trained network launches. Nothing is compiled here."""

import importlib
import itertools
from types import ModuleType
from typing import Any

import pytest
import torch

from gan_engine import backends
from gan_engine.backends import Kernels
from gan_engine.ops import self_check
from gan_engine.ops.samples import CHECKED, orders

SIZES, CHANNELS = (4, 8, 16, 32, 64, 256), (1, 3, 16, 32, 64, 128, 512)
FIR = {"up2": (2, 1), "down2": (1, 2), "blur": (1, 1)}  # factors up and down


class Kernel:
    """Takes the place of a kernel: keeps its name and those arguments of each launch that make a form of it."""

    def __init__(self, name: str, forms: slice, found: set) -> None:
        self.name, self.forms, self.found = name, forms, found

    def __getitem__(self, grid: Any) -> "Kernel":
        return self

    def __call__(self, *args: Any, **constants: Any) -> None:
        self.found.add((self.name, *args[self.forms], *args[-2:]))


@pytest.fixture
def launched(monkeypatch):
    """launched(op, name, ...): the module of the kernels of an op, and the set of the forms that are launched."""
    pytest.importorskip("triton")

    def replaced(op: str, forms: slice, *names: str, file: str | None = None) -> tuple[ModuleType, set]:
        module, found = importlib.import_module(f"gan_engine.kernels.{op}"), set()
        for name in names:
            target = importlib.import_module(f"gan_engine.kernels.{file or op}")
            monkeypatch.setattr(target, name, Kernel(name, forms, found))
        monkeypatch.setitem(backends.MISSING, "triton", None)
        monkeypatch.setitem(backends.DEVICES, "triton", ("cpu",))
        monkeypatch.setitem(backends._kernels[op], "triton", module)
        return module, found

    return replaced


def run_samples(op: str) -> None:
    with backends.trusted():
        for sample in self_check._samples(Kernels(op, "triton", "cpu", None, torch.float32)):
            orders(CHECKED[op].function, sample.tensors(torch.float32), backend="triton", **sample.options)


def taken(found: set) -> set:
    copy = set(found)
    found.clear()
    return copy


def test_bias_act(launched):
    module, found = launched("bias_act", slice(0), "_forward_kernel", "_backward_kernel")
    numbers = (torch.float32, 0, 0.2, 1.0, -1.0)
    for size, c in itertools.product(SIZES, CHANNELS):
        for inner, channels in ((1, c), (size * size, c)):
            n = 4 * c * size * size
            module.bias_act(None, "b", None, None, None, n, inner, channels, *numbers)
            slots = module.bias_act_grad_slots(n, inner, channels)
            module.bias_act_grad(None, None, None, "b", None, None, None, None, slots, n, inner, channels, *numbers)
    wanted = taken(found)
    run_samples("bias_act")
    assert wanted <= found and len(wanted) == 10


def test_scale_bias_act(launched):
    names = ("_forward_kernel", "_backward_kernel", "_second_kernel")
    module, found = launched("scale_bias_act", slice(-5, -4), *names)
    for size, c, last in itertools.product(SIZES, CHANNELS, (True, False)):
        rows, cols = (size * size, c) if last else (c, size * size)
        slots, numbers = module.scale_bias_act_grad_slots(4, rows, cols), (torch.float32, last, 0.2, 1.0)
        module.scale_bias_act(*[None] * 7, 4, rows, cols, 4, *numbers, -1.0)
        module.scale_bias_act_grad(*[None] * 9, slots, 4, rows, cols, *numbers)
        module.scale_bias_act_second(*[None] * 12, slots, 4, rows, cols, 4, *numbers)
    wanted = taken(found)
    run_samples("scale_bias_act")
    assert wanted <= found and len(wanted) == 14


def test_norm_act(launched):
    names = ("_stats_kernel", "_merge_kernel", "_forward_kernel", "_sums_kernel", "_add_kernel", "_backward_kernel")
    module, found = launched("norm_act", slice(-5, -4), *names)
    numbers, t = (torch.float32, 0.2, 1e-5), torch.empty(0)
    for size, c, batch in itertools.product(SIZES, CHANNELS, (True, False)):
        pixels = size * size
        last = [1, 4 * pixels, c, 1, c] if batch else [4, pixels, c, 1, c]
        for shape in (last, [1, 4, c, pixels, c] if batch else [1, 1, 4 * c, pixels, c]):
            module.norm_stats(t, t, t, shape, torch.float32)
            module.norm_act(*[t] * 6, shape, *numbers)
            module.norm_act_grad(*[t] * 9, shape, *numbers, False)
    wanted = {form for form in taken(found) if form[0] not in ("_merge_kernel", "_add_kernel")}
    run_samples("norm_act")
    assert wanted <= found and len(wanted) == 20


def test_pixel_norm(launched):
    module, found = launched("pixel_norm", slice(-5, -4), "_kernel")
    for size, c, last in itertools.product(SIZES, CHANNELS, (True, False)):
        outer, inner = (4 * size * size, 1) if last else (4, size * size)
        module.pixel_norm(None, None, None, outer, c, inner, torch.float32, 1e-8)
    wanted = taken(found)
    run_samples("pixel_norm")
    assert wanted <= found and len(wanted) == 2


def test_upfirdn2d(launched):
    module, found = launched("upfirdn2d", slice(-6, -3), "_strip_kernel", file="strips")
    for size, c, last, (up, down) in itertools.product(SIZES, CHANNELS, (True, False), FIR.values()):
        axis = size, size * up // down, up, down, 1, 4
        module.upfirdn2d(None, None, None, 4, c, axis, axis, torch.float32, True, False, last, 1.0)
    wanted = taken(found)
    run_samples("upfirdn2d")
    assert wanted <= found and len(wanted) == 12
