"""The examples with real data train for some steps, and a step of their D has the gradients of plain autograd."""

import importlib.util
import sys
from collections.abc import Callable
from itertools import islice, repeat
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gan_engine.adversarial import Adversarial

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
NAMES = "beside", "vocoder", "alias_free_vocoder", "imitation", "table", "autoencoder"


@pytest.fixture
def example(monkeypatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    torch.manual_seed(0)
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)


def assert_equals_autograd(example: Callable, D: torch.nn.Module, ours: Callable, plain: Callable) -> None:
    found = example("beside").beside(D, ours, plain, rounds=1)
    assert found.gradients < 1e-4, found
    assert found.losses < 1e-4, found
    assert "times as fast" in str(found)


def test_vocoder(example, tmp_path, monkeypatch):
    vocoder = example("vocoder")
    monkeypatch.setattr(vocoder, "LENGTH", 1024)
    waves = [torch.sin(torch.arange(2 * vocoder.LENGTH) * step) / 2 for step in (0.1, 0.3)]
    G, D, batches = vocoder.generator(), vocoder.Discriminator(), vocoder.pieces(waves, 1)
    steps = list(vocoder.train(G, D, batches, 2))
    assert {"D", "r1", "G", "features", "mel"} <= set(steps[0])
    assert "r1" not in steps[1]
    real = next(batches)
    fake = G(vocoder.log_mel(real)).detach()
    assert fake.shape == real.shape
    game = Adversarial(D, "least_squares", r1=vocoder.R1)
    assert_equals_autograd(
        example, D, lambda: game.d_step(real, fake), lambda: vocoder.plain_terms(D, real, fake, vocoder.R1)
    )
    vocoder.draw(str(tmp_path / "vocoder.png"), real[0, 0], fake[0, 0])
    assert (tmp_path / "vocoder.png").stat().st_size


def test_alias_free_vocoder(example, monkeypatch):
    alias_free, vocoder = example("alias_free_vocoder"), example("vocoder")
    monkeypatch.setattr(vocoder, "LENGTH", 1024)
    waves = [torch.sin(torch.arange(2 * vocoder.LENGTH) * step) / 2 for step in (0.1, 0.3)]
    G, D, batches = alias_free.generator(), vocoder.Discriminator(), vocoder.pieces(waves, 1)
    assert len(list(vocoder.train(G, D, batches, 1))) == 1
    real = next(batches)
    assert alias_free.gradient_difference(G, real) < 1e-4
    found = alias_free.times(G, real, rounds=1, compiles=False)
    assert found.keys() == {"gan_engine", "eager"} and min(found.values()) > 0


def test_vocoder_says_what_to_install(example, tmp_path):
    with pytest.raises(SystemExit, match="asterisk-core-sounds-en-wav"):
        example("vocoder").recordings(tmp_path)


def test_autoencoder(example):
    autoencoder = example("autoencoder")
    real = torch.rand(4, 1, 32, 32) * 2 - 1
    net, D = autoencoder.Autoencoder(), autoencoder.discriminator()
    steps = list(autoencoder.train(net, D, repeat(real), 2))
    assert {"l1", "divergence", "D", "r1", "G"} <= set(steps[0])
    fake, game = net(real)[0].detach(), Adversarial(D, "hinge", r1=1.0)
    assert_equals_autograd(
        example, D, lambda: game.d_step(real, fake), lambda: autoencoder.plain_terms(D, real, fake, 1.0)
    )


def test_imitation(example, monkeypatch):
    pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install .[examples]")
    imitation = example("imitation")
    monkeypatch.setattr(imitation, "STEPS", 20)
    D = imitation.discriminator()
    real, _ = imitation.trial(imitation.reference, range(4))
    assert real.shape == (4, 20, 6)
    rounds = [parts for _, parts in islice(imitation.improve(D, real, 2), 2)]
    assert {"reward", "return", "D", "r1"} <= set(rounds[0])


def test_the_penalty_of_imitation(example):
    imitation = example("imitation")
    D, (real, fake) = imitation.discriminator(), torch.randn(2, 64, 6)
    game = Adversarial(D, imitation.SIGNS, r1=imitation.PENALTY)
    assert_equals_autograd(example, D, lambda: game.d_step(real, fake), lambda: imitation.plain_terms(D, real, fake))
    assert imitation.reward(D, real[None]).shape == (1, 64)


def test_imitation_says_what_to_install(example, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    imitation = example("imitation")
    with pytest.raises(SystemExit, match="pip install"):
        imitation.trial(imitation.reference, [0])


def test_table(example, monkeypatch):
    pytest.importorskip("ctgan", reason="ctgan is not installed: pip install .[examples]")
    pytest.importorskip("pandas")
    table_of = example("table")
    monkeypatch.setattr(table_of, "ROWS", 600)
    frame = table_of.diamonds()[["carat", *table_of.DISCRETE]]
    table = table_of.Table(frame)
    game = Adversarial(table.D, "wasserstein", gp=10.0, pack=table_of.PACK)
    steps = list(table_of.train(table, game, 2))
    assert {"D", "gp", "G", "asked"} <= set(steps[0])
    fake, _, drawn = table.generated()
    real, fake = table.real(drawn), fake.detach()
    assert_equals_autograd(
        example, table.D, lambda: game.d_step(real, fake), lambda: table_of.plain_terms(table.D, real, fake)
    )
    assert set(table_of.distance(frame, table.frame(100))) == set(frame.columns)


def test_table_says_what_to_install(example, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="plotnine"):
        example("table").diamonds()
