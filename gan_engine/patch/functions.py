"""Functions of other libraries: known by name and arguments, compared, and replaced wherever a module has them."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import torch
from torch import Tensor

from gan_engine.compat import basicsr, mmcv, rosinality
from gan_engine.compat.stylegan import (
    bias_act,
    conv2d_gradfix,
    conv2d_resample,
    filtered_lrelu,
    fma,
    grid_sample_gradfix,
    networks_stylegan2,
    networks_stylegan3,
    upfirdn2d,
)
from gan_engine.patch.probe import apart
from gan_engine.patch.table import Patch, Row, Swap
from gan_engine.system.names import counted

_FACES = (
    *(getattr(upfirdn2d, name) for name in ("upfirdn2d", "filter2d", "upsample2d", "downsample2d")),
    *(getattr(mmcv, name) for name in ("bias_act", "upfirdn2d", "filter2d", "upsample2d", "downsample2d")),
    *(conv2d_gradfix.conv2d, conv2d_gradfix.conv_transpose2d, conv2d_gradfix.no_weight_gradients),
    *(networks_stylegan2.modulated_conv2d, networks_stylegan3.modulated_conv2d),
    *(bias_act.bias_act, conv2d_resample.conv2d_resample, filtered_lrelu.filtered_lrelu, mmcv.filtered_lrelu),
    *(fma.fma, grid_sample_gradfix.grid_sample, rosinality.upfirdn2d, rosinality.fused_leaky_relu),
)


def _arguments(function: Callable) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


# Each face by its name and arguments. mmcv calls one function differently; StyleGAN2-ADA's context takes no argument.
_KNOWN: dict[tuple[str, tuple[str, ...]], Callable] = {(face.__name__, _arguments(face)): face for face in _FACES}
_KNOWN["fused_bias_leakyrelu", _arguments(basicsr.fused_leaky_relu)] = basicsr.fused_leaky_relu
_KNOWN["no_weight_gradients", ()] = conv2d_gradfix.no_weight_gradients


@apart()
def patch_functions(name: str) -> Patch:
    """Replace the functions of all loaded modules below `name`, and every import of them."""
    if name not in sys.modules:
        try:
            importlib.import_module(name)
        except ImportError as error:  # of the module, or of one that it imports
            raise ValueError(f"patch: want the name of a module that can be imported, got {name!r}: {error}") from error
    done, seen = Patch(), set()
    for module in _loaded():
        if module.__name__ != name and not module.__name__.startswith(f"{name}."):
            continue
        for attribute, function in list(vars(module).items()):
            if not inspect.isfunction(function) or id(function) in seen:
                continue
            face, why = face_for(function)
            seen.add(id(function))
            if face is None:
                if why is not None:
                    done.rows.append(Row(f"{module.__name__}.{attribute}", "function", False, why))
                continue
            places = [(m, key) for m in _loaded() for key, value in list(vars(m).items()) if value is function]
            note = f"{face.__module__}.{face.__name__}" + (f" ({why})" if why else "")
            kind = f"function, {counted(len(places), 'place')}"
            done.rows.append(Row(f"{module.__name__}.{attribute}", kind, True, note))
            done.swaps += [_swap(place, key, function, face) for place, key in places]
    return done.do()


def _loaded() -> Iterator[ModuleType]:
    """The loaded modules of other people."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and name.partition(".")[0] not in ("gan_engine", "torch"):
            yield module


def _swap(module: ModuleType, key: str, original: Callable, face: Callable) -> Swap:
    return Swap(lambda: setattr(module, key, face), lambda: setattr(module, key, original))


def face_for(function: Callable) -> tuple[Callable | None, str | None]:
    """(the face of a function, a remark), or (None, why there is none); (None, None): no function of a known name."""
    names = {name for name, _ in _KNOWN}
    if function.__name__ not in names or (function.__module__ or "").startswith("gan_engine."):
        return None, None
    try:
        given = _arguments(_innermost(function))
    except (TypeError, ValueError):
        return None, "its arguments cannot be read"
    face = _KNOWN.get((function.__name__, given))
    if face is None:
        return None, f"its arguments ({', '.join(given)}) are not known"
    samples = _SAMPLES.get(face.__name__, [])
    raised = []
    for args in samples:
        try:
            with torch.no_grad():
                want = function(*args)
        except Exception as error:
            raised.append(type(error).__name__)
            continue
        if not isinstance(want, Tensor):
            return None, f"it returns {type(want).__name__}, no tensor"
        with torch.no_grad():
            got = face(*args)
        if got.shape != want.shape or not torch.allclose(got, want.to(got.dtype), rtol=1e-5, atol=1e-5):
            return None, "its numbers differ from those of the known function"
    if not raised:
        return face, None
    some = "" if len(raised) == len(samples) else f" on {len(raised)} of {counted(len(samples), 'input')}"
    return face, f"not compared{some}: the original raised {raised[0]} on a CPU"


def _innermost(function: Callable) -> Callable:
    """The function inside of a decorator that takes (*args, **kwargs) and keeps the name, or the function itself."""
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    if kinds == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]  # type: ignore[attr-defined]
        inner = [c for c in cells if inspect.isfunction(c) and c.__name__ == function.__name__]
        if len(inner) == 1:
            return inner[0]
    return function


def _numbers(*shape: int) -> Tensor:
    size = torch.Size(shape).numel()
    return (torch.arange(size, dtype=torch.float32, device="cpu") * 0.7).sin().reshape(shape) + 0.1


_X, _F, _B = _numbers(2, 4, 6, 6), _numbers(4, 3), _numbers(4)

# Arguments of the comparison for a face, by the name of the face.
_SAMPLES: dict[str, list[tuple]] = {
    "bias_act": [
        *((_X, _B, 1, "lrelu", 0.1, 1.5, 0.5), (_X, _numbers(6), 3)),
        *((_X, _B, 1, act) for act in ("relu", "lrelu", "swish")),  # by their own slopes and gains
    ],
    "upfirdn2d": [(_X, _F, 2, 1, (2, 1)), (_X, _F, 1, 2, (1, 2, 3, 1))],
    "filter2d": [(_X, _F, 1, True, 2)],
    "upsample2d": [(_X, _F), (_X, _F, 2, 1, True, 2)],
    "downsample2d": [(_X, _F), (_X, _F, 2, 1, True, 2)],
    "conv2d_resample": [
        (_X, _numbers(3, 4, k, k), _F[:3], up, down, k // 2, 1, flip)
        for k in (1, 3)
        for up, down in ((1, 1), (2, 1), (1, 2))
        for flip in (True, False)
    ],
    "modulated_conv2d": [(_X, _numbers(3, 4, 3, 3), _numbers(2, 4))],
    "filtered_lrelu": [(_X, _F[:3], _F[:3], _B, 2, 2, [3, 2, 3, 2], 1.5, 0.1, 0.5)],
    "conv2d": [(_X, _numbers(3, 4, 3, 3), _numbers(3), 2, 1)],
    "conv_transpose2d": [(_X, _numbers(4, 3, 3, 3), _numbers(3), 2, 1)],
    "fused_leaky_relu": [(_X, _B), (_X[:, :, 0, 0], _B)],
    "fma": [(_X, _numbers(1, 4, 1, 1), _numbers(2, 1, 6, 6))],
    "grid_sample": [(_X, _numbers(2, 3, 3, 2))],
}
