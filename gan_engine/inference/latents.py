"""What can be done with the latents of a trained generator: walks, tables of mixed styles, and finding a picture."""

import math
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


def walk(
    G: nn.Module, z: Tensor, c: Tensor | None, frames: int, *, batch: int, truncation: float = 1
) -> Iterator[Tensor]:
    """A closed walk through the pictures of z [N, z_dim]: N * frames images, in batches [at most `batch`, C, H, W]

    `frames` steps lead from each picture to the next, and from the last to the first. A generator with w goes straight
    from w to w (Karras et al. 2019, arXiv:1812.04948, section 4.1), any other along the great circle from z to z, whose
    points are as likely as its ends (White 2016, arXiv:1609.04468); classes c [N, c_dim] fade into each other.
    """
    with torch.no_grad():
        ws = G.ws(z, c, truncation=truncation) if hasattr(G, "ws") else None
    for start in range(0, len(z) * frames, batch):
        frame = torch.arange(start, min(start + batch, len(z) * frames), device=z.device)
        i, t = frame // frames, (frame % frames / frames)[:, None]
        j = (i + 1) % len(z)
        with torch.no_grad():
            if ws is not None:
                yield G.synthesis(ws[i].lerp(ws[j], t[:, :, None]))
            else:
                yield G(slerp(z[i], z[j], t), None if c is None else c[i].lerp(c[j], t))


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """sin((1 - t) phi) / sin(phi) a + sin(t phi) / sin(phi) b, phi the angle between a and b

    a, b [N, z_dim], t [N, 1]. Shoemake 1985; for parallel vectors the limit, (1 - t) a + t b.
    """
    cosine = torch.cosine_similarity(a, b, dim=1)[:, None].clamp(-1, 1)
    phi = cosine.arccos()
    straight = phi.sin() < 1e-4
    sine = torch.where(straight, 1.0, phi.sin())
    return torch.where(straight, a.lerp(b, t), (((1 - t) * phi).sin() * a + (t * phi).sin() * b) / sine)


def mixed(G: nn.Module, rows: Tensor, columns: Tensor, layers: list[int], *, batch: int) -> Iterator[Tensor]:
    """Images of rows [R, num_ws, w_dim], in which columns [K, num_ws, w_dim] give the w of `layers`

    Yields [K, C, H, W] for each row. Early layers are pose and shape, late ones colours and texture (Karras et al.
    2019, section 3.1 and figure 3).
    """
    for row in rows:
        ws = row.repeat(len(columns), 1, 1)
        ws[:, layers] = columns[:, layers]
        with torch.no_grad():
            yield torch.cat([G.synthesis(part) for part in ws.split(batch)])


def project(
    G: nn.Module,
    img: Tensor,
    c: Tensor | None,
    distance: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    seed: int = 0,
    lr: float = 0.1,
) -> Iterator[tuple[Tensor, float]]:
    """w [1, w_dim] after each of `steps`, and distance(G(w), img) before it: Adam on w from the mean of its class

    As Karras et al. 2020, arXiv:1912.04958, appendix D, without the noise maps: in the first three quarters w is looked
    for around noise that dies out, and the rate rises and falls. img [1, C, H, W], c [1, c_dim].
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        z = torch.randn(1000, G.config.z_dim, generator=generator).to(img.device)
        many = G.mapping(z, None if c is None else c.expand(len(z), -1))
        spread = (many - many.mean(0)).square().sum(1).mean().sqrt() / math.sqrt(many.shape[1])
    w = G.mapping.mean(c).detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([w], betas=(0.9, 0.999))
    for step in range(steps):
        t = step / steps
        noise = torch.randn(w.shape, generator=generator).to(w) * spread * 0.05 * max(0, 1 - t / 0.75) ** 2
        fall = min(1, (1 - t) / 0.25)
        optimizer.param_groups[0]["lr"] = lr * min(1, t / 0.05) * (0.5 - 0.5 * math.cos(math.pi * fall))
        drawn = G.synthesis((w + noise)[:, None].expand(-1, G.config.num_ws, -1))
        off = distance(drawn, img).sum()
        optimizer.zero_grad()
        off.backward()
        optimizer.step()
        yield w.detach(), float(off.detach())


MOST_NUMBERS = 1_000_000  # of pictures, frames or steps that one call is asked for


def parse_numbers(option: str, text: str, num: int) -> list[int]:
    """The numbers in "0-3,7" and the like, in their order, each below `num`. ValueError, of `option`, for all else."""
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
