"""Convert a mesh to voxels: the voxels on its surface, and the voxels inside.

Six rays leave the middle of each voxel, in both directions of the three axes, and each ray votes. A ray that starts
inside a solid crosses the surface an odd number of times. If all faces look outwards, it also leaves the solid once
more than it enters (the winding number). A mesh with a missing side still works, because the other rays decide. A
hollow stays hollow if its faces look into the hollow. Solids that overlap become one.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np

ENDINGS = (".obj", ".off", ".ply", ".stl")

# Edges of meshes often pass exactly through the middle of voxels, where a crossing is not well defined. Each ray is
# therefore shifted: by these parts of a voxel, inwards, at the first and the last voxel of a row, and in proportion
# between them. (One number for each of the two directions across the ray.) All four differ, because edges may be
# diagonal too.
_FIRST, _LAST = np.array([0.00137, 0.00353]), np.array([0.00291, 0.00071])
# Crossings of a ray that are closer than this many voxels count as one. They come from a face that exists twice, or
# from two solids that touch.
_SAME = 1e-5
# Pairs of a face and a ray that are computed at once; a pair takes about 200 bytes.
_CHUNK = 2**20


def read_mesh(path: Path, resolution: int) -> tuple[np.ndarray, bool]:
    """-> bool [X, Y, Z] whose longest side has `resolution` voxels, and True if the mesh is only a shell.

    A shell is an open surface with nothing inside, such as a sheet. Raises ValueError for a mesh without faces or
    without extent, and for coordinates that are not finite.
    """
    import trimesh

    mesh = trimesh.load(path, force="mesh", skip_materials=True, process=False)
    if mesh.is_empty or not len(mesh.faces):
        raise ValueError("want a mesh with faces, got none")
    corners = np.asarray(mesh.vertices, np.float64)[np.unique(mesh.faces)]
    if not np.isfinite(corners).all():
        raise ValueError("want finite coordinates, got nan or inf")
    low, extent = corners.min(0), np.ptp(corners, axis=0).max()
    if not 0 < extent < np.inf:
        raise ValueError(f"want a mesh with an extent, got {extent}")
    voxels = (np.asarray(mesh.vertices) - low) / extent * (resolution - 1)  # the middle of voxel i lies at i
    mesh = trimesh.Trimesh(voxels, mesh.faces, process=False)
    surface = mesh.voxelized(1.0).matrix
    inside = _inside(mesh.triangles, surface.shape)
    mesh.merge_vertices()
    filled = surface | inside | _enclosed(surface, inside)
    return filled, bool((filled == surface).all() and not mesh.is_watertight)


def _enclosed(surface: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """bool [X, Y, Z]: True in rooms closed by the surface, if half or more of a room's voxels are `inside`."""
    from scipy import ndimage

    rooms, count = ndimage.label(~np.pad(surface, 1))
    rooms = rooms[1:-1, 1:-1, 1:-1]
    sizes, filled = (np.bincount(rooms.ravel(), weights, count + 1) for weights in (None, inside.ravel()))
    solid = filled >= np.maximum(sizes, 1) / 2
    solid[:2] = False  # label 0 is the surface; label 1 is the room outside, which holds the first voxel of the margin
    return solid[rooms]


def _inside(triangles: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """bool [X, Y, Z]: True where more than half of six rays vote inside, by winding number or by odd crossings.

    triangles: [F, 3, 3], coordinates of the corners in voxels.
    """
    winding, odd = np.zeros(shape), np.zeros(shape, np.int8)
    for axis in range(3):
        order = (axis, *(other for other in range(3) if other != axis))
        turned = [values.transpose(order) for values in (winding, odd)]  # views
        # A cyclic order of the axes keeps the sense of rotation. The order (1, 0, 2) reverses it.
        _add_votes(triangles[..., order], -1 if axis == 1 else 1, *turned)
    return (abs(winding) > 3) | (odd > 3)


def _add_votes(triangles: np.ndarray, sense: int, winding: np.ndarray, odd: np.ndarray) -> None:
    """Add the votes of the two rays along the first axis, for every voxel: winding numbers, and how many are odd."""
    length, *plane = winding.shape
    column, depth, sign = _crossings(triangles, tuple(plane))
    if not len(column):
        return
    order = np.lexsort((depth, column))
    column, depth, sign = column[order], depth[order], sense * sign[order]
    first = np.flatnonzero(np.append(True, (np.diff(column) > 0) | (np.diff(depth) > _SAME)))
    column, depth, sign = column[first], depth[first], np.sign(np.add.reduceat(sign, first))
    voxel = np.ceil(depth).astype(np.int64).clip(0, length)  # the first voxel behind the crossing
    signs, counts = (np.zeros((length + 1, np.prod(plane)), np.int32) for _ in range(2))
    np.add.at(signs, (voxel, column), sign)
    np.add.at(counts, (voxel, column), 1)
    for values in (signs, counts):
        np.cumsum(values, axis=0, out=values)
    before, total = signs[:length], signs[length]
    winding += (2 * before - total).reshape(winding.shape)  # crossings below the voxel minus crossings above it
    odd += (counts[:length] % 2 + (counts[length] - counts[:length]) % 2).reshape(odd.shape).astype(odd.dtype)


def _crossings(triangles: np.ndarray, plane: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crossings of the triangles with rays along the first axis, one ray through each cell of `plane`.

    -> column (index of the ray), depth (place on the ray) and sign of each crossing. sign: 1 if the ray enters there,
    because the face looks towards the start of the ray, else -1.
    """
    flat = (triangles[..., 1:] - _FIRST) / (1 - (_FIRST + _LAST) / np.maximum(np.array(plane) - 1, 1))
    low = np.ceil(flat.min(1)).clip(0).astype(np.int64)
    size = (np.floor(flat.max(1)).clip(max=np.array(plane) - 1).astype(np.int64) - low + 1).clip(0)
    pairs = size.prod(1)
    crossings = []
    for start, end in _chunks(pairs):
        face = np.repeat(np.arange(start, end), pairs[start:end])
        within = np.arange(len(face)) - np.repeat(np.cumsum(pairs[start:end]) - pairs[start:end], pairs[start:end])
        y, z = low[face, 0] + within // size[face, 1], low[face, 1] + within % size[face, 1]
        a, b, c = (flat[face, corner] - np.stack([y, z], 1) for corner in range(3))
        parts = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)])
        area = parts.sum(0)
        hit = ((parts > 0).all(0) | (parts < 0).all(0)) & (area != 0)
        weights = parts[:, hit] / area[hit]
        depth = (weights * triangles[face[hit], :, 0].T).sum(0)
        crossings.append((y[hit] * plane[1] + z[hit], depth, -np.sign(area[hit]).astype(np.int64)))
    return tuple(np.concatenate(values) for values in zip(*crossings, strict=True))


def _chunks(pairs: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of ranges of faces that have about `_CHUNK` pairs each."""
    parts = np.cumsum(pairs) // _CHUNK
    edges = [0, *(np.flatnonzero(np.diff(parts)) + 1), len(pairs)]
    return list(pairwise(edges))


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
