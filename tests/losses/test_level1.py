"""Level 1 changes what D runs on, and never what it computes: its gradients are those of plain autograd."""

import contextlib
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, weight_norm
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from gan_engine import backends
from gan_engine.losses import penalties


def softplus(logits: Tensor) -> Tensor:
    return F.softplus(-logits)


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def around(*layers: nn.Module | Callable) -> nn.Module:
    """A float64 discriminator of images [N, 3, 8, 8] with `layers`, which see [N, 4, 8, 8], in its middle."""
    torch.manual_seed(0)
    middle = [layer if isinstance(layer, nn.Module) else Lambda(layer) for layer in layers]
    D = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *middle, nn.Flatten(), nn.LazyLinear(1)).double()
    D(images())
    return D


def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(D: nn.Module, step: Callable[[], object]) -> dict[str, Tensor]:
    D.zero_grad(set_to_none=True)
    torch.manual_seed(2)
    step()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in D.named_parameters()}


def written_out(D: nn.Module, loss: Callable | None) -> None:
    """mean(loss) + mean(3 / 2 R1) by plain autograd, attention on the math kernel"""
    x = images().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        logits = D(x).flatten()
        (g,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        total = 1.5 * g.square().flatten(1).sum(1).mean()
        (total if loss is None else total + loss(logits).mean()).backward()


def assert_level_1_is_plain_autograd(D: nn.Module) -> None:
    """All that changes ops, against plain autograd."""
    state = {name: values.clone() for name, values in D.state_dict().items()}

    def compare(step: Callable[[], object], loss: Callable | None) -> None:
        got = gradients(D, step)
        D.load_state_dict(state)
        want = gradients(D, lambda: written_out(D, loss))
        D.load_state_dict(state)
        assert any(g.any() for g in want.values())
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)

    compare(lambda: (1.5 * penalties.r1(D, images())).mean().backward(), None)
    for level in (1, "autograd"):
        options = {"gamma": 3.0, "level": level}
        compare(lambda o=options: penalties.backward_with_penalty(D, images(), softplus, **o), softplus)


# Networks of every sort


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.flatten(2).transpose(1, 2))[0][:, -1]


class Hooked(nn.Module):
    """Hooks that change gradients, of a module and of tensors, beside an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(4, 4, 3), nn.LeakyReLU(0.2)
        self.conv.register_full_backward_hook(lambda module, dx, dy: tuple(2 * d for d in dx))
        self.act.register_full_backward_hook(lambda module, dx, dy: tuple(3 * d for d in dx))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        x.register_hook(lambda d: 0.5 * d)
        return F.relu(x + 0.1, inplace=True)


class Classes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 64)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x.flatten(2) * self.table(F.relu(torch.arange(-1, 3)))[:, None], 0.2)


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, dy: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * dy


def conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, padding=1)


def warped(x: Tensor) -> Tensor:
    theta = torch.tensor([[0.9, 0.2, 0.0], [-0.1, 0.8, 0.1]], dtype=x.dtype).expand(len(x), 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def own_convolution_for_each_image(x: Tensor) -> Tensor:
    weight = torch.randn(len(x), 2, 4, 3, 3, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    return torch.func.vmap(F.conv2d)(x[:, None], weight).relu()


def on_the_cpu(x: Tensor) -> Tensor:
    with torch.device("cpu"), torch.autograd.graph.save_on_cpu():
        return F.avg_pool2d(input=F.leaky_relu(x, 0.2), kernel_size=2)


SORTS = {
    "hooks": Hooked,
    "in place": lambda: nn.Sequential(conv(), nn.LeakyReLU(0.2, inplace=True), conv(), nn.ReLU(inplace=True)),
    "function of its own": lambda: nn.Sequential(conv(), nn.ReLU(), Lambda(Squared.apply)),
    "old weight norm": lambda: nn.Sequential(weight_norm(conv()), nn.LeakyReLU(0.2)),
    "new weight norm": lambda: nn.Sequential(parametrizations.weight_norm(conv()), nn.LeakyReLU(0.2)),
    "spectral norm": lambda: nn.Sequential(parametrizations.spectral_norm(conv()), nn.LeakyReLU(0.2)),
    "lstm": Recurrent,
    "conv1d": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 3, 3), nn.LeakyReLU(0.2)),
    "conv3d": lambda: nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv3d(4, 3, (1, 3, 3)), nn.LeakyReLU(0.2)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(4, 3, 3, 2, output_padding=1), nn.LeakyReLU(0.2)),
    "grid_sample": lambda: nn.Sequential(Lambda(warped), nn.ReLU()),
    "max_pool": lambda: nn.Sequential(nn.MaxPool2d(2), nn.LeakyReLU(0.2), nn.Conv2d(4, 4, 3, stride=2)),
    "embedding": Classes,
    "dropout": lambda: nn.Sequential(nn.Dropout(0.3), nn.LeakyReLU(0.2), nn.Dropout2d(0.3)),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm2d(4), nn.LeakyReLU(0.2, inplace=True), conv(), nn.GroupNorm(2, 4)),
    "smooth": lambda: nn.Sequential(nn.GELU(), conv(), nn.SiLU(), nn.Softmax(1), nn.LayerNorm([4, 8, 8])),
    "vmap": lambda: Lambda(own_convolution_for_each_image),
    "other contexts": lambda: Lambda(on_the_cpu),
}


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("sort", SORTS)
def test_every_sort_of_network(sort: str, backend: str | None):
    with contextlib.nullcontext() if backend is None else backends.use(backend):
        assert_level_1_is_plain_autograd(around(SORTS[sort]()))


def test_a_function_that_is_differentiable_once_is_refused_as_by_pytorch():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, dy: Tensor) -> Tensor:
            return dy * 2

    D = around(Once.apply, nn.ReLU())
    with pytest.raises(RuntimeError, match="differentiate twice a function that was marked with @once_differentiable"):
        penalties.r1(D, images()).sum().backward()


def test_autocast_inside_the_network():
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.conv = conv()

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                x = F.leaky_relu(self.conv(x), 0.2)
                tokens = x.flatten(2).transpose(1, 2)
                y = F.scaled_dot_product_attention(tokens.float(), tokens, tokens)
                assert {x.dtype, tokens.dtype, y.dtype} == {torch.bfloat16}
                return (self.attention(y, y, y, need_weights=False)[0] + y).float()

    D = nn.Sequential(Half(), nn.Flatten(), nn.Linear(256, 1))
    img = images().float().repeat(1, 2, 1, 1)[:, :4]
    got = gradients(D, lambda: penalties.r1(D, img).mean().backward())
    x = img.clone().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        (g,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        want = gradients(D, lambda: g.square().flatten(1).sum(1).mean().backward())
    error = sum((got[name] - g).square().sum() for name, g in want.items())
    assert error <= 0.02**2 * sum(g.square().sum() for g in want.values())  # bfloat16 has 8 bits


# Checkpoints


class Checkpointed(nn.Module):
    """A block behind a checkpoint, or without where `off`."""

    def __init__(self, block: nn.Module, run: Callable) -> None:
        super().__init__()
        self.block, self.run, self.off = block, run, False

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) if self.off else self.run(self.block, x)


def regular(block: nn.Module, x: Tensor) -> Tensor:
    return checkpoint(block, x, use_reentrant=False)


def trusting(block: nn.Module, x: Tensor) -> Tensor:
    """What is computed again is not compared with what was computed first."""
    return checkpoint(block, x, use_reentrant=False, determinism_check="none")


def in_sequence(block: nn.Module, x: Tensor) -> Tensor:
    return checkpoint_sequential(block, 2, x, use_reentrant=False)


def nested(block: nn.Module, x: Tensor) -> Tensor:
    inner = lambda x: F.leaky_relu(regular(block, F.leaky_relu(x, 0.1)), 0.3)  # noqa: E731
    return checkpoint(inner, x, use_reentrant=False)


class WithAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        y = F.scaled_dot_product_attention(tokens, tokens, tokens, is_causal=True)
        return F.leaky_relu(tokens + self.attention(y, y, y, need_weights=False)[0], 0.2)


class HalfWithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.leaky_relu(F.dropout(self.conv(x), 0.3), 0.2).to(x.dtype)


BLOCKS = {
    "activation": lambda: nn.Sequential(nn.LeakyReLU(0.2), conv(), nn.Tanh()),
    "in place": lambda: nn.Sequential(conv(), nn.LeakyReLU(0.2, inplace=True), conv(), nn.ReLU(inplace=True)),
    "norm and pool": lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.LeakyReLU(0.2), nn.AvgPool2d(2), conv()),
    "attention": lambda: nn.Sequential(conv(), WithAttention()),
    "autocast and dropout": lambda: nn.Sequential(HalfWithDropout(), nn.Dropout(0.2), nn.LeakyReLU(0.2)),
}
STEPS = {
    "r1": lambda D, img: penalties.r1(D, img).backward(img.new_ones(len(img))),
    "wgan_gp": lambda D, img: penalties.wgan_gp(D, img, img.flip(0)).backward(img.new_ones(len(img))),
    "dragan": lambda D, img: penalties.dragan(D, img).backward(img.new_ones(len(img))),
    "level 1": lambda D, img: penalties.backward_with_penalty(D, img, softplus, gamma=3.0, level=1),
    "autograd": lambda D, img: penalties.backward_with_penalty(D, img, softplus, gamma=3.0, level="autograd"),
    "None": lambda D, img: penalties.backward_with_penalty(D, img, softplus, gamma=3.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("run", [regular, trusting, in_sequence, nested], ids=lambda f: f.__name__)
@pytest.mark.parametrize("step", STEPS)
def test_a_checkpoint_changes_nothing(step: str, run: Callable, block: str, dtype: torch.dtype):
    """In float32, a leaky ReLU that saves other values of the same shape would be a wrong gradient without a word."""
    part = Checkpointed(BLOCKS[block](), run)
    D, img = around(nn.LeakyReLU(0.2), part, nn.LeakyReLU(0.2)).to(dtype), images().to(dtype)
    found = []
    for part.off in (True, False):
        if part.off and run is nested:  # the same network without checkpoints
            part.off = False
            part.run = lambda block, x: F.leaky_relu(block(F.leaky_relu(x, 0.1)), 0.3)
        else:
            part.run = run
        found.append(gradients(D, lambda: STEPS[step](D, img)))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11 if dtype == torch.float64 else 1e-9)


def test_a_checkpoint_inside_a_generator_of_path_lengths():
    torch.manual_seed(0)
    block = Checkpointed(nn.Sequential(nn.LeakyReLU(0.2), conv(), WithAttention()), regular)
    to_images = Lambda(lambda x: x.transpose(1, 2).unflatten(2, (4, 4)))
    G = nn.Sequential(nn.Linear(6, 64), nn.Unflatten(1, (4, 4, 4)), block, to_images).double()
    ws = torch.randn(3, 6, dtype=torch.float64)
    found = []
    for level in (None, 1, "autograd"):
        for block.off in (True, False):
            mean = torch.zeros((), dtype=torch.float64)
            generator = torch.Generator().manual_seed(4)
            options = {"generator": generator, "level": level}
            step = lambda m=mean, o=options: penalties.path_length(G, ws, m, **o).mean().backward()  # noqa: E731
            found.append(gradients(G, step))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-12)
    assert found[0]["0.weight"].any()


@pytest.mark.parametrize("step", STEPS)
def test_a_reentrant_checkpoint_is_refused_by_what_it_says(step: str):
    D = around(Checkpointed(conv(), lambda block, x: checkpoint(block, x, use_reentrant=True)), nn.LeakyReLU(0.2))
    with pytest.raises(RuntimeError, match=r"use_reentrant=True, torch\.utils\.checkpoint is incompatible with"):
        STEPS[step](D, images())


# Attention


def heads(x: Tensor, n: int = 2) -> Tensor:
    """[N, n, 64, 4 / n] of x [N, 4, 8, 8]"""
    return x.flatten(2).transpose(1, 2).unflatten(2, (n, 4 // n)).transpose(1, 2)


def mask(*shape: int) -> Tensor:
    found = torch.rand(*shape, 64, 64, generator=torch.Generator().manual_seed(5)) < 0.5
    found[..., 3, :] = False  # a token that attends to nothing
    return found


def grouped(x: Tensor) -> Tensor:
    q = heads(x)
    return F.scaled_dot_product_attention(q, q[:, :1], q[:, 1:], enable_gqa=True, scale=0.7)


def in_its_own_context(x: Tensor) -> Tensor:
    q = heads(x).contiguous()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(query=q, key=q, value=q)


def plain_attention(**options) -> Callable[[Tensor], Tensor]:
    return lambda x: F.scaled_dot_product_attention(heads(x), heads(x).flip(1), heads(x), **options)


def in_three(**options) -> Callable[[nn.Module, Tensor], Tensor]:
    def run(attention: nn.Module, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return attention(tokens, tokens, tokens, **options)[0]

    return run


class Tokens(nn.Module):
    def __init__(self, layer: nn.Module, run: Callable = lambda layer, x: layer(x.flatten(2).transpose(1, 2))) -> None:
        super().__init__()
        self.layer, self.run = layer, run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.layer, x)


def attention() -> nn.Module:
    return nn.MultiheadAttention(4, 2, batch_first=True)


def encoder(**options) -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, **options)


ATTENTION = {
    "plain": lambda: plain_attention(),
    "causal": lambda: plain_attention(is_causal=True),
    "boolean mask": lambda: plain_attention(attn_mask=mask(4, 1)),
    "additive mask": lambda: plain_attention(attn_mask=mask().double().log() / 3),
    "dropout": lambda: plain_attention(dropout_p=0.3),
    "grouped queries": lambda: grouped,
    "its own sdpa_kernel": lambda: in_its_own_context,
    "multi-head": lambda: Tokens(attention(), in_three(need_weights=False)),
    "multi-head with weights": lambda: Tokens(attention(), in_three()),
    "multi-head with a mask": lambda: Tokens(attention(), in_three(need_weights=False, attn_mask=~mask())),
    "encoder": lambda: Tokens(encoder(dropout=0.1)),
    "encoder for inference": lambda: Tokens(encoder(activation="gelu", norm_first=True)).eval(),
}


@pytest.mark.parametrize("kind", ATTENTION)
def test_attention_has_the_gradients_of_the_math_kernel(kind: str, monkeypatch: pytest.MonkeyPatch):
    D = around(ATTENTION[kind](), nn.LeakyReLU(0.2))
    if kind == "its own sdpa_kernel":  # which the oracle could not differentiate
        settings = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()
        got = gradients(D, lambda: penalties.r1(D, images()).mean().backward())
        assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()) == settings
        D[1] = Lambda(lambda x: F.scaled_dot_product_attention(heads(x), heads(x), heads(x)))
        want = gradients(D, lambda: penalties.r1(D, images()).mean().backward())
        torch.testing.assert_close(got, want)
        return
    if kind == "encoder for inference":
        D.eval()
    assert_level_1_is_plain_autograd(D)


# What the networks return, and where gradients are off


WRONG = {
    "tuple": lambda y: (y, y),
    "list": lambda y: [y],
    "dict": lambda y: {"logits": y},
    "None": lambda y: None,
    "number": lambda y: float(y.sum()),
    "row": lambda y: y.reshape(1, -1),
    "two logits": lambda y: y.expand(-1, 2),
    "scalar": lambda y: y.sum(),
    "integers": lambda y: y.round().int(),
    "detached": lambda y: y.detach(),
    "constants": lambda y: torch.ones_like(y, requires_grad=True) * 2,
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_logit_for_each_image_is_refused(step: str, wrong: str):
    D = nn.Sequential(around(nn.Tanh()), Lambda(WRONG[wrong]))
    D.register_parameter("extra", nn.Parameter(torch.ones(())))
    with pytest.raises(ValueError, match="D must return logits"):
        STEPS[step](D, images())


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda img: (img, 1), "got a tuple"),
        (lambda img: {"img": img}, "got a dict"),
        (lambda img: img[:, 0], r"got \[3, 4, 4\]"),
        (lambda img: img[:1], r"got \[1, 1, 4, 4\]"),
        (lambda img: img.byte(), r"got \[3, 1, 4, 4\] of torch.uint8"),
        (lambda img: img.detach(), "that depend on ws"),
    ],
)
def test_what_is_no_image_is_refused(wrong: Callable, got: str):
    G = nn.Sequential(nn.Linear(6, 16), nn.Unflatten(1, (1, 4, 4)), Lambda(wrong))
    mean = torch.ones(())
    with pytest.raises(ValueError, match=f"G must return images .*{got}"):
        penalties.path_length(G, torch.randn(3, 6), mean)
    assert mean == 1


@pytest.mark.parametrize("step", STEPS)
def test_no_grad_and_inference_mode(step: str):
    D, img = around(nn.Tanh(), nn.LeakyReLU(0.2)), images()
    run = STEPS[step]
    want = gradients(D, lambda: run(D, img))
    with torch.no_grad():
        got = gradients(D, lambda: run(D, img))
    torch.testing.assert_close(got, want)
    with torch.inference_mode():
        made = img.clone()
        with pytest.raises(RuntimeError, match=r"torch\.inference_mode\(\) does not record"):
            run(D, made)
    torch.testing.assert_close(gradients(D, lambda: run(D, made)), want)  # images that were made there are images


def test_path_lengths_where_gradients_are_off():
    G = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4)))
    with torch.inference_mode():
        ws = torch.randn(3, 6)
        with pytest.raises(RuntimeError, match=r"torch\.inference_mode\(\) does not record"):
            penalties.path_length(G, ws, torch.zeros(()))
    with torch.no_grad():
        penalty = penalties.path_length(G, ws, torch.zeros(()))
    penalty.sum().backward()
    assert G[0].weight.grad.any()


@pytest.mark.parametrize("level", [1, 2, "autograd"])
def test_a_discriminator_that_learns_nothing_is_no_error(level):
    D = nn.Sequential(nn.Conv2d(3, 1, 8), nn.Flatten(0)).double().requires_grad_(False)
    _, penalty = penalties.backward_with_penalty(D, images(), None, gamma=1.0, level=level)
    torch.testing.assert_close(penalty, D[0].weight.square().sum().expand(4))
