"""A misspelt flag gives an error of one line with the nearest flag, and --help shows the flags in groups."""

import dataclasses
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import tyro

from gan_engine import models, train, upscale
from gan_engine.command_line import flags
from gan_engine.config import GROUPS, Basics, Config
from gan_engine.losses.adversarial import LOSSES
from gan_engine.presets import PRESETS
from gan_engine.saved_config import from_dict, to_dict
from gan_engine.training import run_flags


@dataclass(frozen=True)
class Inner:
    """Of a box."""

    depth: Literal["low", "high"] = "low"
    """How deep."""
    hidden: tyro.conf.Suppress[int] = 0


INNER = Inner()


@dataclass(frozen=True)
class Options:
    """Do something."""

    constant: ClassVar[int] = 1
    place: tyro.conf.Positional[Path]
    """Where."""
    class_: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """Which."""
    resolution: Annotated[int, tyro.conf.arg(aliases=["--res"])] = 32
    """How large."""
    keep_all: bool = True
    """Keep."""
    Box: Inner = INNER


def parse(*argv):
    return flags.parse(Options, argv, command="anything")


def test_every_way_to_write_a_flag_is_known():
    assert flags.known(Options) == {
        **dict.fromkeys(("--class", "--resolution", "--res", "--keep-all", "--no-keep-all"), ()),
        "--depth": ("low", "high"),
    }
    asked = parse("x", "--class", "cat", "--res=64", "--no-keep-all", "--depth", "high")
    assert asked == Options(Path("x"), "cat", 64, False, Inner("high"))
    assert parse("x", "--keep_all", "--resolution", "-3").resolution == -3


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])  # the second has another frame
@pytest.mark.parametrize(
    ("argv", "names"),
    [
        ([], "IN, OUT, --checkpoint PATH, got none"),
        (["a", "--checkpoint", "b"], "OUT, got none"),
        (["a", "b"], "--checkpoint PATH, got none"),
        (["runs/a", "b", "c", "d"], "--checkpoint PATH, got c, d, which no flag takes"),
    ],
)
def test_what_is_missing_is_named_alone(encoding, argv, names, monkeypatch):
    for stream in ("stdout", "stderr"):  # as PYTHONIOENCODING makes them
        errors = "backslashreplace" if stream == "stderr" else "strict"
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding, errors))
    status = upscale.main(argv)
    sys.stderr.flush()
    assert status == 2
    said = sys.stderr.buffer.getvalue().decode()
    assert said == f"error: want {names}; --help explains what a call needs\n"


@pytest.mark.parametrize(
    ("argv", "want"),
    [
        (["--clas", "cat"], "--clas: no such flag; did you mean --class?; --help lists them"),
        (["--keepall"], "--keepall: no such flag; did you mean --keep-all?"),
        (["--no_keepall"], "--no-keepall: no such flag; did you mean --no-keep-all?"),
        (["--resolutoin=3"], "--resolutoin: no such flag; did you mean --resolution?"),
        (["--zzz"], "--zzz: no such flag; --help lists them"),
        (["--hidden", "3"], "--hidden: no such flag"),
        (["--depth", "hihg"], "--depth: invalid choice 'hihg', want one of low, high; did you mean high?"),
        (["--depth=lo"], "--depth: invalid choice 'lo', want one of low, high; did you mean low?"),
        (["--depth"], "--depth: invalid choice '', want one of low, high"),
    ],
)
def test_a_misspelt_flag_or_value_is_one_line(argv, want):
    with pytest.raises(ValueError) as error:
        parse("x", *argv)
    assert str(error.value).startswith(want) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argv", "want"), [(["x", "--res", "many"], "many"), ([], "PATH"), (["x", "y"], "y"), (["x", "--res"], "--res")]
)
def test_other_wrong_calls_are_explained_once(capsys, argv, want):
    with pytest.raises(ValueError, match=want) as error:
        parse(*argv)
    assert "\n" not in str(error.value) and not set("│─|+") & set(str(error.value))
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


def test_help_is_no_error(capsys):
    with pytest.raises(SystemExit) as exit:
        parse("--help")
    shown = capsys.readouterr()
    assert exit.value.code == 0 and "Do something." in shown.out and "Box options" in shown.out and shown.err == ""


# The flags of gan_engine.train


def boxes(text):
    """{title: flags} of the boxes of --help."""
    found = {}
    for line in text.splitlines():
        if title := re.fullmatch(r"\W*(\w* ?options)\W*", line):  # with or without lines around it
            flags_of_box = found.setdefault(title[1].removesuffix(" options"), [])
        elif re.match(r"..--\w", line):
            named = line.strip("│| ").split("  ")[0]  # before what the flag means
            flags_of_box += [word.strip(",") for word in named.split() if word.startswith("--")]
    return found


@pytest.mark.parametrize("preset", ["dcgan", "stylegan2", "gan3d"])
def test_help_lists_the_most_used_flags_first_and_every_flag_once(monkeypatch, capsys, preset):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as exit:
        train.main([preset, "--help"])
    shown = boxes(capsys.readouterr().out)
    assert exit.value.code == 0
    assert list(shown) == ["options", "Model", *(group.__name__ for group in GROUPS)]
    first = [flag for flag in shown["options"] + shown["Model"][:3] if not flag.startswith("--no-")]
    assert first[:6] == ["--data", "--conditional", "--kimg", "--minutes", "--batch-size", "--augment"]
    assert "--res" in first[9:]
    listed = [flag for flags_of_box in shown.values() for flag in flags_of_box]
    expected = flags.known(Config) | flags.known(type(PRESETS[preset]().model))
    assert len(listed) == len(set(listed)) and set(listed) == expected.keys() - {"--model"}


def test_every_field_of_a_run_is_in_one_group():
    grouped = [field.name for group in (Basics, *GROUPS) for field in dataclasses.fields(group)]
    own = {"preset", "model", "channels_of_data", "outside"}
    assert len(grouped) == len(set(grouped)) and {*grouped, *own} == {f.name for f in dataclasses.fields(Config)}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_without_flags_is_itself(preset):
    config = dataclasses.replace(run_flags.parse([preset]), channels_of_data=False)
    assert config == PRESETS[preset]()
    assert from_dict(to_dict(config), "here") == config


@pytest.mark.parametrize(
    ("argv", "want"),
    [
        (["--batchsize", "3"], "--batchsize: no such flag; did you mean --batch-size?"),
        (["--loss", "hnge"], f"invalid choice 'hnge', want one of {', '.join(LOSSES)}"),
        (["--loss", "hnge"], "; did you mean hinge?"),
        (["--hidden", "3"], "--hidden: not a flag of garments, only of vanilla"),
        (["--channel-base", "3"], "--channel-base: not a flag of garments, only of stylegan2"),
        (
            ["wgan", "--epochs", "3"],
            "--epochs: no such flag; the length of a run is --kimg, in thousands of images, or --minutes",
        ),
        (["--learning_rate", "3"], "--learning-rate: no such flag; the learning rate of both networks is --lr"),
        (["--gamma", "5"], "invalid choice '5', want one of fixed, auto; the weight of R1 is --r1-gamma"),
        (["--gamma=5"], "invalid choice '5', want one of fixed, auto; the weight of R1 is --r1-gamma"),
        (["--r1", "5"], "--r1: no such flag; the weight of R1 is --r1-gamma"),
        (["--n-epochs", "5"], "--n-epochs: no such flag; the length of a run is --kimg"),
        (["--n-critics", "5"], "--n-critics: no such flag; did you mean --n-critic?"),
        (["--batch", "5"], "--batch: no such flag; the images of a step are --batch-size"),
        (["--cfg", "stylegan2"], "--cfg: no such flag; the networks are a preset, the first word; --list shows all"),
        (["--mirror=1"], "--mirror: want --mirror or --no-mirror without a value, got 1"),
        (["--no_mirror", "True"], "--no_mirror: want --mirror or --no-mirror without a value, got True"),
        (["stylgan2"], "got stylgan2; did you mean stylegan2?"),
        (["--list", "--kimg", "3"], "--list: no such flag"),
    ],
)
def test_a_misspelt_call_of_train_gets_a_suggestion(capsys, argv, want):
    assert train.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and want in line


def test_help_without_a_preset_lists_the_presets(capsys):
    with pytest.raises(SystemExit) as exit:
        train.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert exit.value.code == 0
    names = [line.split()[0] for line in lines[lines.index("presets:") + 1 :] if line[2] != " "]
    assert names == list(PRESETS) and max(map(len, lines)) <= 110


def test_names_from_other_programs_are_not_flags_here():
    everywhere = flags.known(Config).keys() | {
        flag for family in models.FAMILIES.values() for flag in flags.known(family.Config)
    }
    # The first takes no number, and the second is a box of flags.
    assert everywhere & run_flags.ELSEWHERE.keys() == {"--gamma", "--model"}
    shown = {flag for hint in run_flags.ELSEWHERE.values() for flag in re.findall("--[a-z0-9-]+", hint)}
    assert shown <= everywhere | {"--list"}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("dcgan --kimg abc", "--kimg: want a number, got 'abc'; --help lists the flags"),
        ("dcgan --betas a b", "--betas: want two numbers, got 'a', 'b'; --help lists the flags"),
        ("dcgan --lr 1e-3x", "--lr: want a number, got '1e-3x'; --help lists the flags"),
        ("dcgan --batch-size 2.5", "--batch-size: want a whole number, got '2.5'; --help lists the flags"),
        ("dcgan --threads 2.5", "--threads: want a whole number, got '2.5'; --help lists the flags"),
        ("dcgan --Data photos", "--Data: no such flag; did you mean --data?; --help lists them"),
        ("DCGAN --data photos", "got DCGAN; did you mean dcgan?"),
        ("dcgan --minutes 3m", "--minutes: want a number, got '3m'; --help lists the flags"),
        ("dcgan --kimg", "--kimg: want a value, got none; --help lists the flags"),
        ("--resume", "--resume: want a value, got none; --help lists the flags"),
        (
            "dcgan --betas 0.5,0.99",
            "--betas: want 2 values with spaces between them, got fewer; --help lists the flags",
        ),
        (
            "dcgan --data photos/a.png photos/b.png",
            "data: want one folder or file, got photos/b.png too; a folder may hold several",
        ),
        (
            "dcgan --resolution 33",
            "resolution: want a power of two from 16 to 256, got 33; 32 or 64 is near; --help lists the flags",
        ),
        ("dcgan -kimg 0.03", "-kimg: no such flag; did you mean --kimg?; --help lists them"),
        ("dcgan photos", "no flag takes photos; images are --data photos"),
        ("dcgan nothing", "no flag takes nothing; a value with spaces needs quotes; --help lists the flags"),
        ("--data my big photos", "no flag takes big, photos; a value with spaces needs quotes; --help lists the flags"),
        ("--kimg 1 cgan", "preset: want one, as the first word, got cgan behind other words"),
        ("dcgan cgan", "preset: want one, as the first word, got cgan behind other words"),
        ("mnist", "images are --data mnist"),
        ("photos", "images are --data photos"),
    ],
)
def test_a_wrong_call_gives_an_error_of_one_line(call, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in "ab":
        Path(f"photos/{name}.png").touch()
    assert train.main(call.split()) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and told.endswith(f"{said}\n")
