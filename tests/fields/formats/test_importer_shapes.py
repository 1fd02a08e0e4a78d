"""Imported fields of volumes, and the real files of other projects where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_files import WRITERS, bring, config_of

from fields import layout
from fields.formats.importer import import_fields
from fields.formats.options import ImportConfig, MeshConfig
from fields.formats.surfaces import write_meshes
from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from fields.view import volumes
from fields.view.mesh import field_volume

SHARED = Path(__file__).parents[4] / "shared" / "data"
REAL = SHARED / "fields"
needs_files = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/fields is not there")


def octahedron(radius: float) -> tuple[FieldConfig, torch.Tensor]:
    """|x| + |y| + |z| - radius, exactly, from six ReLUs."""
    config = FieldConfig(hidden=(6,), octaves=0, in_dim=3, output="linear")
    first = torch.cat([torch.eye(3), -torch.eye(3)])[None]
    layers = [(first, torch.zeros(1, 6)), (torch.ones(1, 1, 6), torch.full((1, 1), -radius))]
    return config, layout.join(layers)


def test_volumes_say_what_is_inside(tmp_path):
    config, row = octahedron(0.75)
    found = volumes.facts(field_volume(config, row[0], 64, below=True))
    assert abs(found["inside"] - 4 / 3 * 0.75**3 / 8) < 0.01 and not found["touches"]
    assert np.allclose(found["bounds"], [[-0.75] * 3, [0.75] * 3], atol=0.04)
    turned = volumes.facts(field_volume(config, row[0], 32, below=False))
    assert turned["touches"] and turned["inside"] > 0.9
    assert volumes.is_distance(config, row) and not volumes.is_distance(config, 100 * row)
    picture = volumes.panels(field_volume(config, row[0], 32, below=True))
    assert picture.shape == (33, 4 * 33 + 6, 3) and float(picture.min()) >= 0 and float(picture.max()) <= 1
    left, right = picture[16, :16].mean(), picture[16, 17:33].mean()
    assert left != right  # light falls from the right
    assert volumes.facts(field_volume(config, octahedron(-1.0)[1][0], 8, below=True))["bounds"] is None


def test_views_are_not_mirrored():
    """A block at +x, +y, +z lies at the right and the top of each view."""
    line = torch.linspace(-1, 1, 9)
    x, y, z = torch.meshgrid(line, line, line, indexing="ij")
    picture = volumes.panels(torch.where((x > 0.4) & (y > 0.4) & (z > 0.4), -1.0, 1.0))
    for k, right in enumerate((True, True, True)):  # from +x: y right; from -y: x right; from +z: x right
        dark = (picture[:, 11 * k : 11 * k + 9] < 0.99).any(-1)
        assert bool(dark[:3, -3:].any()) == right and not bool(dark[4:].any()) and not bool(dark[:, :5].any())


def test_distances_and_occupancies_of_one_project_are_kept_apart(tmp_path):
    config, row = octahedron(0.5)
    WRITERS["niq"](tmp_path / "n", config, torch.cat([row, 100 * row]), [1, 2], [0, 0])
    report = import_fields(ImportConfig("niq", tmp_path / "n", tmp_path / "o"))
    assert [g["folder"] for g in report["groups"]] == ["3-6-1-relu-linear", "3-6-1-relu-linear-occupancy"]
    assert [g["volumes"][0]["touches"] for g in report["groups"]] == [False, False]
    occupancy = WeightDataset.load(tmp_path / "o" / "3-6-1-relu-linear-occupancy")
    assert occupancy.signals["quantity"] == "occupancy logit" and occupancy.signals["inside"] == "below 0"


@pytest.mark.parametrize("source", ["hyperdiffusion", "u2ni", "niq"])
def test_imports_end_as_meshes(source, tmp_path):
    """An octahedron in the architecture and the files of each project: six ReLUs, passed on by the other layers."""
    config = config_of(source)
    weights = [torch.zeros(1, out, into) for into, out in zip(config.widths, config.widths[1:], strict=False)]
    biases = [torch.zeros(1, out) for out in config.widths[1:]]
    weights[0][0, :6, :3] = torch.cat([torch.eye(3), -torch.eye(3)])  # the raw coordinates come first
    for weight in weights[1:-1]:
        weight[0, :6, :6] = torch.eye(6)
    sign = -1.0 if config.output == "logit" else 1.0
    weights[-1][0, 0, :6], biases[-1][0, 0] = sign, -0.6 * sign
    row = layout.join(list(zip(weights, biases, strict=True)))
    WRITERS[source](tmp_path / "files", config, row, [1], [0])
    fields = bring(source, tmp_path / "files", tmp_path / "fields")
    assert fields.config.size == config.size
    ((item,), _) = write_meshes(MeshConfig(tmp_path / "fields", tmp_path / "meshes", size=32, picture=0))
    assert item["closed"] and item["volume"] == pytest.approx(4 / 3 * 0.6**3, rel=0.05)
    assert (tmp_path / "meshes" / item["file"]).stat().st_size > 0


# -- real files --------------------------------------------------------------------------------------------------------


@needs_files
@pytest.mark.slow
def test_the_real_nefgpt_field_shows_its_digit(tmp_path):
    data = bring("nefgpt", REAL / "nefgpt_mnist_train_58828.pth", tmp_path, signals="mnist", data_root=SHARED / "mnist")
    assert data.ids("train") == ["mnist/train/58828"] and abs(float(data.quality("train")) - 27.74) < 0.01
    assert data.labels("train").tolist() == [9]


@needs_files
def test_the_real_unsafe_pickle_is_refused(tmp_path):
    with pytest.raises(ValueError, match="RegressionTransformerConfig.*, not only tensors.*so it was not loaded"):
        bring("nefgpt", REAL / "nefgpt_unsafe_pickle.pt", tmp_path / "o")
    assert not (tmp_path / "o").exists()


@needs_files
@pytest.mark.slow
@pytest.mark.parametrize("source", ["u2ni", "niq"])
def test_real_shapes_have_an_inside_within_the_ball(source, tmp_path):
    report = import_fields(ImportConfig(source, REAL / source, tmp_path / "o"))
    shown = [volume for group in report["groups"] for volume in group["volumes"]]
    assert len(shown) == {"u2ni": 64, "niq": 4}[source] and not report["skipped"]
    for volume in shown:
        assert 0 < volume["inside"] < 0.2 and not volume["touches"] and volume["radius"] < 1.2, volume
