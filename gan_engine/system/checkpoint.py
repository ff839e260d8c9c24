"""Checkpoints: files that are written whole or not at all, are checked when they are read, and cannot run code.

A checkpoint is an ordinary torch.save archive (a zip), so torch.load(path, weights_only=True) reads it too. The comment
of the zip holds the SHA-256 of all bytes before that comment:

    archive | 2 bytes: length of the comment | b"gan_engine sha256 " + 64 hexadecimal digits

A .safetensors that `convert` wrote is read like a checkpoint that has G_ema alone. Its header names the configuration.
"""

import contextlib
import hashlib
import json
import os
import pickle
import re
import struct
import textwrap
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from gan_engine.system.names import legible, listed, shell_word
from gan_engine.system.whole_file import DISK_ERRORS, megabytes, replacing, sweep, why_not_written

_MARK = b"gan_engine sha256 "
_TAIL = 2 + len(_MARK) + 64  # bytes at the end that the checksum does not cover
_BLOCK = 1 << 20
METADATA = "gan_engine"  # the key of the configuration in the header of .safetensors
BEST = "best.pt"  # in a run directory, beside the folder of checkpoints
_NAME = re.compile(r"kimg-(\d+)\.(\d{3})\.pt")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, found or read; the message says which one, why, and what is left intact.

    The message is one line that any terminal can show, even if it quotes strange bytes of a file.
    """

    def __init__(self, message: str) -> None:
        super().__init__(legible(message))


class _Hashed:
    """The file that torch.save writes to: it hashes all bytes, and keeps an OSError that torch would replace."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256, self.error = file, hashlib.sha256(), None

    def write(self, data: bytes) -> int:
        try:
            self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def save(path: str | Path, state: dict) -> None:
    """Write `state` to `path`, which is the old file or the new one at every moment, even in a power cut.

    The bytes go to a new file beside it and are forced to the disk. Then one renaming gives the new file its name.

    Args:
        path: the file; its directory is made if it is not there.
        state: dicts (keys str or int), lists, tuples, tensors, str, bytes, int, float, bool and None, at any depth.

    Raises:
        TypeError: `state` holds anything else; the message says where.
        CheckpointError: the disk is full or the file cannot be written; an older file at `path` is unchanged.
    """
    path = Path(path)
    state = _detached(state, "state")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            hashed = _Hashed(file)
            try:
                torch.save(state, hashed)
            except RuntimeError:
                if hashed.error is not None:
                    raise hashed.error from None
                raise
            # torch.save ends the archive with a comment of length 0, so the last two bytes are replaced.
            file.seek(-2, os.SEEK_END)
            comment = _MARK + hashed.sha256.hexdigest().encode()
            file.write(struct.pack("<H", len(comment)) + comment)
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(path.parent)
    except OSError as error:
        raise CheckpointError(_why_not_written(path, state, error)) from error


def load(path: str | Path) -> dict:
    """The state that `save` wrote to `path`, with its tensors on the CPU. No code in the file is run.

    A .safetensors of ours gives the state of a checkpoint with G_ema alone.

    Raises:
        CheckpointError: there is no such file; it is damaged or cut short; `save` did not write it; it holds other
            things than simple types and tensors.
        ValueError: a .safetensors, and its package is missing.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        about, weights = read_safetensors(path)
        if about is None:
            raise CheckpointError(f"{path}: want a checkpoint of gan_engine, got {_convertible(path)}")
        return about | {"G_ema": weights}
    try:
        with open(path, "rb") as file:
            _verify(path, file)
            require_plain_zip(file)
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
            odd = next((tensor for tensor in _tensors(state) if not _is_whole(tensor)), None)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = found.group(1) if found else "something else"
        raise CheckpointError(f"{path}: want simple types and tensors only, got {what}; not loaded") from error
    except Exception as error:  # any bytes may have a right checksum, and PyTorch meets them with any error
        message = " ".join(str(error).split())
        raise CheckpointError(f"{path}: not an archive of tensors: {type(error).__name__}: {message}") from error
    if odd is not None:
        kind = f"{odd.layout} {odd.dtype} {list(odd.shape)} on {odd.device.type}"
        raise CheckpointError(f"{path}: want dense tensors, each with values of its own, got {kind}")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: want a checkpoint (a dict), got {type(state).__name__}")
    return state


def safetensors() -> Any:
    """The package safetensors. Raises ValueError where it is missing."""
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise ValueError(f".safetensors: want the extra weights: pip install safetensors ({error})") from error
    return safetensors


def read_safetensors(path: Path) -> tuple[dict[str, Any] | None, dict[str, torch.Tensor]]:
    """What the header of a .safetensors says of a network of ours, None for other programs; and all its tensors.

    Raises CheckpointError for a file that cannot be read or is damaged, and ValueError where the package is missing.
    """
    library = safetensors()
    try:
        path.open("rb").close()  # an error of the library does not name the file
        with library.safe_open(str(path), framework="pt") as file:
            about = (file.metadata() or {}).get(METADATA)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except library.SafetensorError as error:
        size = path.stat().st_size
        raise CheckpointError(f"{path}: want a whole .safetensors, got {size} bytes that are none: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return None if about is None else dict(json.loads(about)), weights
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its configuration is damaged: {error}") from error


def require(state: dict, keys: Iterable[str], what: str | Path) -> None:
    """Raises CheckpointError, which calls the state `what`, unless `state` has all of `keys`."""
    missing = [key for key in keys if key not in state]
    if missing:
        got = textwrap.shorten(str(list(state)), 500)
        raise CheckpointError(f"{what}: want a checkpoint of a training with {' and '.join(missing)}, got {got}")


def find(path: str | Path, *, best: bool = False) -> Path:
    """`path` itself if it is a file; in a run directory the newest intact checkpoint, or the `best` one.

    A warning names each damaged checkpoint that is skipped.

    Raises:
        CheckpointError: there is nothing at `path`, or no intact checkpoint in it; a file where the best one is wanted.
    """
    path = Path(path)
    if best:
        file = path / BEST
        if not file.is_file():
            raise CheckpointError(f"{path}: want the directory of a run with {BEST}, which train --eval-kimg keeps")
        return file
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint or run directory")
    directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    newest_first = numbered(directory)[::-1]
    for _, file in newest_first:
        try:
            with open(file, "rb") as opened:
                _verify(file, opened)
        except (OSError, CheckpointError) as error:
            warnings.warn(f"skipped a checkpoint. {error}", stacklevel=2)
        else:
            return file
    found = f"of kimg-*.pt {len(newest_first)} damaged" if newest_first else "there is no kimg-*.pt"
    raise CheckpointError(f"{directory}: no intact checkpoint in it ({found}){runs_in(directory)}")


def runs_in(directory: Path) -> str:
    """'; the runs in it are a, b and 3 more': the end of a message that a folder is no run. '' if it holds none."""
    found = sorted(str(file.parent) for file in directory.glob("*/checkpoints"))
    return f"; the runs in it are {listed(found)}" if found else ""


def numbered(directory: Path) -> list[tuple[int, Path]]:
    """(nimg, path) of every checkpoint in `directory`, oldest first."""
    matches = [(_NAME.fullmatch(file.name), file) for file in directory.glob("kimg-*.pt")]
    return sorted((int(match.group(1) + match.group(2)), file) for match, file in matches if match)


def newest_name(run_dir: Path) -> str | None:
    """The name of the newest checkpoint in a run directory, damaged or not: no file is read. None if there is none."""
    found = numbered(run_dir / "checkpoints")
    return found[-1][1].name if found else None


def stem(nimg: int) -> str:
    """The name, without its ending, of a file written after `nimg` images: kimg-000123.456 for 123456."""
    return f"kimg-{nimg // 1000:06d}.{nimg % 1000:03d}"


class Keeper:
    """Writes `run_dir/checkpoints/kimg-000123.456.pt` and keeps the last `keep` of them.

    An old checkpoint is deleted only after the new one is safely on the disk, so the disk needs room for `keep` + 1. A
    run that was resumed from an older checkpoint renames later ones: `.rewound` at the end keeps `find` from taking
    them for the newest.

    Args:
        run_dir: of the run.
        keep: checkpoints to keep.
        nimg: images shown where the run starts or goes on; later checkpoints are renamed. None: no such renaming.
    """

    def __init__(self, run_dir: str | Path, keep: int, *, nimg: int | None = None) -> None:
        if keep < 1:
            raise ValueError(f"Keeper: keep must be at least 1, got {keep}")
        self.directory = Path(run_dir) / "checkpoints"
        self.keep = keep
        sweep(self.directory)
        for number, file in numbered(self.directory) if nimg is not None else ():
            if number > nimg:
                os.replace(file, file.with_name(file.name + ".rewound"))

    def newest(self) -> Path | None:
        """The last intact checkpoint of the run; None if there is none yet."""
        try:
            return find(self.directory)
        except CheckpointError:
            return None

    def save_best(self, state: dict) -> Path:
        """Write `state` as the best checkpoint of the run and return its path. Raises what `save` raises."""
        path = self.directory.parent / BEST
        save(path, state)
        return path

    def best_nimg(self) -> int | None:
        """Images shown at the best checkpoint. None if there is none. Raises what `load` raises."""
        path = self.directory.parent / BEST
        return load(path).get("nimg") if path.exists() else None

    def set_best_aside(self, ending: str = "rewound") -> Path | None:
        """Rename the best checkpoint to best.pt.`ending`, and return its new path. None if there is none."""
        path = self.directory.parent / BEST
        if not path.exists():
            return None
        aside = path.with_name(f"{BEST}.{ending}")
        os.replace(path, aside)
        return aside

    def save(self, nimg: int, state: dict) -> Path:
        """Write `state` as the checkpoint at `nimg` images and return its path. Raises what `save` raises."""
        path = self.directory / f"{stem(nimg)}.pt"
        save(path, state)
        for _, file in numbered(self.directory)[: -self.keep]:
            _discard(file)
        return path


def _detached(value: Any, where: str) -> Any:
    """`value` with builtin dicts, and with tensors that are detached and have no storage beyond their values."""
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"checkpoint: keys of {where} must be str or int, got {key!r}")
        return {key: _detached(item, f"{where}[{key!r}]") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_detached(item, f"{where}[{i}]") for i, item in enumerate(value))
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        value = value.detach()
        return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()
    if value is None or type(value) in (str, bytes, int, float, bool):
        return value
    raise TypeError(
        f"checkpoint: {where} must be a dict, list, tuple, tensor, str, bytes, int, float, bool or None, "
        f"got {type(value).__module__}.{type(value).__qualname__}"
    )


def require_plain_zip(file: BinaryIO) -> None:
    """Raises ValueError for a zip whose contents are larger than it is. torch.save compresses nothing."""
    length = file.seek(0, os.SEEK_END)
    size = sum(entry.file_size for entry in zipfile.ZipFile(file).infolist())
    if size > length:
        raise ValueError(f"want a zip that is not compressed, got {size} bytes in one of {length}")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in containers at any depth.

    Raises ValueError for a container in two places. `save` writes none: it copies each container. A damaged file may
    hold a list in itself.
    """
    left, seen = [value], set()
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif value and isinstance(value, dict | list | tuple):
            if id(value) in seen:
                raise ValueError(f"want each container in one place, got a {type(value).__name__} in two")
            seen.add(id(value))
            left += value.values() if isinstance(value, dict) else value


def _is_whole(tensor: torch.Tensor) -> bool:
    """True if `save` can have written `tensor`: a dense one without subclass, as large as its storage."""
    dense = type(tensor) is torch.Tensor and tensor.layout == torch.strided and tensor.device.type == "cpu"
    return dense and not tensor.is_quantized and tensor.untyped_storage().nbytes() == tensor.nbytes


def _why_not_written(path: Path, state: dict, error: OSError) -> str:
    reason = f"{path}: not written: {error.strerror or error}"
    if error.errno in DISK_ERRORS:
        needed = sum({tensor.data_ptr(): tensor.nbytes for tensor in _tensors(state)}.values())
        reason = why_not_written(path, error, f"about {megabytes(needed)}")
    return reason + ("; the file of that name is unchanged" if path.exists() else "; older checkpoints are unchanged")


def _verify(path: Path, file: BinaryIO) -> None:
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _TAIL))
    tail = file.read()
    if len(tail) < _TAIL or not tail[2:].startswith(_MARK):
        file.seek(0)
        if other := _other_file(path, file.read(2), tail):
            raise CheckpointError(f"{path}: want a checkpoint of gan_engine, got {other}")
        raise CheckpointError(
            f"{path}: cut short, or no checkpoint of gan_engine ({length} bytes, no checksum at the end)"
        )
    file.seek(0)
    sha256 = hashlib.sha256()
    left = length - _TAIL
    while left and (block := file.read(min(_BLOCK, left))):
        sha256.update(block)
        left -= len(block)
    sha256.update(b"\0\0")
    if tail != struct.pack("<H", _TAIL - 2) + _MARK + sha256.hexdigest().encode():
        raise CheckpointError(f"{path}: damaged: its checksum does not fit its content")


def _other_file(path: Path, head: bytes, tail: bytes) -> str | None:
    """What `path` is instead of a checkpoint, by its ending and its bytes, and what helps; None if unknown."""
    is_pickle, is_zip = head.startswith(b"\x80"), head.startswith(b"PK") and b"PK\5\6" in tail
    fits = {
        ".onnx": head.startswith(b"\x08"),  # the number of the first field
        ".pt2": is_zip,
        ".pkl": is_pickle,
        ".pth": is_pickle or is_zip,
    }
    if not fits.get(path.suffix):
        return None
    if path.suffix in (".onnx", ".pt2"):
        return f"a file {path.suffix} for other programs; name the checkpoint or the run that it was exported from"
    return _convertible(path)


def _convertible(path: Path) -> str:
    out = path.with_suffix(".pt").name
    command = f"python -m gan_engine.convert {shell_word(path)} {shell_word(out)}"
    return f"a file {path.suffix}; this may make a checkpoint of it: {command}"


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"{path}: cannot be deleted: {error.strerror}", stacklevel=3)


def _sync_directory(directory: Path) -> None:
    """Force the renaming to the disk, if the file system can do that: a power cut could bring the old file back."""
    descriptor = os.open(directory, os.O_RDONLY)
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)
