"""What a GPT is trained on: a weight dataset, its tokenizer and its tokens, checked to belong together."""

from dataclasses import dataclass
from pathlib import Path

from fields.signals.seen import refuse_seen, seen_by
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import is_local
from gpt.data import Sequences, map_ids
from tokenizers.base import WeightTokenizer
from tokenizers.registry import load_tokenizer
from tokenizers.tokens import TokenDataset
from tokenizers.vocab import Vocab


@dataclass(frozen=True)
class Corpus:
    """Attributes say what they are; `held_out` is the validation split, None without one."""

    data: WeightDataset
    tokenizer: WeightTokenizer
    tokens: TokenDataset
    vocab: Vocab
    train: Sequences
    held_out: Sequences | None
    label_names: list[str] | None
    streamed: bool = False
    """Fields are read from their files at each use."""

    @property
    def parents(self) -> dict[str, str]:
        """Fingerprints of what a model is made from."""
        return {
            "fields": self.data.fingerprint,
            "tokenizer": self.tokenizer.fingerprint,
            "tokens": self.tokens.fingerprint,
        }

    def info(self) -> dict:
        """What model.json says of a model's origin."""
        v = self.vocab
        return {
            "format": "neural-fields-as-data/model/1",
            "tokenizer": self.tokenizer.fingerprint,
            "kind": self.tokenizer.config.kind,
            "dataset": self.data.fingerprint,
            "tokens": self.tokens.fingerprint,
            "label_names": self.label_names,
            "signals": {**self.data.signals, "seen": seen_by(self.data)},
            "size": self.data.extent("train")[0].tolist(),
            "vocab": {"codes": v.codes, "labels": v.labels, "sos": v.sos, "eos": v.eos, "pad": v.pad, "size": v.size},
        }


def load_corpus(
    fields: Path | str,
    tokenizer: Path | str,
    tokens: Path | str | None = None,
    labels: bool = False,
    mapped: Path | None = None,
) -> Corpus:
    """Read and check.

    Args:
        fields: a weight dataset, a folder or a Hub name.
        tokenizer: a tokenizer.
        tokens: the dataset's tokens; None = `tokens/` in the tokenizer folder.
        labels: use label tokens.
        mapped: folder for the tokens as memory-mapped files, the fields being streamed; None = all in memory.
    Raises:
        ValueError: if the three do not belong together (both fingerprints are named), there is nothing to train on, or
            labels are asked for where there are none.
        FileNotFoundError: for missing folders, with the command that makes them.
    """
    if tokens is None and not is_local(tokenizer):
        raise ValueError(
            f"--tokenizer {tokenizer} is on the Hub, where tokens have a repository of their own: give --tokens "
            f"user/name, or make them: python -m tokenizers.encode --tokenizer {tokenizer} --fields {fields} --out DIR, "
            "then --tokens DIR."
        )
    words = load_tokenizer(tokenizer, flag="--tokenizer")
    stream = mapped is not None
    data = WeightDataset.load(fields, stream=stream, flag="--fields")
    where = tokens or Path(tokenizer) / "tokens"
    ids = TokenDataset.load(where, stream=stream, flag="--tokens")
    ids.check_tokenizer(words)
    refuse_seen(f"--tokenizer {tokenizer}", words.seen, data)
    if ids.dataset_fingerprint != data.fingerprint:
        raise ValueError(
            f"the tokens in {where} were made from weight dataset {ids.dataset_fingerprint}, but --fields {fields} is "
            f"{data.fingerprint}. Make them again: python -m tokenizers.encode --tokenizer {tokenizer} "
            f"--fields {fields} --out DIR, then --tokens DIR."
        )
    if labels and not data.label_names:
        raise ValueError(f"--labels needs a dataset with labels; {fields} has none. Leave the flag out.")
    names = data.label_names if labels else None
    vocab = Vocab(words.codes, len(names or []))

    def split(name: str) -> Sequences | None:
        if name not in ids.splits or not ids.count(name):
            return None
        classes = ids.labels(name) if labels else None
        if mapped is not None:
            return Sequences(map_ids(ids, name, mapped), vocab, classes)
        return Sequences(ids.ids(name), vocab, classes, ids.signal_ids(name))

    train = split("train")
    if train is None:
        raise ValueError(
            f"the tokens in {where} have no training fields (splits: {', '.join(ids.splits) or 'none'}). Fit signals that have a training split, or name one so."
        )
    return Corpus(data, words, ids, vocab, train, split("validation"), names, stream)
