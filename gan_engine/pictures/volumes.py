"""Pictures of volumes (`render`), their surfaces (`surface`), and files of voxels and surfaces.

A volume is [X, Y, Z] with y upwards. A voxel is occupied where its value is above 0.
"""

import importlib.util
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.system.whole_file import buffered, replacing

# The camera is far away, to the left of the z axis and above it. The light is higher up, so that the three visible
# sides of a box differ in brightness.
_AZIMUTH, _ELEVATION = math.radians(30), math.radians(25)
_LIGHT = (-0.25, 0.8, 0.5)
_VIEW = 1.5  # half the width of a picture, in half sides of the volume: a whole cube is visible


def render(volumes: Tensor) -> Tensor:
    """volumes [N, 1, R, R, R] -> grey images [N, 1, 2 R, 2 R] in [-1, 1]: occupied voxels on white

    Parallel rays, one for each pixel, end at the first occupied voxel. Its brightness is 0.2 + 0.6 max(0, n.l): l
    points to the light, and n in the direction in which the occupancy, averaged over 3x3x3 voxels, falls most.
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
    """Voxels along the rays, nearest first: flat indices, and True outside the volume, both [2 R, 2 R, steps]."""
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
    """Raises ValueError if PyMCubes, which makes surfaces, is not installed."""
    if importlib.util.find_spec("mcubes") is None:
        raise ValueError("surfaces: want PyMCubes, and it is not installed; pip install PyMCubes (the extra meshes)")


def surface(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[X, Y, Z] -> vertices [V, 3] in voxels and triangles int [T, 3] of vertices: where `volume` crosses 0

    Marching cubes (Lorensen and Cline 1987) look for the surface between the centres of neighbouring voxels. Voxels
    outside the volume count as -1, so the surface is closed. The corners of a triangle run anticlockwise, seen from
    outside.

    Raises ValueError for types without values below 0, and if PyMCubes is not installed.
    """
    require_surfaces()
    if volume.dtype.kind in "bu":
        raise ValueError(f"surface: want a volume with values below 0 where it is empty, got {volume.dtype}")
    import mcubes

    vertices, triangles = mcubes.marching_cubes(np.pad(volume.astype(np.float64), 1, constant_values=-1), 0)
    return vertices - 0.5, triangles  # padding has moved voxel 0 to 1, and its centre is half a voxel from its edge


def write_voxels(path: Path, volumes: np.ndarray) -> None:
    """Write an .npz with `voxels`, bool [N, X, Y, Z]: where `volumes` [N, X, Y, Z] are above 0."""
    with buffered(path) as file:
        np.savez_compressed(file, voxels=volumes > 0)


def write_obj(path: Path, volume: np.ndarray) -> None:
    """Write the `surface` of [X, Y, Z] as a Wavefront .obj; the longest side of the volume is 1 long."""
    vertices, triangles = surface(volume)
    lines = ["v {:g} {:g} {:g}".format(*vertex) for vertex in vertices / max(volume.shape)]
    lines += ["f {} {} {}".format(*triangle) for triangle in triangles + 1]
    with replacing(path) as temporary:
        temporary.write_text("\n".join([*lines, ""]))
