"""Tokenizers and tokens as Hub repositories. The push itself: `fields.hub.push`; options they share: `fields.hub.publish`."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from fields.hub.cards import (
    TAGS,
    TASK,
    block,
    code_line,
    command,
    front_matter,
    licence,
    may_publish,
    rows_as_markdown,
    size_category,
)
from fields.hub.publish import SHOWN, Publication, publish, read_run
from fields.hub.push import Push, Sent
from fields.hub.shards import PREVIEW
from fields.kinds.registry import kind_of
from fields.runtime.records import parse_json
from fields.runtime.runs import write_json
from fields.runtime.text import escape_markdown, inside, one_line
from fields.view.render import save_png, sheet
from tokenizers.base import FILES, FORMAT, WeightTokenizer
from tokenizers.options import PublishTokenizer, PublishTokens
from tokenizers.registry import load_tokenizer
from tokenizers.report.report import read_report
from tokenizers.tokens import TokenDataset, features

REPORT = ("report.json", "report.md", "rate_distortion.png")
LIBRARY = "neural-fields-as-data"


# -- tokenizers ------------------------------------------------------------------------------------------------------


def push_tokenizer(tokenizer: WeightTokenizer, repo: str, **options: Any) -> Sent | None:
    """Publish a tokenizer in memory."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return publish_tokenizer(PublishTokenizer(Path(folder), repo, **options))


def publish_tokenizer(options: PublishTokenizer) -> Sent | None:
    """Push a tokenizer's folder; see `PublishTokenizer`."""
    tokenizer = load_tokenizer(options.path)
    if (options.path / "tokens" / "tokens.json").is_file():  # they say of which signals it was learnt
        may_publish(TokenDataset.load(options.path, stream=True).info.signals)
    run = read_run(options.path)
    report = read_report(options.path / "report.json") if (options.path / "report.json").is_file() else None
    if report is not None and report.get("tokenizer") != tokenizer.fingerprint:
        print(f"{options.path}/report.json is of another tokenizer and is left out")
        report = None

    def prepare(folder: Path) -> None:
        for name in (*FILES, *(REPORT if report else ())):
            if (options.path / name).is_file():
                shutil.copyfile(inside(options.path, name) if name in REPORT else options.path / name, folder / name)
        if run:
            write_json(folder / "run.json", run)

    def card(folder: Path, push: Push | None) -> str:
        return tokenizer_card(options, tokenizer, report, run, (folder / "rate_distortion.png").is_file())

    def mine(path: str) -> bool:
        return path in (*FILES, *REPORT, "run.json")

    def check(push: Push | None) -> None:
        there = None if push is None else push.read("config.json")
        if push is None or there is None:
            return
        if (
            "model.json" in push.files
            or parse_json(f"{push.repo}/config.json", there, "", dict).get("format") != FORMAT
        ):
            raise ValueError(f"{options.repo} holds a model that is not a tokenizer. Choose another name.")

    message = f"{tokenizer.config.kind}, {tokenizer.codes} codes"
    return publish(options, Publication("model", message, ("config.json",), prepare, card, mine, check))


def tokenizer_card(
    options: PublishTokenizer, tokenizer: WeightTokenizer, report: dict | None, run: dict, picture: bool
) -> str:
    """README.md of a tokenizer."""
    c, fields = tokenizer.config, options.fields
    head = front_matter(
        library_name=LIBRARY, license=options.license, tags=[*TAGS, "tokenizer", c.kind],
        datasets=[fields] if fields else None,
    )  # fmt: skip
    lines = [
        f"# {options.repo.split('/')[1]}: weights of neural fields as tokens",
        "",
        f"A `{c.kind}` tokenizer: a field of {tokenizer.field.size:,} weights becomes {tokenizer.tokens_per_field} tokens "
        f"of {tokenizer.codes} codes, and back. Field: {tokenizer.field}.",
        "",
    ]
    if picture:
        lines += ["![PSNR over bits per weight.](rate_distortion.png)", ""]
    if report:
        before = "n/a" if report["psnr_before"] is None else f"{report['psnr_before']:.2f}"
        after = "n/a" if report["psnr_after"] is None else f"{report['psnr_after']:.2f}"
        row = [report["codes_made"], report["tokens_per_field"], f"{report['bits_per_field']:,.0f}", before, after]
        lines += [
            rows_as_markdown(["codes", "tokens", "bits per field", "PSNR before (dB)", "after"], [row], 0),
            "",
            f"On {report['evaluated_fields']:,} fields of split {escape_markdown(report['evaluated_on'])}, against {escape_markdown(report['psnr_against'])}; bits "
            f"under each position's training counts. Learnt from {report['training_fields']:,} training fields.",
            "",
        ]
    given = f" --fields {fields}" if fields else " --fields DIR"
    lines += [
        "## Load", "", "```python", "from tokenizers import load_tokenizer  # this repository's code", "",
        f'tokenizer = load_tokenizer("{options.repo}")',
        f"ids = tokenizer.encode(weights)  # (N, {tokenizer.field.size}) -> (N, {tokenizer.tokens_per_field})",
        "weights = tokenizer.decode(ids)", "```", "",
        f"`python -m tokenizers.encode --tokenizer {options.repo}{given} --out DIR` encodes a whole dataset.", "",
        *how_made(run, tokenizer.fingerprint), *links(fields),
    ]  # fmt: skip
    return head + "\n".join(lines)


def how_made(run: dict, fingerprint: str) -> list[str]:
    """The command, the code and the fingerprint of something published."""
    made = code_line(run.get("commit"), run.get("versions"), fingerprint)
    return ["## How it was made", "", *block(command(run)), made, ""]


def links(fields: str | None, tokenizer: str | None = None) -> list[str]:
    """Links to the tokenizer and the weight dataset that something published was made with."""
    found = [("Tokenizer", tokenizer, "https://huggingface.co"), ("Weights", fields, "https://huggingface.co/datasets")]
    return [line for what, name, hub in found if name for line in (f"{what}: [{name}]({hub}/{name}).", "")]


# -- tokens ----------------------------------------------------------------------------------------------------------


def push_tokens(tokens: TokenDataset, repo: str, **options: Any) -> Sent | None:
    """Publish tokens in memory."""
    return publish_tokens(PublishTokens(Path("."), repo, **options), tokens)


def publish_tokens(options: PublishTokens, given: TokenDataset | None = None) -> Sent | None:
    """Push a folder of tokens; see `PublishTokens`.

    Args:
        options: what and where to.
        given: tokens in memory, where none are to be read from `options.path`.
    """
    tokens = TokenDataset.load(options.path, stream=True) if given is None else given
    inner = options.path / "tokens"
    home = inner if given is None and (inner / "tokens.json").is_file() else options.path
    may_publish(tokens.info.signals)
    run = {} if given is not None else read_run(home) or read_run(home.parent)
    tokenizer = None if given is not None else _tokenizer_of(tokens, home)

    def prepare(folder: Path) -> None:
        (folder / MARKED).mkdir()
        tokens.save(folder / MARKED)
        for file in (folder / MARKED).iterdir():
            file.rename(folder / file.name)
        (folder / MARKED).rmdir()
        if run:
            write_json(folder / "run.json", run)
        if tokenizer is not None:
            draw_decoded(folder / "assets" / "decoded.png", tokens, tokenizer)

    def card(folder: Path, push: Push | None) -> str:
        return tokens_card(options, tokens, run, (folder / "assets" / "decoded.png").is_file())

    def mine(path: str) -> bool:
        return path in ("tokens.json", "run.json", "assets/decoded.png") or (
            "/" not in path and path.endswith(".parquet")
        )

    total = sum(tokens.count(split) for split in tokens.splits)
    return publish(
        options, Publication("dataset", f"tokens of {total:,} fields", ("tokens.json",), prepare, card, mine)
    )  # fmt: skip


MARKED = ".tokens"


def _tokenizer_of(tokens: TokenDataset, folder: Path) -> WeightTokenizer | None:
    """The tokenizer in the folder or above it, if these tokens are its own."""
    for place in (folder, folder.parent):
        if all((place / name).is_file() for name in FILES):
            found = load_tokenizer(place)
            if found.fingerprint == tokens.tokenizer_fingerprint:
                return found
    return None


def draw_decoded(path: Path, tokens: TokenDataset, tokenizer: WeightTokenizer) -> None:
    """A sheet of the first fields of the first split, decoded."""
    field, split = tokenizer.field, tokens.splits[0]
    sizes = tokens.extent(split)[:SHOWN]
    kind = kind_of(field, tokens.info.signals)
    if not len(sizes) or not kind.drawable(field, sizes[0].tolist()):
        return
    same = (sizes == sizes[0]).all(1)
    weights = tokenizer.decode(tokens.ids(split, slice(0, SHOWN))[same])
    with torch.no_grad():
        save_png(path, sheet(kind.thumbnail(field, weights, sizes[0].tolist(), most=PREVIEW), 10))


def tokens_card(options: PublishTokens, tokens: TokenDataset, run: dict, picture: bool) -> str:
    """README.md of a dataset of tokens."""
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    info, columns = tokens.info, DatasetCardData()
    one = DatasetInfo(features=features(info), config_name="default")
    DatasetInfosDict({"default": one}).to_dataset_card_data(columns)
    label, source = licence(info.signals, options.license)
    counts = {split: tokens.count(split) for split in tokens.splits}
    files = [{"split": split, "path": f"{split}-*.parquet"} for split in counts]
    name = info.signals.get("name") or "signals"
    shown = escape_markdown(name)
    head = front_matter(
        pretty_name=one_line(f"Tokens of neural fields of {name}", 100), license=label, task_categories=[TASK],
        tags=[*TAGS, "tokens"], size_categories=[size_category(sum(counts.values()))],
        configs=[{"config_name": "default", "data_files": files}], dataset_info=columns["dataset_info"],
    )  # fmt: skip
    rows = [
        [split, f"{n:,}", tokens.tokens_per_field, tokens.codes, escape_markdown(info.kind)]
        for split, n in counts.items()
    ]
    words = f" --tokenizer {options.tokenizer}" if options.tokenizer else " --tokenizer DIR"
    lines = [
        f"# {options.repo.split('/')[1]}: neural fields of {shown} as tokens",
        "",
        f"Each row is one neural field - a small network fitted to one picture of {shown} - as {tokens.tokens_per_field} "
        f"ids in [0, {tokens.codes}).",
        "",
        *(["![Some of the fields, decoded from these tokens.](assets/decoded.png)", ""] if picture else []),
        rows_as_markdown(["split", "fields", "tokens", "codes", "tokenizer"], rows),
        "", "## Load", "", "```python", "from datasets import load_dataset", "",
        f'rows = load_dataset("{options.repo}", split="{next(iter(counts))}")', "```", "",
        "`tokens.json` gives each token's place in the network (`slots`) and the fingerprints of the tokenizer "
        f"(`{tokens.tokenizer_fingerprint}`) and of the weight dataset (`{tokens.dataset_fingerprint}`). With the code "
        "that made it, the name stands wherever a folder does:", "", "```bash",
        f"python scripts/train_gpt.py --fields {options.fields or 'DIR'}{words} --tokens {options.repo}",
        "```", "", "## Source and licence", "",
        f"Pictures: {source}. Licence of this dataset: {label or 'not stated'}.", "",
        *links(options.fields, options.tokenizer), *how_made(run, tokens.fingerprint),
    ]  # fmt: skip
    return head + "\n".join(lines)
