"""Kernels that are wrong on purpose are refused, with the sentence that says what is wrong; right kernels never are."""

import contextlib
import importlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FunctionType

import pytest
import torch

from gan_engine import backends, ops
from gan_engine.backends import Kernels
from gan_engine.ops import self_check
from gan_engine.ops.samples import CHECKED
from gan_engine.system import native, passed
from tests.wrong_kernels import damaged, forget, nothing_known  # noqa: F401

ORDERS = ["the value", "the gradient", "the second gradient"]
needs_cpu_kernels = pytest.mark.skipif(native.WHY_NO_CPU is not None, reason=str(native.WHY_NO_CPU))


@pytest.fixture
def checks(monkeypatch) -> list[str]:
    """The names of the checks that run."""
    found: list[str] = []
    check = self_check._checked
    monkeypatch.setattr(
        self_check, "_checked", lambda kernels: found.append(self_check._name(kernels)) or check(kernels)
    )
    return found


def on_cpu(op: str, backend: str = "cpu", dtype: torch.dtype = torch.float32) -> Kernels:
    return Kernels(op, backend, "cpu", None, dtype)


@pytest.fixture
def damage(monkeypatch) -> Callable[[str, str, int | None], list]:
    """damage(op, backend, order): make the kernels of an op wrong, in one order of gradients or always.

    Returns a list, which has an item for each wrong kernel that has run.
    """

    def make(op: str, backend: str, order: int | None = None) -> list:
        ran: list = []
        backward_passes = [0]
        grad = torch.autograd.grad

        def counted(*args, **options):
            backward_passes[0] += 1
            return grad(*args, **options)

        def forward(function, *args, **options):
            backward_passes[0] = 0
            return orders(function, *args, **options)

        def wrong_now() -> bool:
            if order not in (None, backward_passes[0]):
                return False
            ran.append(order)
            return True

        samples = importlib.import_module("gan_engine.ops.samples")
        orders = samples.orders
        if order is not None:
            monkeypatch.setattr(samples, "orders", forward)
            monkeypatch.setattr(torch.autograd, "grad", counted)
        kernels = native.cpu if backend == "cpu" else backends.kernels(op, backend)
        module = getattr(kernels, "module", kernels)
        for name, kernel in vars(module).items():
            public = not name.startswith("_") and callable(kernel) and not name.endswith("_slots")
            if backend == "triton":
                public = public and isinstance(kernel, FunctionType) and kernel.__module__ == module.__name__
            if public and name not in ("isa", "isas", "use_isa", "threads"):
                wrong = damaged(getattr(kernels, name), wrong_now)
                monkeypatch.setattr(kernels, name, wrong, raising=False)
        return ran

    return make


@pytest.mark.parametrize("order", range(3), ids=["value", "gradient", "second-gradient"])
@pytest.mark.parametrize("op", CHECKED)
def test_a_wrong_kernel_is_refused_with_what_is_wrong(op: str, order: int, backend: str, damage):
    if backend not in backends.KERNELS or backends.refusal(op, backend, torch.empty(1)):
        pytest.skip(f"{op} has no kernels on {backend}")
    if on_cpu(op, backend) not in self_check._shown_by(on_cpu(op, backend)):
        pytest.skip("runs on the kernels of other ops")
    ran = damage(op, backend, order)
    sentence = self_check._checked(on_cpu(op, backend))
    if not ran:
        assert sentence is None and (order == 2 or op == "transposed_weight")  # PyTorch's operators run this order
        return
    assert f": {op}, sample " in sentence and f"float32: {ORDERS[order]} " in sentence
    assert "is off by " in sentence and sentence.startswith("failed the check on ")
    assert self_check.why_wrong(on_cpu(op, backend)) is not None
    assert on_cpu(op, backend) in backends.wrong and on_cpu(op, backend) not in backends.right


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_right_kernels_pass_on_every_backend(dtype: torch.dtype, backend: str):
    if backend not in backends.KERNELS:
        pytest.skip("runs no kernels of ours")
    if backend == "triton" and backends.INTERPRET and dtype in (torch.float64, torch.float16):
        pytest.skip("the interpreter is slow, and float32 and bfloat16 show as much")
    x = torch.empty(1, dtype=dtype)
    names = [op for op in backends.ops() if backends.refusal(op, backend, x) is None]
    assert {op: why for op in names if (why := self_check.why_wrong(on_cpu(op, backend, dtype)))} == {}
    assert names


def test_every_op_with_kernels_has_samples_that_show_them():
    for op in backends.ops():
        if any(backends.has(op, backend) for backend in backends.KERNELS):
            assert set(self_check.SHOWN_BY.get(op, (op,))) <= set(CHECKED), op


@needs_cpu_kernels
def test_all_forms_of_minimal_filtering_run(monkeypatch):
    forms = set()
    for name in ("winograd", "winograd_wgrad"):
        run = getattr(native.cpu, name)
        monkeypatch.setattr(
            native.cpu, name, lambda *args, run=run, name=name: forms.add((name, args[-1])) or run(*args)
        )
    assert self_check.why_wrong(on_cpu("conv2d")) is None
    if native.cpu.module.isa() in ("avx2", "avx512"):
        of_weights = (0, 1, 2, 3, 5, 7, 8, 10, 11, 12)  # those of transposed convolutions have none
        assert forms == {*(("winograd", i) for i in range(13)), *(("winograd_wgrad", i) for i in of_weights)}


@needs_cpu_kernels
def test_1x1_convolutions_of_few_channels_run(monkeypatch):
    """From few channels to many and back, and the gradient by the weight."""
    ran, run, run_wgrad = set(), native.cpu.pointwise, native.cpu.pointwise_wgrad
    monkeypatch.setattr(native.cpu, "pointwise", lambda *args: ran.add(("pointwise", args[-1])) or run(*args))
    monkeypatch.setattr(native.cpu, "pointwise_wgrad", lambda *args: ran.add("pointwise_wgrad") or run_wgrad(*args))
    assert self_check.why_wrong(on_cpu("conv2d")) is None
    assert ran == {("pointwise", 0), ("pointwise", 1), "pointwise_wgrad"}


def test_a_kernel_that_does_not_run_is_refused(monkeypatch, backend: str):
    if backend not in backends.KERNELS:
        pytest.skip("runs no kernels of ours")

    def fails(*args):
        raise RuntimeError("no kernel image is available\nsecond line")

    kernels = backends.kernels("bias_act", backend)
    monkeypatch.setattr(kernels, "bias_act", fails, raising=False)
    kernel = on_cpu("bias_act", backend)
    assert self_check.why_wrong(kernel).endswith("float32: RuntimeError: no kernel image is available")
    monkeypatch.setattr(kernels, "bias_act", lambda *args: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    forget()
    with pytest.raises(torch.OutOfMemoryError):
        self_check.why_wrong(kernel)
    assert not backends.wrong and not backends.right


# At the first use


@needs_cpu_kernels
def test_a_gpu_that_a_kernel_has_left_unusable_ends_the_process(monkeypatch):
    def fails(place):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("torch.cuda.synchronize", lambda place: None)
    self_check._require_a_gpu_that_goes_on(torch.device("cuda", 0), "mix on cuda failed")
    monkeypatch.setattr("torch.cuda.synchronize", fails)
    self_check._require_a_gpu_that_goes_on(torch.device("cpu"), "mix on cpu failed")
    with pytest.raises(RuntimeError, match="mix on cuda failed; the GPU takes no more work from this process"):
        self_check._require_a_gpu_that_goes_on(torch.device("cuda", 0), "mix on cuda failed")


def test_the_next_backend_runs_and_a_warning_says_why(damage):
    x = torch.randn(2, 3, 4, 4)
    damage("pixel_norm", "cpu")
    with pytest.warns(UserWarning, match=r"pixel_norm does not run on cpu, and may be slow: failed the check on "):
        y = ops.pixel_norm(x)
    torch.testing.assert_close(y, ops.pixel_norm(x, backend="reference"))
    with warnings.catch_warnings(), backends.watched() as choices:
        warnings.simplefilter("error")
        ops.pixel_norm(x)
    assert choices[0].backend == "reference" and " is off by " in choices[0].reasons["cpu"]
    with pytest.raises(RuntimeError, match=r"'cpu' was asked for and cannot run: failed the check on .*: pixel_norm, "):
        ops.pixel_norm(x, backend="cpu")
    assert "failed the check" in backends.refusal("pixel_norm", "cpu", x)


@needs_cpu_kernels
def test_an_op_made_of_a_wrong_one_is_refused_too(damage):
    damage("scale_bias_act", "cpu")
    image, weight, styles = torch.randn(2, 4, 8, 8), torch.randn(4, 4, 3, 3), torch.randn(2, 4)
    with pytest.warns(UserWarning, match="modulated_conv2d does not run on cpu"):
        y = ops.modulated_conv2d(image, weight, styles)
    torch.testing.assert_close(y, ops.modulated_conv2d(image, weight, styles, backend="reference"))


@needs_cpu_kernels
def test_a_check_runs_once_for_each_dtype(checks):
    for dtype in (torch.float32, torch.float32, torch.float64):
        ops.pixel_norm(torch.ones(2, 3, dtype=dtype))
        ops.pixel_norm(torch.ones(2, 3, dtype=dtype), backend="cpu")
    assert checks == ["pixel_norm float32", "pixel_norm float64"]


@needs_cpu_kernels
def test_what_has_passed_is_known_to_the_next_process(checks, monkeypatch):
    ops.pixel_norm(torch.ones(2, 3))
    forget()
    ops.pixel_norm(torch.ones(2, 3))
    assert checks == ["pixel_norm float32"]
    for change in (
        lambda: monkeypatch.setattr(passed, "_build", lambda backend: "another build"),
        lambda: monkeypatch.setattr(torch, "__version__", "9.9"),
        lambda: monkeypatch.setattr(passed.cpu, "model", lambda: "another CPU"),
    ):
        change()
        checks.clear()
        forget()
        ops.pixel_norm(torch.ones(2, 3))
        assert checks == ["pixel_norm float32"]
    assert len(json.loads(passed.file().read_text())) == 4


@needs_cpu_kernels
def test_what_has_failed_is_checked_again_by_the_next_process(checks, damage, monkeypatch):
    with monkeypatch.context():
        damage("pixel_norm", "cpu")
        with pytest.warns(UserWarning, match="does not run"):
            ops.pixel_norm(torch.ones(2, 3))
        monkeypatch.undo()
    os.environ["GAN_ENGINE_CHECK"] = "1"
    forget()
    assert self_check.why_wrong(on_cpu("pixel_norm")) is None
    os.environ["GAN_ENGINE_CHECK"] = "0"


@needs_cpu_kernels
@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"a": [1, null]}', "\0\xff"])
def test_a_damaged_file_is_written_anew(content: str, checks):
    passed.file().parent.mkdir()
    passed.file().write_bytes(content.encode("latin1"))
    ops.pixel_norm(torch.ones(2, 3))
    assert checks and passed.names(passed.machine("cpu", torch.device("cpu"))) == {"pixel_norm float32"}


@needs_cpu_kernels
def test_a_file_that_cannot_be_written_is_one_warning(checks, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="each process will check its kernels again, as this cannot be kept: ") as said:
        ops.pixel_norm(torch.ones(2, 3))
        ops.upfirdn2d(torch.ones(1, 1, 4, 4), None)
    assert len(said) == 1 and len(checks) == 2


@needs_cpu_kernels
def test_nothing_is_checked_where_it_is_turned_off(checks, monkeypatch):
    monkeypatch.setenv("GAN_ENGINE_CHECK", "0")
    ops.pixel_norm(torch.ones(2, 3))
    assert not checks and on_cpu("pixel_norm") in backends.right


# Whatever the caller does


class InBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return ops.pixel_norm(dy)


@contextlib.contextmanager
def modes() -> Iterator[None]:
    """A default device, autocast, a default dtype, and no gradients."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def under_fakes(x: torch.Tensor) -> None:
    with torch._subclasses.FakeTensorMode() as mode:
        ops.pixel_norm(mode.from_tensor(x))


def under_modes(x: torch.Tensor) -> None:
    with modes():
        ops.pixel_norm(x)


CALLERS: dict[str, Callable[[torch.Tensor], object]] = {
    "plain": ops.pixel_norm,
    "compiled": lambda x: torch.compile(lambda x: 2 * ops.pixel_norm(x), fullgraph=True, backend="aot_eager")(x),
    "torch.func": lambda x: torch.func.grad(lambda x: ops.pixel_norm(x).sum())(x),
    "fake tensors": under_fakes,
    "modes": under_modes,
    "backward pass": lambda x: InBackward.apply(x.requires_grad_()).sum().backward(),
}


@needs_cpu_kernels
@pytest.mark.parametrize("caller", CALLERS)
def test_a_check_neither_sees_nor_changes_what_its_thread_does(caller: str, checks):
    torch._dynamo.reset()
    torch.manual_seed(0)
    before, x = torch.get_rng_state(), torch.ones(2, 3, 4)
    with backends.watched() as choices, warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*does not run.*")
        CALLERS[caller](x)
    assert checks == ["pixel_norm float32"] and not backends.wrong
    assert torch.equal(before, torch.get_rng_state()) and torch.is_grad_enabled()
    assert {choice.op for choice in choices} <= {"pixel_norm"} and len(choices) <= 1


@needs_cpu_kernels
def test_a_wrong_kernel_is_not_compiled(damage):
    torch._dynamo.reset()
    damage("pixel_norm", "cpu")
    x = torch.randn(2, 3, 4)
    with pytest.warns(UserWarning, match="pixel_norm does not run on cpu"):
        y = torch.compile(lambda x: ops.pixel_norm(x), fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(y, ops.pixel_norm(x, backend="reference"))


@needs_cpu_kernels
def test_a_check_in_another_op_needs_no_second_compilation(checks):
    torch._dynamo.reset()
    compilations = []
    graphs = lambda graph, inputs: compilations.append(1) or graph.forward  # noqa: E731
    compiled = torch.compile(lambda x: ops.pixel_norm(x), fullgraph=True, backend=graphs)
    compiled(torch.ones(2, 3))
    ops.upfirdn2d(torch.ones(1, 1, 4, 4), None)
    compiled(torch.ones(2, 3))
    assert len(compilations) == 1 and len(checks) == 2


@needs_cpu_kernels
def test_threads_that_come_first_together_wait_for_nothing(checks):
    start, results = threading.Barrier(8), []

    def use() -> None:
        start.wait(60)
        x = torch.ones(2, 3, 4, requires_grad=True)
        ops.pixel_norm(InBackward.apply(x)).sum().backward()
        results.append(x.grad)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 8 and checks and not backends.wrong


def test_no_check_is_possible_in_the_capture_of_a_graph(monkeypatch):
    """The sentence of a call that is captured before its kernels were checked."""
    monkeypatch.setattr(self_check, "_apart", lambda work, place: (_ for _ in ()).throw(self_check._NotNow()))
    x = torch.ones(2, 3)
    if native.WHY_NO_CPU is not None:
        pytest.skip(native.WHY_NO_CPU)
    with backends.watched() as choices:
        ops.pixel_norm(x)
    assert choices[0].backend == "reference" and "call it once before" in choices[0].reasons["cpu"]
    with pytest.raises(RuntimeError, match="was not checked yet"):
        ops.pixel_norm(x, backend="cpu")
    assert not backends.wrong
