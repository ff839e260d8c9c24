"""The promises of norm_act beyond the properties that every op has."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine import backends
from gan_engine.ops import norm_act


@pytest.fixture(autouse=True)
def skip_refused(backend: str, device: str) -> None:
    reason = backends.refusal("norm_act", backend, torch.empty(0, device=device))
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")


def call_like(module: nn.BatchNorm2d, x: Tensor, backend: str, **options) -> Tensor:
    tensors = (module.weight, module.bias, module.running_mean, module.running_var)
    return norm_act(x, *tensors, training=module.training, backend=backend, **options)


def test_running_statistics_and_eval_mode_are_those_of_batch_norm(backend: str, device: str):
    torch.manual_seed(0)
    ours, theirs = (nn.BatchNorm2d(5).to(device) for _ in range(2))
    for _ in range(4):
        x = torch.randn(3, 5, 4, 6, device=device) * 3 + 7
        torch.testing.assert_close(call_like(ours, x, backend, act="relu"), theirs(x).relu())
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    ours.eval(), theirs.eval()
    before = ours.running_mean.clone()
    found = []
    for module, y in ((ours, call_like(ours, x.requires_grad_(), backend, act="lrelu")), (theirs, None)):
        y = F.leaky_relu(theirs(x), 0.2) if y is None else y
        found.append((y, *torch.autograd.grad(y.sin().sum(), (x, module.weight, module.bias))))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)
    assert torch.equal(before, ours.running_mean)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_eval_mode_is_right_to_the_second_order(layout: torch.memory_format, backend: str, device: str):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64, device=device).to(memory_format=layout).requires_grad_()
    w, b = (torch.randn(3, dtype=torch.float64, device=device).requires_grad_() for _ in range(2))
    mean, var = (torch.rand(3, dtype=torch.float64, device=device) for _ in range(2))

    def call(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return norm_act(x, w, b, mean, var, act="lrelu", training=False, backend=backend)

    interpreted = backend == "triton" and backends.INTERPRET  # slowly
    assert torch.autograd.gradcheck(call, (x, w, b), fast_mode=interpreted)
    assert torch.autograd.gradgradcheck(call, (x, w, b), fast_mode=interpreted)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_third_order_is_that_of_the_definition(norm: str, backend: str, device: str):
    if backend == "reference":
        pytest.skip("reference: the third order of PyTorch's batch_norm is wrong")
    torch.manual_seed(0)
    x = torch.randn(2, 3, 3, 2, dtype=torch.float64, device=device).requires_grad_()
    w, b = (torch.randn(3, dtype=torch.float64, device=device).requires_grad_() for _ in range(2))
    found = {}
    for name in ("kernel", "composed"):
        if name == "kernel":
            y = norm_act(x, w, b, norm=norm, act="lrelu", backend=backend)
        else:
            over = [0, 2, 3] if norm == "batch" else [2, 3]
            centred = x - x.mean(over, keepdim=True)
            z = centred / (centred.square().mean(over, keepdim=True) + 1e-5).sqrt()
            y = F.leaky_relu(z * w.view(-1, 1, 1) + b.view(-1, 1, 1), 0.2)
        value = y.sin().sum()
        for _ in range(3):
            found[name] = torch.autograd.grad(value, (x, w, b), create_graph=True)
            value = sum(g.sin().sum() for g in found[name])
    for got, want in zip(found["kernel"], found["composed"], strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("channels", [1, 16, 33, 80])
@pytest.mark.parametrize("size", [(1, 5), (4, 8), (7, 9), (32, 33)])
def test_all_sizes_of_rows_and_tails(norm, layout, channels: int, size: tuple[int, int], backend: str, device: str):
    others = (33, 80) if layout == torch.contiguous_format else (16, 33)
    if backend == "triton" and backends.INTERPRET and (channels in others or size in ((1, 5), (4, 8))):
        pytest.skip("the other sizes reach all tails, and the interpreter is slow")
    torch.manual_seed(0)
    x = torch.randn(3, channels, *size, device=device).to(memory_format=layout).requires_grad_()
    w, b = (torch.randn(channels, device=device).requires_grad_() for _ in range(2))
    inputs = (x, w, b)
    dy = torch.randn_like(x)
    y = norm_act(*inputs, norm=norm, act="lrelu", backend=backend)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    want = norm_act(*wide, norm=norm, act="lrelu", backend="reference")
    torch.testing.assert_close(y.double(), want, rtol=1e-4, atol=1e-4)
    wanted = torch.autograd.grad(want, wide, dy.double())
    for got, want in zip(torch.autograd.grad(y, inputs, dy), wanted, strict=True):
        error = (got.double() - want).norm() / want.norm().clamp_min(1)
        assert error < 1e-4


@pytest.mark.parametrize("statistics", ["batch", "instance", "running"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("channels", [1, 33])
@pytest.mark.parametrize("size", [(7, 9), (32, 33)])
def test_the_second_order_of_all_sizes(statistics: str, layout, channels: int, size, backend: str, device: str):
    if backend == "triton" and backends.INTERPRET and channels > 1:
        pytest.skip("its second order is PyTorch's operators, and the interpreter is slow")
    torch.manual_seed(0)
    x, dy, v = (torch.randn(3, channels, *size, device=device).to(memory_format=layout) for _ in range(3))
    w, b, mean, var, v_w, v_b = (torch.rand(channels, device=device) + 0.5 for _ in range(6))

    def second(dtype: torch.dtype, backend: str) -> tuple[Tensor, ...]:
        x_, w_, b_, dy_ = (t.detach().to(dtype).requires_grad_() for t in (x, w, b, dy))
        options = {"norm": "instance" if statistics == "instance" else "batch", "act": "lrelu", "backend": backend}
        if statistics == "running":
            options |= {"running_mean": mean.to(dtype), "running_var": var.to(dtype), "training": False}
        y = norm_act(x_, w_, b_, **options)
        first = torch.autograd.grad(y, (x_, w_, b_), dy_, create_graph=True)
        return torch.autograd.grad(first, (x_, w_, dy_), [t.to(dtype) for t in (v, v_w, v_b)])

    for got, want in zip(second(torch.float32, backend), second(torch.float64, "reference"), strict=True):
        assert (got.double() - want).norm() < 1e-4 * want.norm()


def test_gradients_that_are_zero_for_running_statistics_stay_undefined(backend: str, device: str):
    if backend == "reference":
        pytest.skip("reference: PyTorch's batch norm makes tensors of zeros")
    x, dy = (torch.randn(2, 3, 4, 5, device=device).requires_grad_() for _ in range(2))
    w, b, mean, var = (torch.rand(3, device=device).requires_grad_(n < 2) for n in range(4))
    y = norm_act(x, w, b, mean, var, act="lrelu", training=False, backend=backend)
    dx, dw, _ = torch.autograd.grad(y, (x, w, b), dy, create_graph=True)
    second = torch.autograd.grad(dx.sum(), (x, w, b, dy), retain_graph=True, allow_unused=True)
    assert [g is None for g in second] == [True, False, True, False]
    second = torch.autograd.grad(dx.sum() + dw.sum(), (x, w, b, dy), allow_unused=True)
    assert [g is None for g in second] == [False, False, True, False]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_large_mean_costs_no_precision(layout: torch.memory_format, backend: str, device: str):
    torch.manual_seed(0)
    x = (torch.randn(8, 16, 16, 16, device=device) + 1000).to(memory_format=layout)
    w, b = torch.ones(16, device=device), torch.zeros(16, device=device)
    got, want = norm_act(x, w, b, backend=backend), norm_act(x.double(), w.double(), b.double(), backend="reference")
    assert (got.double() - want).abs().max() < 2e-3 if backend == "reference" else 2e-4


def test_half_precision_takes_float32_parameters(backend: str, device: str):
    torch.manual_seed(0)
    x = torch.randn(4, 8, 6, 6, device=device, dtype=torch.bfloat16).requires_grad_()
    w, b = (torch.randn(8, device=device).requires_grad_() for _ in range(2))
    mean, var = torch.zeros(8, device=device), torch.ones(8, device=device)
    y = norm_act(x, w, b, mean, var, act="relu", backend=backend)
    grads = torch.autograd.grad(y.float().sum(), (x, w, b))
    assert (y.dtype, *(g.dtype for g in grads)) == (torch.bfloat16, torch.bfloat16, torch.float32, torch.float32)
    torch.testing.assert_close(mean, 0.1 * x.detach().float().mean([0, 2, 3]))
    want = F.batch_norm(x.float(), None, None, w, b, True).relu()
    torch.testing.assert_close(y.float(), want, rtol=1e-2, atol=1e-2)


def test_what_is_saved_is_x_and_the_statistics(backend: str, device: str):
    if backend == "reference":
        pytest.skip("reference: saves what PyTorch saves")
    x = torch.randn(4, 8, 6, 6, device=device).requires_grad_()
    w, b = (torch.randn(8, device=device).requires_grad_() for _ in range(2))
    y = norm_act(x, w, b, act="relu", backend=backend)  # PyTorch 2.11 frees what is saved with it
    assert sorted(t.numel() for t in y.grad_fn.saved_tensors) == [8, 8, 8, 8, x.numel()]


def test_an_empty_batch_goes_through(backend: str, device: str):
    x = torch.randn(0, 3, 4, 4, device=device).requires_grad_()
    w, b = (torch.randn(3, device=device).requires_grad_() for _ in range(2))
    mean, var = torch.zeros(3, device=device), torch.ones(3, device=device)
    y = norm_act(x, w, b, mean, var, backend=backend)
    grads = torch.autograd.grad(y.sum(), (x, w, b))
    assert y.shape == grads[0].shape == (0, 3, 4, 4)
    assert (mean.abs().max(), var.min(), grads[1].abs().max(), grads[2].abs().max()) == (0, 1, 0, 0)


def test_running_statistics_move_in_a_compiled_step(backend: str, device: str):
    x, w, b = torch.randn(4, 3, 5, 5, device=device), torch.ones(3, device=device), torch.zeros(3, device=device)
    found = []
    for compiled in (False, True):
        mean, var = torch.zeros(3, device=device), torch.ones(3, device=device)

        def call(x: Tensor, mean: Tensor = mean, var: Tensor = var) -> Tensor:
            return norm_act(x, w, b, mean, var, act="relu", backend=backend)

        torch._dynamo.reset()
        y = torch.compile(call, fullgraph=True, backend="aot_eager")(x) if compiled else call(x)
        found.append((y, mean, var))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)
    assert found[0][1].abs().max() > 0


def refused(shape=(2, 3, 4, 4), **wrong):
    x = torch.ones(shape)
    arguments = {"x": x, "weight": torch.ones(3), "bias": torch.ones(3)} | wrong
    return lambda backend: norm_act(**arguments, backend=backend)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (refused(norm="layer"), ValueError, "norm must be batch or instance, got 'layer'"),
        (refused(act="tanh"), ValueError, "act must be one of linear, relu, lrelu, got 'tanh'"),
        (refused((3,)), ValueError, r"x must be \[N, C, ...\], got \[3\]"),
        (refused(weight=torch.ones(4)), ValueError, r"weight must be \[C\] = \[3\], got \[4\]"),
        (refused(bias=None), TypeError, r"weight and bias must be \[C\]; ones and zeros are what None would stand for"),
        (refused(momentum=None), TypeError, "momentum must be a number, got None"),
        (refused(bias=torch.ones(3).double()), TypeError, "bias must be torch.float32 like x.* got torch.float64"),
        (refused(x=torch.ones(2, 3, 4, 4).int()), TypeError, "x must be float32, .* got torch.int32"),
        (refused(running_var=torch.ones(3)), ValueError, "must both be given or both be None, got one"),
        (refused(training=False), ValueError, "must be given where training is False, got None"),
        (
            refused(running_mean=torch.ones(3), running_var=torch.ones(3), norm="instance"),
            ValueError,
            "must be None with instance normalisation, got tensors",
        ),
        (refused((1, 3, 1, 1)), ValueError, r"over at least 2 elements, got x \[1, 3, 1, 1\]"),
        (refused((2, 3, 1, 1), norm="instance"), ValueError, r"over at least 2 elements, got x \[2, 3, 1, 1\]"),
    ],
)
def test_bad_input_is_refused_with_want_and_got(call, error, sentence, backend):
    with pytest.raises(error, match=sentence):
        call(backend)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("first", "rest"), [(100.0, 0.3), (1000.0, 1.1), (-1e19, 1e19)])
def test_a_first_pixel_far_from_the_rest_costs_no_accuracy(first, rest, layout, backend, device):
    x = torch.full((4, 19, 16, 16), rest)
    x[0, :, 0, 0] = first
    x = x.to(device, memory_format=layout)
    mean, var = torch.zeros(19, device=device), torch.ones(19, device=device)
    if backend == "reference":
        pytest.skip("PyTorch's batch norm is off by 3e-5 here, and infinite where squares overflow")
    norm_act(x, torch.ones_like(mean), torch.zeros_like(mean), mean, var, momentum=1.0, backend=backend)
    want = x.double().var((0, 2, 3)).float()
    torch.testing.assert_close(var, want, rtol=1e-6, atol=0)
