"""Files of w: an .npz with w [N, w_dim], or with ws [N, num_ws, w_dim] if every layer has its own w."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gan_engine.system.whole_file import buffered

LARGEST = 1e6  # entries of a w that training finds are below 100; the square of this limit is far from overflow


def write(path: Path, w: Tensor) -> None:
    """Write w [N, 1, w_dim] as `w`, or w [N, num_ws, w_dim] as `ws`. Raises OSError."""
    values = w.float().cpu().numpy()
    arrays = {"w": values[:, 0]} if w.shape[1] == 1 else {"ws": values}
    with buffered(path) as file:
        np.savez(file, **arrays)


def read(paths: Sequence[Path], G: nn.Module) -> Tensor:
    """ws [N, num_ws, w_dim] of all files, one after the other, on G's device.

    A file may also hold a single w [w_dim] or ws [num_ws, w_dim]. Raises OSError, and ValueError if a file does not fit
    G.
    """
    return torch.cat([_read(path, G.config.num_ws, G.config.w_dim) for path in paths]).to(next(G.parameters()).device)


def _read(path: Path, num_ws: int, w_dim: int) -> Tensor:
    fits = f"w [N, {w_dim}] or ws [N, {num_ws}, {w_dim}]"
    if not path.is_file():
        raise FileNotFoundError(f"w: want an .npz file with {fits}, and there is no file {path}")
    name, values = _array(path, fits)
    wanted = {"w": (w_dim,), "ws": (num_ws, w_dim)}[name]
    shape = values.shape if values.ndim > len(wanted) else (1, *values.shape)
    if values.dtype.kind != "f" or shape[1:] != wanted:
        raise ValueError(
            f"w: want {fits} of this generator, got {name} {list(values.shape)} of {values.dtype} in {path}"
        )
    if not shape[0]:
        raise ValueError(f"w: want {fits} with at least one, got none in {path}")
    if not (np.abs(values, dtype=np.float64) <= LARGEST).all():  # the limit is infinite in float16; NaN is refused
        raise ValueError(f"w: want finite numbers of at most {LARGEST:,.0f}, got others in {path}")
    ws = torch.from_numpy(values.astype(np.float32)).reshape(shape)
    return ws if name == "ws" else ws[:, None].repeat(1, num_ws, 1)


def _array(path: Path, fits: str) -> tuple[str, np.ndarray]:
    """The name and the values of the one array `w` or `ws` in a file."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"w: want an .npz file with {fits}, got {path}, which is not one")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in ("ws", "w") if name in arrays.files]
            if len(names) != 1:
                raise ValueError(f"want one array, w or ws, got {', '.join(arrays.files) or 'none'}")
            values = arrays[names[0]]
            if not isinstance(values, np.ndarray):
                raise ValueError(f"want an array {names[0]}, got something else of that name")
            return names[0], values
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ValueError(f"w: {path}: {' '.join(str(error).split())}; want an .npz file with {fits}") from error
