"""Batch and instance norms run on norm_act at level 1, and have the gradients and statistics of PyTorch's."""

import pytest
import torch
from torch import nn

from gan_engine.losses import closed_ops
from gan_engine.losses.closed_ops import ClosedOps, FasterOps
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.ops.norm_act import norm_act
from gan_engine.ops.thresholds import TABLE
from gan_engine.system import native
from tests.losses.conftest import FEW_OF_A_NORM
from tests.losses.networks import around, assert_level_1_is_autograd, images, softplus

pytestmark = [
    pytest.mark.skipif(native.WHY_NO_CPU is not None, reason=str(native.WHY_NO_CPU)),
    pytest.mark.usefixtures("small_norms_on_norm_act"),
]


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The norm of each call of norm_act"""
    made = []

    def noted(*args, **kwargs):
        made.append(kwargs["norm"])
        return norm_act(*args, **kwargs)

    monkeypatch.setattr(closed_ops, "norm_act", noted)
    return made


def with_norm(norm: nn.Module) -> nn.Module:
    """A discriminator with the norm in its middle, whose statistics and weights are no zeros and ones"""
    D = around(norm, nn.LeakyReLU(0.2))
    for name, t in [*norm.named_parameters(), *norm.named_buffers()]:
        if t.is_floating_point():
            t.data.uniform_(0.5, 1.5) if "var" in name else t.data.normal_()
    return D


NORMS = {
    "batch": lambda: nn.BatchNorm2d(4),
    "batch, evaluated": lambda: nn.BatchNorm2d(4).eval(),
    "batch, cumulative": lambda: nn.BatchNorm2d(4, momentum=None),
    "batch, fast": lambda: nn.BatchNorm2d(4, momentum=0.7, eps=0.1),
    "batch, plain": lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False),
    "batch, flat": lambda: nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(4)),
    "batch, volume": lambda: nn.Sequential(nn.Unflatten(2, (2, 4)), nn.BatchNorm3d(4)),
    "instance": lambda: nn.InstanceNorm2d(4),
    "instance, affine": lambda: nn.InstanceNorm2d(4, affine=True, eps=0.1),
    "instance, flat": lambda: nn.Sequential(nn.Flatten(2), nn.InstanceNorm1d(4, affine=True)),
}


@pytest.mark.parametrize("norm", NORMS)
def test_norms_have_the_gradients_and_statistics_of_autograd(norm: str, calls: list[str]):
    D = with_norm(NORMS[norm]())
    before = [t.clone() for t in D.buffers()]
    assert_level_1_is_autograd(D)
    assert set(calls) == {norm.partition(",")[0]}
    found = {}
    for level in (1, "autograd"):
        for t, value in zip(D.buffers(), before, strict=True):
            t.copy_(value)
        backward_with_penalty(D, images(), softplus, gamma=3.0, level=level)
        found[level] = [t.clone() for t in D.buffers()]
    torch.testing.assert_close(found[1], found["autograd"], rtol=1e-12, atol=0)
    moved = [not torch.equal(a, b) for a, b in zip(before, found[1], strict=True)]
    assert all(moved) if "evaluated" not in norm else not any(moved)


@pytest.mark.parametrize("mode", [ClosedOps, FasterOps])
@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")])
def test_values_in_other_dtypes(dtypes, mode, calls: list[str]):
    layout = torch.channels_last if mode is ClosedOps else torch.contiguous_format
    x = images().to(getattr(torch, dtypes[0])).to(memory_format=layout)
    norm = nn.BatchNorm2d(3, dtype=getattr(torch, dtypes[1]))
    with mode():
        y = norm(x)
    assert calls == ["batch"]
    assert y.dtype == x.dtype and y.is_contiguous(memory_format=layout)
    want = nn.BatchNorm2d(3, dtype=torch.float64)
    torch.testing.assert_close(y.double(), want(x.double()), rtol=0, atol=0.03 if y.dtype == torch.bfloat16 else 1e-5)
    torch.testing.assert_close(norm.running_var.double(), want.running_var, rtol=1e-2, atol=0)


def test_few_elements_of_a_batch_norm_in_channels_last_gain_only_at_the_second_order(calls: list[str]):
    x = images().float().to(memory_format=torch.channels_last)
    for mode, made in ((FasterOps, []), (ClosedOps, ["batch"])):
        with mode():
            nn.BatchNorm2d(3, dtype=x.dtype)(x)
        assert calls == made


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_images_are_laid_out_as_pytorch_does(norm: str, layout: torch.memory_format, calls: list[str]):
    """PyTorch's instance norm makes contiguous images, which a `view` behind it may need."""
    norms = {"batch": nn.BatchNorm2d(3), "instance": nn.InstanceNorm2d(3)}
    x = images().float().to(memory_format=layout)
    with ClosedOps():
        y = norms[norm](x)
    assert calls == [norm]
    assert y.stride() == norms[norm](x).stride()


def left_to_pytorch() -> dict:
    x = images()
    mean, var = torch.zeros(3).double(), torch.ones(3).double()
    F = nn.functional
    return {
        "few elements": lambda: F.batch_norm(x[:1], mean, var, training=True),
        "tracked instances": lambda: F.instance_norm(x, mean, var),
        "statistics of instances": lambda: F.instance_norm(x, mean, var, use_input_stats=False),
        "single pixels": lambda: F.batch_norm(x[:1, :, :1, :1], mean, var, training=True),
        "single pixels of instances": lambda: F.instance_norm(x[:, :, :1, :1]),
        "no statistics": lambda: F.batch_norm(x, None, None),
        "half of the statistics": lambda: F.batch_norm(x, mean, None, training=True),
        "other channels": lambda: F.batch_norm(x, mean[:2], var[:2], training=True),
        "integers": lambda: F.batch_norm(x.int(), mean, var),
        "empty": lambda: F.batch_norm(x[:0], mean, var, training=True),
        "no eps": lambda: F.batch_norm(x, mean, var, training=True, eps=0),
        "negative eps": lambda: F.batch_norm(x, mean, var, eps=-0.1),
        "no momentum": lambda: F.batch_norm(x, mean, var, training=True, momentum=None),
        "no momentum of instances": lambda: F.instance_norm(x, momentum=None),
        "float32 statistics of float64": lambda: F.batch_norm(x, mean.float(), var.float()),
        "two dtypes": lambda: F.batch_norm(x.bfloat16(), mean.float(), var.float(), mean.bfloat16()),
    }


@pytest.mark.parametrize("call", left_to_pytorch())
def test_what_pytorch_refuses_or_norm_act_does_not_take_is_left_to_pytorch(call: str, calls: list[str], monkeypatch):
    if call == "few elements":
        monkeypatch.setitem(TABLE, FEW_OF_A_NORM, TABLE[FEW_OF_A_NORM]._replace(number=1 << 16))

    def outcome() -> object:
        try:
            return left_to_pytorch()[call]()
        except Exception as error:
            return type(error), str(error)

    want = outcome()
    with ClosedOps():
        got = outcome()
    assert not calls
    assert torch.equal(got, want) if isinstance(want, torch.Tensor) else got == want
