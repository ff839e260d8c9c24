"""Meshes are filled, even if they are open, wrongly oriented, or made of several parts."""

import numpy as np
import pytest

from gan_engine.data import DataConfig, DataError, load

trimesh = pytest.importorskip("trimesh")
from gan_engine.data import meshes  # noqa: E402

R = 32
BOX = trimesh.creation.box((1, 1, 1))


def share(mesh, tmp_path, ending="obj"):
    """The occupied part of the smallest cube around a mesh, in [0, 1]."""
    mesh.export(tmp_path / f"m.{ending}")
    return meshes.read_mesh(tmp_path / f"m.{ending}", R)[0].sum() / R**3


def moved(mesh, *by, scale=1.0, inverted=False):
    mesh = mesh.copy()
    mesh.apply_scale(scale)
    mesh.apply_translation(by or (0, 0, 0))
    if inverted:
        mesh.invert()
    return mesh


def without_side(mesh, *sides):
    """A box without the sides that have these normals."""
    mesh = mesh.copy()
    mesh.update_faces(~np.isclose(mesh.face_normals[:, None], sides).all(-1).any(1))
    return mesh


def flipped(mesh, faces):
    mesh = mesh.copy()
    mesh.faces[faces] = mesh.faces[faces][:, ::-1]
    return mesh


def together(*parts):
    return trimesh.util.concatenate(parts)


SHELL = 1 - (30 / 32) ** 3
INNER = moved(BOX, scale=0.5)
SPHERE = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
TWO = (BOX, moved(BOX, 0.5, 0.5, 0))  # two boxes that overlap by a quarter, in a cube of side 1.5
CASES = {
    "closed": (BOX, 1),
    "sphere": (SPHERE, np.pi / 6),
    "inside out": (moved(BOX, inverted=True), 1),
    "one side missing": (without_side(BOX, (1, 0, 0)), 1),
    "another side missing": (without_side(BOX, (0, -1, 0)), 1),
    "a tube": (without_side(BOX, (0, 0, 1), (0, 0, -1)), 1),
    "one side missing, inside out": (moved(without_side(BOX, (0, 0, 1)), inverted=True), 1),
    "a sphere with a hole": (trimesh.Trimesh(SPHERE.vertices, SPHERE.faces[40:]), np.pi / 6),
    "faces of both senses": (flipped(BOX, [0, 1, 5]), 1),
    "faces of both senses and one side missing": (flipped(without_side(BOX, (0, 0, 1)), [0, 1, 5]), 1),
    "every face twice": (together(BOX, BOX), 1),
    "every face from both sides": (together(BOX, moved(BOX, inverted=True)), 1),
    "a hollow": (together(BOX, moved(INNER, inverted=True)), 0.875),
    "a hollow in a box inside out": (together(moved(BOX, inverted=True), INNER), 0.875),
    "a hollow sphere": (together(SPHERE, moved(SPHERE, scale=0.6, inverted=True)), np.pi / 6 * (1 - 0.6**3)),
    "a solid in a hollow": (together(BOX, moved(BOX, scale=0.7, inverted=True), moved(BOX, scale=0.4)), 0.84),
    "a solid in a solid": (together(BOX, INNER), 1),
    "solids that overlap": (together(*TWO), 1.75 / 1.5**3),
    "solids that touch": (together(BOX, moved(BOX, 1, 0, 0)), 0.25),
    "solids apart": (together(BOX, moved(BOX, 2, 0, 0)), 2 / 27),
    "a solid inside out beside one that is not": (together(BOX, moved(BOX, 2, 0, 0, inverted=True)), 2 / 27),
    "far away": (moved(BOX, 1e6, -1e6, 1e6), 1),
    "huge": (moved(BOX, scale=1e20), 1),
    "tiny": (moved(BOX, scale=1e-6), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mesh_is_filled(tmp_path, case):
    mesh, want = CASES[case]
    # Voxels on the surface are fully occupied, which adds half a voxel to each side of a wall.
    assert share(mesh, tmp_path) == pytest.approx(want, abs=0.055)


@pytest.mark.parametrize("ending", ["off", "ply", "stl"])
def test_every_format_is_filled(tmp_path, ending):
    assert share(without_side(BOX, (1, 0, 0)), tmp_path, ending) == pytest.approx(1)


def test_squares_and_scenes_of_several_objects_are_filled(tmp_path):
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    squares = ["1 2 4 3", "5 7 8 6", "1 5 6 2", "3 4 8 7", "1 3 7 5"]  # the square at z = 1 is missing
    vertices = "".join("v {} {} {}\n".format(*corner) for corner in corners)
    (tmp_path / "squares.obj").write_text(vertices + "".join(f"f {square}\n" for square in squares))
    assert meshes.read_mesh(tmp_path / "squares.obj", R)[0].mean() == 1
    groups = "".join(f"o part{i}\ng part{i}\nusemtl m{i}\nf {square}\n" for i, square in enumerate(squares))
    (tmp_path / "groups.obj").write_text(vertices + groups)
    assert meshes.read_mesh(tmp_path / "groups.obj", R)[0].mean() == 1


def test_a_sheet_is_a_shell_and_named(tmp_path):
    sheet = trimesh.Trimesh([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], [(0, 1, 2), (0, 2, 3)])
    sheet.export(tmp_path / "sheet.obj")
    BOX.export(tmp_path / "box.obj")
    corner = without_side(BOX, (1, 0, 0), (0, 1, 0), (0, 0, 1))
    corner.export(tmp_path / "corner.obj")
    with pytest.warns(UserWarning, match=r"2 open surfaces, without an inside to fill: corner\.obj, sheet\.obj"):
        data = load(DataConfig(str(tmp_path)), resolution=16, channels=1, kind="voxels")
    assert [(image > 0).sum().item() for image in data.images] == [16**3, 16**3 - 15**3, 256]
    (tmp_path / "corner.obj").unlink()
    with pytest.warns(UserWarning, match=r"1 open surface, without an inside to fill: sheet\.obj"):
        load(DataConfig(str(tmp_path)), resolution=16, channels=1, kind="voxels")


@pytest.mark.parametrize(
    ("ending", "content", "message"),
    [
        ("obj", "", "want a mesh with faces, got none"),
        ("obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n", "want a mesh with faces, got none"),
        ("obj", "v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "want a mesh with an extent, got 0"),
        ("obj", "v nan 1 1\nv 1 1 1\nv 0 1 1\nf 1 2 3\n", "want finite coordinates, got nan or inf"),
        ("off", "", r"broken\.off"),
        ("stl", "", r"broken\.stl"),
        ("ply", "", r"broken\.ply"),
    ],
)
def test_broken_meshes_are_named(tmp_path, ending, content, message):
    (tmp_path / f"broken.{ending}").write_text(content)
    with pytest.raises(DataError, match=f"nothing can be read, 1 image: .*{message}"):
        load(DataConfig(str(tmp_path)), resolution=8, channels=1, kind="voxels")
