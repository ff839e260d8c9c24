"""What volumes look like from outside: pictures of them (`render`), and their surfaces (`surface`).

A volume is [X, Y, Z] with y upwards, and a voxel of it is occupied where it is above 0.
"""

import importlib.util
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.system.whole_file import replacing

# The camera stands far off, to the left of the z axis and above it; the light higher up, so that the three sides of a
# box that are seen differ.
_AZIMUTH, _ELEVATION = math.radians(30), math.radians(25)
_LIGHT = (-0.25, 0.8, 0.5)
_VIEW = 1.5  # half the width of a picture, in half sides of the volume: all of a cube is seen


def render(volumes: Tensor) -> Tensor:
    """volumes [N, 1, R, R, R] -> grey images [N, 1, 2 R, 2 R] in [-1, 1]: what is occupied, on white

    Parallel rays, one for each pixel, end at the first voxel that is occupied. Its brightness is 0.2 + 0.6 max(0, n.l)
    with l towards the light and n the direction in which the occupancy, averaged over 3x3x3 voxels, falls most.
    """
    volumes = volumes.detach().float()
    side = volumes.shape[2]
    index, outside = _rays(side)
    index, outside = index.to(volumes.device), outside.to(volumes.device)
    light = F.normalize(torch.tensor(_LIGHT, device=volumes.device), dim=0)
    images = []
    for volume in volumes[:, 0]:
        occupied = volume > 0
        hits = occupied.flatten()[index] & ~outside  # [2 R, 2 R, steps]
        first = index.gather(2, hits.int().argmax(2, keepdim=True))[..., 0]
        smooth = F.avg_pool3d(F.pad(occupied.float()[None], [2] * 6), 3, stride=1)
        normal = -torch.stack(torch.gradient(smooth[0], dim=(0, 1, 2)), -1)[1:-1, 1:-1, 1:-1]
        shade = 0.2 + 0.6 * (F.normalize(normal, dim=-1) @ light).clamp(min=0)
        images.append(torch.where(hits.any(2), shade.flatten()[first], 1.0))
    return torch.stack(images)[:, None] * 2 - 1


def _rays(side: int) -> tuple[Tensor, Tensor]:
    """Voxels along the rays, nearest first: flat indices [2 R, 2 R, steps], and whether they are outside the volume."""
    sin_a, cos_a, sin_e, cos_e = (f(angle) for angle in (_AZIMUTH, _ELEVATION) for f in (math.sin, math.cos))
    towards = torch.tensor([-sin_a * cos_e, sin_e, cos_a * cos_e])  # from the volume to the camera
    right, up = torch.tensor([cos_a, 0, sin_a]), torch.tensor([sin_a * sin_e, cos_e, -cos_a * sin_e])
    pixel = ((torch.arange(2 * side) + 0.5) / side - 1) * _VIEW
    depth = torch.arange(math.sqrt(3), -math.sqrt(3), -1 / side)  # in steps of half a voxel
    at = -pixel[:, None, None, None] * up + pixel[:, None, None] * right + depth[:, None] * towards
    voxel = ((at + 1) * side / 2).floor().long()
    outside = ((voxel < 0) | (voxel >= side)).any(-1)
    x, y, z = voxel.clamp(0, side - 1).unbind(-1)
    return (x * side + y) * side + z, outside


def require_surfaces() -> None:
    """Raises ValueError where what makes surfaces is not installed."""
    if importlib.util.find_spec("mcubes") is None:
        raise ValueError("surfaces: want PyMCubes, and it is not installed; pip install PyMCubes (the extra meshes)")


def surface(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[X, Y, Z] -> vertices [V, 3] in voxels and triangles int [T, 3], which index them: where `volume` crosses 0

    By marching cubes (Lorensen and Cline 1987), from the centre of one voxel to that of the next. What is outside of
    the volume counts as -1, so that the surface is closed. Seen from outside the corners of a triangle run
    anticlockwise.

    Raises ValueError for values that cannot be below 0, and see `require_surfaces`.
    """
    require_surfaces()
    if volume.dtype.kind in "bu":
        raise ValueError(f"surface: want a volume with values below 0 where it is empty, got {volume.dtype}")
    import mcubes

    vertices, triangles = mcubes.marching_cubes(np.pad(volume.astype(np.float64), 1, constant_values=-1), 0)
    return vertices - 0.5, triangles  # voxel 0 is at 1 of what is padded, and its centre half a voxel from the edge


def write_voxels(path: Path, volumes: np.ndarray) -> None:
    """Write an .npz with `voxels`, bool [N, X, Y, Z]: where `volumes` [N, X, Y, Z] are above 0."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, voxels=volumes > 0)


def write_obj(path: Path, volume: np.ndarray) -> None:
    """Write the `surface` of [X, Y, Z] as a Wavefront .obj; the longest side of the volume is 1 long."""
    vertices, triangles = surface(volume)
    lines = ["v {:g} {:g} {:g}".format(*vertex) for vertex in vertices / max(volume.shape)]
    lines += ["f {} {} {}".format(*triangle) for triangle in triangles + 1]
    with replacing(path) as temporary:
        temporary.write_text("\n".join([*lines, ""]))
