"""python -m gan_engine.report RUN: a run on one page, RUN/report.html. Training writes that page too, when it ends.

--serve shows the page in a browser of this machine while the run goes on. --demo writes a second page, RUN/demo.html,
which draws with the generator of the run in a browser.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from gan_engine import plugins
from gan_engine.command_line import console, flags
from gan_engine.inference import copies, demo
from gan_engine.models.checks import check_choice
from gan_engine.models.declaration import Direction
from gan_engine.runs import live, record, report
from gan_engine.system import fields


@dataclass(frozen=True)
class Options:
    """Write report.html into the directory of a run: its pictures, alarms, numbers and flags on one page."""

    run: Annotated[fields.Positional[Path], fields.arg(metavar="RUN")]
    """Directory of the run."""
    copies: bool = False
    """First compare samples of the newest checkpoint with the training images: does G copy them?
    The answer stands on the page, and is kept in the directory for later reports."""
    device: str = "auto"
    """With --copies, where it draws: cpu, cuda or cuda:N. auto: the first GPU if there is one."""
    demo: bool = False
    """Also write demo.html, which draws with the newest checkpoint in a browser, without a network.
    It needs two installations: pip install 'gan-engine[export]', and npm install --no-save onnxruntime-web in
    this folder."""
    onnxruntime_web: Path | None = None
    """With --demo, the folder of onnxruntime-web. None: node_modules/onnxruntime-web here or in a folder above."""
    best: bool = False
    """With --demo, use the checkpoint of the run that measured best in training (train --eval-kimg)."""
    direction: Direction = "A2B"
    """With --demo, the direction of the translation, for cyclegan."""
    plugin: fields.UseAppendAction[tuple[str, ...]] = ()
    """With --copies or --demo, a Python file or module that the run had as a plug-in. Once for each."""
    serve: bool = False
    """Write no report.html, and show the page on 127.0.0.1 until Ctrl-C. It renews itself while the run goes on."""
    port: int | None = None
    """The port of --serve. None: a free one."""

    def __post_init__(self) -> None:
        check_choice(self, direction=Direction)
        for name, default in (("onnxruntime_web", None), ("best", False), ("direction", "A2B")):
            if getattr(self, name) != default and not self.demo:
                raise ValueError(f"{name}: want --demo beside it")
        if self.device != "auto" and not self.copies:
            raise ValueError("device: want --copies beside it")
        if self.plugin and not (self.copies or self.demo):
            raise ValueError("plugin: want --copies or --demo beside it")
        if self.port is not None and not self.serve:
            raise ValueError("port: want --serve beside it")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ValueError(f"port: want 1 to 65535, got {self.port}")


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    options = flags.parse(Options, argv, command="report")
    if options.copies or options.demo:
        record.read(options.run)  # raises unless this is the directory of a run
        plugins.load(*options.plugin)
    if options.copies:
        copies.write(options.run, device=options.device)
        print(*copies.read(options.run)["sentences"], sep="\n")
    if options.demo:
        page, difference = demo.write(
            options.run, package=options.onnxruntime_web, best=options.best, direction=options.direction
        )
        print(f"{page}: {page.stat().st_size / 1e6:.1f} MB; its ONNX draws PyTorch's images up to {difference:.0e}")
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
