"""Checkpoints survive kills, full disks and damage, and never run code."""

import os
import pickle
import random
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import torch

from gan_engine.runs import record
from gan_engine.system import checkpoint
from gan_engine.system.checkpoint import CheckpointError, Keeper
from gan_engine.system.random_state import rng_state, set_rng_state


def state_of(nimg, size=1000):
    return {
        "nimg": nimg,
        "G": {"weight": torch.full((size,), float(nimg))},
        "config": {"lr": 2e-4, "betas": (0.0, 0.99)},
    }


def run(script, *args):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, args)], capture_output=True, text=True, timeout=120
    )


def test_what_is_saved_is_loaded(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    adam = torch.optim.Adam(net.parameters(), betas=(0.0, 0.99))
    net(torch.randn(5, 3)).square().sum().backward()
    adam.step()
    path = tmp_path / "a" / "b.pt"
    checkpoint.save(
        path, {"net": net.state_dict(), "adam": adam.state_dict(), "bf16": torch.ones(2, dtype=torch.bfloat16)}
    )
    state = checkpoint.load(path)
    for name, value in net.state_dict().items():
        assert torch.equal(state["net"][name], value)
    other = torch.optim.Adam(net.parameters())
    other.load_state_dict(state["adam"])
    assert other.param_groups[0]["betas"] == (0.0, 0.99)
    assert torch.equal(other.state[net[0].weight]["exp_avg_sq"], adam.state[net[0].weight]["exp_avg_sq"])
    assert state["bf16"].dtype == torch.bfloat16
    assert os.listdir(path.parent) == ["b.pt"]


def test_torch_reads_the_file_by_itself(tmp_path):
    checkpoint.save(tmp_path / "a.pt", state_of(7))
    assert torch.load(tmp_path / "a.pt", weights_only=True)["nimg"] == 7


def test_a_view_does_not_carry_its_whole_storage(tmp_path):
    checkpoint.save(tmp_path / "a.pt", {"row": torch.zeros(1000, 1000)[3]})
    assert (tmp_path / "a.pt").stat().st_size < 10_000


@pytest.mark.parametrize(
    "value", [np.float64(1), {1, 2}, torch.float32, random.Random(0)], ids=lambda value: type(value).__name__
)
def test_other_types_are_refused_by_place(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] must be .* got "):
        checkpoint.save(tmp_path / "a.pt", {"a": [0, value]})
    assert not list(tmp_path.iterdir())


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path):
    path = tmp_path / "a.pt"
    checkpoint.save(path, {"x": torch.arange(4)})
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match=r"damaged|no checkpoint"):
            checkpoint.load(path)
    for length in (*range(0, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"a.pt: (cut short|damaged)"):
            checkpoint.load(path)


@pytest.mark.parametrize(
    ("name", "content", "want"),
    [
        ("a.onnx", b"\x08\n\x12\x07pytorch", "a file .onnx for other programs; name the checkpoint or the run that"),
        ("a.pt2", b"PK\3\4" + bytes(99) + b"PK\5\6" + bytes(18), "a file .pt2 for other programs; name the checkpoint"),
        (
            "a.pkl",
            b"\x80\x04" + bytes(99),
            "a file .pkl; this may make a checkpoint of it: python -m gan_engine.convert .*a.pkl a.pt",
        ),
        (
            "a.pth",
            b"PK\3\4" + bytes(99) + b"PK\5\6" + bytes(18),
            "a file .pth; this may make a checkpoint of it: python -m gan_engine",
        ),
        ("a.onnx", b"text", None),
        ("a.pth", b"PK\3\4" + bytes(99), None),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, name, content, want):
    (tmp_path / name).write_bytes(content)
    want = f"want a checkpoint of gan_engine, got {want}" if want else "cut short, or no checkpoint of gan_engine"
    with pytest.raises(CheckpointError, match=f"{name}: {want}"):
        checkpoint.load(tmp_path / name)


class Mine:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("signed", [False, True], ids=["foreign", "with a right checksum"])
@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch, write, signed):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    with open(path, "wb") as file:
        write({"G": Mine()}, file, 2) if write is pickle.dump else write({"G": Mine()}, file)
    if signed:
        monkeypatch.setattr(checkpoint, "_detached", lambda value, where: value)
        checkpoint.save(path, {"G": Mine()}) if write is torch.save else sign(path)
    with pytest.raises(CheckpointError, match="mkdir|not loaded|not an archive" if signed else "no checkpoint"):
        checkpoint.load(path)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_is_not_much_larger_in_memory(tmp_path):
    path = tmp_path / "odd.pt"
    checkpoint.save(path, {"G": torch.ones(3)})
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small:
        for entry in plain.infolist():
            small.writestr(entry.filename, plain.read(entry))
        small.writestr("archive/data/more", bytes(1 << 20))
    (tmp_path / "small.pt").write_bytes((tmp_path / "small.pt").read_bytes()[:-2])
    sign(tmp_path / "small.pt")
    with pytest.raises(CheckpointError, match=r"small.pt: not an archive .* want a zip that is not compressed"):
        checkpoint.load(tmp_path / "small.pt")


def test_a_container_in_two_places_is_refused_in_time(tmp_path):
    tree = [torch.ones(2)]
    for _ in range(60):
        tree = [tree, tree]
    tree[0].append(tree)
    torch.save({"G": tree}, tmp_path / "odd.pt")
    (tmp_path / "odd.pt").write_bytes((tmp_path / "odd.pt").read_bytes()[:-2])
    sign(tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=r"odd.pt: .*: want each container in one place, got a list in two"):
        checkpoint.load(tmp_path / "odd.pt")


def test_what_is_shared_in_memory_is_written_and_read(tmp_path):
    shared, x = [torch.ones(2), ()], torch.zeros(3)
    checkpoint.save(tmp_path / "a.pt", {"a": [shared, shared, (), ()], "b": {"c": x, "d": x}})
    state = checkpoint.load(tmp_path / "a.pt")
    assert all(torch.equal(each[0], torch.ones(2)) and each[1] == () for each in state["a"][:2])
    assert state["a"][2:] == [(), ()]
    assert torch.equal(state["b"]["c"], state["b"]["d"])


def sign(path):
    body = path.read_bytes()
    digest = checkpoint.hashlib.sha256(body + b"\0\0").hexdigest().encode()
    path.write_bytes(body + (checkpoint._TAIL - 2).to_bytes(2, "little") + checkpoint._MARK + digest)


def test_what_is_not_there_is_said(tmp_path):
    for ask in (checkpoint.load, checkpoint.find):
        with pytest.raises(CheckpointError, match="nowhere"):
            ask(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no intact checkpoint in it \(there is no kimg-\*\.pt\)$"):
        checkpoint.find(tmp_path)


def test_a_folder_of_runs_names_them(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    named = f"; the runs in it are {tmp_path / 'a'}, {tmp_path / 'b'}"
    with pytest.raises(CheckpointError) as error:
        checkpoint.find(tmp_path)
    assert str(error.value) == f"{tmp_path}: no intact checkpoint in it (there is no kimg-*.pt){named}"
    with pytest.raises(FileNotFoundError) as error:
        record.read(tmp_path)
    assert str(error.value).endswith(f"there is no run.json in it{named}")


def test_keeper_keeps_the_last(tmp_path):
    keeper = Keeper(tmp_path, keep=2)
    paths = [keeper.save(nimg, state_of(nimg)) for nimg in (0, 999, 123_456, 1_000_000_000)]
    assert [path.name for path in paths[2:]] == ["kimg-000123.456.pt", "kimg-1000000.000.pt"]
    assert sorted((tmp_path / "checkpoints").iterdir()) == sorted(paths[2:])
    assert (
        checkpoint.find(tmp_path) == checkpoint.find(tmp_path / "checkpoints") == checkpoint.find(paths[3]) == paths[3]
    )


def test_find_passes_over_damage_and_names_it(tmp_path):
    keeper = Keeper(tmp_path, keep=3)
    old, middle, new = (keeper.save(nimg, state_of(nimg)) for nimg in (1000, 2000, 3000))
    new.write_bytes(new.read_bytes()[:-300])
    middle.write_bytes(b"")
    with pytest.warns(UserWarning) as warned:
        assert checkpoint.find(tmp_path) == old
    assert [name in str(each.message) for name, each in zip((new.name, middle.name), warned, strict=True)] == [
        True,
        True,
    ]


def test_a_run_resumed_from_an_older_checkpoint_goes_on_from_there(tmp_path):
    keeper = Keeper(tmp_path, keep=2)
    for nimg in (1000, 2000, 3000):
        last = keeper.save(nimg, state_of(nimg))
    keeper = Keeper(tmp_path, keep=2, nimg=2000)
    assert checkpoint.find(tmp_path) == keeper.newest() != last  # a kill now leaves no way back to the stretch
    new = keeper.save(2500, state_of(2500))
    assert checkpoint.find(tmp_path) == new
    names = sorted(path.name for path in new.parent.iterdir())
    assert names == ["kimg-000002.000.pt", "kimg-000002.500.pt", "kimg-000003.000.pt.rewound"]


def test_kills_at_random_moments_leave_an_intact_newest(tmp_path):
    """Twelve writers are killed in the middle of saving; the newest checkpoint is whole and never goes back."""
    script = """
        import itertools, os, random, signal, sys, time, torch
        from gan_engine.system import checkpoint
        torch.set_num_threads(1)
        random.seed(0)
        newest = 0
        for _ in range(12):
            child = os.fork()
            if child == 0:
                keeper = checkpoint.Keeper(sys.argv[1], keep=2)
                for nimg in itertools.count(newest + 1):
                    keeper.save(nimg, {"nimg": nimg, "x": torch.full((500_000,), nimg, dtype=torch.int32)})
            time.sleep(random.uniform(0.05, 0.25))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            state = checkpoint.load(checkpoint.find(sys.argv[1]))
            assert state["nimg"] >= newest and (state["x"] == state["nimg"]).all()
            newest = state["nimg"]
        print(newest, len(os.listdir(sys.argv[1] + "/checkpoints")))
    """
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr  # every checkpoint is whole, not only the one that find settles for
    saved, files = map(int, done.stdout.split())
    assert saved > 12
    assert files <= 4  # the two kept, one not yet deleted, one unfinished
    Keeper(tmp_path, keep=2)
    assert not list((tmp_path / "checkpoints").glob(".gan_engine-*"))


def test_a_full_disk_leaves_the_old_file(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("needs leave to mount a small file system")
    try:
        keeper = Keeper(tmp_path, keep=2)
        old = keeper.save(1000, state_of(1000, 400_000))
        with pytest.raises(CheckpointError) as caught:
            keeper.save(2000, state_of(2000, 500_000))
        message = str(caught.value)
        assert "kimg-000002.000.pt: not written: No space left on device; needs about 2.0 MB, 1.5 MB free" in message
        assert checkpoint.find(tmp_path) == old
        assert checkpoint.load(old)["nimg"] == 1000
        assert list(old.parent.iterdir()) == [old]
        checkpoint.save(old, state_of(3000, 300_000))
        with pytest.raises(CheckpointError, match="the file of that name is unchanged"):
            checkpoint.save(old, state_of(4000, 700_000))
        assert checkpoint.load(old)["nimg"] == 3000
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_another_failure_says_nothing_of_space(tmp_path):
    (tmp_path / "a.pt").mkdir()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(tmp_path / "a.pt", state_of(1))
    want = "a.pt: not written: want a file, or a name that is not in use, got another kind; the file of that name is"
    assert want in str(caught.value)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_any_step_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "a.pt"
    checkpoint.save(path, state_of(1))
    whole = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(
        CheckpointError, match=r"a.pt: not written: No space left on device; needs about 0.0 MB, .* MB free"
    ):
        checkpoint.save(path, state_of(2))
    monkeypatch.undo()
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_size_limit_is_an_ordinary_error(tmp_path):
    script = """
        import resource, sys, torch
        from gan_engine.system import checkpoint
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        checkpoint.save(sys.argv[1], {"x": torch.zeros(1_000_000)})
    """
    done = run(script, tmp_path / "a.pt")
    assert "CheckpointError" in done.stderr and "not written: File too large; needs about 4.0 MB" in done.stderr
    assert not list(tmp_path.iterdir())


def test_random_numbers_go_on_where_they_were(tmp_path):
    def draw():
        return [random.random(), random.gauss(0, 1), *np.random.randn(3), *torch.randn(3).tolist()]

    draw()
    checkpoint.save(tmp_path / "a.pt", {"rng": rng_state(torch.device("cpu"))})
    first = draw()
    assert draw() != first
    set_rng_state(checkpoint.load(tmp_path / "a.pt")["rng"], torch.device("cpu"))
    assert draw() == first


def test_the_numbers_of_a_gpu_go_on_on_another_gpu(monkeypatch):
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    generators = {first: torch.Generator().manual_seed(1), second: torch.Generator().manual_seed(2)}
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda device: generators[device].get_state())
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda state, device: generators[device].set_state(state))
    state = rng_state(second)
    want = torch.rand(3, generator=generators[second])
    set_rng_state(state, first)
    assert torch.equal(torch.rand(3, generator=generators[first]), want)
    set_rng_state(state, torch.device("cpu"))
    before = generators[first].get_state()
    set_rng_state(rng_state(torch.device("cpu")), first)
    assert torch.equal(generators[first].get_state(), before)
