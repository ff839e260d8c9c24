"""The order of the images is shuffled, without replacement, shared between ranks, and the same after a resume."""

import dataclasses
import io

import pytest
import torch

from gan_engine.data import ImageSet, Sampler


def numbered(num, *, labelled=True, size=4):
    """Image i has the value i, and i + 100 in its left column: a batch shows its images, and which are flipped."""
    images = torch.arange(num, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, size, size)
    images[..., 0] += 100
    labels = torch.arange(num) % 3 if labelled else None
    return ImageSet("numbered", images, labels, ("a", "b", "c") if labelled else ())


def pixels(img):
    return ((img + 1) * 127.5).round().long()


def indices(img):
    return pixels(img)[:, 0, 0, 1:3].amin(1).tolist()


def test_batches_are_in_range_and_typed():
    data = ImageSet("ends", torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 4, 4))
    img, c = next(Sampler(data, 2, seed=0))
    assert img.dtype == torch.float32 and img.shape == (2, 3, 4, 4) and c is None
    assert img.unique().tolist() == [-1.0, 1.0]


def test_labels_are_one_hot():
    img, c = next(Sampler(numbered(9), 5, seed=0))
    assert c.dtype == torch.float32 and c.shape == (5, 3)
    assert c.argmax(1).tolist() == [i % 3 for i in indices(img)] and c.sum(1).tolist() == [1] * 5


def test_every_epoch_holds_every_image_once():
    sampler = Sampler(numbered(10), 4, seed=0)  # some batches span two epochs
    stream = [i for _ in range(15) for i in indices(next(sampler)[0])]
    epochs = [stream[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 6 and list(range(10)) not in epochs


def test_a_batch_may_be_larger_than_the_set():
    img, _ = next(Sampler(numbered(3), 8, seed=0))
    assert sorted(indices(img)[:3]) == sorted(indices(img)[3:6]) == [0, 1, 2]


def test_the_seed_decides():
    def first(seed):
        return indices(next(Sampler(numbered(50), 20, seed=seed))[0])

    assert first(1) == first(1) != first(2)


@pytest.mark.parametrize("batches_before", [0, 1, 7])
def test_resume_continues_bit_for_bit(batches_before):
    """Resume at the start, in the middle of an epoch, and after several epochs; the state passes through a file."""
    whole = Sampler(numbered(10), 3, seed=5, mirror=True)
    for _ in range(batches_before):
        next(whole)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed = Sampler(numbered(10), 3, seed=99, mirror=True)
    next(resumed)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(12):
        for ours, theirs in zip(next(resumed), next(whole)):
            assert torch.equal(ours, theirs)


def test_resume_refuses_other_data():
    with pytest.raises(ValueError, match="want the 10 images of the saved state, got 11"):
        Sampler(numbered(11), 2, seed=0).load_state_dict(Sampler(numbered(10), 2, seed=0).state_dict())
    other = numbered(10)
    other.images[3] += 1
    with pytest.raises(
        ValueError, match=r"want the images and labels of the saved state .*, got other data in numbered"
    ):
        Sampler(other, 2, seed=0).load_state_dict(Sampler(numbered(10), 2, seed=0).state_dict())


@pytest.mark.parametrize("num", [10, 11])
@pytest.mark.parametrize(("dtype", "end"), [(torch.uint8, "first run"), (torch.uint16, "move them away")])
def test_pictures_that_an_older_version_skipped_are_named_with_16_bits(dtype, end, num):
    state = Sampler(numbered(10), 2, seed=0).state_dict() | {"sha256": "0" * 64}
    with pytest.raises(ValueError, match=f"{end}$"):
        Sampler(ImageSet("other", torch.zeros(num, 1, 4, 4, dtype=dtype)), 2, seed=0).load_state_dict(state)


def test_ranks_share_one_stream():
    alone = Sampler(numbered(24), 8, seed=3, mirror=True)
    ranks = [Sampler(numbered(24), 2, seed=3, rank=rank, world_size=4, mirror=True) for rank in range(4)]
    for _ in range(5):
        whole, c = next(alone)
        parts = [next(rank) for rank in ranks]
        assert torch.equal(torch.stack([img for img, _ in parts], 1).flatten(0, 1), whole)
        assert torch.equal(torch.stack([part for _, part in parts], 1).flatten(0, 1), c)
    assert all(rank.state_dict() == alone.state_dict() for rank in ranks)


def test_ranks_are_disjoint_within_an_epoch():
    ranks = [Sampler(numbered(24), 2, seed=3, rank=rank, world_size=4) for rank in range(4)]
    seen = [{i for _ in range(3) for i in indices(next(rank)[0])} for rank in ranks]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 24


def test_mirror_flips_about_half_and_changes_nothing_else():
    unchanged, mirrored = Sampler(numbered(100), 100, seed=0), Sampler(numbered(100), 100, seed=0, mirror=True)
    before, after = pixels(next(unchanged)[0]), pixels(next(mirrored)[0])
    flipped = (before != after).flatten(1).any(1)
    assert 30 < flipped.sum() < 70
    assert torch.equal(after[flipped], before[flipped].flip(3))
    again = pixels(next(mirrored)[0])
    assert not torch.equal((again[:, 0, 0, 0] < 100), (after[:, 0, 0, 0] < 100))  # another draw in the next epoch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"rank": 2, "world_size": 2}, r"rank must lie in \[0, world_size\) = \[0, 2\), got 2"),
    ],
)
def test_wrong_arguments_say_what_they_want(options, message):
    with pytest.raises(ValueError, match=message):
        Sampler(numbered(4), **{"batch_size": 1, "seed": 0, **options})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_the_device_changes_nothing(monkeypatch, resident, dtype):
    if not resident:
        monkeypatch.setattr("gan_engine.data.sampler.DEVICE_SHARE", 0.0)
    data = numbered(10)
    data = dataclasses.replace(data, images=(data.images.int() * (500 if dtype == torch.uint16 else 1)).to(dtype))
    on_cpu = Sampler(data, 4, seed=0, mirror=True)
    on_gpu = Sampler(data, 4, seed=0, mirror=True, device="cuda")
    assert on_gpu.images.is_cuda == resident
    for _ in range(5):
        for ours, theirs in zip(next(on_gpu), next(on_cpu)):
            assert ours.is_cuda and torch.equal(ours.cpu(), theirs)


def test_a_set_on_disk_that_is_copied_to_the_device_is_not_read_ahead(monkeypatch):
    data = numbered(10)
    monkeypatch.setattr(ImageSet, "on_disk", True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **options: self.clone())
    sampler = Sampler(data, 4, seed=0, device="cuda")
    assert sampler.images is not data.images and sampler._reader is None
