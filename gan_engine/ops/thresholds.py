"""The sizes from which on a backend gains: all tuned numbers of the chooser, with why, where measured, and a row.

A backend that can run a call, and gains nothing by it, leaves the call to another backend. The rules of the ops read
the numbers here, and `python -m gan_engine.info` prints the sentences. A request by name overrides all of them.
"""

from typing import NamedTuple


class Threshold(NamedTuple):
    """One tuned number.

    Attributes:
        op: whose calls it concerns.
        backend: gains nothing up to the number.
        instead: the backend that runs these calls.
        number: the number itself.
        sentence: the calls, with the number, and why the backend gains nothing.
        measured: what was measured, where and when.
        row: where a committed measurement shows it.
    """

    op: str
    backend: str
    instead: str
    number: float
    sentence: str
    measured: str
    row: str


_PERFORMANCE = "docs/performance-kernels.md, where PyTorch's own operators are faster"
_CPU = "float32, AVX-512, PyTorch 2.13, 2026-11"

TABLE: dict[str, Threshold] = {}


def _add(name: str, op: str, backend: str, instead: str, number: float, sentence: str, measured: str) -> None:
    text = sentence.format(number=f"{number:,}")
    TABLE[name] = Threshold(op, backend, instead, number, text, f"{measured} ({_CPU})", f"{_PERFORMANCE}: {name}")


_add(
    "few elements",
    *("bias_act", "cpu", "pytorch", 1 << 19),
    "lrelu of up to {number} float32 elements: a call of a kernel costs more than it saves while other work has the"
    " caches",
    "forward and backward with a bias, us of the kernel / of PyTorch: [64, 256] 104 / 57, [64, 1024] 142 / 93,"
    " [32, 128, 8, 8] 303 / 258, in DCGAN's discriminator [32, 64, 16, 16] 560 / 400",
)
_add(
    "few elements of tanh",
    *("bias_act", "cpu", "pytorch", 1 << 16),
    "tanh of up to {number} float32 elements: a call of a kernel costs more than it saves; PyTorch's tanh is slow, and"
    " its limit an eighth of lrelu's",
    "as lrelu",
)
_add(
    "few elements behind a layer",
    *("biased", "cpu", "pytorch", 1 << 20),
    "lrelu of up to {number} float32 elements behind a layer: the layer adds the bias itself, which saves a pass",
    "forward and backward of SRGAN's discriminator, [16, 16, 48, 48]: 350 us, with bias_act behind the layer 620",
)
_add(
    "few elements of a batch norm",
    *("normed", "cpu", "pytorch", 1 << 19),
    "up to {number} float32 elements in channels_last: PyTorch's batch norm is at its best there",
    "backward pass of [32, 128, 8, 8] behind a convolution: 313 us, with PyTorch's operators 265; alone 113 and 157",
)
_add(
    "few channels",
    *("conv2d", "cpu", "pytorch", 32),
    "fewer than {number} channels in or out: minimal filtering saves too few products",
    "3x3 and 4x4 kernels, strides 1 and 2",
)
_add(
    "few elements of a 1x1 convolution",
    *("conv2d", "cpu", "pytorch", 1 << 18),
    "1x1 with fewer than {number} elements in the image of many channels: a call of our convolutions costs more than it"
    " saves",
    "forward and backward from 3 channels, us of PyTorch's kernels / of ours, contiguous and channels_last: [16, 64,"
    " 16, 16] 589 / 283, 317 / 302; [8, 128, 16, 16] 259 / 264, 760 / 282; [8, 32, 16, 16] 107 / 172, 237 / 190 (Zen 4,"
    " one thread)",
)
_add(
    "small gain",
    *("conv2d", "cpu", "pytorch", 0.9),
    "no form of minimal filtering is accurate for the call and takes less than {number} of the time of PyTorch's"
    " kernels, as estimated from the sizes",
    "64 to 512 channels, 4x4 to 64x64 pixels, one thread; AVX2 and AMD's Zen 4 have rows of their own in COSTS of"
    " forms.py",
)
_add(
    "few channels for layouts",
    *("conv2d", "cpu", "pytorch", 256),
    "fewer than {number} channels in or out of a convolution with a stride: the layouts of PyTorch's kernels differ by"
    " less than changing them costs",
    "a step of lapgan and pix2pix, 32 to 128 channels, is 2 to 4 % slower in layouts of their own; a step of StyleGAN2,"
    " 512 channels, 2 % faster",
)
_add(
    "few elements to halve",
    *("pooling_filter", "pytorch", "reference", 1 << 15),
    "fewer than {number} elements of x: a call of the FIR kernel costs more than it saves",
    "forward and backward of 2x2 pixels in contiguous memory, us of the kernel / of PyTorch: [2, 64, 8, 8] 109 / 57,"
    " [4, 64, 8, 8] 127 / 87, [4, 16, 32, 32] 132 / 261, [8, 64, 32, 32] 403 / 1,927 (Zen 4, one thread)",
)
_add(
    "many channels to halve",
    *("pooling_filter", "pytorch", "reference", 32),
    "{number} channels or more in channels_last: PyTorch's kernel is as fast as a copy there",
    "forward and backward of [16, C, 64, 64], us of the kernel / of PyTorch: 3 channels 462 / 744, 8 484 / 749, 16"
    " 548 / 757; [16, 32, 32, 32] 291 / 259 (Zen 4, one thread)",
)
_add(
    "few squares of a weight",
    *("weight_squares", "cpu", "reference", 1 << 16),
    "a weight of fewer than {number} numbers: a call of a kernel costs more than it saves",
    "forward and backward of 3x3 kernels, us of the kernel / of PyTorch: 32 channels 89 / 70, 64 100 / 91, 128 137 /"
    " 166, 512 1,000 / 2,400; 1x1, 512 channels 160 / 197 (Zen 4, two threads)",
)
_add(
    "few pixels to double",
    *("doubled_conv2d", "pytorch", "reference", 256),
    "fewer than {number} pixels of x in the batch, on a CPU: making the wider weight costs more than it saves",
    "forward and backward, 64 and 256 channels, 3x3, one thread",
)
_add(
    "few pixels to halve",
    *("halved_conv2d", "pytorch", "reference", 1024),
    "fewer than {number} pixels of x in the batch, on a CPU: making the wider weight costs more than it saves",
    "forward and backward, 64 and 256 channels, 3x3, one thread",
)
_add(
    "few products at level 1",
    *("level1_conv2d", "pytorch", "reference", 30_000_000),
    "fewer than {number} multiply-adds, on a CPU: calls of our convolutions in six passes cost more than their"
    " kernels win back",
    "a step with R1 of three 3x3 convolutions, with ours over PyTorch's, by millions of multiply-adds: contiguous 9:"
    " 0.89, 19: 0.90, 75: 1.21, 151: 1.25; channels_last 1.02, 1.08, 1.40, 1.39 (Intel Xeon, busy, one thread)",
)
_add(
    "few products with a stride at level 1",
    *("level1_conv2d", "pytorch", "reference", 200_000_000),
    "fewer than {number} multiply-adds, square with a stride, and without minimal filtering, on a CPU: our convolutions"
    " run the same kernels as PyTorch's there",
    "a step with R1 of a 4x4 convolution with a stride of 2, with ours over PyTorch's, by millions of multiply-adds:"
    " contiguous 67: 0.94, 134: 0.97 and 1.00, 537: 1.01; channels_last 0.97, 1.04 and 1.14, 1.31 (Intel Xeon, busy,"
    " one thread)",
)
_add(
    "few elements of a norm at level 1",
    *("level1_norm", "pytorch", "reference", 1 << 16),
    "fewer than {number} elements of a batch or instance norm: calls of the kernels cost more than they save",
    "R1 of a norm with leaky ReLU, ms of plain autograd / of level 1, batch norm and instance norm: contiguous"
    " [8, 64, 4, 4] 0.45 / 0.66, 0.67 / 0.72; [8, 64, 8, 8] 0.75 / 0.82, 1.12 / 0.88; [16, 128, 16, 16] 11.8 / 6.7,"
    " 14.8 / 6.9; channels_last 0.55 / 0.64, 0.69 / 0.75; 1.12 / 0.80, 1.18 / 0.98; 22.9 / 7.5, 15.9 / 10.8."
    " [16, 64, 8, 8] 1.15 / 1.08, 1.88 / 1.25; channels_last 2.16 / 1.16, 2.10 / 1.54 (Zen 4, one thread)",
)
_add(
    "few products at level 2",
    *("level2", "pytorch", "reference", 4_000_000),
    "fewer than {number} multiply-adds for each function that D calls, on a CPU: the record of level 2 costs more than"
    " the passes that it saves",
    "a step with R1, level 2 over autograd, by millions of multiply-adds: linear layers 0.6: 0.59, 1.2: 0.84, 2.8:"
    " 0.84, 5.3: 1.09, 6.7: 1.12, 22: 1.28; convolutions 0.3: 0.77, 1.1: 0.86, 2.3: 1.01, 8.4: 1.35; AVX2 0.67, 0.87,"
    " 0.96, 1.17, 1.21, 1.36; 0.80, 0.89, 1.02, 1.33 (Intel Xeon, busy, one thread)",
)
