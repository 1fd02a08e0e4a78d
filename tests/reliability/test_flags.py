"""Every flag of every command: what is no number, fits no 64 bits or is negative is refused by name, empty values too."""

import dataclasses
import typing
from dataclasses import replace
from pathlib import Path

import pytest

from fields.fitting.options import AlignConfig, FitConfig
from fields.formats.options import ExportConfig, ImportConfig, MeshConfig
from fields.formats.readers import read
from fields.model import FieldConfig
from fields.runtime.flags import MOST, SIGNED, check_words, checked
from fields.runtime.records import read_json
from fields.storage.dataset import WeightDataset
from gpt.checkpoint import load_model
from gpt.continuous.options import TrainFlowConfig
from gpt.demo.options import DemoConfig
from gpt.experiments import compare_vocabularies
from gpt.experiments.options import MemoriseConfig, PictureTokensConfig
from gpt.options import DiagnoseConfig, EvaluateConfig, PipelineConfig, ShapeSettings, TrainConfig
from gpt.publishing import PUBLISH
from gpt.sampling.options import SampleConfig, ShowConfig
from scripts.animations.commands import ANIMATIONS, run
from scripts.animations.options import Film
from scripts.benchmarks.commands import BENCHMARKS
from tokenizers import compare
from tokenizers.learned.options import RegionsConfig, VQVAEConfig
from tokenizers.options import DecodeConfig, EncodeConfig
from tokenizers.registry import TOKENIZERS, BuildConfig, load_tokenizer

CONFIGS = [
    AlignConfig, BuildConfig, compare.CompareConfig, compare_vocabularies.CompareVocabulariesConfig, DecodeConfig, DemoConfig,
    DiagnoseConfig, EncodeConfig, EvaluateConfig, ExportConfig, FitConfig, ImportConfig, MemoriseConfig, MeshConfig,
    PictureTokensConfig, PipelineConfig, SampleConfig, ShapeSettings, ShowConfig, TrainConfig, TrainFlowConfig,
    *(config for kinds in (ANIMATIONS, BENCHMARKS, PUBLISH, TOKENIZERS) for config, _ in kinds.values()),
]  # fmt: skip
REQUIRED = {str: "x", bool: False, int: 1, float: 0.5}
ZERO = set(
    [
        "adversarial",
        "betas",
        "decay",
        "dropout",
        "encoder",
        "fine",
        "first",
        "guidance",
        "hold",
        "jitter",
        "label_dropout",
        "level",
        "margin",
        "merge",
        "min_lr",
        "min_psnr",
        "near",
        "noise",
        "number",
        "octaves",
        "output_shift",
        "picture",
        "port",
        "probe_rows",
        "rate",
        "refit_rate",
        "rounds",
        "rows",
        "samples",
        "seed",
        "sheet",
        "shifts",
        "split_seed",
        "surfaces",
        "swap",
        "symmetric",
        "target_psnr",
        "temperature",
        "token_noise",
        "top_k",
        "top_p",
        "tune",
        "turntable",
        "uniform",
        "unlabelled",
        "warmup",
        "weight_decay",
        "weight_loss",
    ]
)
"""Flags for which 0 means something."""


def needed(config: type) -> dict[str, object]:
    """Values of the flags without a default."""
    hints, found = typing.get_type_hints(config), {}
    for f in dataclasses.fields(config):
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            found[f.name] = REQUIRED.get(hints[f.name], ("x",) if "uple" in str(hints[f.name]) else "x")
            found[f.name] = "user/name" if f.name in ("repo", "model", "path") else found[f.name]
    return found


def flags(config: type, kinds: tuple[type, ...]) -> list[tuple[type, str, type, int]]:
    """(config, flag, kind, length of a tuple or 0) of the flags that take one of these kinds, with those of inner configs."""
    hints, found = typing.get_type_hints(config), []
    for f in dataclasses.fields(config):
        inner, length = {hints[f.name]}, 0
        for _ in range(3):
            inner |= {part for kind in inner for part in typing.get_args(kind)}
        if any(typing.get_origin(kind) is tuple for kind in inner):
            wholes = [typing.get_args(kind) for kind in inner if typing.get_origin(kind) is tuple]
            length = max(sum(part is not Ellipsis for part in whole) for whole in wholes)
        found += [(config, f.name, kind, length) for kind in kinds if kind in inner]
        for kind in sorted(inner, key=str):  # the same order in every process
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                found += flags(kind, kinds)
    return found


def unique(kinds: tuple[type, ...]) -> list:
    """Of all commands, each once, with readable ids."""
    cases = dict.fromkeys(case for config in CONFIGS for case in flags(config, kinds))
    return [pytest.param(*case, id=f"{case[0].__name__}-{case[1]}-{case[2].__name__}") for case in cases]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_a_command_without_options_is_accepted(config):
    assert checked(config(**needed(config))) is not None


@pytest.mark.parametrize(("config", "name", "kind", "length"), unique((int, float)))
def test_numbers_out_of_reach_are_refused(config, name, kind, length):
    impossible = [float("nan"), float("inf"), -float("inf")] if kind is float else [2**63, -(2**63) - 1, 10**40]
    for value in impossible + [kind(-1)] * (name not in SIGNED):
        given = {**needed(config), name: (value,) * length if length else value}
        with pytest.raises(ValueError):
            checked(config(**given))


@pytest.mark.parametrize(("config", "name", "kind", "length"), [c for c in unique((int,)) if c.values[1] in MOST])
def test_work_of_years_is_refused(config, name, kind, length):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must be at most"):
        checked(config(**needed(config), **{name: 10**12}))


@pytest.mark.parametrize("place", ["", "film.mp4/film.mp4", "a.mp4/x/film.mp4"])
def test_a_film_that_cannot_be_written_is_not_made(tmp_path, place):
    (tmp_path / "film.mp4").mkdir()
    (tmp_path / "a.mp4").touch()
    (tmp_path / "film.mp4" / "film.mp4").mkdir()
    with pytest.raises(ValueError, match="--out .* is a (folder; expected a file|file, not a folder)"):
        run(ANIMATIONS["fit"][0](out=tmp_path / (place or "film.mp4")))


@pytest.mark.parametrize(("config", "name", "kind", "length"), unique((int, float)))
def test_zero_is_refused_where_it_means_nothing(config, name, kind, length):
    off = name in ZERO and (config, name) not in ((TrainFlowConfig, "guidance"), (FitConfig, "rows"))
    given = {**needed(config), name: (kind(0),) * length if length else kind(0)}
    if off or (name == "steps" and issubclass(config, (VQVAEConfig, RegionsConfig))):
        assert checked(config(**given)) is not None
        return
    with pytest.raises(ValueError):
        checked(config(**given))


@pytest.mark.parametrize(("config", "name", "kind", "length"), unique((Path,)))
def test_paths_may_have_any_letters(config, name, kind, length):
    path = Path("été/日本/a b/Ω.gif" if issubclass(config, Film) else "été/日本/a b/Ω.png")
    if name == "data_root" and "signals" in needed(config) | {f.name: 1 for f in dataclasses.fields(config)}:
        pytest.skip("goes with --signals")
    given = config(**{**needed(config), name: (path,) * length if length else path})
    assert checked(given) is given and str(path) in str(getattr(given, name))


@pytest.mark.parametrize("words", [["--out", ""], ["--out="], ["--fields", "x", "--signals", ""], [""]])
def test_empty_values_are_refused(words):
    with pytest.raises(ValueError, match="is empty"):
        check_words(words)


@pytest.mark.parametrize(("text", "meant"), [
    ("https://huggingface.co/user/name", "user/name"), ("https://huggingface.co/datasets/a.b/c-d/", "a.b/c-d"),
    ("https://hf.co/datasets/user/name/tree/v1", "user/name@v1"), ("https://hf.co/u/n/blob/main/a/b.json", "u/n@main"),
    ("https://huggingface.co/u/n/resolve/v2/model.safetensors", "u/n@v2"), ("user/name", "user/name"),
    ("https://example.com/user/name", "https://example.com/user/name"),
])  # fmt: skip
def test_a_pasted_address_of_the_hub_is_its_name(text, meant):
    assert checked(ExportConfig(text, "arena", Path("o"))).fields == meant


def test_a_file_where_a_folder_is_meant_and_positions_beyond_all_numbers(tmp_path):
    (tmp_path / "model.safetensors").touch()
    for loaded in (load_model, load_tokenizer, WeightDataset.load):
        with pytest.raises(
            ValueError, match="model.safetensors is a file; expected a folder. Give the folder it lies in"
        ):
            loaded(str(tmp_path / "model.safetensors"))
    with pytest.raises(ValueError, match="--first and --n must together be below"):
        SampleConfig("m", n=3, first=2**63 - 2)


def test_a_file_that_git_lfs_did_not_fetch_is_named(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    (tmp_path / "a.json").write_text(pointer)
    (tmp_path / "a.pth").write_text(pointer)
    for reader, name in ((read_json, "a.json"), (read, "a.pth")):
        with pytest.raises(ValueError, match="git lfs pull"):
            reader(tmp_path / name)


def test_fields_that_differ_in_conventions_alone_name_the_key():
    one = FieldConfig((4, 4))
    assert one.against(replace(one, w0=3.0)) == f"w0: {one.w0} against 3.0" and str(one) == str(replace(one, w0=3.0))
