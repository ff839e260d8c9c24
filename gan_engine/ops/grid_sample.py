"""Bilinear sampling at given positions, differentiable to every order."""

from typing import Any

import torch
from torch import Tensor

import gan_engine.ops.grid_sample_kernels  # noqa: F401  (defines the operators)
from gan_engine import backends
from gan_engine.ops.kernel_op import Function, check_tensors, layout, operators, wide
from gan_engine.ops.linear_per_sample import linear_per_sample
from gan_engine.ops.one_node import one_node


@linear_per_sample
def grid_sample(x: Tensor, grid: Tensor, *, backend: str | None = None) -> Tensor:
    """y[n, c, i, j] = sum over h, w of tent(py - h) * tent(px - w) * x[n, c, h, w]

    with tent(t) = max(0, 1 - |t|) and (px, py) = ((grid[n, i, j] + 1) * (W, H) - 1) / 2 in pixels. This is bilinear
    interpolation with zeros outside of the image; -1 and 1 are the outer edges of the border pixels. The kernels of
    torch.nn.functional.grid_sample(x, grid, align_corners=False) compute the value and the first gradients. A gradient
    penalty on augmented images needs second gradients too. PyTorch 2.11 has none (PyTorch issue 34704), and the second
    gradients of PyTorch 2.13 take as long as these.

    torch.nn.functional.affine_grid(theta, size, align_corners=False) makes the grid of an affine augmentation. PyTorch
    differentiates it to every order.

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16, any strides.
        grid: [N, H', W', 2] of (x, y), in the dtype of x or in float32. Use float32 for half precision images: in
            bfloat16 positions are 1/256 of the image apart.
        backend: see gan_engine.backends; "pytorch" is PyTorch's own kernels.

    Returns:
        y: [N, C, H', W'] in the dtype of x; channels_last if x is. Half precision is computed in float32 and rounded
            once.

    The slope at an integer px or py is the slope on its right, as in PyTorch. y is linear in px and in py between
    integers: only the mixed second derivative by position is not zero.

    Raises:
        ValueError: shapes that do not fit, an image without pixels.
        TypeError: a dtype other than those above.

    Gradients: every order in x and grid.
    """
    check_tensors("grid_sample", x, grid=grid)
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise ValueError(f"grid_sample: x must be [N, C, H, W] with H and W at least 1, got {list(x.shape)}")
    if grid.ndim != 4 or grid.shape[0] != x.shape[0] or grid.shape[3] != 2:
        raise ValueError(f"grid_sample: grid must be [N, H', W', 2] with N = {x.shape[0]}, got {list(grid.shape)}")
    if grid.dtype != x.dtype and grid.dtype != torch.float32:
        raise TypeError(f"grid_sample: grid must be {x.dtype} like x, or torch.float32, got {grid.dtype}")
    if grid.device != x.device:
        raise ValueError(f"grid_sample: grid must be on {x.device} like x, got {grid.device}")
    if backends.choose("grid_sample", x, backend) == "reference":
        return grid_sample_ref(x, grid)
    return _grid_sample(x, grid)


def grid_sample_ref(x: Tensor, grid: Tensor) -> Tensor:
    """The definition of `grid_sample` in PyTorch's own operators: four gathers."""
    dtype = wide(x.dtype)
    x_, (c, h, w) = x.to(dtype), x.shape[1:]
    px, py = (((grid[..., k].to(dtype) + 1) * size - 1) / 2 for k, size in enumerate((w, h)))
    left, top = px.detach().floor(), py.detach().floor()
    y = torch.zeros((), dtype=dtype, device=x.device)
    for column, along_x in ((left, 1 - (px - left)), (left + 1, px - left)):
        for row, along_y in ((top, 1 - (py - top)), (top + 1, py - top)):
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            index = (row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).long()
            corner = x_.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, c, -1)).unflatten(2, grid.shape[1:3])
            y = y + corner * (along_x * along_y * inside)[:, None]
    return y.to(x.dtype, memory_format=layout(x))


# Autograd. S is the sampling, and D and P are its gradients for dy, by the image and by the positions:
#
#   _Sample     y = S(x, grid)
#   _Grad       dx = D(dy, grid),  dgrid = P(dy, x, grid)
#
# _Grad has these gradients for (v, u) = (d_dx, d_dgrid):
#
#   d_dy = S(v, grid) + J    d_grid = P(dy, v, grid) + d<dy, J>/dgrid    d_x = d<dy, J>/dx
#
# J is the slope of S(x, grid) along u. The slope along an axis is the difference of two samples, at the pixels behind
# and before the position, times W / 2 or H / 2. That is the number of pixels in a unit of grid:
#
#   J = W/2 u_x (S(x, grid at ceil(px)) - S(x, grid at floor(px))) + H/2 u_y (... at ceil(py) - ... at floor(py))
#
# Everything is made of _Sample and _Grad again. J is left out if u is None: the grid has no gradients.


class _Sample(Function):
    @staticmethod
    def forward(x, grid):
        return operators.grid_sample(x, grid)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        if dy is None:
            return None, None
        return _Grad.apply(dy, *ctx.saved_tensors, *ctx.needs_input_grad)


class _Grad(Function):
    """(dx [x.shape] or None, dgrid [grid.shape] or None)"""

    @staticmethod
    def forward(dy, x, grid, by_x, by_grid):
        dx, dgrid = operators.grid_sample_grad(dy, x, grid, by_x, by_grid)
        return dx if by_x else None, dgrid if by_grid else None

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, u: Tensor | None) -> tuple:
        dy, x, grid = ctx.saved_tensors
        by_dy, by_x, by_grid, _, _ = ctx.needs_input_grad
        d_dy = d_x = d_grid = None
        dtype = wide(x.dtype)
        dy_, x_, grid_ = dy.to(dtype), x.to(dtype), grid.to(dtype)
        if v is not None:
            v = v.to(dtype)
            d_dy = _Sample.apply(v, grid_) if by_dy else None
            d_grid = _Grad.apply(dy_, v, grid_, False, True)[1] if by_grid else None
        if u is not None:
            grids, steps = _differences(grid_, u.to(dtype), x.shape)
            if by_dy:
                j = (steps * _Sample.apply(x_, grids)).unflatten(2, (4, -1)).sum(2)
                d_dy = j if d_dy is None else d_dy + j
            if by_x or by_grid:
                d_x, d_grids = _Grad.apply(dy_.repeat(1, 1, 4, 1) * steps, x_, grids, by_x, by_grid)
            if by_grid:
                right, left, below, above = d_grids.unflatten(1, (4, -1)).unbind(1)
                mixed = torch.stack([(below + above)[..., 0], (right + left)[..., 1]], -1)
                d_grid = mixed if d_grid is None else d_grid + mixed
        d_dy, d_x, d_grid = (
            None if d is None else d.to(source.dtype) for d, source in ((d_dy, dy), (d_x, x), (d_grid, grid))
        )
        return d_dy, d_x, d_grid, None, None


def _differences(grid: Tensor, u: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """grids [N, 4H', W', 2] and steps [N, 1, 4H', W']; J is the sum of the four quarters of steps * S(x, grids)."""
    size = torch.cat([grid.new_full((1,), n) for n in (shape[3], shape[2])])  # made there: a copy to a GPU would wait
    low = (((grid.detach() + 1) * size - 1) / 2).floor()
    before, after = ((2 * low + 1) / size - 1).unbind(-1), ((2 * low + 3) / size - 1).unbind(-1)
    x, y = grid.unbind(-1)
    places = ((after[0], y), (before[0], y), (x, after[1]), (x, before[1]))
    grids = torch.cat([torch.stack(place, -1) for place in places], 1)
    ux, uy = (u * (size / 2)).unbind(-1)
    return grids, torch.cat([ux, -ux, uy, -uy], 1)[:, None]


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def _grid_sample(x: Tensor, grid: Tensor) -> Tensor:
    return _Sample.apply(x, grid)


def _refuse(x: Tensor, arguments: None) -> str | None:
    if x.device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        return "its gradient on GPUs is not deterministic, which torch.use_deterministic_algorithms asks for"
    return None


backends.register("grid_sample", has=("pytorch",), refuse={"pytorch": _refuse})
