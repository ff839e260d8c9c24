"""Swap operators in other people's code, and whole layers in their networks, for ours.

    patch(G)                          # layers of one network that are known by their structure
    patch("torch_utils.ops")          # functions of all modules under that name
    with patch(G, example=z) as p:    # both are context managers too, and p.undo() undoes them
        print(p)                      # what was replaced, what was left and why, and the gain on z

A layer is replaced if its output and its gradients are those of the original on random numbers. A function is replaced
if it has the name and the arguments of a function of gan_engine.compat, and returns the same on random numbers.
"""

import inspect
from typing import Any

from torch import nn

from gan_engine.patch.functions import patch_functions
from gan_engine.patch.gain import measured
from gan_engine.patch.modules import patch_network
from gan_engine.patch.table import Patch, Row

__all__ = ["Patch", "Row", "patch"]


def patch(target: nn.Module | str | Any, *, example: Any = None) -> Patch:
    """Replace layers of a network, or functions of modules, at once; the result says which, and undoes it.

    Args:
        target: a network, of which this instance alone is changed: weights, names in its state_dict and classes stay.
            Or a module, or its name: functions are replaced in every loaded module below that name, and in every loaded
            module that has imported them from there.
        example: an input of the network, or a tuple of inputs: the gain is measured on it, and the table shows it.

    Returns:
        p: with `p.rows`, `p.undo()` and `print(p)`. `with patch(...) as p:` undoes it at the end of the block.

    A deep copy of a patched network is patched. A pickled one is the original network, and loads without gan_engine.

    Raises:
        TypeError: a target that is neither a network nor a module nor a name.
        ValueError: a name of no module that can be imported, an example without a network, or lazy layers, whose
            parameters have no shapes before the first call.
        Any error of the network on the example: the network is then as it was.
    """
    if isinstance(target, nn.Module):
        done = patch_network(target)
        if example is not None:
            try:
                done.gains = measured(done, target, example)
            except BaseException:  # nobody has the patch yet, who could undo it
                done.undo()
                raise
        return done
    if example is not None:
        raise ValueError("patch: an example wants a network to run it, got functions")
    name = target.__name__ if inspect.ismodule(target) else target
    if not isinstance(name, str):
        raise TypeError(f"patch: want a network, a module or its name, got {type(target).__qualname__}")
    return patch_functions(name)
