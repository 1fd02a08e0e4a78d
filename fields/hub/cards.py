"""The card of a weight dataset, and what all cards share: front matter, commands, licences. Text only; nothing is read."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from pathlib import PurePath
from typing import Any

from fields.activations import ACTIVATIONS, OUTPUTS
from fields.kinds.base import Kind
from fields.kinds.registry import kind_of
from fields.kinds.shapes import ShapeKind
from fields.model import FieldConfig
from fields.runtime.text import code, escape_markdown, one_line, scrub
from fields.signals.registry import LOADERS, Loader
from fields.view.numpy_render import numpy_source

TAGS = ["neural-fields", "implicit-neural-representations", "weight-space"]
TASK = "unconditional-image-generation"
BOUNDS = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
STARTS = {
    "meta": "one start learnt over the training signals (Reptile)",
    "subspace": "one row, and directions learnt over the training signals in which all fields moved",
    "amortised": "a row predicted from each signal by an encoder learnt on the training signals",
    "conditioned": "one fitted field",
    "unconditioned": "random weights of its own for each",
}


def front_matter(**values: Any) -> str:
    """The YAML at the head of a card; empty values are left out."""
    from huggingface_hub import CardData

    kept = {k: deepcopy(v) for k, v in values.items() if v not in (None, [], {}, "")}  # YAML marks shared values
    return f"---\n{CardData(**kept).to_yaml()}\n---\n"


def size_category(n: int) -> str:
    """The Hub's name for a number of rows."""
    return next((name for bound, name in BOUNDS if n < bound), "n>1M")


def licence(signals: dict, given: str | None) -> tuple[str | None, str]:
    """Identifier and sentence; `samples of mnist` have the licence of mnist."""
    name, known = str(signals.get("name") or ""), _loader(signals)
    source = known.source if known else f"{escape_markdown(name) or 'not recorded'} (its licence is not known here)"
    own = Counter(
        escape_markdown(item["licence"]) for item in (signals.get("placed") or {}).values() if item.get("licence")
    )
    if own:  # every item has one, named in field.json
        counts = ", ".join(f"{text} ({n})" for text, n in sorted(own.items()))
        source += f": {counts}; `signals.placed` in `field.json` names the licence of each"
    return given or (known.licence if known else None), source


def may_publish(signals: dict) -> None:
    """Refuse what is made of signals whose terms forbid to pass it on.

    Args:
        signals: what a dataset says of them.
    Raises:
        ValueError: with the terms.
    """
    known = _loader(signals)
    if known and known.terms:
        raise ValueError(
            f"{known.terms}: fields, tokens and models of these signals must stay on your machine. Nothing was published."
        )


def _loader(signals: dict) -> Loader | None:
    """The entry of these signals, or of those that samples were learnt from."""
    return LOADERS.get(str(signals.get("name") or "").removeprefix("samples of "))


def command(run: dict | None) -> str:
    """The command that made a folder, as a user types it; folders of the machine it ran on are left out."""
    words = [shorten(word) for word in (run or {}).get("command", [])]
    if not words:
        return "not recorded"
    if not words[0].endswith(".py"):
        words = words[1:]
    module = words[0].removesuffix(".py").replace("/", ".") if words else ""
    start = f"python -m {module}" if module.startswith("tokenizers.") else f"python {words[0]}"
    return " ".join([start, *(shlex.quote(word) for word in words[1:])])


def shorten(word: str) -> str:
    """A path from outside becomes its last part (of a file of ours: from its folder on); a token is struck out."""
    if re.match(r"([A-Za-z]:)?[\\/]|~|\.\.", word):
        parts = PurePath(word).parts
        ours = parts[-2:] if len(parts) > 2 and parts[-2] in ("scripts", "tokenizers", "fields", "gpt") else parts[-1:]
        word = "/".join(ours)
    return scrub(word)


def plain_run(run: dict) -> dict:
    """`run.json` without what is private: folders of the machine, tokens."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items()}
        if isinstance(value, list):
            return [clean(v) for v in value]
        return shorten(value) if isinstance(value, str) else value

    return clean(run)


def block(text: str) -> list[str]:
    """A command as a block of code that it cannot end."""
    return ["```bash", one_line(text).replace("```", "` ` `"), "```", ""]


def code_line(commit: Any, versions: Any, fingerprint: Any) -> str:
    """Which code made something, and its fingerprint."""
    known = ", ".join(f"{escape_markdown(str(k))} {escape_markdown(str(v))}" for k, v in (versions or {}).items() if v)
    said = f"Code at {escape_markdown(str(commit)) if commit else 'an unknown commit'}{'; ' + known if known else ''}."
    return f"{said} Fingerprint {code(str(fingerprint))}."


def rows_as_markdown(head: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are text."""
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


# -- weight datasets -------------------------------------------------------------------------------------------------


def configs(variants: dict[str, dict]) -> list[dict]:
    """Which files a config has: `default` is the first variant, which has its own name too."""
    out = []
    for i, (name, about) in enumerate(variants.items()):
        prefix = "" if i == 0 else f"{name}/"
        files = [{"split": split, "path": f"{prefix}data/{split}-*.parquet"} for split in about["shards"]]
        out += [
            {"config_name": label, "data_files": deepcopy(files)} for label in (["default", name] if i == 0 else [name])
        ]
    return out


def fields_card(repo: str, variants: dict[str, dict]) -> str:
    """README.md of a repository of weight datasets.

    Args:
        repo: user/name.
        variants: name -> what its published field.json holds, the default first.
    """
    first, about = next(iter(variants.items()))
    features = {name: c["columns"] for name, c in variants.items()}
    rows = {name: sum(c["rows"].values()) for name, c in variants.items()}
    label, source = licence(about["signals"], about.get("license"))
    name = about["signals"].get("name") or "signals"
    infos = [{"config_name": n, "features": deepcopy(f)} for n, f in [("default", features[first]), *features.items()]]
    head = front_matter(
        pretty_name=one_line(f"Neural fields of {name}", 100), license=label,
        task_categories=[TASK] if _kind(about).name == "images" else None,
        tags=[*TAGS, *([name] if re.fullmatch(r"[\w-]+", name) else [])],
        size_categories=[size_category(max(rows.values()))], configs=configs(variants), dataset_info=infos,
    )  # fmt: skip
    return head + "\n".join(
        [
            f"# {repo.split('/')[1]}: neural fields of {escape_markdown(name)}",
            "",
            _lead(rows[first], about),
            "",
            *(_picture(n, c) for n, c in variants.items() if c.get("picture")),
            _overview(variants),
            "",
            f"{_kind(about).measure.title} of the fields against their {_kind(about).noun}s; {_splits_note(about)}",
            "",
            *_loading(repo, variants),
            *_rendering(about),
            "## The field",
            "",
            _field(about),
            "",
            "`field.json` holds the architecture, all conventions, the order of a row, and the row the fits started "
            "from (`reference`). " + "Columns: " + ", ".join(code(column["name"]) for column in features[first]) + ".",
            "",
            "## Source and licence",
            "",
            f"Signals: {source}. Licence of this dataset: {label or 'not stated'}.",
            "",
            *_made(variants),
        ]
    )


def _lead(rows: int, about: dict) -> str:
    what = (
        f"{rows:,} small neural network{'s' if rows > 1 else ''}, one row of weights each. A field here is a network "
    )
    signals = about["signals"]
    if _kind(about).name != "images":
        value = escape_markdown(signals.get("quantity") or "value")
        inside = f" (inside {escape_markdown(signals['inside'])})" if signals.get("inside") else ""
        return f"{what}from the coordinates of a point in [-1, 1] to its {value}{inside}."
    what += "from the coordinates of a pixel to its value"
    if set(about["shards"]) == {"samples"}:
        return f"{what}. These were not fitted to any picture: they were drawn from a model trained on fitted ones."
    name = escape_markdown(signals.get("name") or "the signals")
    return f"{what}; each was fitted to one picture of {name}, so the row *is* the picture, in weights."


def _picture(name: str, about: dict) -> str:
    return f"![Fields of the config {name}, rendered.]({about['picture']})\n\nConfig `{name}`, rendered from the weights.\n"


def _overview(variants: dict[str, dict]) -> str:
    rows, measure = [], _kind(next(iter(variants.values()))).measure
    digits = measure.digits
    for i, (name, about) in enumerate(variants.items()):
        weights = FieldConfig.from_dict(about["field"]).size
        for split in about["shards"]:
            quality = about.get("quality", about.get("psnr", {})).get(split)  # psnr, least: in cards of weights/1
            worst = None if quality is None else quality.get("worst", quality.get("least"))
            said = "n/a" if quality is None else f"{quality['mean']:.{digits}f} ({worst:.{digits}f})"
            label = f"{name} (default)" if i == 0 else name
            rows.append(
                [
                    label,
                    split,
                    f"{about['rows'][split]:,}",
                    f"{weights:,}",
                    said,
                    escape_markdown(about["reference"]["start"]),
                ]
            )
    return rows_as_markdown(
        ["config", "split", "fields", "weights", f"{measure.name} mean (worst)", "started from"], rows, 2
    )


def _splits_note(about: dict) -> str:
    start = about["reference"]["start"]
    said = STARTS.get(start) or escape_markdown(about["reference"]["how"])
    return f"{code(start)} fits start from {said}. Nothing is learnt from validation and test fields."


def _loading(repo: str, variants: dict[str, dict]) -> list[str]:
    first = next(iter(variants.values()))
    split = next(iter(first["shards"]))
    lines = [
        "## Load", "", "```python", "import json", "", "from datasets import load_dataset",
        "from huggingface_hub import hf_hub_download", "",
        f'rows = load_dataset("{repo}", split="{split}")',
        f'with open(hf_hub_download("{repo}", "field.json", repo_type="dataset")) as file:',
        "    about = json.load(file)", "```", "",
        f"With the code that made it, the name stands wherever a folder does: `--fields {repo}`, or "
        f'`WeightDataset.load("{repo}")`.',
    ]  # fmt: skip
    others = list(variants)[1:]
    if others:
        names = ", ".join(f'`load_dataset("{repo}", "{n}")` with `{n}/field.json`' for n in others)
        lines.append(f"The other variants: {names}; with the code `{repo}:{others[0]}`.")
    return [*lines, ""]


def _rendering(about: dict) -> list[str]:
    config, kind = FieldConfig.from_dict(about["field"]), _kind(about)
    if isinstance(kind, ShapeKind):
        return _meshing(config, kind, about["signals"])
    if kind.name != "images":
        return []
    return [
        "## Render a row in numpy", "", "```python", numpy_source(config), "", "",
        'picture = render(rows[0]["weights"], about, *rows[0]["extent"])', "```", "",
    ]  # fmt: skip


def _meshing(config: FieldConfig, kind: ShapeKind, signals: dict) -> list[str]:
    below = kind.below(config)
    outside, towards = ("1e3", "descent") if below else ("-1e3", "ascent")
    return [
        "## Evaluate a row in numpy, and its surface", "", "```python", numpy_source(config, picture=False), "", "",
        "from skimage.measure import marching_cubes", "",
        "line = np.linspace(-1, 1, 97)  # the cube [-1, 1]^3, in 96 cells along an edge",
        'points = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)',
        'values = values_at(rows[0]["weights"], about, points).reshape(97, 97, 97)',
        f"values = np.pad(values, 1, constant_values={outside})  # outside, so that the surface is closed",
        f'vertices, faces, _, _ = marching_cubes(values, to_values(0.0), gradient_direction="{towards}")',
        "vertices = (vertices - 1) / 48 - 1", "```", "",
        *(["`signals.placed` in `field.json` says where a shape stood: scale x vertex + offset.", ""]
          if signals.get("placed") else []),
    ]  # fmt: skip


def _field(about: dict) -> str:
    config = FieldConfig.from_dict(about["field"])
    encoding = f"sin and cos of 2^k {'pi ' if config.use_pi else ''}x for k = 0 .. {config.octaves - 1}"
    shown = (["the coordinates"] if config.raw_input else []) + ([encoding] if config.octaves else [])
    value = OUTPUTS[config.output].text.format(scale=_number(config.output_scale), shift=_number(config.output_shift))
    where = {"centres": "(2i + 1)/W - 1", "linspace": "2i/(W - 1) - 1", "corner": "i/W"}[config.coords]
    first = "column (x)" if config.axes == "xy" else "row (y)"
    sine = f" with w0 = {config.w0:g}" if ACTIVATIONS[config.activation].uses_w0 else ""
    pixels = f"; pixel i of W lies at {where}, the {first} coordinate first" if _kind(about).name == "images" else ""
    return (
        f"{config}. Input: {', then '.join(shown)}{pixels}. Activation {config.activation}{sine}; the value is the last layer's output: {value}. A row is, "
        f"{escape_markdown(about['order'])}; float32."
    )


def _kind(about: dict) -> Kind:
    """What is known of the signals' kind."""
    return kind_of(FieldConfig.from_dict(about["field"]), about["signals"])


def _number(value: float | tuple[float, ...]) -> str:
    """A number, or one per channel."""
    return f"({', '.join(f'{v:g}' for v in value)})" if isinstance(value, tuple) else f"{value:g}"


def _made(variants: dict[str, dict]) -> list[str]:
    lines = ["## How it was made", ""]
    for name, about in variants.items():
        made = about.get("made") or {}
        lines += [f"{name}, started from {escape_markdown(about['reference']['how'])}:", ""]
        lines += block(str(made.get("command") or "not recorded"))
        lines += [code_line(made.get("commit"), made.get("versions"), about["fingerprint"]), ""]
    return lines
