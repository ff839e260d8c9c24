"""The frame of a page that needs neither a network nor other files, and pictures inside it."""

import base64

PAGE = """<!DOCTYPE html>
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
  .rows {{ display: flex; gap: .6rem; }}
  .rows ul {{ display: flex; flex-direction: column; justify-content: space-around; }}
  .rows ul {{ list-style: none; margin: 0; padding: 0; white-space: nowrap; }}
  .rows div {{ min-width: 0; }}
  .rows img {{ display: block; }}
  pre {{ background: #f5f5f5; padding: .5rem .8rem; overflow-x: auto; }}
  table {{ border-collapse: collapse; }}
  td, th {{ border-bottom: 1px solid #ddd; padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }}
  td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def embedded(png: bytes) -> str:
    """The address of a picture that is part of the page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
