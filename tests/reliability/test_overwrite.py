"""--overwrite: every command that makes a folder has it, and it removes nothing that the command reads."""

import dataclasses
from pathlib import Path

import pytest

from fields.fitting.fit import fit
from fields.fitting.options import AlignConfig, FitConfig
from fields.formats.options import ExportConfig, ImportConfig, MeshConfig
from fields.runtime.flags import Overwrites, checked
from fields.storage.dataset import WeightDataset
from gpt.continuous.options import TrainFlowConfig
from gpt.experiments import compare_vocabularies
from gpt.experiments.options import MemoriseConfig
from gpt.options import EvaluateConfig, PipelineConfig, TrainConfig
from gpt.sampling.options import SampleConfig
from tokenizers import compare
from tokenizers.options import DecodeConfig, EncodeConfig
from tokenizers.registry import BuildConfig

CONFIGS = [
    AlignConfig, BuildConfig, compare.CompareConfig, compare_vocabularies.CompareVocabulariesConfig, DecodeConfig, EncodeConfig,
    EvaluateConfig, ExportConfig, FitConfig, ImportConfig, MemoriseConfig, MeshConfig, PipelineConfig, SampleConfig,
    TrainConfig, TrainFlowConfig,
]  # fmt: skip
SHORT = {"steps": 2, "meta_steps": 2, "fits": 1, "limit": 4, "threads": 1}


@pytest.mark.parametrize("config", CONFIGS)
def test_every_command_with_a_folder_overwrites(config):
    flags = {f.name: f for f in dataclasses.fields(config)}
    assert issubclass(config, Overwrites) and "out" in flags and flags["overwrite"].default is False


def test_a_folder_of_other_settings_is_begun_anew(tmp_path):
    out = tmp_path / "f"
    fit(FitConfig(out=out, **SHORT))
    before = WeightDataset.load(out).fingerprint
    (out / "notes.txt").touch()
    with pytest.raises(ValueError, match="another configuration"):
        fit(FitConfig(out=out, **SHORT, seed=1))
    again = fit(FitConfig(out=out, **SHORT, seed=1, overwrite=True))
    assert again.fingerprint != before and not (out / "notes.txt").exists()
    assert fit(FitConfig(out=out, **SHORT, seed=1)).fingerprint == again.fingerprint  # found complete


@pytest.mark.parametrize("inner", ["f", "f/pictures"])
def test_what_is_read_is_not_removed(tmp_path, inner):
    (tmp_path / "f" / "pictures").mkdir(parents=True)
    with pytest.raises(ValueError, match="--overwrite would remove .* which --signals names"):
        checked(FitConfig(signals=str(tmp_path / inner), out=tmp_path / "f", overwrite=True))
    checked(FitConfig(signals=str(tmp_path / inner), out=tmp_path / "f"))
    checked(FitConfig(signals=str(tmp_path / inner), out=Path(f"{tmp_path}/other"), overwrite=True))
