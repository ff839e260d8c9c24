"""A run on one page: `python -m gan_engine.report RUN` writes RUN/report.html, which needs neither network nor files.

Training writes it too, when it ends.
"""

import argparse
import base64
import html
import json
import os
import sys
from pathlib import Path
from typing import Any

from gan_engine.monitors import plot_losses, read_metrics, sample_grids

_GRIDS = 6  # of samples, evenly spaced from the first to the last

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
  img {{ max-width: 100%; image-rendering: pixelated; }}
  img.plot {{ image-rendering: auto; }}
  figure {{ margin: 1rem 0; }}
  .grids {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; }}
  table {{ border-collapse: collapse; }}
  td, th {{ border-bottom: 1px solid #ddd; padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }}
  td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def write(run_dir: str | Path) -> Path:
    """Write report.html into `run_dir`, from what the run has left there so far, and return its path.

    Raises:
        FileNotFoundError: there is no run in `run_dir`.
        OSError: the file cannot be written.
    """
    run_dir = Path(run_dir)
    record = run_dir / "run.json"
    if not record.is_file():
        raise FileNotFoundError(f"{run_dir}: want the directory of a run, and there is no run.json in it")
    run = json.loads(record.read_text())
    title = run_dir.resolve().name
    path = run_dir / "report.html"
    temporary = path.with_name("report.html.tmp")
    temporary.write_text(_PAGE.format(title=html.escape(title), body=_body(run_dir, run)), encoding="utf-8")
    os.replace(temporary, path)
    return path


def _body(run_dir: Path, run: dict[str, Any]) -> str:
    parts = []
    grids = sample_grids(run_dir)
    if grids:
        parts.append(f"<h2>Samples</h2>{_figure(grids[-1][1], _at(grids[-1][0]))}")
    rows = read_metrics(run_dir)
    if rows:
        parts.append(f"<h2>Measurements at {rows[-1]['kimg']:,g} kimg</h2>{_table(_numbers(rows[-1]))}")
    plot = plot_losses(run_dir)
    if plot:
        parts.append(f'<h2>Losses</h2><img class="plot" alt="losses over images shown" src="{_embedded(plot)}">')
    if len(grids) > 1:
        count = min(_GRIDS, len(grids))
        chosen = [grids[round(i * (len(grids) - 1) / (count - 1))] for i in range(count)]
        figures = "".join(_figure(path, _at(nimg)) for nimg, path in chosen)
        parts.append(f'<h2>On the way</h2><div class="grids">{figures}</div>')
    if run["starts"]:
        parts.append(f"<h2>Starts</h2>{''.join(_table(_flat(start)) for start in run['starts'])}")
    parts.append(f"<h2>Configuration</h2>{_table(_flat(run['config']))}")
    return "\n".join(parts)


def _at(nimg: int) -> str:
    return f"{nimg / 1000:,.1f} kimg"


def _figure(path: Path, caption: str) -> str:
    return (
        f'<figure><img alt="samples at {caption}" src="{_embedded(path)}"><figcaption>{caption}</figcaption></figure>'
    )


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _numbers(row: dict[str, Any]) -> dict[str, str]:
    return {
        name: "not finite" if value is None else f"{value:,.4g}"
        for name, value in row.items()
        if "/" in name or name == "seconds"
    }


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat


def _table(values: dict[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td{_number(value)}>{html.escape(value)}</td></tr>"
        for name, value in values.items()
    )
    return f"<table>{rows}</table>"


def _number(value: str) -> str:
    return ' class="number"' if value[:1].isdigit() or value[:2].lstrip("-")[:1].isdigit() else ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gan_engine.report", description=__doc__.split("\n")[0])
    parser.add_argument("run", help="directory of a run")
    try:
        print(write(parser.parse_args().run))
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
