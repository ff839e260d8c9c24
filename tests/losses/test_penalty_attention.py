"""Penalties of networks with attention, whose fused kernels have no second gradient."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gan_engine.losses import penalties
from tests.losses.networks import Lambda, around, assert_level_1_is_autograd, gradients, images


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


def attention_with(**options) -> Callable[[Tensor], Tensor]:
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
    "no options": lambda: attention_with(),
    "causal": lambda: attention_with(is_causal=True),
    "boolean mask": lambda: attention_with(attn_mask=mask(4, 1)),
    "additive mask": lambda: attention_with(attn_mask=mask().double().log() / 3),
    "dropout": lambda: attention_with(dropout_p=0.3),
    "grouped queries": lambda: grouped,
    "its own sdpa_kernel": lambda: in_its_own_context,
    "multi-head": lambda: Tokens(attention(), in_three(need_weights=False)),
    "multi-head with weights": lambda: Tokens(attention(), in_three()),
    "multi-head with a mask": lambda: Tokens(attention(), in_three(need_weights=False, attn_mask=~mask())),
    "encoder": lambda: Tokens(encoder(dropout=0.1)),
    "encoder for inference": lambda: Tokens(encoder(activation="gelu", norm_first=True)).eval(),
}


@pytest.mark.parametrize("kind", ATTENTION)
def test_attention_has_the_gradients_of_the_math_kernel(kind: str):
    D = around(ATTENTION[kind](), nn.LeakyReLU(0.2))
    if kind == "its own sdpa_kernel":  # autograd could not differentiate it
        settings = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()
        got = gradients(D, lambda: penalties.r1(D, images()).mean().backward())
        assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()) == settings
        D[1] = Lambda(lambda x: F.scaled_dot_product_attention(heads(x), heads(x), heads(x)))
        want = gradients(D, lambda: penalties.r1(D, images()).mean().backward())
        torch.testing.assert_close(got, want)
        return
    if kind == "encoder for inference":
        D.eval()
    assert_level_1_is_autograd(D)
