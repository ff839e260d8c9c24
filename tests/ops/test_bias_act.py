"""The promises of bias_act beyond the properties that every op has."""

import functools
import itertools
import math
import mmap
import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

from gan_engine import backends
from gan_engine.ops import bias_act
from gan_engine.ops.bias_act import ACTIVATIONS
from gan_engine.ops.thresholds import TABLE
from gan_engine.system import native

needs_cpu_kernels = pytest.mark.skipif(native.WHY_NO_CPU is not None, reason=str(native.WHY_NO_CPU))


def refused(**wrong):
    arguments = {"x": torch.randn(2, 3, 4, 4), "b": torch.randn(3)} | wrong
    return lambda: bias_act(**arguments)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (refused(act="gelu"), ValueError, "act must be one of linear, relu, .* got 'gelu'"),
        (refused(b=torch.randn(4)), ValueError, r"b must be \[C\] = \[3\], got \[4\]"),
        (refused(b=torch.randn(1, 3)), ValueError, r"b must be \[C\] = \[3\], got \[1, 3\]"),
        (
            refused(b=torch.randn(3, dtype=torch.float64)),
            TypeError,
            "b must be torch.float32 like x.* got torch.float64",
        ),
        (refused(x=torch.ones(2, 3, dtype=torch.int32)), TypeError, "x must be float32, .* got torch.int32"),
        (refused(x=torch.randn(())), ValueError, "at least 1 dimension, got a scalar"),
        (refused(dim=4), ValueError, r"dim must be in \[-4, 3\] .* got 4"),
        (refused(clamp=-1.0), ValueError, "clamp must be at least 0, got -1"),
        (refused(clamp=math.nan), ValueError, "clamp must be at least 0, got nan"),
        (
            refused(backend="triton2"),
            ValueError,
            "backend: want one of cuda, triton, cpu, pytorch, reference, got 'triton2'",
        ),
    ],
)
def test_bad_input_is_refused_with_want_and_got(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_a_backend_asked_for_by_name_never_falls_back():
    if torch.cuda.is_available() and backends.MISSING["cuda"] is None:
        pytest.skip("the cuda backend runs here")
    for ask in (lambda: refused(backend="cuda")(), lambda: refused()()):
        with backends.use("cuda"), pytest.raises(RuntimeError, match="'cuda' was asked for and cannot run: "):
            ask()


@pytest.mark.parametrize("act", [name for name, spec in ACTIVATIONS.items() if spec.saved == "mask"])
def test_undefined_gradients_stay_undefined(act: str, backend: str, device: str):
    """No zeros flow back from the second order of a piecewise linear activation: there is nothing to flow."""
    if backend in ("pytorch", "reference"):
        pytest.skip(f"{backend}: PyTorch's own double backward makes these zeros")
    x, b = torch.randn(2, 3, 4, 4, device=device).requires_grad_(), torch.randn(3, device=device).requires_grad_()
    y = bias_act(x, b, act=act, clamp=0.5, backend=backend)
    dy = torch.randn_like(y).requires_grad_()
    dx, db = torch.autograd.grad(y, (x, b), dy, create_graph=True)
    second = torch.autograd.grad(dx.square().sum() + db.square().sum(), (x, b, dy), allow_unused=True)
    assert second[0] is None and second[1] is None
    assert second[2] is not None and second[2].abs().max() > 0


@pytest.mark.parametrize(
    ("act", "clamp", "bits"),
    [("linear", None, 0), ("linear", 1.0, 1), ("relu", None, 1), ("lrelu", None, 1), ("lrelu", 1.0, 2)],
)
def test_what_is_saved_is_a_packed_mask(act: str, clamp: float | None, bits: int, backend: str, device: str):
    if backend in ("pytorch", "reference"):
        pytest.skip(f"{backend}: saves what PyTorch saves")
    x, b = torch.randn(2, 16, 8, 8, device=device).requires_grad_(), torch.randn(16, device=device).requires_grad_()
    y = bias_act(x, b, act=act, clamp=clamp, backend=backend)
    saved = [t for t in y.grad_fn.saved_tensors if t is not None]
    assert sum(t.numel() * t.element_size() for t in saved) * 8 == bits * x.numel()


@pytest.mark.parametrize("act", ["tanh", "sigmoid", "elu", "selu", "softplus"])
def test_what_a_smooth_activation_saves_is_its_output(act: str, backend: str, device: str):
    if backend in ("pytorch", "reference"):
        pytest.skip(f"{backend}: saves what PyTorch saves")
    y = bias_act(torch.randn(2, 3, 4, device=device).requires_grad_(), act=act, backend=backend)
    saved = [t for t in y.grad_fn.saved_tensors if t is not None]
    assert [t.data_ptr() for t in saved] == [y.data_ptr()]


def test_slopes_where_they_are_not_defined_are_those_of_pytorch(backend: str, device: str):
    x = torch.tensor([[0.0, 2.0, -8.0, 5.0]], device=device).requires_grad_()
    y = bias_act(x, act="lrelu", alpha=0.25, gain=1.0, clamp=2.0, backend=backend)
    assert y.tolist() == [[0.0, 2.0, -2.0, 2.0]]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [[0.25, 1.0, 0.25, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_nan_and_infinity_come_through(act: str, dtype: torch.dtype, backend: str, device: str):
    x = torch.full((2, 40), 0.5, dtype=dtype, device=device)
    x[0, 3], x[1, 39], x[0, 17], x[1, 0] = math.nan, math.nan, math.inf, -math.inf
    got = bias_act(x, act=act, gain=2.0, backend=backend)
    want = bias_act(x, act=act, gain=2.0, backend="reference")
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got.isinf(), want.isinf())
    assert bias_act(x, act=act, clamp=1.0, backend=backend)[0, 3].isnan()


def test_extreme_arguments_match_pytorch(backend: str, device: str):
    x = torch.cat([torch.linspace(-120, 120, 4801), torch.linspace(-1e-3, 1e-3, 1001)]).to(device)
    for act in ACTIVATIONS:
        got = bias_act(x, act=act, gain=1.0, backend=backend)
        want = bias_act(x, act=act, gain=1.0, backend="reference")
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-35)


def test_half_precision_takes_a_float32_bias_and_gives_it_a_float32_gradient(backend: str, device: str):
    x = torch.randn(4, 8, 16, 16, device=device, dtype=torch.bfloat16).requires_grad_()
    b = torch.randn(8, device=device).requires_grad_()
    y = bias_act(x, b, act="lrelu", backend=backend)
    y.backward(torch.ones_like(y))
    assert (y.dtype, x.grad.dtype, b.grad.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    slopes = torch.where(x.float() + b.view(1, 8, 1, 1) > 0, 1.0, 0.2) * math.sqrt(2)
    torch.testing.assert_close(b.grad, slopes.sum([0, 2, 3]))


@needs_cpu_kernels
def test_threads_follow_pytorch():
    before = torch.get_num_threads()
    x = torch.randn(8, 64, 64, 64)
    try:
        torch.set_num_threads(1)
        assert native.cpu.threads() == native.cpu.bias_act_grad_slots(x.numel(), 64 * 64, 64) == 1
        alone = bias_act(x, act="lrelu", backend="cpu")
        torch.set_num_threads(2)
        assert native.cpu.threads() == native.cpu.bias_act_grad_slots(x.numel(), 64 * 64, 64) == 2
        assert torch.equal(bias_act(x, act="lrelu", backend="cpu"), alone)
    finally:
        torch.set_num_threads(before)


@needs_cpu_kernels
@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux's /proc/self/maps")
def test_one_openmp_runtime_serves_pytorch_and_the_kernels():
    """Two runtimes would keep two thread pools, which fight over the cores."""
    with open("/proc/self/maps") as maps:
        runtimes = {line.split()[-1] for line in maps if "libgomp" in line}
    assert len(runtimes) == 1, runtimes


def available_bytes() -> int:
    if not os.path.exists("/proc/meminfo"):
        return 0
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


@needs_cpu_kernels
@pytest.mark.skipif(available_bytes() < 8 << 30, reason="needs 8 GiB of free memory")
def test_more_than_two_to_the_31_elements():
    """Elements around 2^31 get the biases of their own channels, not of those that 32-bit offsets would wrap to."""
    n, channels = 2**31 + 16, 48
    memory = mmap.mmap(-1, 2 * n)
    memory.madvise(mmap.MADV_HUGEPAGE)
    x = torch.frombuffer(memory, dtype=torch.bfloat16)
    b = torch.arange(float(channels))
    linear = ACTIVATIONS["linear"].code
    native.cpu.bias_act(x, b, x, None, None, n, 1, channels, x.dtype, linear, 0.0, 1.0, -1.0)
    for start in (0, 2**31 - 32, 2**31):
        at = torch.arange(start, start + 16)
        assert torch.equal(x[start : start + 16].float(), b[at % channels])


@pytest.mark.parametrize(
    ("options", "node"),
    [
        ({"act": "lrelu"}, "MulBackward0"),
        ({"act": "lrelu", "alpha": 0.01, "gain": 0.7}, "MulBackward0"),
        ({"act": "linear"}, "AddBackward0"),
        ({"act": "tanh"}, "TanhBackward0"),
        ({"act": "lrelu", "clamp": 0.5}, "_BiasActBackward"),
        ({"act": "relu"}, "_BiasActBackward"),
    ],
    ids=str,
)
def test_few_elements_of_nobodys_backend_are_pytorchs_with_the_same_gradients(options, node):
    if native.WHY_NO_CPU is not None:
        pytest.skip(native.WHY_NO_CPU)
    tensors = {"x": torch.randn(3, 5, 2), "b": torch.randn(5), "v": torch.randn(3, 5, 2)}

    def gradients(backend, dtype):
        x, b, v = (t.to(dtype).requires_grad_() for t in tensors.values())
        y = bias_act(x, b, backend=backend, **options)
        dx, db = torch.autograd.grad(y, (x, b), v, create_graph=True)
        second = torch.autograd.grad(dx.square().sum() + db.square().sum(), (x, b, v), allow_unused=True)
        return y, [y, dx, db, *second]

    y, got = gradients(None, torch.float32)
    assert y.grad_fn.name() == node
    _, wanted = gradients("reference", torch.float64)
    for ours, theirs in zip(got, wanted, strict=True):
        if options["act"] != "tanh" and ours is None:
            assert theirs is None or not theirs.any()  # PyTorch's zeros would go on through all layers before
        else:
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    if options["act"] != "tanh":
        assert got[3] is None and got[4] is None
    with backends.use("cpu"):
        assert gradients(None, torch.float32)[0].grad_fn.name() == "_BiasActBackward"
    many = torch.zeros(TABLE["few elements"].number + 1, requires_grad=True)
    if options["act"] != "linear":
        assert bias_act(many, **options).grad_fn.name() == "_BiasActBackward"


def test_compiled_code_follows_a_change_of_the_forced_backend():
    if native.WHY_NO_CPU is not None:
        pytest.skip(native.WHY_NO_CPU)
    torch._dynamo.reset()
    seen = []

    def call(x):
        return bias_act(x, act="relu")

    def count(graph, inputs):
        seen.append(any("bias_act" in str(node.target) for node in graph.graph.nodes))
        return graph.forward

    compiled = torch.compile(call, fullgraph=True, backend=count)
    x = torch.randn(2, 3, 4)
    compiled(x)
    with backends.use("reference"):
        compiled(x)
    assert seen == [True, False]


def value_and_gradient(x: torch.Tensor, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    b = torch.full((1,), 0.25, device=x.device, dtype=x.dtype)
    y = bias_act(x, b, act="lrelu", clamp=1.0, backend=backend)
    return y.detach(), *torch.autograd.grad(y, x, y.detach())


@functools.lru_cache(maxsize=1)
def large(offset: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, ...]:
    """49 MiB, so many elements behind an aligned address, and what the reference makes of them."""
    n = (49 << 20) // dtype.itemsize + 5
    x = torch.randn(n + offset, device=device, dtype=dtype)[offset:].view(1, 1, n).requires_grad_()
    return x, *value_and_gradient(x, "reference")


@pytest.fixture(scope="module", params=itertools.product((0, 1), (torch.float32, torch.bfloat16)), ids=str)
def offset_and_dtype(request: pytest.FixtureRequest) -> Iterator[tuple[int, torch.dtype]]:
    """Has the scope of the module, so that the backends come one after another, and `large` is made once for all of
    them."""
    yield request.param
    large.cache_clear()


def test_tensors_larger_than_the_cache(offset_and_dtype: tuple[int, torch.dtype], backend: str, device: str):
    """Results beyond 48 MiB are written around the CPU's caches, which only aligned addresses can be."""
    if backend == "triton" and device == "cpu":
        pytest.skip("triton: the interpreter takes minutes")
    if backend == "reference":
        pytest.skip("reference: it is what the others are compared with")
    x, *wanted = large(*offset_and_dtype, device)
    y, dx = value_and_gradient(x, backend)
    assert torch.equal(y, wanted[0])
    torch.testing.assert_close(dx, wanted[1])


@pytest.mark.parametrize("options", [{}, {"gain": 2.0}, {"act": "lrelu"}], ids=str)
def test_gradients_share_no_memory(options: dict, backend: str, device: str):
    """Values that the optimiser or the next backward writes into one .grad must not show up elsewhere."""
    p, q = (torch.randn(3, 4, device=device).requires_grad_() for _ in range(2))
    dy = torch.randn(3, 4, device=device)
    total = bias_act(p, backend=backend, **options) + bias_act(q, backend=backend, **options)
    total.backward(dy)
    assert len({p.grad.data_ptr(), q.grad.data_ptr(), dy.data_ptr()}) == 3
    once = p.grad.clone()
    (bias_act(p, backend=backend, **options) + bias_act(q, backend=backend, **options)).backward(dy)
    torch.testing.assert_close(p.grad, 2 * once)


def test_an_infinite_clamp_is_none(backend: str, device: str):
    x = torch.randn(2, 3, device=device).requires_grad_()
    y = bias_act(x, act="tanh", clamp=math.inf, backend=backend)
    assert torch.equal(y, bias_act(x, act="tanh", backend=backend))
    y.sum().backward()


@pytest.mark.parametrize("act", ["swish", "tanh"])
def test_clamped_elements_get_no_gradient_in_half_precision(act: str, backend: str, device: str):
    """0.6 lies between two numbers of bfloat16: what is clamped to the lower or the upper one is still clamped."""
    x = torch.linspace(0.5, 2, 200, device=device).bfloat16().requires_grad_()
    dx = torch.autograd.grad(bias_act(x, act=act, gain=1.0, clamp=0.6, backend=backend).sum(), x)[0]
    inside = bias_act(x.double(), act=act, gain=1.0, backend="reference") < 0.598
    beyond = bias_act(x.double(), act=act, gain=1.0, backend="reference") > 0.6
    assert dx[beyond].abs().max() == 0 and dx[inside].abs().min() > 0


def test_a_nan_passes_relu_both_ways(backend: str, device: str):
    x = torch.tensor([math.nan, -1.0, 0.0, 2.0], device=device).requires_grad_()
    y = bias_act(x, act="relu", gain=1.0, backend=backend)
    assert torch.autograd.grad(y, x, torch.ones_like(y))[0].tolist() == [1.0, 0.0, 0.0, 1.0]


def test_no_mask_is_written_where_no_gradient_is_to_come(backend: str, device: str, monkeypatch):
    if backend in ("pytorch", "reference"):
        pytest.skip(f"{backend}: PyTorch's operators have no mask")
    kernels, masks = backends.kernels("bias_act", backend), []

    def watched(x, b, y, slope, keep, *rest):
        masks.append((slope, keep))
        kernels.bias_act(x, b, y, slope, keep, *rest)

    monkeypatch.setitem(backends._kernels["bias_act"], backend, SimpleNamespace(bias_act=watched))
    x = torch.randn(2, 3, 5, 7, device=device, requires_grad=True)
    recorded = bias_act(x, act="lrelu", clamp=1.0, backend=backend)
    with torch.no_grad():
        bare = bias_act(x, act="lrelu", clamp=1.0, backend=backend)
    assert torch.equal(recorded, bare)
    assert [[mask is None for mask in of_call] for of_call in masks] == [[False, False], [True, True]]


def test_a_gradient_through_an_inner_transform_reaches_what_only_an_outer_one_knows(backend: str, device: str):
    x = torch.randn(2, 3, device=device)
    w = torch.randn(2, 3, device=device, requires_grad=True)

    def inner_gradient(x: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda x: (bias_act(w * 1, act="lrelu", backend=backend) * x).sum())(x)

    (got,) = torch.autograd.grad(inner_gradient(x).sum(), w)
    torch.testing.assert_close(got, torch.where(w > 0, 2**0.5, 0.2 * 2**0.5))


def test_tensors_that_are_more_than_their_memory_are_seen_as_what_they_are():
    x, b = torch.randn(4, 8), torch.randn(8)
    assert torch.equal(bias_act(torch._neg_view(x), b, act="relu"), bias_act(-x, b, act="relu"))
    assert torch.equal(bias_act(torch._efficientzerotensor((4, 8)), b, act="relu"), bias_act(x * 0, b, act="relu"))
    both = TwoTensor(b, 2 * b)
    y = bias_act(x, both, act="relu")
    assert torch.equal(y.a, bias_act(x, b, act="relu")) and torch.equal(y.b, bias_act(x, 2 * b, act="relu"))


@pytest.mark.parametrize(("alpha", "gain"), [(1e-30, 1e-20), (1e30, 1e10), (-0.5, 0.0), (0.2, -3.0)])
def test_slopes_of_any_size_at_numbers_of_any_size(alpha, gain):
    x = torch.tensor([-math.inf, -3e38, -1.0, -0.0, 0.0, 1.0, math.inf, math.nan])
    got, want = (bias_act(x, act="lrelu", alpha=alpha, gain=gain, backend=name) for name in (None, "reference"))
    torch.testing.assert_close(got, want, equal_nan=True)
