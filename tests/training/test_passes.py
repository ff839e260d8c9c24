"""A batch in passes: gradients are those of the whole batch, and passes are large enough for statistics over images."""

import dataclasses
import warnings

import pytest
import torch

from gan_engine.training.distributed import Processes
from gan_engine.training.trainer import Trainer
from tests.training.runs import CGAN, CPU, DCGAN, GAN3D, MLP, PIX2PIX, SNGAN, SRGAN, STYLEGAN2, toy


@pytest.mark.parametrize(("batch_gpu", "groups"), [(None, None), (8, None), (2, 2), (1, 1), (3, 1)])
def test_passes_too_small_for_the_groups_of_the_minibatch_statistic_are_warned_of(make, batch_gpu, groups):
    with warnings.catch_warnings(record=True) as caught:
        make(STYLEGAN2, batch_gpu=batch_gpu)
    said = [str(warning.message) for warning in caught]
    assert len(said) == (groups is not None)
    if groups:
        assert f"is over groups of {groups} images" in said[0] and said[0].endswith("in one pass makes groups of 4")


def with_groups(group):
    return dataclasses.replace(STYLEGAN2, model=dataclasses.replace(STYLEGAN2.model, mbstd_group=group))


@pytest.mark.parametrize(
    ("sizes", "group", "processes", "want"),
    [
        ({"batch_size": 5}, 4, 1, r"groups of 2 to 4 images \(mbstd_group 4\).* a pass of 5 images by batch_size 5$"),
        ({"batch_size": 7}, 6, 1, "groups of 2 to 6 images .* a pass of 7 images by batch_size 7$"),
        ({"batch_gpu": 5}, 4, 1, "a pass of 5 images by batch_size 16 and batch_gpu 5$"),
        ({"batch_size": 13, "batch_gpu": 8}, 4, 1, "a pass of 5 images by batch_size 13 and batch_gpu 8$"),
        ({"batch_size": 14}, 4, 2, "a pass of 7 images by batch_size 14 in 2 processes$"),
        ({"batch_size": 3}, 2, 1, "groups of 2 to 2 images .* a pass of 3 images by batch_size 3$"),
    ],
)
def test_a_pass_without_groups_for_the_minibatch_statistic_is_refused(tmp_path, sizes, group, processes, want):
    config = dataclasses.replace(with_groups(group), **sizes)
    with pytest.raises(ValueError, match="batch_size: want passes that split into equal .*" + want):
        Trainer(config, toy(16, 1, "image"), device=CPU, run_dir=tmp_path, processes=Processes(size=processes))


@pytest.mark.parametrize(
    ("sizes", "group"),
    [
        ({"batch_size": 5}, 5),
        ({"batch_size": 7}, 1),
        ({"batch_size": 3}, 4),
        ({"batch_size": 1}, 4),
        ({"batch_size": 9}, 8),
        ({"batch_size": 5, "batch_gpu": 4}, 4),
    ],
    ids=str,
)
def test_every_other_batch_trains_with_a_minibatch_statistic(make, sizes, group):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = make(with_groups(group), r1_gamma=1.0, r2_gamma=1.0, penalty_interval=2, pl_weight=2.0, **sizes)
    trainer.step()
    trainer.step()
    assert all(p.isfinite().all() for net in (trainer.G, trainer.D) for p in net.parameters())


@pytest.mark.parametrize("config", [DCGAN, CGAN, SNGAN, GAN3D, SRGAN], ids=lambda config: config.preset)
def test_a_last_pass_of_one_image_is_enough_for_batch_norms(make, config):
    trainer = make(config, batch_size=3, batch_gpu=2)
    trainer.step()
    assert all(p.isfinite().all() for net in (trainer.G, trainer.D) for p in net.parameters())


@pytest.mark.parametrize("batch_gpu", [4, 5, 16])
def test_accumulated_gradients_are_those_of_the_whole_batch(make, batch_gpu):
    whole, parts = make(MLP), make(MLP, batch_gpu=batch_gpu)
    whole.step()
    parts.step()
    for a, b in zip(whole.D.parameters(), parts.D.parameters(), strict=True):
        # The sums run in another order: their rounding grows with what is summed, not with what is left of it. The
        # bias of the logit sums slopes of the loss, at the start -0.5 of real images and 0.5 of generated ones.
        summed = 0.5 + 0.5 if a.shape == (1,) else a.grad.abs().max().item()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6 * summed + 1e-12)
    means = whole.means.read(), parts.means.read()
    for name in ("loss/D", "logits/real"):
        assert means[0][name] == pytest.approx(means[1][name], rel=1e-6)


def test_accumulated_gradients_of_a_translation_are_those_of_the_whole_batch(make):
    config = dataclasses.replace(PIX2PIX, model=dataclasses.replace(PIX2PIX.model, dropout=0))
    whole, parts = make(config), make(config, batch_gpu=3)
    whole.step()
    parts.step()
    for a, b in zip(whole.D.parameters(), parts.D.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5 * a.grad.abs().max().item())
