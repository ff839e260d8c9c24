"""The modules of a D that is a function: where they are found, and what is not searched."""

import copy
import functools
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.adversarial import Adversarial
from gan_engine.losses.network import _MOST_HELD, modules_of
from gan_engine.losses.penalties import backward_with_penalty
from tests.losses.networks import softplus


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 1)]


def run(modules: list[nn.Module], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x


def closure(modules: list[nn.Module]) -> Callable:
    return lambda x: run(modules, x)


def dictionary(modules: list[nn.Module]) -> Callable:
    parts = {i: module for i, module in enumerate(modules)}
    return lambda x: run(list(parts.values()), x)


def nested(modules: list[nn.Module]) -> Callable:
    parts = {"first": tuple(modules[:2]), "last": modules[2:]}
    return lambda x: run([*parts["first"], *parts["last"]], x)


def default(modules: list[nn.Module]) -> Callable:
    def D(x: Tensor, parts: tuple = tuple(modules)) -> Tensor:
        return run(parts, x)

    return D


def attribute(modules: list[nn.Module]) -> Callable:
    net = SimpleNamespace(parts=modules)
    return lambda x: run(net.parts, x)


class Callables:
    def __init__(self, modules: list[nn.Module]) -> None:
        self.parts = modules

    def __call__(self, x: Tensor) -> Tensor:
        return run(self.parts, x)


def partial(modules: list[nn.Module]) -> Callable:
    return functools.partial(run, modules)


KEPT: list[nn.Module] = []


def global_list(modules: list[nn.Module]) -> Callable:
    KEPT[:] = modules
    return lambda x: run(KEPT, x)


@pytest.mark.parametrize(
    "make", [closure, dictionary, nested, default, attribute, Callables, partial, global_list], ids=lambda f: f.__name__
)
def test_modules_in_containers_are_put_back_at_level_aligned(make):
    modules, x = layers(), torch.randn(5, 6)
    D = make(modules)
    assert set(modules) == set(modules_of(D, held=True))
    assert make in (default, partial) or not modules_of(D)
    backward_with_penalty(D, x, softplus, gamma=1.0, level="aligned")
    assert int(modules[1].num_batches_tracked) == 1
    once = nn.BatchNorm1d(8)
    once(modules[0](x))
    torch.testing.assert_close(modules[1].running_mean, once.running_mean)


def test_a_dict_gives_the_entries_that_the_code_names():
    nets = {"G": nn.Linear(2, 2), "D": nn.Linear(6, 1)}
    assert modules_of(lambda x: nets["D"](x), held=True) == [nets["D"]]
    assert set(modules_of(lambda x, name: nets[name](x), held=True)) == set(nets.values())


def test_long_lists_are_not_searched():
    numbers = [*range(_MOST_HELD), nn.Linear(6, 1)]
    assert modules_of(lambda x: numbers[-1](x), held=True) == []


def bend(x: Tensor) -> Tensor:
    return F.silu(x) * 2


class Calling(nn.Module):
    """A network that calls a compiled function."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(6, 8), nn.Linear(8, 1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


class Decorated(nn.Linear):
    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        return bend(super().forward(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_not_compiled_or_not_called_is_no_reason_to_refuse():
    """What torch.compiler.disable marks, a compiled function with a second gradient, and a neighbour in a list."""
    torch.compiler.reset()
    x, plain = torch.randn(5, 6), Calling(bend)
    backward_with_penalty(plain, x, softplus, gamma=1.0)
    eager, idle = copy.deepcopy(plain), copy.deepcopy(plain)
    eager.function = torch.compile(bend, backend="eager")
    idle.other = torch.compile(bend, backend="aot_eager")
    nets = [copy.deepcopy(plain), torch.compile(nn.Linear(6, 6), backend="eager")]
    for D, net in ((eager, eager), (idle, idle), (lambda x: nets[0](x), nets[0])):
        net.zero_grad()
        backward_with_penalty(D, x, softplus, gamma=1.0)
        torch.testing.assert_close([p.grad for p in net.parameters()], [p.grad for p in plain.parameters()])
    disabled = Decorated(6, 1)
    backward_with_penalty(disabled, x, softplus, gamma=1.0)
    backward_with_penalty(torch.compiler.disable(lambda x: disabled(x)), x, softplus, gamma=1.0)


def test_a_neighbour_in_a_list_learns_as_before():
    """g_terms leaves the weights of D alone, and those of nothing else."""
    nets = [nn.Linear(6, 1), nn.Linear(4, 6)]
    Adversarial(lambda x: nets[0](x)).g_terms(nets[1](torch.randn(5, 4)))["G"].mean().backward()
    assert nets[1].weight.grad is not None


@pytest.mark.parametrize("level", [None, 1, "autograd"])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_error_of_a_compiled_function_that_is_not_found_says_what_to_do(level):
    torch.compiler.reset()
    hidden = SimpleNamespace(function=torch.compile(bend, backend="aot_eager"))
    D, x = Calling(lambda y: y), torch.randn(5, 6)
    D.forward = lambda x: D.last(getattr(hidden, "".join(["func", "tion"]))(D.first(x)))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"a function that D calls is compiled by torch\.compile"):
            backward_with_penalty(D, x, softplus, gamma=1.0, level=level)
    backward_with_penalty(D, x, softplus, gamma=1.0, level="aligned")


@pytest.mark.parametrize("level", [None, 1, "autograd", "aligned"])
@pytest.mark.parametrize("made", [lambda D, x: torch.jit.trace(D, x), lambda D, x: torch.jit.script(D)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_torch_jit_makes_has_the_gradients_of_the_network(made, level):
    D, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(5, 6)
    backward_with_penalty(D, x, softplus, gamma=1.0, level=level)
    want = [p.grad.clone() for p in D.parameters()]
    D.zero_grad()
    backward_with_penalty(made(D, x), x, softplus, gamma=1.0, level=level)
    torch.testing.assert_close([p.grad for p in D.parameters()], want)
