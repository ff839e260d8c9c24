"""Images of 16 bits keep all of them from the file to the network, and nothing else changes."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine.data import DataConfig, DataError, Sampler, arrays, describe, held_out, image_set, load, to_float
from gan_engine.data.image_set import ImageSet, empty_images, to_eight_bits

RAMP = np.linspace(0, 65535, 32 * 32).round().astype(np.uint16).reshape(32, 32)


def png(values, **options):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "png", **options)
    return file.getvalue()


def sixteen(source, resolution=32, channels=None, **options):
    return load(DataConfig(str(source), bits=16), resolution=resolution, channels=channels, **options)


def folder_of(path, **pictures):
    path.mkdir()
    for name, content in pictures.items():
        (path / f"{name}.png").write_bytes(content)
    return path


def test_a_ramp_keeps_its_levels(tmp_path):
    folder = folder_of(tmp_path / "xrays", a=png(RAMP), b=png(np.rot90(RAMP).copy()))
    data = sixteen(folder)
    assert data.bits == 16 and data.images.dtype == torch.uint16 and data.images.shape == (2, 1, 32, 32)
    assert np.array_equal(data.images[0, 0].numpy(), RAMP)
    img = to_float(data.images)
    assert len(img[0].unique()) == 1024 and (img.min(), img.max()) == (-1, 1)
    eight = load(DataConfig(str(folder)), resolution=32, channels=1)
    assert eight.bits == 8 and eight.images.equal(to_eight_bits(data.images)) and eight.sha256 != data.sha256
    assert "1x32x32 of 16 bits, " in describe(data) and "bits" not in describe(eight)


def test_resizing_keeps_levels_and_a_cut_is_the_centre(tmp_path):
    wide = np.repeat(np.repeat(RAMP, 2, 0), 2, 1)
    data = sixteen(folder_of(tmp_path / "xrays", a=png(np.pad(wide, ((0, 0), (16, 16))))))
    assert len(data.images.unique()) > 900
    inner = np.s_[2:-2, 2:-2]  # the filter reads beyond the edges
    assert abs(data.images[0, 0].numpy()[inner].astype(int) - RAMP[inner]).max() < 400  # a step down the ramp is 2050


@pytest.mark.parametrize(
    ("values", "want"),
    [
        (np.array([[0, 7], [128, 255]], np.uint8), [0, 7 * 257, 128 * 257, 65535]),
        (np.array([[False, True], [True, False]]), [0, 65535, 65535, 0]),
    ],
)
def test_other_grey_pictures_are_scaled(tmp_path, values, want):
    folder = folder_of(tmp_path / "grey", a=png(values))
    assert sixteen(folder, resolution=2).images.flatten().tolist() == want


def test_tiffs_are_turned_and_inverted(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    Image.fromarray(RAMP).save(folder / "a.tif", tiffinfo={274: 6, 262: 0})  # turn by 90 degrees, white is 0
    got = sixteen(folder).images[0, 0].numpy()
    assert np.array_equal(got, np.rot90(65535 - RAMP, -1))


def test_every_reader_of_pictures_has_all_bits(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/a.png", png(RAMP))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = len(png(RAMP))
        archive.addfile(member, io.BytesIO(png(RAMP)))
    for source in ("a.zip", "a.tar"):
        assert np.array_equal(sixteen(tmp_path / source).images[0, 0].numpy(), RAMP)


def test_both_sides_of_translations_have_all_bits(tmp_path):
    other = 65535 - RAMP
    folder_of(tmp_path / "beside", a=png(np.hstack([RAMP, other])))
    for kind, names in (("pairs", "AB"), ("unpaired", ("trainA", "trainB"))):
        (tmp_path / kind).mkdir()
        for name, values in zip(names, (RAMP, other), strict=True):
            folder_of(tmp_path / kind / name, a=png(values))
    for source, kind in (("beside", "pairs"), ("pairs", "pairs"), ("unpaired", "unpaired")):
        data = sixteen(tmp_path / source, kind=kind)
        assert np.array_equal(data.source.images[0, 0].numpy(), RAMP)
        assert np.array_equal(data.images[0, 0].numpy(), other)


def test_a_seam_is_seen_in_16_bits(tmp_path):
    folder_of(tmp_path / "pairs", a=png(np.hstack([RAMP // 4, 65535 - RAMP // 4])[:, 10:-10]))
    assert len(sixteen(tmp_path / "pairs", kind="pairs")) == 1
    folder_of(tmp_path / "one", a=png(np.hstack([RAMP, RAMP])[:, 10:-10] // 257 * 257 // 2))
    with pytest.raises(DataError, match="of one picture"):
        sixteen(tmp_path / "one", kind="pairs")


@pytest.mark.parametrize(
    ("values", "want"),
    [
        (RAMP[None], RAMP[None, None]),
        (RAMP.astype(">u2")[None], RAMP[None, None]),
        (np.stack([RAMP] * 3)[None], np.stack([RAMP] * 3)[None]),
        (np.stack([RAMP, RAMP // 2, RAMP // 3, RAMP // 5], -1)[None], None),
        (RAMP[None] / 65535, RAMP[None, None]),
        ((RAMP[None] / 32767.5 - 1).astype(np.float32), RAMP[None, None]),
        ((RAMP >> 8).astype(np.uint8)[None], (RAMP >> 8)[None, None] * 257),
        (RAMP[None] > 32767, (RAMP > 32767)[None, None] * 65535),
    ],
)
def test_arrays_keep_their_values(tmp_path, values, want):
    np.save(tmp_path / "a.npy", values)
    want = values.transpose(0, 3, 1, 2) if want is None else want
    data = sixteen(tmp_path / "a.npy")
    assert data.images.dtype == torch.uint16 and np.array_equal(data.images.numpy(), want)


def test_a_kept_set_is_that_of_its_bits(tmp_path):
    folder = folder_of(tmp_path / "xrays", a=png(RAMP))
    for config in (DataConfig(str(folder), bits=16), DataConfig(str(folder))):
        first, again = (load(config, resolution=32, channels=1) for _ in range(2))
        assert first.bits == again.bits == config.bits and "from the cache" in again.notes
        assert torch.equal(first.images.int(), again.images.int())


@pytest.mark.parametrize("on_disk", [False, True])
def test_batches_have_all_bits(monkeypatch, on_disk):
    if on_disk:
        monkeypatch.setattr(image_set, "available_bytes", lambda: 0)
    images = empty_images("x", 5, 1, (3, 4), bits=16)
    images.copy_(torch.linspace(0, 65535, 60).round().view(5, 1, 3, 4))
    data = ImageSet("x", images)
    assert data.on_disk == on_disk
    sampler, want = Sampler(data, 5, seed=0, mirror=True), to_float(data.images)
    for _ in range(3):
        img, _ = next(sampler)
        img = img[img.mean((1, 2, 3)).argsort()]  # in the order of the set
        flipped = (img != want).flatten(1).any(1).view(-1, 1, 1, 1)
        assert img.dtype == torch.float32 and torch.where(flipped, img.flip(-1), img).equal(want)


def test_the_room_of_16_bits_is_counted(monkeypatch):
    monkeypatch.setattr(image_set, "available_bytes", lambda: 5000)
    monkeypatch.setattr(image_set.shutil, "disk_usage", lambda folder: type("", (), {"free": 5000}))
    assert empty_images("x", 4, 1, 32).dtype == torch.uint8
    with pytest.raises(DataError, match="4 images of 1x32x32 uint16 need"):
        empty_images("x", 4, 1, 32, bits=16)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_held_out_images_keep_bits_and_sides(dtype):
    images = torch.arange(5 * 12).view(5, 1, 3, 4).to(dtype)
    learnt, held = held_out.split(ImageSet("x", images), 2, seed=0)
    both = torch.cat([learnt.images, held.images]).int()
    assert learnt.images.dtype == dtype and both[both[:, 0, 0, 0].argsort()].equal(images.int())


@pytest.mark.parametrize(
    ("source", "options", "want"),
    [
        ("toy", {}, "bits must be 8 for toy, got 16"),
        ("fashion-mnist", {}, "bits must be 8 for fashion-mnist, got 16"),
        ("a.npy", {"kind": "voxels"}, "bits must be 8 for voxels, got 16"),
        ("photos", {"kind": "patches"}, "bits must be 8 for patches, got 16"),
    ],
)
def test_what_has_8_bits_is_refused(source, options, want):
    with pytest.raises(DataError, match=want):
        sixteen(source, **options)


ADVICE = "; if white is 4,095 in files of 16 bits, multiply their values by 16"
DARK = {
    "12 bits": (RAMP // 16, f"the largest value is 0.062 of white, so all images are nearly black{ADVICE}$"),
    "8 bits": ((RAMP >> 13).astype(np.uint8), f"the largest value is 0.027 of white, .* nearly black{ADVICE}$"),
    "more": (np.minimum(RAMP, 4100), "the largest value is 0.063 of white, so all images are nearly black$"),
    "zeros": (RAMP * 0, "every value is 0, so all images are black$"),
}


@pytest.mark.parametrize("dark", DARK)
def test_dark_pictures_are_noticed_with_advice_that_holds_for_files_of_all_bits(tmp_path, dark):
    values, want = DARK[dark]
    folder = folder_of(tmp_path / "dark", a=png(values))
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match=f"^dark: {want}") as caught:
            sixteen(folder)
        assert len(caught) == 1


def test_dark_floats_are_noticed(tmp_path):
    np.save(tmp_path / "dark.npy", RAMP[None] / 65535 / 20)
    with pytest.warns(UserWarning, match="dark: the largest value is 0.05 of white, so all images are nearly black$"):
        sixteen(tmp_path / "dark.npy")


def test_a_set_from_the_cache_is_not_searched_for_darkness(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "xrays", a=png(RAMP))
    sixteen(folder)
    monkeypatch.setattr(arrays, "DARKEST", 70000)
    assert "from the cache" in sixteen(folder).notes


def test_arrays_of_28x28_are_resized_alike_with_8_and_16_bits(tmp_path):
    digits = np.random.default_rng(0).integers(90, 160, (2, 28, 28)).astype(np.uint8)
    np.save(tmp_path / "digits.npy", digits)
    eight, sixteen_ = (
        load(DataConfig(str(tmp_path / "digits.npy"), bits=bits), resolution=32, channels=None).images.int()
        for bits in (8, 16)
    )
    assert (sixteen_ / 257 - eight).abs().max() <= 1.5 and (eight[:, :, :2] > 0).any()  # they are not padded


def test_arrays_are_not_converted(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([RAMP] * 3)[None])
    with pytest.raises(
        DataError, match=r"want --channels 3, as images of 16 bits keep .* a, which is uint16 .*, got 1"
    ):
        sixteen(tmp_path / "a.npy", channels=1)
    np.save(tmp_path / "dark.npy", RAMP[None] // 16)  # 12 bits, as they come from many cameras
    with pytest.raises(DataError, match=r"integers in \[0, 255\] or \[0, 65535\], got uint16 in \[0, 4095\]"):
        sixteen(tmp_path / "dark.npy")
    with pytest.raises(DataError, match="bits must be 8 or 16, got 12"):
        load(DataConfig(str(tmp_path / "a.npy"), bits=12), resolution=32, channels=None)
    assert arrays.DARKEST > 4095
