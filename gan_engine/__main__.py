"""gan-engine COMMAND, or python -m gan_engine COMMAND: every command under one name.

A command is imported only when it is called, so that --help answers at once.
"""

import difflib
import importlib
import sys

import gan_engine
from gan_engine.command_line import console

COMMANDS = {
    "train": "train a GAN on images, pairs or volumes, into a run directory",
    "generate": "draw pictures from a trained generator",
    "evaluate": "measure a trained generator against images",
    "compare": "put the measurements of several runs beside each other, on one page",
    "translate": "turn pictures into other pictures, with pix2pix or cyclegan",
    "upscale": "enlarge pictures, with srgan",
    "export": "write a trained generator as ONNX, torch.export or TorchScript, for other programs",
    "convert": "read weights of other programs, or write ours for them",
    "report": "write a report of a run, report.html",
    "augment": "show what each augmentation does to images",
    "penalties": "say which level of gradient penalties a discriminator of yours gets, and why",
    "info": "say which backends run on this machine, and why the others do not",
}

# {what other programs call a command: the command here}
ELSEWHERE = {
    **dict.fromkeys(("sample", "draw", "gen_images", "gen_video", "style_mixing"), "generate"),
    **dict.fromkeys(("project", "projector", "invert"), "generate --project"),
    **dict.fromkeys(("test", "eval", "fid", "metrics", "calc_metrics"), "evaluate"),
    **dict.fromkeys(("serve", "demo", "plot"), "report"),
    **dict.fromkeys(("resume", "finetune"), "train"),
}

USAGE = """\
usage: gan-engine COMMAND [ARGUMENTS]
       python -m gan_engine COMMAND [ARGUMENTS]

{about}

{commands}

gan-engine COMMAND --help lists the flags of a command. gan-engine --version prints the version.
"""


@console.command
def main(argv: list[str]) -> int:
    """Run the command that the first argument names, and return its exit status."""
    name, *arguments = argv or ["--help"]
    if name in COMMANDS:
        package = importlib.import_module(f"gan_engine.{name}")
        module = package if hasattr(package, "main") else importlib.import_module(f"gan_engine.{name}.__main__")
        return module.main(arguments)
    if name in ("-h", "--help"):
        commands = "\n".join(f"  {command:10} {about}" for command, about in COMMANDS.items())
        print(USAGE.format(about=gan_engine.__doc__, commands=commands), end="")
        return 0
    if name == "--version":
        print(f"gan-engine {gan_engine.__version__}")
        return 0
    close = [ELSEWHERE[name]] if name in ELSEWHERE else difflib.get_close_matches(name, COMMANDS, n=1)
    raise ValueError(
        f"command: want one of {', '.join(COMMANDS)}, got {name}" + (f"; did you mean {close[0]}?" if close else "")
    )


if __name__ == "__main__":
    sys.exit(main())
