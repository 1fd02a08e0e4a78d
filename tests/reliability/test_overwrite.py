"""--overwrite: every command that makes a folder has it, and it removes nothing that the command reads. Without --out two
settings never meet in one folder: the second gets a name that carries what differs."""

import dataclasses
from pathlib import Path

import pytest
import torch
from toy import config as toy_config
from toy import make_corpus, make_fields, make_tokens

from fields.fitting.align import align_dataset
from fields.fitting.fit import fit
from fields.fitting.fit import main as fit_command
from fields.fitting.options import AlignConfig, FitConfig
from fields.formats.options import ExportConfig, ImportConfig, MeshConfig
from fields.formats.surfaces import write_meshes
from fields.model import FieldConfig
from fields.runtime.flags import Overwrites, checked
from fields.runtime.runs import claim, vacant
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import beside
from fields.storage.rows import Rows
from gpt.continuous.options import TrainFlowConfig
from gpt.experiments import compare_vocabularies
from gpt.experiments.options import MemoriseConfig, PictureTokensConfig
from gpt.options import EvaluateConfig, PipelineConfig, TrainConfig
from gpt.pipeline import run
from gpt.sampling.options import SampleConfig
from gpt.sampling.sample import sample
from gpt.train_gpt import train
from tokenizers import compare
from tokenizers.build import build
from tokenizers.classic.options import KMeansConfig
from tokenizers.decode import main as decode_command
from tokenizers.encode import main as encode_command
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
    with pytest.raises(ValueError, match="--overwrite would delete .* which --signals names"):
        checked(FitConfig(signals=str(tmp_path / inner), out=tmp_path / "f", overwrite=True))
    checked(FitConfig(signals=str(tmp_path / inner), out=tmp_path / "f"))
    checked(FitConfig(signals=str(tmp_path / inner), out=Path(f"{tmp_path}/other"), overwrite=True))


@pytest.mark.parametrize("config", [*CONFIGS, PictureTokensConfig])
def test_no_folder_is_the_default_of_all_settings(config):
    out = next(f for f in dataclasses.fields(config) if f.name == "out")
    assert out.default in (None, dataclasses.MISSING) or out.default == Path("runs/gpt")  # always replaced by run()


def test_fields_and_vocabularies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1, 1):
        fit_command(FitConfig(**SHORT, seed=seed))
    assert sorted(p.name for p in Path("runs/digits").iterdir() if p.is_dir()) == ["fields", "fields-seed-1"]
    said = capsys.readouterr().out
    assert "seed: 0 there, 1 now" in said and "runs/digits/fields-seed-1 is complete" in said
    for size, fields in ((4, "fields"), (3, "fields"), (4, "fields-seed-1")):
        build(BuildConfig(KMeansConfig(vocab_size=size), fields=f"runs/digits/{fields}", threads=1))
    made = {p.name for p in Path("runs/digits").iterdir() if p.name.startswith("kmeans")}
    assert made == {"kmeans", "kmeans-vocab-size-3", "kmeans-fields-seed-1"}
    with pytest.raises(ValueError, match="another configuration"):
        fit(FitConfig(**SHORT, seed=2, out=Path("runs/digits/fields")))


def test_tokens_samples_and_meshes(tmp_path):
    trained = toy_config(make_corpus(tmp_path), steps=2, eval_every=2)
    train(trained)
    fields, tokenizer, model = str(tmp_path / "fields"), str(trained.tokenizer), str(trained.out)
    for _ in range(2):
        encode_command(EncodeConfig(tokenizer, fields, threads=1))
        decode_command(DecodeConfig(str(tmp_path / "tokens"), tokenizer, threads=1))
        for seed in (0, 1):
            sample(SampleConfig(model, n=2, seed=seed))
    name = Path(model).name
    wanted = {"tokens", "decoded", f"{name}-samples", f"{name}-samples-seed-1"}
    assert wanted <= {p.name for p in tmp_path.iterdir() if (p / "run.json").is_file()}
    with pytest.raises(ValueError, match="another configuration"):
        sample(SampleConfig(model, tmp_path / f"{name}-samples", n=2, seed=2))


def test_a_folder_named_by_dots_has_its_outputs_beside_it(tmp_path, monkeypatch):
    (tmp_path / "f" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "f" / "data")
    assert beside("..", "t") == tmp_path / "t" and beside(".", "t") == tmp_path / "f" / "t"
    assert beside("../", "t") == tmp_path / "t" and beside("../../f", "t") == Path("../../t")
    with pytest.raises(ValueError, match="is the root of the disk"):
        claim(Path("/"), {})


def test_meshes(tmp_path):
    field = FieldConfig(hidden=(3,), octaves=0, in_dim=3, output="linear")
    for name in ("fields", "samples"):
        rows = Rows(torch.randn(2, field.size, generator=torch.Generator().manual_seed(len(name))))
        WeightDataset.from_rows(field, {"train": rows}).save(tmp_path / name)
    for name, size in (("fields", 8), ("fields", 9), ("samples", 8), ("fields", 8)):
        write_meshes(MeshConfig(tmp_path / name, size=size, picture=0))
    assert {p.name for p in tmp_path.glob("meshes*")} == {"meshes", "meshes-size-9", "meshes-samples"}


def test_comparisons_and_aligned_fields(tmp_path):
    data = make_fields(tmp_path)
    for name in "ab":
        make_tokens(tmp_path, data, name=name, seed=ord(name))
    a, b = (str(tmp_path / name) for name in "ab")
    for names, seed in (((a,), 0), ((a,), 0), ((a,), 1), ((a, b), 0)):
        compare.compare(compare.CompareConfig(names, str(tmp_path / "fields"), seed=seed, threads=1))
    made = sorted(p.name for p in tmp_path.glob("compare*"))
    assert made[:2] == ["compare", "compare-b-" + made[1][-6:]] and made[2:] == ["compare-seed-1"]
    assert (tmp_path / made[1] / "compare.md").is_file()
    for how in ("match", "sort", "sort"):
        align_dataset(AlignConfig(str(tmp_path / "fields"), how=how, threads=1))
    align_dataset(AlignConfig(str(tmp_path / "fields"), reference="toy/train/3", threads=1))
    assert {"aligned", "sorted", "aligned-reference-3"} <= {p.name for p in tmp_path.iterdir()}


def test_models(tmp_path):
    settings = toy_config(make_corpus(tmp_path), steps=2, eval_every=2)
    same = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name != "out"}
    run(PipelineConfig(**same))
    run(PipelineConfig(**{**same, "lr": 0.002}))
    assert {p.name for p in tmp_path.glob("gpt*")} == {"gpt", "gpt-lr-0.002"}
    assert (
        vacant(tmp_path / "gpt", settings, kind="evaluate") == tmp_path / "gpt"
    )  # another command's: refused by claim
