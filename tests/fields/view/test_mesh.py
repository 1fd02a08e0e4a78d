"""Surfaces of fields: closed, the right size, at any resolution; fields without a surface are named, not raised."""

import numpy as np
import pytest
import torch

from fields.fitting.starts import random_rows
from fields.model import FieldConfig
from fields.signals.solids import solid
from fields.view import mesh as meshing
from fields.view.shading import turntable, view

CONFIG = FieldConfig(hidden=(4,), octaves=0, in_dim=3, output="linear")


def ball(points, radius=0.6):
    return points.norm(dim=1) - radius


def constant(value):
    """A field that says one number everywhere."""
    row = torch.zeros(CONFIG.size)
    row[-1] = value
    return row


def test_a_ball_has_its_volume_and_looks_outwards():
    found = meshing.mesh_volume(meshing.sample_volume(ball, 64))
    assert found.outcome == "surface" and found.closed
    assert found.volume() == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.01)
    assert np.linalg.norm(found.vertices, axis=1) == pytest.approx(0.6, abs=0.01)


def test_coarse_to_fine_finds_the_same_surface():
    item = solid(0, 1)  # thin legs and holes

    def values(points):
        return torch.from_numpy(item.distance(points.numpy())).float()

    fine, quick = (meshing.sample_volume(values, 96, coarse=c) for c in (96, 24))
    assert ((fine < 0) == (quick < 0)).all()
    a, b = meshing.mesh_volume(fine), meshing.mesh_volume(quick)
    assert a.closed and np.array_equal(a.faces, b.faces) and np.allclose(a.vertices, b.vertices, atol=1e-5)


def test_a_sheet_thinner_than_the_coarse_grid_is_found():
    def values(points):
        return (points[:, 0] - 1 / 64).abs() - 0.005  # between the points of 32 cells, on those of 128

    found = meshing.sample_volume(values, 128, coarse=32)
    assert (found < 0).any() and meshing.mesh_volume(found).closed


def test_a_shape_that_leaves_the_cube_is_closed_at_its_faces():
    found = meshing.mesh_volume(meshing.sample_volume(lambda p: p[:, 2] - 0.25, 32))
    assert found.closed and found.volume() == pytest.approx(2 * 2 * 1.25, rel=0.01)
    assert np.abs(found.vertices).max() <= 1


@pytest.mark.parametrize(
    ("value", "below", "outcome"),
    [
        (1.0, True, "empty"),
        (-1.0, True, "full"),
        (0.0, True, "empty"),
        (1.0, False, "full"),
        (float("nan"), True, "not finite"),
    ],
)
def test_fields_without_a_surface_have_an_outcome(tmp_path, value, below, outcome):
    found = meshing.mesh_field(CONFIG, constant(value), 16, below=below)
    assert found.outcome == outcome and not found.closed and found.volume() == 0
    with pytest.raises(ValueError, match=outcome):
        meshing.save_mesh(tmp_path / "a.glb", found)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_files_come_back_closed_and_where_they_stood(tmp_path, suffix):
    import trimesh

    found = meshing.mesh_volume(meshing.sample_volume(ball, 24))
    meshing.save_mesh(tmp_path / f"a{suffix}", found, scale=2.0, offset=(10.0, 0.0, 0.0))
    back = trimesh.load_scene(tmp_path / f"a{suffix}").to_mesh()
    assert back.is_watertight and back.volume == pytest.approx(8 * found.volume(), rel=0.01)
    assert back.bounds.mean(0) == pytest.approx([10, 0, 0], abs=0.01)


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj", ".off", ".stl"])
@pytest.mark.parametrize(("scale", "at"), [(1e-9, 0.0), (0.5, 1e6), (1e-3, -12345.678), (1e12, 0.0)])
def test_files_hold_the_digits_that_a_shape_needs_where_it_stood(tmp_path, suffix, scale, at):
    from fields.signals.meshes import read_mesh

    found = meshing.mesh_volume(meshing.sample_volume(ball, 12))
    path, far = tmp_path / f"a{suffix}", abs(at) > 1
    if suffix == ".stl" and far:
        with pytest.raises(ValueError, match="STL stores 7 digits"):
            meshing.save_mesh(path, found, scale=scale, offset=(at, 0.0, at))
        return
    meshing.save_mesh(path, found, scale=scale, offset=(at, 0.0, at))
    vertices, faces = read_mesh(path)
    back = (vertices[faces] - [at, 0, at]) / scale
    assert np.abs(back - found.vertices[found.faces]).max() < 1e-5


def test_level_and_sign_of_logits():
    config = FieldConfig(hidden=(4,), octaves=0, in_dim=3)
    row = random_rows(config, [0])[0]
    above = meshing.field_volume(config, row, 8, below=False)
    assert torch.equal(above, -meshing.field_volume(config, row, 8, below=True))
    assert torch.allclose(meshing.field_volume(config, row, 8, below=False, level=1.386), above + 1.386, atol=1e-5)


def test_wrong_fields_sizes_and_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 coordinates"):
        meshing.field_volume(FieldConfig(), torch.zeros(593), below=True)
    with pytest.raises(ValueError, match="--size"):
        meshing.sample_volume(ball, 5000)
    with pytest.raises(ValueError, match=".glb"):
        meshing.save_mesh(tmp_path / "a.doc", meshing.mesh_volume(meshing.sample_volume(ball, 8)))


def test_views_show_the_shape_on_white():
    volume = meshing.sample_volume(ball, 32)
    picture = view(volume, 48)
    assert picture.shape == (48, 48, 3) and float(picture.min()) >= 0 and float(picture.max()) <= 1
    assert picture[0, 0].tolist() == [1, 1, 1] and float(picture[20, 24].mean()) < 0.95
    assert torch.equal(view(torch.ones(9, 9, 9), 16), torch.ones(16, 16, 3))
    frames = list(turntable(meshing.sample_volume(lambda p: ball(p - torch.tensor([0.3, 0, 0]), 0.4), 24), 24, 4))
    assert len(frames) == 4 and not torch.equal(frames[0], frames[1])
