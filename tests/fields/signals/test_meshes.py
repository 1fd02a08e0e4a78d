"""Meshes as they come: closed, inverted, nested, open, flat, with bad faces, far away; the side of a point is right."""

import re

import numpy as np
import pytest
import torch

from fields.fitting.fit import fit
from fields.fitting.options import FitConfig
from fields.signals import meshes, shapes
from fields.signals.options import ShapeOptions, SignalsConfig
from fields.signals.origin import locate
from fields.signals.registry import load_signals
from fields.signals.shapes import FRESH, around_surface, load_meshes

CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
CUBE = np.array([t for a, b, c, d in QUADS for t in ((a, b, c), (a, c, d))])


def volume(surface):
    """In units of the file."""
    return meshes.signed_volume(surface.vertices, surface.faces) * surface.scale**3


def test_a_cube_in_both_windings():
    for faces in (CUBE, CUBE[:, ::-1]):
        surface = meshes.prepare(CORNERS, faces)
        assert volume(surface) == pytest.approx(8)
        d = surface.distance(np.array([[0.0, 0, 0], [1, 0, 0], [0.8, 0, 0]]))
        assert d == pytest.approx([-0.9, 0.1, -0.1])
        assert surface.inside(np.zeros((1, 3)))[0]


def test_faces_that_look_in_different_directions():
    faces = CUBE.copy()
    faces[::3] = faces[::3, ::-1]
    surface = meshes.prepare(CORNERS, faces)
    assert volume(surface) == pytest.approx(8) and "turned to look the same way" in surface.how


def test_a_missing_face_is_capped():
    surface = meshes.prepare(CORNERS, CUBE[2:])
    assert "1 openings capped" in surface.how and volume(surface) == pytest.approx(8)


def test_a_cube_in_a_cube():
    both = np.concatenate([CORNERS, CORNERS / 2])
    points = np.array([[0.0, 0, 0], [0.7, 0, 0]])  # of the inner cube, of the wall
    cavity = meshes.prepare(both, np.concatenate([CUBE, CUBE[:, ::-1] + 8]))
    solid = meshes.prepare(both, np.concatenate([CUBE, CUBE + 8]))
    assert cavity.inside(points).tolist() == [False, True] and solid.inside(points).tolist() == [True, True]


def test_two_cubes_side_by_side_one_inside_out():
    both = np.concatenate([CORNERS, CORNERS + [4.0, 0, 0]])
    surface = meshes.prepare(both, np.concatenate([CUBE, CUBE[:, ::-1] + 8]))
    assert volume(surface) == pytest.approx(16) and "inside out" in surface.how


def test_edges_of_more_than_two_faces():
    corner = meshes.prepare(np.concatenate([CORNERS, CORNERS + [2.0, 2, 0]]), np.concatenate([CUBE, CUBE + 8]))
    assert corner.how == "closed" and volume(corner) == pytest.approx(16)  # two cubes that share an edge
    fin = meshes.prepare(np.concatenate([CORNERS, [[0, 0, 2.5]]]), np.concatenate([CUBE, [(1, 3, 8)]]))
    where = (np.array([[0, 0, 0.0], [0, 0, 1.9]]) - np.array(fin.offset)) / fin.scale
    assert fin.how.startswith("open:") and fin.inside(where).tolist() == [True, False]
    assert meshes.is_closed(fin.faces) and volume(fin) == pytest.approx(8, rel=0.1)


def test_far_away_and_tiny():
    surface = meshes.prepare(CORNERS * 1e-3 + 1000, CUBE)
    assert np.abs(surface.vertices).max() == pytest.approx(0.9) and surface.inside(np.zeros((1, 3)))[0]
    back = surface.scale * surface.vertices + np.array(surface.offset)
    assert back.min() == pytest.approx(999.999, abs=1e-7) and back.max() == pytest.approx(1000.001, abs=1e-7)


def test_bad_faces_are_left_out():
    vertices = np.concatenate([CORNERS, [[np.nan, 0, 0], [0.5, 0.5, 0.5]], CORNERS[:1]])
    bad = [(0, 1, 8), (0, 0, 1), (9, 9, 9), tuple(CUBE[0])]
    faces = np.concatenate([np.where(CUBE == 0, 10, CUBE), bad])  # and a vertex that stands there twice
    surface = meshes.prepare(vertices, faces)
    assert volume(surface) == pytest.approx(8)
    assert "not finite" in surface.how and "without area" in surface.how and "repeated" in surface.how


@pytest.mark.parametrize(
    ("vertices", "faces", "match"),
    [
        (CORNERS[:4], [(0, 1, 2), (1, 3, 2)], "flat"),
        (CORNERS, np.concatenate([CUBE, CUBE[:, ::-1]]), "cancel"),
        (CORNERS * np.nan, CUBE, "finite vertices"),
        (CORNERS * 0, CUBE, "area"),
        (CORNERS, np.zeros((0, 3)), "no triangles"),
        (CORNERS, [(0, 1, 99)], "vertex 99, but there are 8"),
        (CORNERS * 1e200, CUBE, "coordinates reach 1e.200"),
        (CORNERS * [1, 0.005, 0.005], CUBE, "encloses too little"),
    ],
)
def test_what_encloses_nothing_is_refused(vertices, faces, match):
    with pytest.raises(ValueError, match=match):
        meshes.prepare(np.asarray(vertices), np.asarray(faces, np.int64))


PLAIN = "".join(f"v {x:g} {y:g} {z:g}\n" for x, y, z in CORNERS)
TRIANGLES = "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in CUBE)
ELL = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
SIDES = "".join(f"f {i + 1} {(i + 1) % 6 + 1} {(i + 1) % 6 + 7} {i + 7}\n" for i in range(6))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PLAIN + "".join("f {} {} {} {}\n".format(*(i + 1 for i in q)) for q in QUADS), 8),
        (PLAIN + "".join("f {} {} {} {}\n".format(*(i - 8 for i in q)) for q in QUADS), 8),  # counted from the end
        (PLAIN + "vt 0 0\nvn 0 0 1\n" + re.sub(r"(\d+)(?=[ \n])", r"\1/1/1", TRIANGLES), 8),
        ("mtllib none.mtl\no a\ng one\nusemtl red\n" + PLAIN + TRIANGLES[:48] + "usemtl blue\n" + TRIANGLES[48:], 8),
        (("# from a program\n" + PLAIN + TRIANGLES).replace("\n", "\r\n"), 8),
        ("".join(f"v {x} {y} {z}\n" for z in (0, 1) for x, y in ELL) + "f 6 5 4 3 2 1\nf 7 8 9 10 11 12\n" + SIDES, 3),
    ],
    ids=["quads", "negative", "slashes", "groups", "crlf", "concave"],
)
def test_spellings_of_obj(tmp_path, text, expected):
    path = tmp_path / "a.obj"
    path.write_bytes(text.encode())
    surface = meshes.prepare(*meshes.read_mesh(path))
    assert surface.how == "closed" and volume(surface) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.obj", PLAIN + re.sub(r"\d+", lambda m: str(int(m[0]) - 1), TRIANGLES), "counted from 1"),
        ("a.obj", PLAIN + "l 1 2\n", "no triangles"),
        ("a.obj", PLAIN + TRIANGLES + "f 1 2 99\n", "cannot be read as OBJ"),
        ("a.ply", "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
         "0 0 0\n", "no triangles"),
        ("a.stl", "not a mesh\n", "no triangles"),
        ("a.gltf", '{"asset": {"version": "2.0"}, "buffers": [{"uri": "none.bin", "byteLength": 4}]}', "none.bin"),
    ],
)  # fmt: skip
def test_files_without_a_mesh_say_why(tmp_path, name, content, match):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=match):
        meshes.read_mesh(tmp_path / name)


def test_arrays_that_are_no_mesh_are_refused(tmp_path):
    for v, f in ((CORNERS, CUBE + 0.5), (CORNERS + 1j, CUBE), (np.array([["a", "b", "c"]]), CUBE)):
        np.savez(tmp_path / "a.npz", v=v, f=f)
        with pytest.raises(ValueError, match="whole numbers"):
            meshes.read_mesh(tmp_path / "a.npz")


def test_scenes_with_instances_and_mirrors(tmp_path):
    import trimesh

    scene, cube = trimesh.Scene(), trimesh.Trimesh(CORNERS, CUBE, process=False)
    for i, turn in enumerate((np.diag([1, 1, 1, 1.0]), np.diag([-2, 2, 2, 1.0]))):
        turn[0, 3] = 5.0 * i
        scene.add_geometry(cube, geom_name="cube", node_name=f"n{i}", transform=turn)
    scene.export(tmp_path / "a.glb")
    surface = meshes.prepare(*meshes.read_mesh(tmp_path / "a.glb"))
    assert surface.how == "closed" and volume(surface) == pytest.approx(8 + 64)


@pytest.mark.slow
def test_a_ragged_ball_is_remeshed():
    import trimesh

    ball = trimesh.creation.icosphere(3)
    faces = np.delete(np.asarray(ball.faces), np.arange(0, 60, 2), axis=0)  # openings that touch one another
    surface = meshes.prepare(np.asarray(ball.vertices), faces)
    assert surface.how.startswith("open:") and meshes.is_closed(surface.faces)
    assert volume(surface) == pytest.approx(4 / 3 * np.pi, rel=0.1)


def test_a_wall_around_a_cabin_is_hollow():
    import trimesh

    outer, inner = trimesh.creation.icosphere(3, radius=0.8), trimesh.creation.icosphere(3, radius=0.7)
    vertices, faces = np.asarray(outer.vertices), np.asarray(outer.faces)
    deep = meshes._deep(meshes._shut(vertices, faces))
    assert np.linalg.norm(deep, axis=1).max() == pytest.approx(0.8, abs=3 * meshes.STEP)
    wall = np.concatenate([vertices, inner.vertices]), np.concatenate([faces, inner.faces[:, ::-1] + len(vertices)])
    assert not meshes._hollow(vertices, faces, deep) and meshes._hollow(*wall, deep)


@pytest.fixture
def folder(tmp_path):
    """Three good files of three kinds, a scene, and two bad ones."""
    import trimesh

    root = tmp_path / "things"
    root.mkdir()
    trimesh.creation.icosphere(2).export(root / "ball.ply")
    trimesh.creation.box((1, 2, 3)).export(root / "box.stl")
    trimesh.creation.cylinder(1, 2).export(root / "tin.off")
    scene = trimesh.Scene([trimesh.creation.box((1, 1, 1))])
    scene.add_geometry(trimesh.creation.icosphere(1), transform=trimesh.transformations.translation_matrix([5, 0, 0]))
    scene.export(root / "two.glb")
    (root / "bad.obj").write_text("not a mesh")
    (root / "flat.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    return root


def test_a_folder_of_meshes(folder, tmp_path, capsys):
    options = ShapeOptions(near=100, uniform=50)
    found = load_meshes(folder, options, cache=tmp_path / "cache")
    assert [i.split("/")[1] for i in found.ids] == ["ball.ply", "box.stl", "tin.off", "two.glb"]
    assert [n for n, _ in found.skipped] == ["bad.obj", "flat.obj"] and "flat" in capsys.readouterr().err
    assert found.points(found.architecture(), [0, 3]).shape == (2, 150, 3)
    assert found.describe()["placed"]["things/box.stl"]["scale"] == pytest.approx(1.5 / 0.9)
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:100])  # cut off: made again, the same
    again = load_meshes(folder, options, cache=tmp_path / "cache")
    assert (again.around(2) == found.around(2)).all()
    with pytest.raises(ValueError, match="2 files cannot be used"):
        load_meshes(folder, options, strict=True, cache=tmp_path / "cache")


def test_repairs_are_said(tmp_path, capsys):
    import trimesh

    (tmp_path / "m").mkdir()
    for name, faces in (("whole", CUBE), ("open", CUBE[2:])):
        trimesh.Trimesh(CORNERS, faces, process=False).export(tmp_path / "m" / f"{name}.ply")
    (tmp_path / "m" / "page.glb").write_bytes(b"<html>")
    found = load_meshes(tmp_path / "m", ShapeOptions(near=64, uniform=64), cache=tmp_path / "cache")
    said = capsys.readouterr()
    assert "1 of 2 meshes had to be repaired: open.ply: open: 1 openings capped" in said.out
    assert found.skipped[0][0] == "page.glb" and found.skipped[0][1].startswith("it cannot be read as GLB (")


def test_fields_of_meshes_are_measured_at_points_that_no_fit_has_seen(folder, tmp_path):
    options = ShapeOptions(near=60, fine=30, uniform=50, target="distance")
    found = load_meshes(folder, options, cache=tmp_path / "cache")
    points, values = found.measured(found.architecture(), [0])
    assert points.shape == (1, sum(FRESH.values()), 3) and bool((values.abs() <= 1).all())
    assert torch.equal(found.measured(found.architecture(), [0])[0], points)
    seen = {tuple(p) for p in found.around(0)[:, :3].tolist()}
    assert not seen & {tuple(p) for p in points[0].tolist()}
    assert found.around(0).shape == (140, 4) and found.describe()["points"]["fine"] == 30
    near, fine = (float(found.around(0)[where, 3].abs().mean()) for where in (slice(60), slice(60, 90)))
    assert fine < near / 2


def test_points_of_meshes_beyond_the_memory_are_read_again(folder, tmp_path, monkeypatch):
    found = load_meshes(folder, ShapeOptions(near=20, uniform=20), cache=tmp_path / "cache")
    first = found.around(0)
    monkeypatch.setattr(shapes, "KEPT", 2 * first.nbytes)
    for i in range(4):
        found.around(i)
    assert len(found._made) <= 2 and torch.equal(found.around(0), first)


def test_points_near_the_surface_are_near():
    surface = meshes.prepare(CORNERS, CUBE)
    points = around_surface(surface, ShapeOptions(near=500, uniform=500, spread=0.02))
    assert np.abs(points[:500, 3]).mean() < 0.02 < np.abs(points[500:, 3]).mean()
    exact = np.linalg.norm(np.maximum(np.abs(points[:, :3]) - 0.9, 0), axis=1)  # of a cube, outside
    outside = points[:, 3] > 0
    assert np.allclose(exact[outside], points[outside, 3], atol=1e-5)


def test_meshes_are_fitted(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = FitConfig(
        str(folder),
        out=tmp_path / "fields",
        steps=60,
        meta_steps=3,
        threads=1,
        shape=ShapeOptions(near=512, uniform=512),
    )
    data = fit(config)
    assert data.kind.measure.name == "IoU (fresh points)" and data.quality("train").min() > 0.6
    again = load_signals(locate(data.signals, data.origin, None, None)[0])
    assert again.options.near == 512 and again.options.fine == 0 and again.digest() == data.signals["digest"]
    assert isinstance(load_signals(SignalsConfig(str(folder))).name, str)
