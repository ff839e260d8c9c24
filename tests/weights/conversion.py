"""The command, and the networks in what it wrote."""

import torch

from gan_engine import convert, models
from gan_engine.system import checkpoint


def converted(*arguments):
    assert convert.main([*arguments]) == 0


def built(path):
    state = checkpoint.load(path)
    config = models.from_dict(state["model"])
    G, D = models.build(config)
    G.load_state_dict(state["G_ema"])
    D.load_state_dict(state["D"]) if "D" in state else None
    return G.eval(), D.eval()


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())
    assert theirs.std() > 1e-3
