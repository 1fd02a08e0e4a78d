"""Build a tokenizer, the dataset's tokens and a report:  python -m tokenizers.build kmeans --fields DIR --out DIR"""

from fields.runtime.launch import run_cli
from tokenizers.registry import BuildConfig, parse

if __name__ == "__main__":  # before what follows, which is imported by its name once the flags are read
    run_cli("tokenizers.build:build", parse, alone="python -m tokenizers.build")

import tempfile
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from fields.kinds.preview import save_preview, spread
from fields.runtime.console import plural
from fields.runtime.launch import choose_device, cores
from fields.runtime.resources import check_memory
from fields.runtime.runs import claim, vacant
from fields.runtime.tracking import Tracking
from fields.signals.seen import seen_by
from fields.storage.dataset import WeightDataset, summary
from fields.storage.fetch import beside
from tokenizers.base import RESUME_FILE, WeightTokenizer
from tokenizers.encode import VALUES, check_field, encode_dataset, refit_settings
from tokenizers.options import ReportConfig
from tokenizers.refit import Refit
from tokenizers.registry import DIGITS, load_tokenizer, make_tokenizer
from tokenizers.report.report import read_report, report, write_report
from tokenizers.report.report import summary as report_summary
from tokenizers.selection import draw
from tokenizers.tokens import TokenDataset


def build(config: BuildConfig) -> WeightTokenizer:
    """The command. Results of the same fields and settings that are already in the folder are kept."""
    torch.set_num_threads(config.threads or cores())
    choose_device(config.device)  # refuses what is not there, before anything is read
    data = _dataset(config.fields, config.revision, config.stream)
    print(summary(data))
    settings = replace(config.tokenizer, field=data.config.to_dict())
    data.check_training()
    tokenizer = make_tokenizer(settings).set_reference(data.reference.row)  # errors come before the folder is claimed
    tokenizer.check_reference()
    rows, kept = len(data.splits["train"]) * data.config.size, settings.fit_values
    need = 4 * min(rows, 2 * kept) + 16 * min(rows, kept)  # read in float32, then standardised and their errors
    check_memory(need, "the weights that are learnt from", "cpu", "fewer --tokenizer.fit-values")
    asked = {**settings.settings(), **refit_settings(config.refitting), "overwrite": config.overwrite}
    asked, parents = {"kind": settings.kind, **asked}, {"fields": data.fingerprint}
    default = beside(config.fields, settings.kind)
    out = config.out or vacant(
        default, {**asked, "fields": config.fields}, parents=parents, free=("fields",), kind="build"
    )
    claim(out, asked, parents=parents, seed=settings.seed, kind="build")
    tokenizer = _fit(tokenizer, data, out, choose_device(config.device, tokenizer.slow_to_fit), config)
    tokens = _encode(tokenizer, data, out, config)
    _report(tokenizer, data, tokens, config.report, out, config.refitting.refit)
    return tokenizer


def _dataset(path: str | Path, revision: str | None = None, stream: bool = False) -> WeightDataset:
    """The dataset; scikit-learn's digits are fitted first if they are requested and missing."""
    if str(path) == DIGITS and not (Path(path) / "field.json").is_file():
        print(f"{path} not found: fitting fields to scikit-learn's digits first (a minute or two on a laptop)")
        from fields.fitting.fit import fit
        from fields.fitting.options import FitConfig

        fit(FitConfig(out=Path(path)))
    return WeightDataset.load(path, revision=revision, stream=stream, flag="--fields")


def _fit(
    tokenizer: WeightTokenizer, data: WeightDataset, out: Path, device: torch.device, config: BuildConfig
) -> WeightTokenizer:
    """The tokenizer of the folder, or a new one; on the CPU either way."""
    if (out / "config.json").is_file() and (out / "model.safetensors").is_file():
        print(f"{out}: the tokenizer exists")
        found = load_tokenizer(out)
        check_field(found, data)
        if not (out / "README.md").is_file():  # the last file of a save that was cut short
            found.save_pretrained(out)
        return found
    start = time.perf_counter()
    watched = draw(len(data.splits.get("validation", ())), max(1, VALUES // data.config.size), tokenizer.config.seed)
    held_out = data.weights("validation", watched) if len(watched) else None
    tokenizer.resume_dir = out
    if config.tracker and tokenizer.slow_to_fit:
        tokenizer.tracking = Tracking(config.tracker, out, config.project, tokenizer.config)
        tokenizer.tracking.draw = partial(_log_preview, tokenizer.tracking, data)
    try:
        tokenizer.to(device).fit(data.batches("train", max(1, VALUES // data.config.size)), held_out=held_out)
    finally:
        if tokenizer.tracking is not None:
            tokenizer.tracking.close()
            tokenizer.tracking = None
    tokenizer.cpu()
    tokenizer.seen = seen_by(data)
    tokenizer.save_pretrained(out)
    for path in out.glob(f"*{RESUME_FILE}"):  # a finished fit has nothing to resume
        path.unlink()
    seconds = time.perf_counter() - start
    kind, codes, t = tokenizer.config.kind, tokenizer.codes, tokenizer.tokens_per_field
    print(
        f"{kind}: {plural(codes, 'code')}, {plural(t, 'token')} per field, fitted in {seconds:.1f} s on {device.type}"
    )
    return tokenizer


def _log_preview(tracking: Tracking, data: WeightDataset, tokenizer: WeightTokenizer, step: int) -> None:
    """Held-out fields beside what their codes decode to, in the middle of a fit."""
    rows, extent = _shown(data, 16)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "preview.png"
        decoded = tokenizer._decode(tokenizer._encode(rows.to(tokenizer.n_codes.device))).cpu()
        if save_preview(path, data.kind, data.config, rows, extent, decoded):
            tracking.picture("round trip", path, step)


def _encode(tokenizer: WeightTokenizer, data: WeightDataset, out: Path, config: BuildConfig) -> TokenDataset:
    folder, stream, refit = out / "tokens", config.stream, None
    if (folder / "tokens.json").is_file():
        tokens = TokenDataset.load(folder, stream=stream)
        if (tokens.tokenizer_fingerprint, tokens.dataset_fingerprint) == (tokenizer.fingerprint, data.fingerprint):
            print(f"{folder}: the tokens exist")
            return tokens
    start = time.perf_counter()
    if config.refitting.refit:
        where, device = config.report, choose_device(config.device)
        refit = Refit.of(tokenizer, data, config.refitting, where.signals, where.data_root, device)
    encode_dataset(tokenizer, data, folder, refit=refit)
    total, seconds = sum(len(rows) for rows in data.splits.values()), time.perf_counter() - start
    print(f"{plural(total, 'field')} encoded in {seconds:.1f} s ({total / seconds:,.0f} fields/s)")
    return TokenDataset.load(folder, stream=stream)


def _report(
    tokenizer: WeightTokenizer, data: WeightDataset, tokens: TokenDataset, config: ReportConfig, out: Path, refit: bool
) -> None:
    path, asked = out / "report.json", _asked(config)
    if path.is_file():
        old = read_report(path)
        if old.get("settings") == asked and old.get("tokens") == tokens.fingerprint:
            print(report_summary(old))
            print(f"{out}: the report exists")
            return
    result = {**report(tokenizer, data, tokens, config, refit=refit), "settings": asked}
    _preview(tokenizer, data, out)
    write_report(out, result)  # the marker, last
    print(report_summary(result))
    print(f"tokenizer, tokens/ and report.html are in {out}")


def _preview(tokenizer: WeightTokenizer, data: WeightDataset, out: Path) -> None:
    """Held-out fields, each with what its codes decode to in a frame beside it."""
    rows, extent = _shown(data, 32)
    decoded = tokenizer.decode(tokenizer.encode(rows))
    save_preview(out / "preview.png", data.kind, data.config, rows, extent, decoded)


def _shown(data: WeightDataset, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (n, P) of up to `most` held-out fields, and their extents."""
    split = next(name for name in ("validation", "test", *data.splits) if len(data.splits.get(name, ())))
    shown = spread(len(data.split(split)), most)
    return data.weights(split, shown), data.extent(split)[shown]


def _asked(config: ReportConfig) -> dict:
    """The report's settings as JSON keeps them, without local paths."""
    asked = {**asdict(config), "sizes": list(config.sizes)}
    return asked | {"data_root": config.data_root is not None, "signals": config.signals is not None}
