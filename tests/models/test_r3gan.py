"""The blocks are those of the paper, and their discriminator costs four passes."""

import pytest
import torch

from gan_engine import models
from gan_engine.losses import penalties
from gan_engine.models import r3gan


@pytest.mark.parametrize("c_dim", [0, 10])
def test_level_2_holds_for_D(c_dim):
    _, D = models.build(r3gan.Config(width=8, max_width=16, c_dim=c_dim))
    c = torch.eye(10)[:2] if c_dim else None
    assert penalties.refusal(D, torch.randn(2, 1, 32, 32), c) is None


def test_blocks_begin_as_the_identity():
    block = r3gan.Block(r3gan.Config(), 32)
    x = torch.randn(2, 32, 8, 8)
    assert torch.equal(block(x), x)
    torch.nn.init.normal_(block.reduce.weight)
    assert not torch.equal(block(x), x)


def test_both_networks_keep_the_size_of_their_signal_at_the_start():
    torch.manual_seed(0)
    G, D = models.build(r3gan.Config(resolution=64, width=64, max_width=256))
    img = G(torch.randn(32, 64))
    assert 0.2 < img.std() < 2 and 0.1 < D(img.detach()).std() < 2


def test_no_layer_has_a_norm_and_convolutions_have_no_bias():
    for net in models.build(r3gan.Config()):
        kinds = {type(module).__name__ for module in net.modules()}
        assert kinds <= {
            "Generator",
            "Discriminator",
            "Sequential",
            "Block",
            "Up",
            "Down",
            "Conv2d",
            "Linear",
            "Identity",
        }
        assert all(module.bias is None for module in net.modules() if isinstance(module, torch.nn.Conv2d))
