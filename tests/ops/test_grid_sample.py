"""The promises of grid_sample beyond the properties that every op has."""

import pytest
import torch
import torch.nn.functional as F

from gan_engine import backends
from gan_engine.ops import grid_sample


@pytest.fixture(autouse=True)
def skip_refused(backend: str, device: str) -> None:
    reason = backends.refusal("grid_sample", backend, torch.empty(0, device=device))
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("where", ["inside", "beyond", "pixels", "borders"])
def test_value_and_first_gradients_are_those_of_pytorch(where: str, dtype: torch.dtype, backend: str, device: str):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 8, dtype=dtype, device=device).requires_grad_()
    if where in ("inside", "beyond"):
        grid = (torch.rand(2, 5, 6, 2) * 2 - 1) * (1 if where == "inside" else 3)
    else:  # sizes are powers of two, so that positions in the middle of pixels and on edges are exact
        steps = torch.arange(-2, 11) / 8 * 2 - 1 + (1 / 8 if where == "pixels" else 0)
        grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).expand(2, -1, -1, -1)
    grid = grid.to(device, dtype).requires_grad_()
    got, want = grid_sample(x, grid, backend=backend), F.grid_sample(x, grid, align_corners=False)
    torch.testing.assert_close(got, want)
    dy = torch.randn_like(want)
    for a, b in zip(torch.autograd.grad(got, (x, grid), dy), torch.autograd.grad(want, (x, grid), dy), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_at_a_pixel_the_slope_is_that_on_its_right(backend: str, device: str):
    x = torch.tensor([[[[1.0, 10.0, 100.0, 1000.0]]]], device=device)
    grid = torch.tensor([[[[-0.25, 0.0]]]], device=device).requires_grad_()  # the middle of pixel 1
    y = grid_sample(x, grid, backend=backend)
    assert y.item() == 10
    assert torch.autograd.grad(y.sum(), grid)[0][0, 0, 0, 0].item() == 90 * 4 / 2


def test_a_penalty_on_augmented_images_is_right_through_image_and_transform(backend: str, device: str):
    """R1 on D(augment(x)), the transform differentiable as well; third order for the transform's gradient of it."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, device=device).requires_grad_()
    theta = torch.tensor([[[0.8, -0.3, 0.1], [0.4, 0.9, -0.2]]], dtype=torch.float64, device=device)
    theta = (theta + 0.01 * torch.randn(2, 2, 3, dtype=torch.float64, device=device)).requires_grad_()
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, device=device).requires_grad_()

    def penalty(x: torch.Tensor, theta: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        grid = F.affine_grid(theta, [2, 3, 7, 7], align_corners=False)
        logits = F.conv2d(grid_sample(x, grid, backend=backend), weight).tanh().sum()
        dx, dtheta = torch.autograd.grad(logits, (x, theta), create_graph=True)
        return dx.square().sum() + dtheta.square().sum()

    assert torch.autograd.gradcheck(penalty, (x, theta, weight))


def test_every_order_is_that_of_the_definition(backend: str, device: str):
    torch.manual_seed(0)
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, device=device).requires_grad_()
    grid = torch.rand(1, 3, 3, 2, dtype=torch.float64, device=device).mul(2.4).sub(1.2).requires_grad_()
    found = {}
    for name in (backend, "reference"):
        value, orders = grid_sample(x, grid, backend=name).sin().sum(), []
        for _ in range(4):
            grads = torch.autograd.grad(value, (x, grid), create_graph=True)
            value = sum(g.sin().sum() for g in grads)
            orders += grads
        found[name] = orders
    for got, want in zip(found[backend], found["reference"], strict=True):
        assert want.abs().max() > 0
        torch.testing.assert_close(got, want)


def test_what_does_not_depend_gets_no_gradient(backend: str, device: str):
    """The gradient by the image does not depend on the image: R1 behind a fixed transform is one sampling, no more."""
    if backend == "reference":
        pytest.skip("reference: PyTorch's own double backward makes these zeros")
    x = torch.randn(1, 2, 4, 4, device=device).requires_grad_()
    grid = torch.rand(1, 3, 3, 2, device=device)
    y = grid_sample(x, grid, backend=backend)
    dy = torch.randn_like(y).requires_grad_()
    dx = torch.autograd.grad(y, x, dy, create_graph=True)[0]
    by_x, by_dy = torch.autograd.grad(dx.square().sum(), (x, dy), allow_unused=True)
    assert by_x is None
    torch.testing.assert_close(by_dy, grid_sample(2 * dx, grid, backend=backend))


def test_half_precision_images_keep_the_positions_of_a_float32_grid(backend: str, device: str):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64, device=device, dtype=torch.bfloat16)
    grid = (torch.rand(1, 50, 50, 2, device=device) * 2 - 1).requires_grad_()
    y = grid_sample(x, grid, backend=backend)
    want = F.grid_sample(x.float(), grid, align_corners=False)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, want.bfloat16())
    assert torch.autograd.grad(y.float().sum(), grid)[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("x", "grid", "error", "sentence"),
    [
        (torch.ones(3, 4, 4), torch.ones(1, 2, 2, 2), ValueError, r"x must be \[N, C, H, W\].* got \[3, 4, 4\]"),
        (torch.ones(1, 3, 0, 4), torch.ones(1, 2, 2, 2), ValueError, r"H and W at least 1, got \[1, 3, 0, 4\]"),
        (torch.ones(2, 3, 4, 4), torch.ones(1, 2, 2, 2), ValueError, r"N = 2, got \[1, 2, 2, 2\]"),
        (torch.ones(2, 3, 4, 4), torch.ones(2, 2, 2, 3), ValueError, r"grid must be \[N, H', W', 2\]"),
        (torch.ones(2, 3, 4, 4).int(), torch.ones(2, 2, 2, 2), TypeError, "x must be float32, .* got torch.int32"),
        (torch.ones(2, 3, 4, 4), torch.ones(2, 2, 2, 2).double(), TypeError, "grid must be .* got torch.float64"),
    ],
)
def test_bad_input_is_refused_with_want_and_got(x, grid, error, sentence, backend):
    with pytest.raises(error, match=sentence):
        grid_sample(x, grid, backend=backend)
