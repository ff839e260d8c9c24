"""A training step on a GPU, without one: no mix of devices, no wait, no blocking copy, and no more work than before.

`make fake-cuda` looks at every preset. Here is one fast run of each kind.
"""

import importlib.util

import pytest
import torch

from gan_engine.presets import PRESETS
from tests.fake_cuda import build, table
from tests.fake_cuda.fast import FAST, MISTAKES

if build.compiler() is None:
    pytest.skip("no C++ compiler was found on PATH", allow_module_level=True)
if torch.version.cuda is not None:
    pytest.skip("the fake device takes the place of a real one in a PyTorch for CPUs", allow_module_level=True)
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed, so other operators would run", allow_module_level=True)


@pytest.fixture(scope="module")
def rows():
    return table.rows([*FAST, *MISTAKES])


@pytest.mark.parametrize("name", FAST)
def test_a_step_on_a_gpu_never_waits_and_does_no_more_than_before(name, rows):
    assert not rows[name]["problems"], "\n".join(rows[name]["problems"])
    kept = table.read()
    if kept["torch"] != table.version():
        pytest.skip(f"the counts are those of PyTorch {kept['torch']}; nothing else was found")
    sentences = table.grown(rows[name], kept)
    assert not sentences, "\n".join(sentences)


@pytest.mark.parametrize(("name", "sentence"), MISTAKES.items())
def test_a_mistake_is_found_with_its_place(name, sentence, rows):
    assert any(sentence in problem and "gan_engine/" in problem for problem in rows[name]["problems"])


def test_growth_is_a_sentence():
    row = {"name": "dcgan", "every phase": [300, 20, 30], "ordinary step": [290, 20, 30]}
    kept = {"torch": table.version(), "runs": {"dcgan": {"every phase": [300, 20, 30], "ordinary step": [289, 20, 29]}}}
    assert table.grown(row, kept) == [
        "dcgan, ordinary step: 289 operators on the GPU before, 290 now",
        "dcgan, ordinary step: 29 launches with graphs before, 30 now",
    ]


def test_the_table_has_every_preset():
    assert table.read()["runs"].keys() >= {*PRESETS, *FAST}
