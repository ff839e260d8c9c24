"""PyTorch's kernels of grid_sample as operators without autograd, with the dtypes and layouts of `grid_sample`."""

import torch

from gan_engine.ops.kernel_op import define, layout, wide


def _sample(x, grid):
    dtype = wide(x.dtype)
    y = torch.ops.aten.grid_sampler_2d(x.to(dtype), grid.to(dtype), 0, 0, False)
    return y.to(x.dtype, memory_format=layout(x))


def _sample_fake(x, grid):
    return torch.empty((*x.shape[:2], *grid.shape[1:3]), dtype=x.dtype, device=x.device, memory_format=layout(x))


def _grad(dy, x, grid, by_x, by_grid):
    dtype = wide(x.dtype)
    dx, dgrid = torch.ops.aten.grid_sampler_2d_backward(
        dy.to(dtype), x.to(dtype), grid.to(dtype), 0, 0, False, [by_x, by_grid]
    )
    dx = dx.to(x.dtype, memory_format=layout(x)) if by_x else x.new_empty(0)
    return dx, dgrid.to(grid.dtype) if by_grid else grid.new_empty(0)


def _grad_fake(dy, x, grid, by_x, by_grid):
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout(x)) if by_x else x.new_empty(0)
    return dx, grid.new_empty(grid.shape if by_grid else 0)


define("grid_sample(Tensor x, Tensor grid) -> Tensor", _sample, _sample_fake)
define(
    "grid_sample_grad(Tensor dy, Tensor x, Tensor grid, bool by_x, bool by_grid) -> (Tensor, Tensor)", _grad, _grad_fake
)
