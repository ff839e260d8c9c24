"""The command, and the networks in what it wrote."""

from pathlib import Path

import torch

from gan_engine import convert, models, train
from gan_engine.system import checkpoint
from tests.weights import networks


def converted(*arguments):
    assert convert.main([*arguments]) == 0


def save_ours(path, config):
    G, D = models.build(config)
    networks.unlike(G, D)
    state = {"model": models.to_dict(config), "class_names": [], "G": G.state_dict(), "D": D.state_dict()}
    checkpoint.save(path, state | {"G_ema": G.state_dict()})
    return G.eval()


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


def begun_and_trained(preset, flags):
    run = ["--init-from", "a.pt", "--kimg", "0.008", "--batch-size", "2", "--device", "cpu", "--precision", "fp32"]
    run += ["--data", "toy", "--channels", "3", "--no-tensorboard", "--no-tune-malloc", "--out", "run"]
    assert train.main([preset, *flags, *run]) == 0
    before, after = checkpoint.load("a.pt")["G_ema"], checkpoint.load(checkpoint.find(Path("run")))["G"]
    assert before.keys() == after.keys()
    moved = max((before[name] - after[name]).abs().max().item() for name in before)
    assert 0 < moved < 0.1, "a fresh network would differ by much more"
