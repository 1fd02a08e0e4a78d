"""Models as Hub repositories, and the command that publishes any kind. The push itself: `fields.hub.push`."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fields.hub.cards import TAGS, TASK, front_matter, licence, may_publish, rows_as_markdown
from fields.hub.publish import SHOWN, Publication, publish, read_run
from fields.hub.push import Sent
from fields.kinds.registry import kind_of
from fields.runtime.runs import read_json, write_json
from fields.runtime.text import escape_markdown, inside
from fields.view.page import cell_under
from fields.view.render import save_png, sheet
from gpt.checkpoint import FILES, load_gpt, save_model
from gpt.evaluation.config import model_bits_of
from gpt.evaluation.metrics import DISTANCES
from gpt.model import GPT
from gpt.publishing import PublishModel
from gpt.sampling.generate import sample_ids
from tokenizers.base import FILES as TOKENIZER_FILES
from tokenizers.base import WeightTokenizer
from tokenizers.hub import LIBRARY, how_made, links

EVALUATED = ("metrics.json", "table.md", "samples.png")


def push_model(model: GPT, repo: str, *, tokenizer: WeightTokenizer, info: dict, **options: Any) -> Sent | None:
    """Publish a model in memory."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", model, tokenizer, {k: v for k, v in info.items() if k != "path"})
        return publish_model(PublishModel(Path(folder) / "model", repo, **options))


def publish_model(options: PublishModel) -> Sent | None:
    """Push a model; see `PublishModel`."""
    model, tokenizer, info = load_gpt(Path(options.path))
    may_publish(info.get("signals") or {})
    home = Path(info["path"])
    run = read_run(home) or read_run(home.parent)
    evaluation = find_evaluation(options, info)

    def prepare(folder: Path) -> None:
        for name in ("config.json", "model.safetensors", "model.json"):
            shutil.copyfile(home / name, folder / name)
        (folder / "tokenizer").mkdir()
        for name in TOKENIZER_FILES:
            shutil.copyfile(home / "tokenizer" / name, folder / "tokenizer" / name)
        if run:
            write_json(folder / "run.json", run)
        for name in EVALUATED[:2]:
            if evaluation and (evaluation / name).is_file():
                shutil.copyfile(inside(evaluation, name), folder / name)  # refuses links that leave it
        draw_model(folder / "samples.png", model, tokenizer, info)

    def card(folder: Path, push: Any) -> str:
        metrics = read_json(folder / "metrics.json", HINT, EvaluationFile) if evaluation else None
        return model_card(options, model, tokenizer, info, metrics, run, (folder / "samples.png").is_file())

    def mine(path: str) -> bool:
        return path in (*FILES, *EVALUATED, "run.json") or path.startswith("tokenizer/")

    message = f"GPT of {model.size():,} parameters, step {info.get('step')}"
    return publish(options, Publication("model", message, ("model.json",), prepare, card, mine))


HINT = "It is made with: python scripts/evaluate.py --samples DIR --fields DIR --model DIR --out DIR"


@dataclass
class Line:
    """A line of an evaluation's table."""

    name: str
    n: int


@dataclass
class Named:
    """What was compared with."""

    name: str


@dataclass
class EvaluationFile:
    """`metrics.json`, as far as a card needs it."""

    rows: list[Line]
    references: Named
    protocol: str
    n: int
    seed: int
    classifier: dict | None = None
    validation: dict | None = None
    tokenizer: str | None = None
    fields: dict | None = None


def find_evaluation(options: PublishModel, info: dict) -> Path | None:
    """The folder with metrics.json of this model's evaluation.

    Raises:
        FileNotFoundError: if the folder given has none, with the command that makes one.
        ValueError: if the folder given is of another model.
    """
    if options.evaluation is not None:
        wrong = other_model(read_json(options.evaluation / "metrics.json", HINT, EvaluationFile), info)
        if wrong:
            raise ValueError(f"--evaluation {options.evaluation} is not of this model: {wrong}.")
        return options.evaluation
    for folder in (options.path, options.path.parent, options.path.parent.parent):
        found = folder / "evaluation"
        if (found / "metrics.json").is_file() and not other_model(
            read_json(found / "metrics.json", HINT, EvaluationFile), info, True
        ):
            print(f"the card's evaluation is taken from {found}")
            return found
    print(
        "no evaluation of this model was found; the card does not state the quality of its samples (name one with --evaluation DIR)"
    )
    return None


def other_model(metrics: dict, info: dict, sure: bool = False) -> str | None:
    """Why an evaluation is not of this model; `sure`: it must name the model's own validation."""
    bits, own = metrics.get("validation"), model_bits_of(info)
    fields = (metrics.get("fields") or {}).get("fingerprint")
    if metrics.get("tokenizer") not in (None, info["tokenizer"]):
        return f"its tokenizer is {metrics['tokenizer']}, the model's {info['tokenizer']}"
    if fields not in (None, info["dataset"]):
        return f"its fields are {fields}, the model's {info['dataset']}"
    if bits is None:
        return "it names no model" if sure else None
    same = all(own[name] == value for name, value in bits.items() if name in own)
    return None if same else f"its model has {bits}, this one {own}"


def draw_model(path: Path, model: GPT, tokenizer: WeightTokenizer, info: dict) -> None:
    """A sheet of the first fields that the model draws with seed 0, not selected."""
    field, size = tokenizer.field, info.get("size") or [0, 0]
    kind = kind_of(field, info.get("signals"))
    if not kind.drawable(field, size):
        return
    draws = sample_ids(model, SHOWN, seed=0)
    whole = draws.pick(draws.complete)
    if len(whole):
        save_png(path, sheet(kind.thumbnail(field, tokenizer.decode(whole.codes), size), 10))


def model_card(
    options: PublishModel,
    model: GPT,
    tokenizer: WeightTokenizer,
    info: dict,
    metrics: dict | None,
    run: dict,
    picture: bool,
) -> str:
    """README.md of a model."""
    label, source = licence(info.get("signals") or {}, options.license)
    name, c, fields = (info.get("signals") or {}).get("name") or "signals", model.config, options.fields
    head = front_matter(
        library_name=LIBRARY, license=label, pipeline_tag=TASK, tags=[*TAGS, "gpt"],
        datasets=[fields] if fields else None,
    )  # fmt: skip
    shown = escape_markdown(name)
    labels = (
        f" It can be asked for a class: {', '.join(map(escape_markdown, info['label_names']))}."
        if info.get("label_names")
        else ""
    )
    lines = [
        f"# {options.repo.split('/')[1]}: a GPT that writes neural fields of {shown}",
        "",
        f"A decoder-only transformer ({model.size():,} parameters, {c.n_layer} layers of width {c.n_embd}) over the weights "
        f"of small networks, each of which is one picture of {shown}. It writes {c.tokens_per_field} tokens of {c.codes} "
        f"codes, which decode to the {tokenizer.field.size:,} weights of a new field.{labels}",
        "",
    ]
    if picture:
        lines += [
            "![Fields drawn from the model.](samples.png)",
            "",
            "The first fields drawn with seed 0, not selected.",
            "",
        ]
    lines += evaluation_section(metrics, model_bits_of(info))
    lines += [
        "## Use", "", "With the code that made it, the name stands wherever a folder does:", "", "```bash",
        f"python scripts/sample.py --model {options.repo} --n 64 --out runs/samples", "```", "", "```python",
        "from gpt import load_model", "", f'model, tokenizer, info = load_model("{options.repo}")', "```", "",
        "`tokenizer/` holds the tokenizer it was trained with; how a field becomes a picture is said in the card of its "
        "weight dataset, and by `field` in `tokenizer/config.json`.", "",
        "## Source and licence", "",
        f"Pictures: {source}. Licence of this model: {label or 'not stated'}.", "",
        *links(fields, options.tokenizer), *how_made(run, info["fingerprint"]),
    ]  # fmt: skip
    return head + "\n".join(lines)


def evaluation_section(metrics: dict | None, bits: dict) -> list[str]:
    """The evaluation's table, or the bits alone."""
    own, unigram = bits["model_bits_per_field"], bits["unigram_bits_per_field"]
    lines = ["## Numbers", ""]
    if own is not None:
        said = "" if unigram is None else f", {unigram:,.1f} by the per-position unigram"
        told = ", told the label" if bits.get("told_label") else ""
        lines += [f"Held-out fields: {own:,.1f} bits per field by the model{told}{said} (step {bits['step']}).", ""]
    if metrics is None:
        return [*lines, "Its samples were not evaluated."[: None if own is None else 0], ""] if own is None else lines
    name = next((name for name in DISTANCES if any(name in row for row in metrics["rows"])), "l2")
    distance, digits = DISTANCES[name].heading, DISTANCES[name].digits
    shown = (
        (f"1-NNA {distance} (.5 is ideal)", f"{name}.1-nna", ".3f"),
        (f"COV {distance}", f"{name}.cov", ".3f"),
        (f"MMD {distance}", f"{name}.mmd", f".{digits}f"),
        ("FID", "fid", ".1f"),
        ("label accuracy", "label_accuracy", ".3f"),
        ("near copies", "novelty.near_copies", ".1%"),
    )
    head = ["set", "N", *(heading for heading, _, _ in shown)]
    rows = [
        [escape_markdown(row["name"]), row["n"], *(cell_under(row, key, form).rstrip("*") for _, key, form in shown)]
        for row in metrics["rows"]
    ]
    references, classifier = metrics["references"], metrics.get("classifier")
    note = f"References: {escape_markdown(references['name'])}, N = {metrics['n']}, seed {metrics['seed']}; ± is half of a 95 % interval."
    if classifier is not None:
        note += f" FID and label accuracy by classifier {escape_markdown(classifier['fingerprint'])} ({escape_markdown(classifier['name'])})."
    return [
        *lines,
        escape_markdown(metrics["protocol"]),
        "",
        rows_as_markdown(head, rows),
        "",
        note + " All columns: `table.md`, `metrics.json`.",
        "",
    ]
