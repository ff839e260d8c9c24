"""Level 2 tried on a D: nothing that D does there harms the process, the state of D, or the gradients of the step."""

import collections
import copy
import functools
import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm

from gan_engine.losses import penalties
from gan_engine.losses.level2 import refusals, trial
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.tape import Tape
from gan_engine.losses.penalties import backward_with_penalty


def softplus(logits: Tensor) -> Tensor:
    return F.softplus(-logits)


@pytest.fixture
def img() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(8, 3, 8, 8, dtype=torch.float64)


def step(D: Callable, net: nn.Module, img: Tensor, level: Any, **options: Any) -> list[Tensor]:
    net.zero_grad(set_to_none=True)
    found = backward_with_penalty(D, img, softplus, gamma=1.0, level=level, **options)
    return [*found, *(torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters())]


def assert_equal(got: list[Tensor], want: list[Tensor]) -> None:
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-13)


class Net(nn.Module):
    """Piecewise linear, or not where it is `curved`."""

    curved = False

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6 * 64, 1)
        self.double()

    def forward(self, x: Tensor, c: Any = None) -> Tensor:
        h = F.leaky_relu(self.conv(x), 0.2)
        return self.last((h.tanh() if self.curved else h).flatten(1))


# What reads memory that the tape's tensor does not have


READING = """
import ctypes, sys, torch
from pathlib import Path
from gan_engine.losses import penalties

conv, how = torch.nn.Conv2d(3, 4, 3), None
libraries = Path(torch.__file__).parent / "lib"
native = ctypes.PyDLL(str(next(p for p in libraries.iterdir() if "torch_cpu" in p.name)))
handle_in = ctypes.pythonapi.PyCapsule_GetPointer
handle_in.restype, handle_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
NATIVE = ["aoti_torch_get_data_ptr", "torch_get_mutable_data_ptr", "torch_get_const_data_ptr"]
PYTHON = {
    "data_ptr": lambda x: x.data_ptr(),
    "storage": lambda x: x.untyped_storage().data_ptr(),
    "numpy": lambda x: x.numpy().ctypes.data,
    "array": lambda x: x.__array__().ctypes.data,
    "dlpack": lambda x: torch._C._to_dlpack(x),
}

def address(x):
    if how in PYTHON:
        return PYTHON[how](x)
    capsule, pointer = torch._C._aoti.unsafe_alloc_void_ptr_from_tensor(x), ctypes.c_void_p()
    if getattr(native, how)(ctypes.c_void_p(handle_in(capsule, None)), ctypes.byref(pointer)) != 0:
        raise RuntimeError("no pointer")
    return pointer

def op(x):  # what plugins do: memory by sizes, and a loop through a pointer
    y = torch.empty(x.shape)
    ctypes.memmove(y.data_ptr(), address(x), 4 * y.numel())
    return y

class Op(torch.autograd.Function):
    forward = staticmethod(lambda ctx, x: op(x))
    backward = staticmethod(lambda ctx, d: d)

for how in [*NATIVE, *PYTHON]:
    for D in (lambda x: op(conv(x)).sum((1, 2, 3)), lambda x: Op.apply(conv(x)).sum((1, 2, 3))):
        print(how, "is tried", flush=True)
        assert penalties.refusal(D, torch.randn(2, 3, 5, 5)) is not None
    if how in NATIVE:
        y = torch.randn(2, 3)
        assert torch.equal(op(y), y)
print("done")
"""


def test_code_that_reads_memory_by_itself_is_refused_and_harms_nothing():
    done = subprocess.run([sys.executable, "-c", READING], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["done"], (done.returncode, done.stdout, done.stderr[-2000:])


def test_the_tensor_of_the_tape_says_what_it_stands_for():
    from gan_engine.losses.level2.traced_tensor import TracedTensor

    value = torch.empty(4, 3, 2, 5).to(memory_format=torch.channels_last)
    x = TracedTensor(value, Tape(4))
    assert (x.shape, x.dtype, x.device, x.layout, x.stride()) == (*_facts(value), value.stride())
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert len(x) == 4
    assert x.ndim == 4
    assert x.requires_grad
    assert not x.is_sparse


def _facts(x: Tensor) -> tuple:
    return x.shape, x.dtype, x.device, x.layout


# Whatever is raised


class Raising(nn.Module):
    def __init__(self, error: Exception, *, on: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.net, self.error, self.on = Net(), error, on

    def forward(self, x: Tensor) -> Tensor:
        if self.on(x):
            raise self.error
        return self.net(x)


@pytest.mark.parametrize("error", [KeyError("k"), ValueError("v"), AssertionError(), RuntimeError("r\nmore")], ids=repr)
def test_any_exception_of_a_trial_is_a_refusal(img, error):
    D = Raising(error, on=lambda x: type(x) is not Tensor)
    assert penalties.refusal(D, img).startswith(f"D (Raising): it raised {type(error).__name__}: ")
    assert "\n" not in penalties.refusal(D, img)
    with pytest.raises(NotPiecewiseLinear, match="it raised"):
        step(D, D, img, 2)
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))


def test_an_error_of_D_itself_comes_from_level_1(img):
    D = Raising(KeyError("of its own"), on=lambda x: True)
    with pytest.raises(KeyError, match="of its own"):
        step(D, D, img, None)


def test_an_interrupt_is_none(img):
    D = Raising(KeyboardInterrupt(), on=lambda x: True)
    for call in (lambda: penalties.refusal(D, img), lambda: step(D, D, img, None)):
        with pytest.raises(KeyboardInterrupt):
            call()


@pytest.mark.parametrize("level", [None, 2])
@pytest.mark.parametrize(
    ("returned", "got"),
    [
        (lambda y, x: (y, x), "a tuple"),
        (lambda y, x: [y], "a list"),
        (lambda y, x: {"logits": y}, "a dict"),
        (lambda y, x: None, "a NoneType"),
        (lambda y, x: x, r"\[8, 3, 8, 8\]"),
        (lambda y, x: torch.zeros(3), r"\[3\]"),
    ],
)
def test_what_D_must_return_is_said(img, returned, got, level):
    net = Net()
    D = lambda x: returned(net(x), x)  # noqa: E731
    with pytest.raises(ValueError, match=rf"D must return logits \[N\] = \[8\], got {got}"):
        step(D, net, img, level)
    assert "D must return logits" in penalties.refusal(D, img)


# Packs, and classes of any form


class Packed(nn.Module):
    """PacGAN's: one judgement of four images together, for each of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(12, 8, 3, padding=1).double(), nn.Linear(512, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.leaky_relu(self.conv(x.reshape(len(x) // 4, 12, 8, 8)), 0.2).flatten(1)).flatten()


def test_packs_are_refused_and_right(img):
    D = Packed()
    assert "the batch must stay in dimension 0" in penalties.refusal(D, img)
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))


class Even(Net):
    """Takes batches of at least 8."""

    def forward(self, x: Tensor, c: Any = None) -> Tensor:
        assert len(x) >= 8
        return super().forward(x)


def test_a_D_for_large_batches_is_taken_at_level_2(img):
    D = Even()
    assert penalties.refusal(D, img) is None
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))
    assert_equal(step(D, D, img, 2), step(D, D, img, "autograd"))


class Conditioned(Net):
    def forward(self, x: Tensor, c: Any = None) -> Tensor:
        return super().forward(x) + (self.read(c) * x.mean((2, 3))).sum(1, keepdim=True)


CLASSES = {
    "dict": (lambda v: {"src": v}, lambda c: c["src"]),
    "tuple": (lambda v: (torch.zeros(8), v), lambda c: c[1]),
    "list": (lambda v: [v, None], lambda c: c[0]),
    "nested": (lambda v: {"a": [(v, "name")], "n": 3}, lambda c: c["a"][0][0] * c["n"]),
    "no tensor": (lambda v: 3, lambda c: torch.full((1, 3), float(c)).double()),
    "a string": (lambda v: "cat", lambda c: torch.full((1, 3), float(len(c))).double()),
    "one for all": (lambda v: v[0], lambda c: c),
}


@pytest.mark.parametrize("form", CLASSES)
def test_classes_of_any_form_are_handed_on(img, form):
    make, Conditioned.read = CLASSES[form][0], staticmethod(CLASSES[form][1])
    D, c = Conditioned(), make(torch.randn(8, 3).double())
    assert penalties.refusal(D, img, c) is None
    want = step(D, D, img, "autograd", c=c)
    for level in (None, 2, 1):
        assert_equal(step(D, D, img, level, c=c), want)


# Compiled parts


def compiled_forward(net: nn.Module) -> nn.Module:
    net.forward = torch.compile(net.forward)
    return net


def with_default(net: Callable) -> Callable:
    return lambda x, net=net: net(x)


def in_a_closure(net: Callable) -> Callable:
    return lambda x: net(x)


def compiled_inside(net: nn.Module) -> nn.Module:
    net.conv.compile()
    return net


@pytest.mark.parametrize(
    "make",
    [
        torch.compile,
        compiled_forward,
        compiled_inside,
        lambda net: nn.Sequential(torch.compile(net)),
        lambda net: torch.compile(net.forward),
        lambda net: functools.partial(torch.compile(net), c=None),
        lambda net: with_default(torch.compile(net)),
        lambda net: in_a_closure(torch.compile(net)),
        lambda net: compiled_inside(net).forward,
    ],
    ids=["module", "forward", "part", "in a module", "method", "partial", "default", "closure", "method of a part"],
)
def test_a_compiled_D_is_told_at_once(img, make):
    D = make(Net())
    assert "is compiled by torch.compile" in penalties.refusal(D, img)
    for level in (None, 2, 1, "autograd"):
        with pytest.raises(RuntimeError, match=r"is compiled by torch\.compile"):
            backward_with_penalty(D, img, softplus, gamma=1.0, level=level)


# What D was before


class Counting(Net):
    """Changes all that a forward pass may change, and is then refused."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6).double()
        self.old, self.new = nn.Conv2d(6, 6, 1).double(), nn.Conv2d(6, 6, 1).double()
        spectral_norm(self.old)
        parametrizations.spectral_norm(self.new)
        self.register_buffer("replaced", torch.zeros(2).double())
        self.register_buffer("written", torch.zeros(2).double())
        self.attribute, self.calls, self.history, self.seen = torch.zeros(2), 0, [], {}
        self.held = [torch.zeros(2)]
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, x: Tensor, c: Any = None) -> Tensor:
        self.replaced = self.replaced * 0.5 + self.conv.weight.detach().mean()
        self.written.mul_(0.5).add_(1)
        self.attribute += 1
        self.held[0][1] = self.held[0][1] + 3
        self.calls += 1
        self.history.append(self.calls)
        self.seen[self.calls] = True
        self.fresh = self.calls
        noise = torch.randn(()) + torch.rand((), generator=self.generator)
        h = self.norm(self.new(self.old(self.conv(x) + noise.double())))
        return self.last(h.flatten(1))

    def state(self) -> dict[str, Any]:
        names = ("attribute", "calls", "history", "seen", "held", "fresh")
        plain = {name: copy.deepcopy(getattr(self, name, None)) for name in names}
        generators = {"generator": self.generator.get_state(), "random": torch.get_rng_state()}
        return {**{name: v.clone() for name, v in self.state_dict().items()}, **plain, **generators}


HANDED = {
    "module": lambda D: D,
    "function": lambda D: lambda x: D(x),
    "bound method": lambda D: D.forward,
    "partial": lambda D: functools.partial(D, c=None),
    "method in a closure": lambda D: lambda x: D.forward(x),
    "object": lambda D: type("Critic", (), {"net": D, "__call__": lambda self, x: self.net.forward(x)})(),
    "default": lambda D: lambda x, D=D: D(x),
    "hidden": lambda D: {"D": D}.__getitem__("D").__call__,
}


@pytest.mark.parametrize("how", HANDED)
def test_a_refusal_leaves_no_trace(img, how):
    torch.manual_seed(0)
    D = Counting()
    called = HANDED[how](D)
    before = D.state()
    assert "batch_norm" in penalties.refusal(called, img)
    torch.testing.assert_close(D.state(), before, rtol=0, atol=0)
    with pytest.raises(NotPiecewiseLinear):
        step(called, D, img, 2)
    torch.testing.assert_close(D.state(), before, rtol=0, atol=0)

    other = copy.deepcopy(D)
    other.generator = torch.Generator()
    other.generator.set_state(D.generator.get_state())
    torch.set_rng_state(before["random"])
    want = step(other, other, img, "autograd")
    after = other.state()
    torch.set_rng_state(before["random"])
    assert_equal(step(called, D, img, None), want)  # and it has run once
    torch.testing.assert_close(D.state(), after, rtol=0, atol=0)


def test_asking_leaves_no_trace_where_level_2_holds(img):
    D = nn.Sequential(spectral_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1)).double()
    before = {name: values.clone() for name, values in D.state_dict().items()}
    random = torch.get_rng_state()
    assert penalties.refusal(D, img) is None
    torch.testing.assert_close(dict(D.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)


def test_tensors_that_a_function_writes_are_put_back(img):
    net, mean, out = Net(), torch.zeros(()).double(), torch.zeros(2).double()
    net.curved = True

    def D(x: Tensor) -> Tensor:
        mean.lerp_(net.conv.weight.detach().mean(), 0.5)
        torch.add(out, 1, out=out)
        out[0] += 1
        return net(x) * mean

    assert "tanh" in penalties.refusal(D, img)
    assert not mean.any()
    assert not out.any()
    backward_with_penalty(D, img, softplus, gamma=1.0)
    assert out.tolist() == [2, 1]


SIZES = {
    "resized": lambda D: D.queue.resize_(len(D.queue) + 1).fill_(1),
    "data": lambda D: setattr(D.queue, "data", torch.ones(len(D.queue) + 1).double()),
    "other memory": lambda D: setattr(D.queue, "data", D.conv.bias.data.mul_(2)),
    "set": lambda D: D.queue.set_(torch.ones(len(D.queue) + 1).double()),
    "deque": lambda D: D.recent.append(len(D.recent)),
}


@pytest.mark.parametrize("name", SIZES)
def test_buffers_that_grow_are_put_back(img, name):
    """Such as a queue of features; what a buffer was given the memory of stays what it was, too."""

    class Growing(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                SIZES[name](self)
            return super().forward(x)

    def made() -> Growing:
        torch.manual_seed(0)
        D = Growing()
        D.curved, D.recent = True, collections.deque([5], maxlen=3)
        D.register_buffer("queue", torch.zeros(6).double())
        with torch.inference_mode():
            D.register_buffer("of_inference", torch.zeros(2))
        D.register_buffer("sparse", torch.eye(2).to_sparse())
        return D

    D, same = made(), made()
    assert "tanh" in penalties.refusal(D, img)
    assert D.queue.shape == (6,) and not D.queue.any() and list(D.recent) == [5]
    assert torch.equal(D.conv.bias, same.conv.bias)
    for net, level in ((D, None), (same, 1)):
        backward_with_penalty(net, img, softplus, gamma=1.0, level=level)
    assert torch.equal(D.queue, same.queue) and D.recent == same.recent
    assert torch.equal(D.conv.bias, same.conv.bias)


def test_spectral_norms_turn_once_a_step(img):
    """At level 2, and where level 2 is refused, as in a step without a penalty."""
    for last in (nn.Identity(), nn.Tanh()):
        torch.manual_seed(0)
        D = nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Flatten(), last)
        D = D.append(nn.Linear(144, 1)).double()
        other = copy.deepcopy(D)
        for _ in range(2):
            want = step(other, other, img, "autograd")
            assert_equal(step(D, D, img, None), want)
        torch.testing.assert_close(dict(D.state_dict()), dict(other.state_dict()))


def test_lazy_modules_stay_what_the_trial_made_of_them(img):
    D = nn.Sequential(nn.Flatten(), nn.LazyLinear(1), nn.Tanh()).double()
    assert penalties.refusal(D, img) is not None
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))


# What is remembered


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """Notes each pass that is tried."""
    made = []

    class Noted(trial.RecordedForward):
        def __init__(self, *args: Any) -> None:
            made.append("pass")
            super().__init__(*args)

    monkeypatch.setattr(trial, "RecordedForward", Noted)
    return made


def test_a_level_2_step_is_one_pass_for_modules_and_fresh_functions(img, passes):
    D, calls = Net(), []
    D.register_forward_pre_hook(lambda m, args: calls.append(1))
    for _ in range(3):
        backward_with_penalty(D, img, softplus, gamma=1.0)
        backward_with_penalty(lambda x: D(x, None), img, softplus, gamma=1.0)
    assert len(calls) == len(passes) == 6


@pytest.mark.parametrize(
    "fresh",
    [lambda D: lambda x: D(x), lambda D: D.forward, lambda D: functools.partial(D, c=None)],
    ids=["lambda", "method", "partial"],
)
def test_a_refused_function_is_tried_once_however_often_it_is_made(img, passes, fresh):
    D = Net()
    D.curved = True
    for _ in range(3):
        c = torch.randn(1).double()
        backward_with_penalty(fresh(D), img, softplus, gamma=1.0)
        backward_with_penalty(lambda x, c=c: D(x) + c, img, softplus, gamma=1.0)
    assert len(passes) == 2


def exchange(D: nn.Sequential) -> None:
    D[1] = nn.ReLU()


CHANGES = {
    "a submodule is exchanged": exchange,
    "a mode": lambda D: D.eval(),
    "an attribute": lambda D: setattr(D[1], "curved", False),
    "a hook is removed": lambda D: D[1].handle.remove(),
}


class Curved(nn.Module):
    curved = True

    def __init__(self) -> None:
        super().__init__()
        self.handle = None

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() if self.training and self.curved and self.handle is None else x.relu()


@pytest.mark.parametrize("name", CHANGES)
def test_a_refusal_is_forgotten_when_D_changes(img, passes, name):
    D = nn.Sequential(nn.Conv2d(3, 4, 3), Curved(), nn.Flatten(), nn.Linear(144, 1)).double()
    if name == "a hook is removed":
        D[1].handle = D[1].register_full_backward_hook(lambda *_: None)
    for _ in range(2):
        step(D, D, img, None)
    assert len(passes) == 1
    CHANGES[name](D)
    assert penalties.refusal(D, img) is None
    step(D, D, img, None)
    assert len(passes) == 3


def test_what_was_taken_and_is_then_curved_or_hooked_is_right(img):
    D = Net()
    step(D, D, img, None)
    D.curved = True
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))
    D.curved = False
    D.conv.register_full_backward_hook(lambda m, gi, go: tuple(None if g is None else g * 2 for g in gi))
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))
    D.conv.weight.requires_grad_(False)
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))


def test_memory_does_not_hold_on_to_D(img):
    def refused() -> None:
        D = Net()
        D.curved = True
        backward_with_penalty(D, img, softplus, gamma=1.0)

    gc.collect()
    before = len(refusals._refused)
    refused()
    gc.collect()
    assert len(refusals._refused) <= before
