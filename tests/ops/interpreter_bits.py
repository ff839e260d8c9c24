"""Whether tests/triton_interpreter.py changes a bit: python -m tests.ops.interpreter_bits [NAME OF AN OPERATOR] ...

Values and gradients of two orders of the first samples, by the interpreter as it comes, then with the plugin.
"""

import argparse
import importlib
import os

os.environ |= {"TRITON_INTERPRET": "1", "GAN_ENGINE_CHECK": "0"}

import torch

from gan_engine import backends
from gan_engine.ops.samples import OPS, orders

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def bits(names: list[str], samples: int) -> dict[str, bytes]:
    found = {}
    for name in names:
        for sample in OPS[name].tiny[:samples]:
            for dtype in DTYPES:
                tensors = sample.tensors(dtype)
                for key, value in orders(OPS[name].function, tensors, backend="triton", **sample.options).items():
                    array = value.detach().flatten().view(torch.uint8) if value.numel() else torch.empty(0)
                    found[f"{name} {sample.name} {dtype} {key}"] = array.numpy().tobytes()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.ops.interpreter_bits", description=__doc__)
    parser.add_argument("names", nargs="*", help="all operators that have Triton kernels, if there is none")
    parser.add_argument("--samples", type=int, default=1, help="of each operator")
    asked = parser.parse_args()
    names = asked.names or [name for name in OPS if backends.refusal(name, "triton", torch.empty(1)) is None]
    torch.use_deterministic_algorithms(True)
    before = bits(names, asked.samples)
    importlib.import_module("tests.triton_interpreter")
    after = bits(names, asked.samples)
    wrong = [key for key in before if before[key] != after[key]]
    print(*(f"other bits: {key}" for key in wrong), f"{len(before)} results, {len(wrong)} differ", sep="\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
