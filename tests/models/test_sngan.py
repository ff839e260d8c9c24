"""Spectral norms hold, attention is its formula, and the sizes are those of the paper."""

import torch
import torch.nn.functional as F
from torch import nn

from gan_engine import models
from gan_engine.models import sngan


def build(**options):
    torch.manual_seed(0)
    return models.build(sngan.Config(**options))


def test_no_layer_of_D_stretches():
    G, D = build(width=8, d_width=8, max_width=16, attention=16, g_spectral_norm=True, c_dim=10)
    for _ in range(30):  # each a power iteration
        D(torch.randn(2, 1, 32, 32), torch.eye(10)[:2])
        G(torch.randn(2, 128), torch.eye(10)[:2])
    layers = [m for m in D.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    layers += [m for m in G.modules() if isinstance(m, nn.Conv2d)]
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        torch.testing.assert_close(largest, torch.ones(()), rtol=0.02, atol=0)


def test_attention_is_its_formula():
    torch.manual_seed(0)
    attention = sngan.Attention(16, spectral=False)
    x = torch.randn(2, 16, 6, 5)
    assert torch.equal(attention(x), x)
    nn.init.constant_(attention.gain, 0.7)
    query, key, value = (
        conv(x).flatten(2).transpose(1, 2) for conv in (attention.query, attention.key, attention.value)
    )
    y = F.scaled_dot_product_attention(query, key, value, scale=1).transpose(1, 2).unflatten(2, (6, 5))
    torch.testing.assert_close(attention(x), x + 0.7 * attention.out(y))


def test_norms_scale_and_shift_by_class():
    norm = sngan.Norm(3, c_dim=2)
    with torch.no_grad():
        norm.scale.weight.copy_(torch.tensor([[1.0, 2], [1, 2], [1, 2]]))
        norm.shift.weight.copy_(torch.tensor([[0.0, 5], [0, 5], [0, 5]]))
    x = torch.randn(4, 3, 8, 8)
    y = norm(x, torch.eye(2)[[0, 0, 1, 1]])
    plain = F.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(y, torch.cat([plain[:2], 2 * plain[2:] + 5]).relu())


def test_the_sizes_can_be_those_of_the_paper():
    """Table 4 of arXiv:1802.05957: 256 feature maps in three blocks of G, 128 in four of D, two of which halve."""
    G, D = build(channels=3, width=256, d_width=128, max_width=256)
    assert [block.conv1.out_channels for block in G.blocks] == [256] * 3
    d = [sngan.Config(channels=3, d_width=128, max_width=128).d_maps(size) for size in (16, 8)]
    assert d == [128, 128] and len(D.blocks) == 4
