"""The random generators of this process, and their states in simple types, which a checkpoint can hold."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Begin the random numbers of Python, NumPy and PyTorch, on all devices, with `seed`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def python_and_numpy_seeded(seed: int) -> Iterator[None]:
    """Inside, the random numbers of Python and NumPy begin with `seed`. Afterwards they go on as before."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def rng_state(device: torch.device) -> dict:
    """The states of the random generators: Python's, NumPy's, PyTorch's on the CPU, and on `device` if it is a GPU.

    The number of the GPU is not kept: a run may go on with another GPU, or on a machine with another number of them.
    """
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "keys": torch.from_numpy(keys.astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
    }


def set_rng_state(state: dict, device: torch.device) -> None:
    """Give all generators the states that `rng_state` returned; the GPU's goes to `device`.

    A state of a GPU is not used on a CPU. A GPU whose run comes from a CPU keeps the state that it has.

    Raises ValueError for states that no generator can have.
    """
    python, numpy = state["python"], state["numpy"]
    if not 0 <= numpy["position"] <= 624:  # NumPy does not check the position, and would read foreign memory
        raise ValueError(f"rng: want a position of NumPy's generator from 0 to 624, got {numpy['position']}")
    try:
        random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
        keys = numpy["keys"].numpy().astype(np.uint32)
        np.random.set_state(("MT19937", keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
        torch.set_rng_state(state["torch"])
        if state["cuda"] and device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"][0], device)
    except (TypeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"rng: not the state of a generator: {error}") from error
