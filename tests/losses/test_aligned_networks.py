"""Level "aligned" where second derivatives do not work, and kinks and convolutions in each of its runs."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed.fsdp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from benchmarks.curved_discriminators import ViT, mlp
from gan_engine.losses import penalties
from gan_engine.ops import bias_act, convolution
from tests.losses.discriminators import seeded
from tests.losses.networks import Lambda, softplus
from tests.losses.test_aligned import DISCRIMINATORS, FORMS, aligned, error, gradient, images, trained


class Wrapped(nn.Module):
    """D with a block behind a checkpoint."""

    def __init__(self, D: ViT, **options: Any) -> None:
        super().__init__()
        self.D, blocks = D, D.blocks
        self.D.blocks = Lambda(lambda x: checkpoint(blocks, x, **options))
        self.blocks = blocks

    def forward(self, img: Tensor) -> Tensor:
        return self.D(img)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant: bool):
    """Of both kinds; a re-entrant one refuses torch.autograd.grad, so that D learns from whole backward passes."""
    D = trained(DISCRIMINATORS["vit"])
    wrapped = Wrapped(copy.deepcopy(D), use_reentrant=reentrant)
    for form in FORMS.values():
        options = dict(form)
        loss = options.pop("loss", None)
        want = gradient(D, lambda o=options, x=loss: penalties.backward_with_penalty(D, images(), x, level=1, **o))
        got = gradient(wrapped, lambda o=options, x=loss: aligned(wrapped, images(), x, **o))
        assert (got.norm() - want.norm()).abs() < 1e-2 * want.norm()
        names = [name for name, _ in wrapped.named_parameters()]
        assert sorted(name.removeprefix("D.") for name in names) == sorted(name for name, _ in D.named_parameters())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_discriminator(backend: str):
    D = trained(lambda: mlp(16))
    torch.compiler.reset()
    assert error(D, softplus, run=torch.compile(D, backend=backend), gamma=10.0) < 1e-2
    kinked = torch.compile(mlp(8, nn.ReLU), backend=backend)
    with pytest.raises(
        RuntimeError, match="ReLU has kinks, and compiled code or other threads run it: want smooth activations"
    ):
        aligned(kinked, images())
    with pytest.raises(RuntimeError, match='"aligned"'):
        penalties.backward_with_penalty(kinked, images(), None, gamma=1.0)


@pytest.fixture
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("static", [False, True])
def test_distributed_data_parallel(static: bool, process_group):
    """A wrapper with static_graph=True notes its first pass in an attribute, which stays."""
    D = trained(DISCRIMINATORS["batch norms"])
    parallel = nn.parallel.DistributedDataParallel(D, static_graph=static)
    for _ in range(2):
        assert error(D, softplus, run=parallel, gamma=10.0) < 1e-2


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor")
def test_fully_sharded(process_group):
    D, img = trained(DISCRIMINATORS["vit"]), images()
    want = gradient(D, lambda: penalties.backward_with_penalty(D, img, softplus, gamma=10.0, level=1))
    for block in D.blocks:
        torch.distributed.fsdp.fully_shard(block)
    torch.distributed.fsdp.fully_shard(D)
    for level in (None, 1, 2, "autograd"):
        with pytest.raises(RuntimeError, match="is sharded by FSDP, which frees the weights"):
            penalties.backward_with_penalty(D, img, softplus, gamma=10.0, level=level)
    with pytest.raises(RuntimeError, match="is sharded by FSDP"):
        penalties.level_of(D, img)
    for _ in range(2):
        D.zero_grad()
        aligned(D, img, softplus, gamma=10.0)
        got = torch.cat([p.grad.full_tensor().double().flatten() for p in D.parameters()])
        assert (got - want).norm() < 1e-2 * want.norm()


def test_fused_attention_stays():
    """No math kernel: a context that admits nothing but flash attention is kept."""
    D, img = seeded(DISCRIMINATORS["vit"]), images()
    want = gradient(D, lambda: aligned(D, img, softplus))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        got = gradient(D, lambda: aligned(D, img, softplus))
    torch.testing.assert_close(got, want)


def read_after(function: Callable, x: Tensor) -> Tensor:
    """The sum of what the function has written in place and of what it returns, which are one tensor."""
    return function(x, inplace=True) + x


ACTIVATIONS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "relu": lambda: F.relu,
    "relu_": lambda: torch.relu_,
    "method": lambda: Tensor.relu,
    "in place": lambda: nn.LeakyReLU(0.3, inplace=True),
    "leaky_relu_": lambda: lambda x: F.leaky_relu_(x, 0.2),
    "prelu": lambda: nn.PReLU(8),
    "bias_act": lambda: lambda x: bias_act(x, torch.linspace(-1, 1, 8, dtype=x.dtype), act="lrelu"),
    "bias_act with a clamp": lambda: lambda x: bias_act(x, act="relu", gain=1.5, clamp=0.2),
    "relu6": lambda: lambda x: F.relu6(20 * x) / 20,
    "hard tanh": lambda: nn.Hardtanh(-0.1, 0.2),
    "clamp": lambda: lambda x: x.clamp(min=0),
    "clamp_max": lambda: lambda x: x.clamp_max(0.1),
    "clamp by tensors": lambda: lambda x: x.clamp(x.new_tensor(-0.1), x.new_full((8, 1, 1), 0.1)),
    "clamp_": lambda: lambda x: (1 * x).clamp_(-0.1, 0.2),
    "limits in the wrong order": lambda: lambda x: x + x.clamp(0.1, -0.1),
    "relu6 whose input is read": lambda: lambda x: read_after(F.relu6, 20 * x) / 20,
    "hard tanh whose input is read": lambda: lambda x: read_after(F.hardtanh, 20 * x) / 20,
    "hard swish": lambda: lambda x: F.hardswish(20 * x) / 20,
    "hard swish whose input is read": lambda: lambda x: read_after(F.hardswish, 20 * x) / 20,
    "abs": lambda: torch.abs,
    "abs_": lambda: lambda x: (1 * x).abs_(),
    "absolute": lambda: torch.absolute,
    "maximum": lambda: lambda x: torch.maximum(x, x.new_tensor(0.1)),
    "minimum": lambda: lambda x: torch.minimum(x, x.flip(1)),
    "smooth bias_act": lambda: lambda x: bias_act(x, act="swish"),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_kinks_are_held(kind: str, frozen: bool):
    """Behind a frozen layer too, where nothing needs a gradient beside the image."""
    torch.manual_seed(0)
    layers = [layer if isinstance(layer := ACTIVATIONS[kind](), nn.Module) else Lambda(layer) for _ in range(2)]
    D = nn.Sequential(nn.Conv2d(3, 8, 4, 4), layers[0], nn.Conv2d(8, 8, 3), layers[1], nn.Tanh(), nn.Flatten())
    D.append(nn.Linear(288, 1))
    D[0].requires_grad_(not frozen)
    assert error(D, softplus, gamma=1.0) < 1e-2


def test_hard_sigmoid_has_the_step_of_its_formula():
    """PyTorch has no second gradient of F.hardsigmoid, with which an error could be measured."""
    found = []
    for gate in (F.hardsigmoid, partial(F.hardsigmoid, inplace=True), lambda x: F.relu6(x + 3) / 6):
        torch.manual_seed(0)
        D = nn.Sequential(nn.Conv2d(3, 8, 4, 4), Lambda(lambda x, gate=gate: gate(20 * x)), nn.Flatten())
        D.append(nn.Linear(512, 1))
        found.append(gradient(D, lambda D=D: aligned(D, images(), softplus)))
    for got in found[:2]:
        torch.testing.assert_close(got, found[2], rtol=1e-4, atol=1e-5)


def test_kinks_that_cannot_be_held_are_refused():
    for activation in (F.softshrink, lambda x: F.max_pool2d(x, 2), F.hardtanh_, nn.SELU(), torch.selu_):
        D = nn.Sequential(nn.Conv2d(3, 4, 4, 4), Lambda(activation), nn.Flatten(), nn.LazyLinear(1))
        with pytest.raises(RuntimeError, match=r"has kinks that a difference of D would see: level=1 is exact"):
            aligned(D, images())
    block = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 1))
    for reentrant in (False, True):
        with pytest.raises(RuntimeError, match="relu inside of a checkpoint, which runs it again: level=1 is exact"):
            aligned(lambda x, r=reentrant: checkpoint(block, x, use_reentrant=r), images())


class Limited(nn.Module):
    """It limits a buffer without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(8, nn.SiLU)
        self.register_buffer("gain", torch.full((), 150.0))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.gain.clamp_(max=2.0)
        return self.net(x) * self.gain.clone()


def test_a_buffer_that_D_limits():
    D = seeded(Limited)
    assert error(D, softplus, gamma=1.0) < 1e-2
    assert D.gain == 2


class Convolutions(nn.Module):
    """Convolutions of 32 channels and more, for which there are faster ways than PyTorch's on some CPUs."""

    def __init__(self) -> None:
        super().__init__()
        block = [nn.Conv2d(3, 32, 3, padding="same"), nn.SiLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.SiLU()]
        block += [nn.Conv2d(64, 64, 3, padding=1), nn.SiLU(), nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.SiLU()]
        self.block, self.last = nn.Sequential(*block, nn.Conv2d(32, 32, 3, 2, 1), nn.SiLU()), nn.Linear(32, 1)
        self.reentrant: bool | None = None

    def forward(self, img: Tensor) -> Tensor:
        block = self.block if self.reentrant is None else partial(checkpoint, self.block, use_reentrant=self.reentrant)
        return self.last(block(img).mean([2, 3]))


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_convolutions_take_their_faster_way(reentrant: bool | None, monkeypatch: pytest.MonkeyPatch):
    """In each run at x and beside it, and where a checkpoint without re-entrance runs a block again."""
    D, calls = seeded(Convolutions), []
    D.reentrant = reentrant
    for name in ("conv2d", "conv_transpose2d"):
        run = getattr(convolution, name)
        monkeypatch.setattr(convolution, name, lambda *args, f=run, name=name: (calls.append(name), f(*args))[1])
    exact = seeded(Convolutions).double()
    want = gradient(exact, lambda: penalties.backward_with_penalty(exact, images().double(), softplus, gamma=9.0))
    calls.clear()
    got = gradient(D, lambda: aligned(D, images(), softplus, gamma=9.0))
    assert (got - want).norm() < 1e-2 * want.norm()
    runs = {None: 2, False: 5, True: 3}[reentrant]  # each of 3 backward passes runs a checkpoint again
    assert calls.count("conv2d") == 3 * runs and calls.count("conv_transpose2d") == runs
