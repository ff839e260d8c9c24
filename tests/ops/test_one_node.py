"""torch.compile sees one node where a function says so, though the compiler is imported after it, or never."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gan_engine.ops import one_node

ROOT = Path(__file__).parents[2]

COMPILED = """
import torch
from gan_engine.ops import bias_act

def targets(graph):
    return [node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"]

seen = []

def backend(graph, inputs):
    seen.extend(targets(graph))
    return graph.forward

x = torch.ones(2, 3, 4, 4)
def step(x):
    return bias_act(x, act="lrelu")

torch.testing.assert_close(torch.compile(step, backend=backend, fullgraph=True)(x), step(x))
print("compiled", seen)
"""

BROKEN = """
import sys
from gan_engine import ops

class Broken:
    def find_spec(self, name, path, target=None):
        if name == "torch._dynamo" and armed:
            raise ImportError("not this time")

armed = [True]
sys.meta_path.insert(1, Broken())
try:
    import torch._dynamo
except ImportError as error:
    print(error)
armed.clear()
"""


def run(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    "before",
    ["import gan_engine.ops", "import torch._dynamo", BROKEN],
    ids=["ops first", "compiler first", "second attempt"],
)
def test_a_function_is_one_node_whatever_is_imported_first(before):
    assert run(before + "\n" + COMPILED)[-1] == "compiled ['_bias_act']"


def test_every_function_is_registered_when_the_compiler_has_come():
    from torch._dynamo import trace_rules, variables

    for name in (
        *("avg_pool2d._avg_pool2d", "bias_act._bias_act"),
        *("convolution.autograd.convolution", "convolution._transposed"),
        *("gradient_penalty._sum_of_squares", "gradient_penalty._mix", "grid_sample._grid_sample"),
        *("norm_act._norm_act", "pixel_norm._pixel_norm", "affine.affine", "upfirdn2d._upfirdn2d"),
        "weight_squares._weight_squares",
    ):
        module, _, function = name.rpartition(".")
        function = getattr(importlib.import_module(f"gan_engine.ops.{module}"), function)
        assert trace_rules.lookup_callable(function) is variables.TorchInGraphFunctionVariable, name


def test_a_function_that_comes_after_the_compiler_is_registered_at_once():
    from torch._dynamo import trace_rules, variables

    waiting = len(one_node._waiting)

    @one_node.one_node
    def late(x):
        return x

    assert trace_rules.lookup_callable(late) is variables.TorchInGraphFunctionVariable
    assert len(one_node._waiting) == waiting
