"""Any file name can be printed on one line, and pasted into a shell."""

import subprocess

import pytest

from gan_engine.system.names import counted, legible, shell_word

NAMES = [
    *(
        "plain",
        "cost$_$1",
        "50% {of} it",
        "<b>bold",
        'it\'s "quoted"',
        "two words",
        "#1?",
        "[x]*",
        "-dash",
        "--out",
    ),
    *(
        "line\nbreak",
        "tab\t",
        "\x1b[31mred",
        "emoji 😀",
        "bytes \udcff\udc80",
        "back\\slash\n",
        "`touch x`",
        "$(id)",
        "~",
    ),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_quoted_name_is_that_name_in_a_shell(name, tmp_path):
    (tmp_path / name).mkdir()
    command = f"cd -- {shell_word(name)} && pwd -P"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True)
    assert done.stdout == bytes(tmp_path / name) + b"\n"
    assert shell_word(name)[0] != "-" and "\n" not in shell_word(name)
    shell_word(name).encode()


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_legible_name_is_one_line_of_text(name):
    text = legible(name)
    assert text.encode() and len(text.splitlines()) == 1
    assert text == name or any(c in name for c in "\n\t\x1b\udcff")


def test_counts_agree_with_their_noun():
    assert [counted(num, "file") for num in (0, 1, 5000)] == ["0 files", "1 file", "5,000 files"]
    assert counted(1, "class", "classes") == "1 class" and counted(2, "class", "classes") == "2 classes"


def test_a_long_name_is_cut():
    assert legible("x" * 300, most=10) == "x" * 9 + "…" and legible("x" * 10, most=10) == "x" * 10
