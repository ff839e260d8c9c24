"""Measure what convolutions cost on an instruction set: the row of COSTS in gan_engine/ops/convolution/forms.py.

    python -m benchmarks.convolution_costs --isa avx2

Times of PyTorch's kernels without a stride, in their faster layout, are fitted by `product` and `tap`; times of minimal
filtering by the other costs; both by least squares of relative errors. `strided` is the median of the times with a
stride, as shares of what the fit says. `layouts` is not measured here. One thread, float32, tuned malloc, processor
time.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks import isa

# Images, channels in, channels out, side, kernel size, stride, padding.
SIZES = [
    (8, 64, 64, 32, 3, 1, 1),
    (8, 128, 128, 32, 3, 1, 1),
    (4, 256, 256, 32, 3, 1, 1),
    (8, 256, 256, 8, 3, 1, 1),
    (4, 512, 512, 16, 3, 1, 1),
    (8, 512, 512, 8, 3, 1, 1),
    (8, 512, 512, 4, 3, 1, 1),
    (8, 128, 256, 33, 3, 2, 0),
    (16, 64, 128, 32, 4, 2, 1),
    (16, 128, 256, 16, 4, 2, 1),
    (16, 256, 512, 8, 4, 2, 1),
]


def median_ms(call: Callable[[], object], least: int = 5) -> float:
    call()
    times: list[float] = []
    while len(times) < least or (sum(times) < 200 and len(times) < 30):
        start = time.thread_time()
        call()
        times.append((time.thread_time() - start) * 1e3)
    return statistics.median(times)


Row = tuple[list[float], float]  # what is done, and milliseconds


def rows_of(n: int, i: int, o: int, side: int, k: int, stride: int, padding: int) -> tuple[list[Row], list[Row]]:
    """Rows of PyTorch's kernels and of minimal filtering, for y and dweight."""
    import torch

    from gan_engine.ops.convolution import forms, maps, winograd
    from gan_engine.ops.convolution.arguments import ConvolutionArguments

    call = ConvolutionArguments.from_conv(2, stride, padding)
    x, w = torch.randn(n, i, side, side), torch.randn(o, i, k, k)
    dy = torch.randn(torch.convolution(x, w, None, *call).shape)
    last = [t.to(memory_format=torch.channels_last) for t in (x, w, dy)]
    size = f"{n}x{i}->{o}, {side}x{side}, {k}x{k}"

    def rows(pytorch, filtering) -> tuple[Row, list[Row]]:
        fastest = min(median_ms(lambda: pytorch(x, w, dy)), median_ms(lambda: pytorch(*last)))
        found: list[Row] = []
        for form in forms.FORMS[k, stride, False]:
            points = form.points * n * -(-dy.shape[2] // form.tile[0]) * -(-dy.shape[3] // form.tile[1])
            ms = median_ms(lambda number=form.number: filtering(*last, number))
            found.append(([points * forms.in_vectors(i, o), points * (i + o), form.weights * i * o], ms))
            print(f"{size}, form {form.number}: PyTorch {fastest:.2f} ms, this {ms:.2f} ms")
        return ([k * k * n * dy[0, 0].numel() * i * o, k * k * i * o], fastest), found

    y, ys = rows(
        lambda x, w, dy: maps.forward(x, w, None, call, "pytorch"),
        lambda x, w, dy, form: winograd.forward(x, w, None, call, form),
    )
    dweight, dweights = rows(
        lambda x, w, dy: maps.weight_gradient(x, dy, w, call, "pytorch"),
        lambda x, w, dy, form: winograd.weight_gradient(x, dy, w, call, form),
    )
    return [y, dweight], ys + dweights


def moved_ms(n: int, channels: int, side: int) -> float:
    """The time that an element of x or y in contiguous memory takes more than one in channels_last."""
    import torch

    from gan_engine.ops.convolution import forms, winograd
    from gan_engine.ops.convolution.arguments import ConvolutionArguments

    call, form = ConvolutionArguments.from_conv(2, 1, 1), forms.FORMS[3, 1, False][-1].number
    x, w = torch.randn(n, channels, side, side), torch.randn(channels, channels, 3, 3)
    last = x.to(memory_format=torch.channels_last)
    more: list[float] = []
    for _ in range(5):
        more.append(median_ms(lambda: winograd.forward(x, w, None, call, form)))
        more[-1] -= median_ms(lambda: winograd.forward(last, w, None, call, form))
    return statistics.median(more) / (2 * x.numel())


def fitted(rows: list[Row]) -> list[float]:
    """Costs c >= 0 that minimise the sum of ((done . c) / ms - 1)^2."""
    import torch

    shares = torch.tensor([[part / ms for part in done] for done, ms in rows], dtype=torch.float64)
    scale = shares.norm(dim=0)
    used = list(range(shares.shape[1]))
    while True:
        found = torch.linalg.lstsq(
            shares[:, used] / scale[used], torch.ones(len(rows), 1, dtype=torch.float64)
        ).solution
        if (found >= 0).all():
            break
        used = [index for index, cost in zip(used, found.flatten().tolist(), strict=True) if cost >= 0]
    costs = [0.0] * shares.shape[1]
    for index, cost in zip(used, (found.flatten() / scale[used]).tolist(), strict=True):
        costs[index] = cost
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what convolutions cost on an instruction set.")
    parser.add_argument("--isa", default="avx2", help="the instruction set of our kernels and of PyTorch")
    wanted = parser.parse_args().isa
    os.environ["OMP_NUM_THREADS"] = "1"
    isa.run_again(wanted, [sys.executable, "-m", "benchmarks.convolution_costs", "--isa", wanted])
    import torch

    from gan_engine.system import malloc, native

    malloc.tune()
    torch.set_num_threads(1)
    native.cpu.module.use_isa(wanted)
    by_pytorch: dict[bool, list[Row]] = {False: [], True: []}  # without a stride, and with one
    by_filtering: list[Row] = []
    for size in SIZES:
        of_pytorch, of_filtering = rows_of(*size)
        by_pytorch[size[5] > 1] += of_pytorch
        by_filtering += of_filtering
    product, tap = fitted(by_pytorch[False])
    strided = statistics.median(ms / (done[0] * product + done[1] * tap) for done, ms in by_pytorch[True])
    point, transform, weight = (cost / product for cost in fitted(by_filtering))
    moved = statistics.median(moved_ms(*size) for size in ((8, 64, 32), (4, 128, 64), (8, 256, 16))) / product
    print(f"PyTorch: {2e-6 / product:.0f} GFLOP/s")
    print(
        f'"{wanted}": Costs(product={point:.2f}, transform={transform:.0f}, weight={weight:.0f},'
        f" tap={tap / product:.0f}, moved={moved:.0f}, strided={strided:.2f}, layouts=...),"
    )


if __name__ == "__main__":
    main()
