"""Model folders, for use: config.json, model.safetensors, model.json and, for a GPT, tokenizer/."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model as load_weights

from fields.runtime.digests import check_digest, of_file
from fields.runtime.records import config_of, read_json
from fields.runtime.runs import digest, replace_folder, write_json
from fields.storage.fetch import fetch
from gpt.model import GPT
from gpt.training.checkpoints import AGAIN, DAMAGE, reason
from tokenizers.base import WeightTokenizer
from tokenizers.registry import load_tokenizer

FILES = ["config.json", "model.json", "model.safetensors", "tokenizer/*"]
MARKED = ("config.json", "model.safetensors")
"""Files of a model whose digests model.json records."""
MODELS = {
    "gpt": "gpt.model:GPT",
    "regression": "gpt.continuous.regression:RegressionTransformer",
    "flow": "gpt.continuous.flow:Flow",
}
"""`kind` in config.json -> module and class; the class names its `Config`. A new model is one class and one line here."""
HINT = "A model is made with: python scripts/train_gpt.py --fields DIR --tokenizer DIR --out DIR"


# -- model folders -----------------------------------------------------------------------------------------------------


@dataclass
class ModelFile:
    """What model.json holds, as far as it is needed to load a model."""

    tokenizer: str
    fingerprint: str
    label_names: list[str] | None = None
    files: dict[str, str] = field(default_factory=dict)


def model_fingerprint(model: GPT) -> str:
    """16 hexadecimal digits of config and weights."""
    state = model.state_dict()
    return digest(model.config, *(part for name in sorted(state) for part in (name, state[name].float())))


def model_class(kind: str) -> Any:
    """The class of a kind of models.

    Raises:
        ValueError: for a kind that is not known here.
    """
    if kind not in MODELS:
        raise ValueError(
            f"models of the kind {kind!r} are unknown; known kinds are {', '.join(MODELS)}. Give a folder written by a training command."
        )
    module, name = MODELS[kind].split(":")
    return getattr(import_module(module), name)


def save_model(path: Path, model: GPT, tokenizer: WeightTokenizer, info: dict) -> None:
    """Write or replace a model folder: config.json, model.safetensors, model.json, tokenizer/."""
    try:
        with replace_folder(path) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary / "tokenizer")
            marks = {name: of_file(temporary / name) for name in MARKED}
            write_json(temporary / "model.json", {**info, "fingerprint": model_fingerprint(model), "files": marks})
    except DAMAGE as error:
        raise RuntimeError(f"model {path} could not be written ({reason(error, path.parent)}). {AGAIN}") from None


def load_model(
    path: Path | str, tokenizer: Path | str | None = None, *, revision: str | None = None
) -> tuple[Any, WeightTokenizer | None, dict]:
    """A model of any kind in `MODELS`, its tokenizer (None for models of weights themselves) and what model.json says.

    Args:
        path: a model folder, the folder of a training run (its best/ is taken), or `user/name[@revision]` on the Hub.
        tokenizer: a tokenizer (folder or Hub name) to use instead of the stored copy; it must be the one the model was trained with.
        revision: for a Hub name without one.
    Raises:
        FileNotFoundError: if there is no model, with the command that makes one.
        ValueError: if files are damaged, or model and tokenizer do not belong together; both are named.
    """
    path = fetch(path, "model", revision=revision, patterns=FILES, flag="--model")
    if not (path / "model.json").is_file():
        path = next((path / n for n in ("best", "last") if (path / n / "model.json").is_file()), path)
    known = read_json(path / "config.json", HINT, dict)
    cls = model_class(known.get("kind", "gpt"))
    config = config_of(path / "config.json", known, cls.Config, HINT)
    if cls is GPT:
        info = read_json(path / "model.json", HINT, ModelFile)
    else:  # models without tokens need none
        info = read_json(path / "model.json", HINT, dict) if (path / "model.json").is_file() else {}
    for name in MARKED:
        if name in info.get("files", {}) and (path / name).is_file():
            check_digest(path / name, info["files"][name], of_file(path / name), "Train or download the model again.")
    model, file = cls(config), path / "model.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"{file} not found. {HINT}")
    try:
        load_weights(model, file)
    except (SafetensorError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{file} is damaged or has another configuration ({said}). Train or download the model again."
        ) from None
    if "tokenizer" not in info:
        return model.eval(), None, {**info, "path": str(path)}
    words = load_tokenizer(tokenizer or path / "tokenizer", flag="--tokenizer" if tokenizer else "")
    if words.fingerprint != info["tokenizer"]:
        raise ValueError(
            f"the model in {path} was trained on tokens of tokenizer {info['tokenizer']} ({info.get('kind')}), "
            f"but {tokenizer or path / 'tokenizer'} is {words.fingerprint} ({words.config.kind}). "
            "Give the tokenizer it was trained with."
        )
    if cls is GPT and (words.codes, words.tokens_per_field) != (config.codes, config.tokens_per_field):
        raise ValueError(
            f"the model reads {config.tokens_per_field} tokens of {config.codes} codes, its tokenizer makes "
            f"{words.tokens_per_field} of {words.codes}. Train or download the model again."
        )
    return model.eval(), words, {**info, "path": str(path)}


def load_gpt(
    path: Path | str, tokenizer: Path | str | None = None, *, revision: str | None = None
) -> tuple[GPT, WeightTokenizer, dict]:
    """`load_model` for those who need a GPT over tokens.

    Raises:
        FileNotFoundError, ValueError: as `load_model`, and for a model of another kind.
    """
    model, words, info = load_model(path, tokenizer, revision=revision)
    if not isinstance(model, GPT) or words is None:
        raise ValueError(
            f"--model {path} is a {model.config.kind} model, which writes no tokens, but this command needs a GPT of scripts/train_gpt.py. "
            "The samples of a flow are in samples/ in its training folder."
        )
    return model, words, info
