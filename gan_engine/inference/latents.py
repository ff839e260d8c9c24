"""Walks through the latents of a trained generator, and tables of mixed styles.

Images are made without gradients. Every generator here leaves `no_grad` before it yields, because `no_grad` would
otherwise be on in its caller.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def walk(
    G: nn.Module, z: Tensor, c: Tensor | None, frames: int, *, batch: int, truncation: float = 1
) -> Iterator[Tensor]:
    """A closed walk through the pictures of z [N, z_dim]: N * frames images, in batches [at most `batch`, C, H, W]

    `frames` steps lead from each picture to the next, and from the last to the first. A generator with w goes straight
    from w to w (`walk_in_w`). Any other generator goes along the great circle from z to z. Its points are as likely as
    its ends (White 2016, arXiv:1609.04468). Classes c [N, c_dim] fade into each other.
    """
    if hasattr(G, "ws"):
        with torch.no_grad():
            ws = G.ws(z, c, truncation=truncation)
        yield from walk_in_w(G, ws, frames, batch=batch)
        return
    for i, j, t in _steps(len(z), frames, batch, z.device):
        with torch.no_grad():
            img = G(slerp(z[i], z[j], t), None if c is None else c[i].lerp(c[j], t))
        yield img


def walk_in_w(G: nn.Module, ws: Tensor, frames: int, *, batch: int) -> Iterator[Tensor]:
    """Like `walk`, straight from each of ws [N, num_ws, w_dim] to the next (4.1 of Karras et al. 2019, 1812.04948)"""
    for i, j, t in _steps(len(ws), frames, batch, ws.device):
        with torch.no_grad():
            img = G.synthesis(ws[i].lerp(ws[j], t[:, :, None]))
        yield img


def _steps(num: int, frames: int, batch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(i, j, t) of the frames of a closed walk, in batches: each frame is t [B, 1] of the way from i [B] to j [B]"""
    for start in range(0, num * frames, batch):
        frame = torch.arange(start, min(start + batch, num * frames), device=device)
        i = frame // frames
        yield i, (i + 1) % num, (frame % frames / frames)[:, None]


def images_of(G: nn.Module, ws: Tensor, *, batch: int) -> Iterator[Tensor]:
    """The images of ws [N, num_ws, w_dim] in batches [at most `batch`, C, H, W]"""
    for part in ws.split(batch):
        with torch.no_grad():
            img = G.synthesis(part)
        yield img


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """sin((1 - t) phi) / sin(phi) a + sin(t phi) / sin(phi) b, phi the angle between a and b

    a, b [N, z_dim], t [N, 1]. Shoemake 1985. The limit for parallel vectors is (1 - t) a + t b.
    """
    cosine = torch.cosine_similarity(a, b, dim=1)[:, None].clamp(-1, 1)
    phi = cosine.arccos()
    straight = phi.sin() < 1e-4
    sine = torch.where(straight, 1.0, phi.sin())
    return torch.where(straight, a.lerp(b, t), (((1 - t) * phi).sin() * a + (t * phi).sin() * b) / sine)


def mixed(G: nn.Module, rows: Tensor, columns: Tensor, layers: list[int], *, batch: int) -> Iterator[Tensor]:
    """Images with the w of columns [K, num_ws, w_dim] in `layers`, and of rows [R, num_ws, w_dim] in the others

    Yields [K, C, H, W] for each row. Early layers decide on pose and shape, late layers on colours and texture (Karras
    et al. 2019, section 3.1 and figure 3).
    """
    for row in rows:
        ws = row.repeat(len(columns), 1, 1)
        ws[:, layers] = columns[:, layers]
        with torch.no_grad():
            img = torch.cat([G.synthesis(part) for part in ws.split(batch)])
        yield img


def table(G: nn.Module, left: Tensor, top: Tensor, layers: list[int], *, batch: int) -> Iterator[Tensor]:
    """Rows of images [K + 1, C, H, W], float32 on the CPU: a table of `mixed` images behind its edges

    left [R, num_ws, w_dim] and top [K, num_ws, w_dim]. The first row is a white image and the images of `top`. Each of
    the R other rows is the image of a `left`, and its mixtures with every `top`.
    """
    edges = torch.cat(list(images_of(G, torch.cat([left, top]), batch=batch))).float().cpu()
    first, others = edges[len(left) :], edges[: len(left)]
    yield torch.cat([torch.ones_like(first[:1]), first])
    for edge, row in zip(others, mixed(G, left, top, layers, batch=batch), strict=True):
        yield torch.cat([edge[None], row.float().cpu()])


MOST_NUMBERS = 1_000_000  # limit of the pictures, frames or steps of one call


def parse_numbers(option: str, text: str, num: int) -> list[int]:
    """The numbers in a text such as "0-3,7", each below `num`. Raises ValueError, which names `option`."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < num:
            raise ValueError(f"{option}: want numbers from 0 to {num - 1}, such as 0-3,7, got {text!r}")
        if last - first >= MOST_NUMBERS:
            raise ValueError(f"{option}: want at most {MOST_NUMBERS:,} numbers, got {text!r}")
        numbers.extend(range(first, last + 1))
    return numbers
