"""The rules that every op keeps, on every backend that runs here: each property is stated once.

A backend that refuses is skipped with its reason, so `pytest -rs` prints what runs on this machine. The yardstick has
no tolerances of its own: an error may be twice the one that PyTorch's own calls make in the same dtype, plus one ulp.
"""

import functools
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops import kernel_op
from gan_engine.ops.samples import CHECKED, Op, Sample, doubled, orders

pytestmark = pytest.mark.usefixtures("poisoned_memory")

OPS = {name: op for name, op in CHECKED.items() if name != "transposed_weight"}  # test_conv2d.py has its properties
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CASES = [pytest.param(op, sample, id=f"{name}-{sample.name}") for name, op in OPS.items() for sample in op.tiny]
COMPILED = [
    pytest.param(op, sample, mode, id=f"{name}-{sample.name}-{mode}")
    for name, op in OPS.items()
    for sample in op.tiny[: op.compiled]
    for mode in ("aot_eager", *(["inductor"] if sample is op.tiny[0] else []))  # seconds of C++ compiler each
]
FIRST = [pytest.param(op, op.tiny[0], "eager", id=f"{name}-eager") for name, op in OPS.items()]
# Chains of other ops, each of which goes through inductor to the second order by itself, or in test_conv2d.py; a chain
# has some twenty kernels to compile there.
CHAINS = ("modulated_conv2d", "upsample_conv2d", "downsample_conv2d")
NESTED = [case for case in COMPILED if not (case.id.startswith(CHAINS) and case.id.endswith("inductor"))]

LARGE = 10_000  # elements


def skip_if_refused(op: Op, backend: str, x: Tensor) -> None:
    reason = backends.refusal(op.function.__name__, backend, x)
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    if op.function.__name__ == "upfirdn2d_act" and backend in ("cuda", "triton") and x.numel() > LARGE:
        in_one_pass = backend == "cuda" and x.shape[1] % 8 == 0 and kernel_op.layout(x) == torch.channels_last
        if x.dtype.itemsize == 2 and not in_one_pass:
            pytest.skip("rounds between two passes, and so has its kink elsewhere for some of that many elements")
    if backend == "triton" and backends.INTERPRET and x.numel() > LARGE:
        pytest.skip("a large sample shows how threads share the work, and the interpreter has one and is slow")


def skip_what_others_show(op: Op, sample: Sample, backend: str) -> None:
    """An op of several kernels, all of which are those of other ops, is interpreted on its first two samples only."""
    name = op.function.__name__
    kernels = backends.kernels(name, backend).__name__.rpartition(".")[2] if backend == "triton" else name
    if backends.INTERPRET and kernels != name and sample not in op.tiny[:2]:
        pytest.skip(f"the kernels of {kernels} have been tried on more samples, and the interpreter is slow")


def odd_layouts(x: Tensor) -> dict[str, Tensor]:
    """The same numbers behind other strides and addresses."""
    every_other = torch.empty((*x.shape, 2), dtype=x.dtype, device=x.device)[..., 1]
    reversed_dims = torch.empty(x.shape[::-1], dtype=x.dtype, device=x.device).permute(*reversed(range(x.ndim)))
    unaligned = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)[1:].view(x.shape)
    layouts = {"every other element": every_other, "reversed dimensions": reversed_dims, "unaligned": unaligned}
    return {name: empty.copy_(x.detach()).requires_grad_() for name, empty in layouts.items()}


class Draws(NamedTuple):
    """What PyTorch's own errors are measured with: a sample's numbers by (seed, factor), and x in how many layouts."""

    numbers: tuple[tuple[int, float], ...]
    layouts: int = 4


# The tests take (0, 1.0). One draw may be lucky, so more are taken where it does not suffice. Where sums nearly cancel
# in (0, 1.0), the other seeds have far smaller errors, and luck in rounding decides what PyTorch is found to do: its
# errors for multiples of the same numbers differ by five times. Dtypes of 16 bits do without: kinks move.
DRAWS = {
    "one": Draws(((0, 1.0),), layouts=1),
    "all": Draws(((0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0))),
    "near": Draws(((0, 1.01), (0, 1.02), (0, 1.05), (0, 1.11))),
}


@functools.cache
def pytorch_errors(name: str, index: int, dtype: torch.dtype, device: str, draws: str) -> dict[str, float]:
    """The largest errors, by name, that PyTorch makes in this call with DRAWS[draws].

    They take most of the time here, and are the same for the interpreted and the emulated kernels. These have processes
    of their own, so the processes of a test run share them by files.
    """
    file = Path(os.environ["GAN_ENGINE_TESTS_SHARE"]) / f"{name}-{index}-{dtype}-{device}-{draws}.json"
    if file.exists():
        return json.loads(file.read_text())
    worst = measured_errors(OPS[name], OPS[name].tiny[index], dtype, device, DRAWS[draws])
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(worst))
    unfinished.replace(file)
    return worst


def measured_errors(op: Op, sample: Sample, dtype: torch.dtype, device: str, draws: Draws) -> dict[str, float]:
    """The largest errors, by name, without infinite ones: where float16 overflows, they would allow any result."""
    worst: dict[str, float] = {}
    for seed, factor in draws.numbers:
        tensors = sample.tensors(dtype, device, seed=seed)
        for x in tensors.values():
            x.data.mul_(factor)
        wanted = orders(op.eager, doubled(tensors), **sample.options)
        for x in (tensors["x"], *odd_layouts(tensors["x"]).values())[: draws.layouts]:
            got = orders(op.eager, {**tensors, "x": x}, **sample.options)
            for key, want in wanted.items():
                error = (got[key].double() - want).abs().max().item() if want.numel() else 0.0
                worst[key] = max(worst.get(key, 0.0), error if math.isfinite(error) else 0.0)
    return worst


@functools.cache
def oracle(name: str, index: int, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """What the chain of PyTorch calls makes of the sample in float64, once for all backends and layouts."""
    op = OPS[name]
    sample = op.tiny[index]
    return orders(op.eager, doubled(sample.tensors(dtype, device)), **sample.options)


def assert_close_as_pytorch(got: dict[str, Tensor], op: Op, sample: Sample, tensors: dict[str, Tensor]) -> None:
    """|got - oracle| <= 2 |PyTorch's largest error| + one ulp of the oracle, element by element.

    The oracle, in float64, rounds as well: sums of these few hundred terms may be off by 64 of its own ulps.
    """
    x = tensors["x"]
    call = op.function.__name__, op.tiny.index(sample), x.dtype, x.device.type
    errors: dict[str, float] = {}
    for draws in ("one", "all", *(("near",) if x.dtype in (torch.float32, torch.float64) else ())):
        errors = {name: max(error, errors.get(name, 0)) for name, error in pytorch_errors(*call, draws).items()}
        message = wrong(got, oracle(*call), errors)
        if message is None:
            return
    raise AssertionError(message)


def wrong(got: dict[str, Tensor], wanted: dict[str, Tensor], errors: dict[str, float]) -> str | None:
    """What is further off than the errors of PyTorch allow; None if nothing is."""
    for name, want in wanted.items():
        assert got[name].shape == want.shape, name
        if want.numel() == 0:
            continue
        ulp = torch.finfo(got[name].dtype).eps * want.abs().clamp_min(torch.finfo(got[name].dtype).tiny)
        own = 64 * torch.finfo(torch.float64).eps * want.abs().max()
        allowed = 2 * errors[name] + ulp + own
        excess = (got[name].double() - want).abs() - allowed
        worst = excess.nan_to_num(float("inf")).argmax()
        if not excess.flatten()[worst] <= 0:
            return (
                f"{name}: got {got[name].flatten()[worst]} where the oracle has {want.flatten()[worst]}, "
                f"allowed error {allowed.flatten()[worst]}"
            )
    return None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("op", "sample"), CASES)
def test_value_and_gradients_of_two_orders(op: Op, sample: Sample, dtype: torch.dtype, backend: str, device: str):
    tensors = sample.tensors(dtype, device)
    skip_if_refused(op, backend, tensors["x"])
    got = orders(op.function, tensors, backend=backend, **sample.options)
    assert got["y"].dtype == op.eager(**tensors, **sample.options).dtype
    assert_close_as_pytorch(got, op, sample, tensors)


def test_numbers_that_overflow_are_no_yardstick():
    op = OPS["filtered_lrelu"]
    sample = next(sample for sample in op.tiny if sample.name == "threads")
    assert orders(op.eager, sample.tensors(torch.float16, seed=1), **sample.options)["dd_dy"].isinf().any()
    errors = measured_errors(op, sample, torch.float16, "cpu", Draws(((1, 1.0), (2, 1.0)), layouts=1))
    wanted = orders(op.eager, doubled(sample.tensors(torch.float16)), **sample.options)
    got = {name: want.half() for name, want in wanted.items()}
    assert wrong(got, wanted, errors) is None
    assert str(wrong({**got, "dd_dy": 2 * got["dd_dy"]}, wanted, errors)).startswith("dd_dy: got")


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_gradcheck_and_gradgradcheck(op: Op, sample: Sample, backend: str, device: str):
    tensors = sample.tensors(torch.float64, device)
    skip_if_refused(op, backend, tensors["x"])
    skip_what_others_show(op, sample, backend)
    if tensors["x"].numel() == 0 or sample.step:
        pytest.skip("nothing to check, or points without a derivative")

    def call(*inputs: Tensor) -> Tensor:
        return op.function(**dict(zip(tensors, inputs, strict=True)), backend=backend, **sample.options)

    # What is undefined is decided above the kernels; to try it with the interpreter's too takes a third of its time.
    options = {"fast_mode": True, "check_undefined_grad": not (backend == "triton" and backends.INTERPRET)}
    torch.autograd.gradcheck(call, tuple(tensors.values()), **options)
    torch.autograd.gradgradcheck(call, tuple(tensors.values()), **options)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_layouts_change_nothing(op: Op, sample: Sample, backend: str, device: str):
    tensors = sample.tensors(torch.float32, device)
    skip_if_refused(op, backend, tensors["x"])
    skip_what_others_show(op, sample, backend)
    for layout, x in odd_layouts(tensors["x"]).items():
        inputs = {**tensors, "x": x}
        got = orders(op.function, inputs, backend=backend, **sample.options)
        try:
            assert_close_as_pytorch(got, op, sample, inputs)
        except AssertionError as error:
            raise AssertionError(f"{layout}: {error}") from error


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_channels_last_is_kept(op: Op, sample: Sample, backend: str, device: str):
    x = sample.tensors(torch.float32, device)["x"]
    skip_if_refused(op, backend, x)
    if x.ndim != 4 or 0 in x.shape:
        pytest.skip("not an image, or an empty one")
    tensors = sample.tensors(torch.float32, device)
    tensors["x"] = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    y = op.function(**tensors, backend=backend, **sample.options)
    if y.ndim == 4:
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_fakes_have_the_shapes_and_strides_of_the_real_thing(op: Op, sample: Sample, backend: str, device: str):
    tensors = sample.tensors(torch.float32, device)
    skip_if_refused(op, backend, tensors["x"])
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = {name: mode.from_tensor(t) for name, t in tensors.items()}
        fake_y = op.function(**fakes, backend=backend, **sample.options)
        fake_grads = torch.autograd.grad(fake_y.sum(), list(fakes.values()))
    y = op.function(**tensors, backend=backend, **sample.options)
    grads = torch.autograd.grad(y.sum(), list(tensors.values()))
    for real, fake in zip((y, *grads), (fake_y, *fake_grads), strict=True):
        assert (real.shape, real.dtype) == (fake.shape, fake.dtype)
        if real.numel() > 0:
            assert real.stride() == fake.stride()


def squared_gradients(function, tensors: dict[str, Tensor], **options):
    """The gradients, by every input, of the sum of squared gradients: functional, as torch.func differentiates."""
    names = list(tensors)

    def inner(*inputs: Tensor) -> Tensor:
        return function(**dict(zip(names, inputs, strict=True)), **options).double().cos().sum()

    def outer(*inputs: Tensor) -> Tensor:
        first = torch.func.grad(inner, argnums=tuple(range(len(names))))(*inputs)
        return sum(g.double().square().sum() for g in first)

    return torch.func.grad(outer, argnums=tuple(range(len(names))))


@pytest.mark.parametrize(("op", "sample", "mode"), FIRST + NESTED)
def test_nested_func_grad_is_right_eager_and_compiled(op: Op, sample: Sample, mode: str, fastest: str, device: str):
    """Traced into, nested autograd.Functions give wrong second orders here without any error (PyTorch 2.11 to 2.15)."""
    tensors = sample.tensors(torch.float32, device)
    skip_if_refused(op, fastest, tensors["x"])
    inputs = [t.detach() for t in tensors.values()]
    function = squared_gradients(op.function, tensors, backend=fastest, **sample.options)
    if mode != "eager":
        torch._dynamo.reset()
        function = torch.compile(function, fullgraph=True, backend=mode)
    wanted = squared_gradients(op.eager, tensors, **sample.options)(*(t.double() for t in inputs))
    for got, want in zip(function(*inputs), wanted, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)
        assert want.abs().max() > 0


@pytest.mark.parametrize(("op", "sample", "mode"), COMPILED)
def test_compiled_equals_eager(op: Op, sample: Sample, mode: str, fastest: str, device: str):
    tensors = sample.tensors(torch.float32, device)
    skip_if_refused(op, fastest, tensors["x"])

    def call(**inputs: Tensor) -> Tensor:
        return op.function(**inputs, backend=fastest, **sample.options) * 2

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend=mode)(**tensors)
    eager = call(**tensors)
    torch.testing.assert_close(compiled, eager)
    inputs = list(tensors.values())
    for got, want in zip(
        torch.autograd.grad(compiled.sum(), inputs), torch.autograd.grad(eager.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_frozen_inputs_get_no_gradient(op: Op, sample: Sample, backend: str, device: str):
    """Freezing one input leaves the gradients of the others as they are."""
    tensors = sample.tensors(torch.float32, device)
    skip_if_refused(op, backend, tensors["x"])
    skip_what_others_show(op, sample, backend)
    whole = torch.autograd.grad(
        op.function(**tensors, backend=backend, **sample.options).cos().sum(), list(tensors.values())
    )
    for name, want in zip(tensors, whole, strict=True):
        alone = {other: t if other == name else t.detach() for other, t in tensors.items()}
        y = op.function(**alone, backend=backend, **sample.options).cos().sum()
        torch.testing.assert_close(torch.autograd.grad(y, alone[name])[0], want)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_what_is_no_dense_tensor_is_refused_in_the_name_of_the_op(op: Op):
    sample = next(sample for sample in op.tiny if not any(option.startswith("taps") for option in sample.options))
    tensors = sample.tensors(torch.float32)
    wrong = {
        "a torch.Tensor, got numpy.ndarray": lambda x: x.detach().numpy(),
        "a torch.Tensor, got list": lambda x: [x.tolist()],
        "a dense tensor, got one of torch.sparse_coo": lambda x: x.detach().to_sparse(),
    }
    for name in tensors:
        for sentence, make in wrong.items():
            with pytest.raises(TypeError, match=f"{op.function.__name__}: {name} must be {sentence}"):
                op.function(**{**tensors, name: make(tensors[name])}, **sample.options)
    with pytest.raises(TypeError, match=f"{op.function.__name__}: x must be float32, .*, got torch.int64"):
        op.function(**{**tensors, "x": torch.ones_like(tensors["x"], dtype=torch.int64)}, **sample.options)
