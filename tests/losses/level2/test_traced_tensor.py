"""The traced tensor stands for a tensor, and has no memory that code could read."""

import subprocess
import sys

import torch
from torch import Tensor

from gan_engine.losses.level2.tape import Tape
from gan_engine.losses.level2.traced_tensor import TracedTensor

READING = """
import ctypes, sys, torch
from pathlib import Path
from gan_engine.losses import penalties

conv, how = torch.nn.Conv2d(3, 4, 3), None
libraries = Path(torch.__file__).parent / "lib"
native = ctypes.PyDLL(str(next(p for p in libraries.iterdir() if "torch_cpu" in p.name)))
handle_in = ctypes.pythonapi.PyCapsule_GetPointer
handle_in.restype, handle_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
NATIVE = ["aoti_torch_get_data_ptr", "torch_get_mutable_data_ptr", "torch_get_const_data_ptr"]
PYTHON = {
    "data_ptr": lambda x: x.data_ptr(),
    "storage": lambda x: x.untyped_storage().data_ptr(),
    "numpy": lambda x: x.numpy().ctypes.data,
    "array": lambda x: x.__array__().ctypes.data,
    "dlpack": lambda x: torch._C._to_dlpack(x),
}

def address(x):
    if how in PYTHON:
        return PYTHON[how](x)
    capsule, pointer = torch._C._aoti.unsafe_alloc_void_ptr_from_tensor(x), ctypes.c_void_p()
    if getattr(native, how)(ctypes.c_void_p(handle_in(capsule, None)), ctypes.byref(pointer)) != 0:
        raise RuntimeError("no pointer")
    return pointer

def op(x):  # what plugins do: memory by sizes, and a loop through a pointer
    y = torch.empty(x.shape)
    ctypes.memmove(y.data_ptr(), address(x), 4 * y.numel())
    return y

class Op(torch.autograd.Function):
    forward = staticmethod(lambda ctx, x: op(x))
    backward = staticmethod(lambda ctx, d: d)

for how in [*NATIVE, *PYTHON]:
    for D in (lambda x: op(conv(x)).sum((1, 2, 3)), lambda x: Op.apply(conv(x)).sum((1, 2, 3))):
        print(how, "is tried", flush=True)
        assert penalties.refusal(D, torch.randn(2, 3, 5, 5)) is not None
    if how in NATIVE:
        y = torch.randn(2, 3)
        assert torch.equal(op(y), y)
print("done")
"""


def test_code_that_reads_memory_by_itself_is_refused_and_harms_nothing():
    done = subprocess.run([sys.executable, "-c", READING], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["done"], (done.returncode, done.stdout, done.stderr[-2000:])


def test_a_traced_tensor_has_the_properties_of_what_it_stands_for():
    value = torch.empty(4, 3, 2, 5).to(memory_format=torch.channels_last)
    x = TracedTensor(value, Tape(4))
    assert (x.shape, x.dtype, x.device, x.layout, x.stride()) == (*_facts(value), value.stride())
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert len(x) == 4
    assert x.ndim == 4
    assert x.requires_grad
    assert not x.is_sparse


def _facts(x: Tensor) -> tuple:
    return x.shape, x.dtype, x.device, x.layout
