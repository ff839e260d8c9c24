"""The promises of minibatch_stddev beyond the properties that every op has."""

import pytest
import torch

from gan_engine.ops import minibatch_stddev


def test_samples_of_a_group_are_the_number_of_groups_apart():
    x = torch.zeros(4, 1, 2, 2)
    x[0] += 1
    x[2] -= 1
    s = minibatch_stddev(x, group_size=2)[:, 1]
    torch.testing.assert_close(s[0::2], torch.ones(2, 2, 2))
    torch.testing.assert_close(s[1::2], torch.full((2, 2, 2), 1e-4))


@pytest.mark.parametrize(("n", "group_size", "groups"), [(6, 4, 2), (8, 4, 2), (3, 4, 1), (10, None, 1), (9, 5, 3)])
def test_a_group_is_the_largest_that_divides_the_batch(n: int, group_size: int | None, groups: int):
    torch.manual_seed(0)
    s = minibatch_stddev(torch.randn(n, 2, 3, 3), group_size=group_size)[:, 2, 0, 0]
    assert len(s.unique()) == groups
    assert torch.equal(s[:groups], s[-groups:])


def test_a_single_sample_has_no_spread():
    assert minibatch_stddev(torch.randn(1, 2, 3, 3))[:, 2].max().item() == pytest.approx(1e-4)


def test_each_channel_has_its_own_features():
    x = torch.zeros(2, 4, 1, 1)
    x[0, :2], x[0, 2:] = 2, 6
    assert minibatch_stddev(x, num_channels=2)[0, 4:].flatten().tolist() == pytest.approx([1, 3])


@pytest.mark.parametrize(
    ("x", "options", "error", "sentence"),
    [
        (torch.ones(4, 3), {}, ValueError, r"x must be \[N, C, H, W\], got \[4, 3\]"),
        (torch.ones(4, 3, 2, 2), {"num_channels": 2}, ValueError, "a divisor of C = 3, got 2"),
        (torch.ones(4, 3, 2, 2), {"group_size": 0}, ValueError, "group_size must be at least 1 or None, got 0"),
        (torch.ones(5, 3, 2, 2), {}, ValueError, "equal groups of 2 to 4 samples, got N = 5"),
        (torch.ones(4, 3, 2, 2).int(), {}, TypeError, "x must be float32, .* got torch.int32"),
        (torch.ones(4, 3, 2, 2), {"backend": "cpu"}, RuntimeError, "minibatch_stddev has no cpu kernel"),
    ],
)
def test_bad_input_is_refused_with_want_and_got(x, options, error, sentence):
    with pytest.raises(error, match=sentence):
        minibatch_stddev(x, **options)
