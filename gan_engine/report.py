"""python -m gan_engine.report RUN: a run on one page, RUN/report.html. Training writes that page too, when it ends.

--serve shows the page in a browser of this machine while the run goes on.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from gan_engine import plugins
from gan_engine.command_line import console, flags
from gan_engine.inference import copies
from gan_engine.runs import live, report
from gan_engine.system import fields


@dataclass(frozen=True)
class Options:
    """Write report.html into the directory of a run: its pictures, alarms, numbers and flags on one page."""

    run: fields.Positional[Path]
    """Directory of the run."""
    copies: bool = False
    """First compare samples of the newest checkpoint with the training images: does G copy them?
    The answer is kept in the directory, for later reports."""
    device: str = "auto"
    """Where --copies draws. cpu, cuda or cuda:N. auto: the first GPU if there is one."""
    plugin: fields.UseAppendAction[tuple[str, ...]] = ()
    """With --copies, a Python file or module that the run had as a plug-in. Once for each."""
    serve: bool = False
    """Write nothing, and show the page on 127.0.0.1 until Ctrl-C. It renews itself while the run goes on."""
    port: int | None = None
    """The port of --serve. None: a free one."""

    def __post_init__(self) -> None:
        if self.port is not None and not self.serve:
            raise ValueError("port: want --serve beside it")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ValueError(f"port: want 1 to 65535, got {self.port}")


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    options = flags.parse(Options, argv, command="report")
    if options.copies:
        plugins.load(*options.plugin)
        copies.write(options.run, device=options.device)
    if not options.serve:
        print(report.write(options.run))
        return
    with live.Server(options.run, options.port) as server:
        try:
            shown = f"{server.address} shows the run, every {live.REFRESH} s anew while it goes on"
            print(f"{shown}; Ctrl-C ends", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nended: the page is shown no more, and the run was not touched")


if __name__ == "__main__":
    sys.exit(main())
