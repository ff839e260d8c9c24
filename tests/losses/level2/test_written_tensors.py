"""Tensors that D computes with, and that are written to before the gradients are there.

What is wanted is the step as its formula is written, by autograd in float64, which reads no addend again.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_engine.losses.level2 import trial
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.ops import bias_act
from tests.losses.level2.steps import assert_equal, images_fixture, taken
from tests.losses.networks import softplus, written_out

img = images_fixture(4)


class Writer(nn.Module):
    """Two layers behind `before(self, x)`, after which `write(self)` is called; `state` is a buffer [3, 8, 8]."""

    def __init__(self, before=lambda D, x: x, write=lambda D: None):
        super().__init__()
        self.before, self.write = before, write
        torch.manual_seed(0)
        self.conv, self.linear = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6 * 64, 1)
        self.shift = nn.Parameter(torch.randn(3))
        self.register_buffer("state", torch.randn(3, 8, 8))
        self.double()

    def forward(self, x):
        x = F.leaky_relu(self.conv(self.before(self, x)), 0.2)
        logits = self.linear(x.flatten(1)).squeeze(1)
        with torch.no_grad():
            self.write(self)
        return logits


def joined(D, x):
    """One channel is replaced by a constant one."""
    return torch.cat([x[:, :2], D.state[:1].expand(len(x), 1, 8, 8)], dim=1)


def turned(D):
    D.state.copy_(D.state.flip(1) + 1)


WRITERS = {  # with whether level 2 holds
    "a buffer that is added": (lambda: Writer(lambda D, x: x + D.state, turned), True),
    "a buffer that is taken away": (lambda: Writer(lambda D, x: x - D.state, turned), True),
    "a buffer that is joined": (lambda: Writer(joined, turned), True),
    "the bias of a convolution": (lambda: Writer(write=lambda D: D.conv.bias.add_(1)), False),
    "the bias of a linear layer": (lambda: Writer(write=lambda D: D.linear.bias.zero_()), False),
    "the bias of bias_act": (
        lambda: Writer(lambda D, x: bias_act(x, D.shift, act="lrelu"), lambda D: D.shift.neg_()),
        False,
    ),
    "a parameter that is added": (
        lambda: Writer(lambda D, x: x + D.shift[:, None, None], lambda D: D.shift.neg_()),
        False,
    ),
}


@pytest.mark.parametrize("reads_D", [False, True], ids=["one pass", "two passes"])
@pytest.mark.parametrize("level", [None, 1])
@pytest.mark.parametrize("name", WRITERS)
def test_addends_may_be_written_to_when_they_have_been_added(img, name, level, reads_D):
    make, holds = WRITERS[name]
    D, same = make(), make()
    assert (trial.refusal(D, img) is None) == holds
    for net, step in ((same, written_out), (D, backward_with_penalty)):
        loss = (lambda logits, net=net: softplus(logits) + net(img.flip(0))) if reads_D else softplus
        step(net, img, loss, gamma=1.0, **({} if net is same else {"level": level}))
    assert_equal(taken(list(D.parameters())), taken(list(same.parameters())))
    assert_equal(list(D.buffers()), list(same.buffers()))


@pytest.mark.parametrize("level", [None, 1])
@pytest.mark.parametrize("write", [lambda D: D.conv.weight.mul_(0.9), lambda D: D.linear.weight.zero_()])
def test_weights_may_not(img, level, write):
    """PyTorch refuses that at every level."""
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        backward_with_penalty(Writer(write=write), img, softplus, gamma=1.0, level=level)


WRITTEN = {
    "a weight": lambda D, img: D.conv.weight,
    "a bias": lambda D, img: D.linear.bias,
    "a factor": lambda D, img: D.state,
    "the images": lambda D, img: img,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_loss_that_writes_to_what_D_computed_with_is_refused(img, name):
    D = Writer(lambda D, x: x * D.state)
    target = WRITTEN[name](D, img)

    def loss(logits):
        with torch.no_grad():
            target.mul_(0.5)
        return softplus(logits)

    with pytest.raises(RuntimeError, match=rf"wrote to a tensor \{list(target.shape)} that D had computed with"):
        backward_with_penalty(D, img, loss, gamma=1.0, level=2)


def test_an_optimizer_in_the_backward_pass_may_write_to_biases_that_only_the_loss_reads_again(img):
    """The gradients of the biases are ready before those of the penalty, which reads no bias."""

    def descend(bias):
        with torch.no_grad():
            bias.sub_(bias.grad)

    D, same = Writer(), Writer()
    for net in (D, same):
        for bias in (net.conv.bias, net.linear.bias):
            bias.register_post_accumulate_grad_hook(descend)
    for net, step in ((same, written_out), (D, backward_with_penalty)):
        step(net, img, lambda logits, net=net: softplus(net(img.flip(0))), gamma=1.0)
    assert_equal(taken(list(D.parameters())), taken(list(same.parameters())))
    assert_equal([D.conv.bias, D.linear.bias], [same.conv.bias, same.linear.bias])
