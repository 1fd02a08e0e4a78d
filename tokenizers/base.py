"""What all tokenizers share: the protocol fit / encode / decode / save / load.

A tokenizer turns rows of weights into rows of T ids in [0, codes) and back. It emits no special ids: those belong to
`Vocab`. All learnt state lies in buffers, so that `.to()`, saving and loading come from one base class.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn

from fields import layout
from fields.model import FieldConfig
from fields.runtime.records import config_of, read_json
from fields.runtime.resources import one_thread
from fields.runtime.runs import digest, plain, write_atomic, write_json
from fields.storage.fetch import fetch
from fields.storage.rows import Rows
from tokenizers.selection import gather
from tokenizers.standardizer import Standardizer

FORMAT = "neural-fields-as-data/tokenizer/1"
FILES = ["config.json", "model.safetensors"]
RESUME_FILE = "training.safetensors"
"""State of a long fit in its folder while it is not finished."""
SAVED_AS = {"n_codes": "made"}
"""Buffers whose name in files, and so in fingerprints, is an older one."""
HINT = "A tokenizer is made with: python -m tokenizers.build kmeans --fields DIR --out {path}"


class WeightTokenizer(nn.Module, PyTorchModelHubMixin):
    """Base of all tokenizers. A subclass gives `_slots`, `_fit`, `_encode` and `_decode`.

    Attributes:
        field: the architecture whose rows it reads.
        slots: (T, S) int64, each token's place (layer, neuron, input where a token is one weight).
        standardizer: weights <-> numbers with mean 0 and standard deviation 1.
        n_codes: the effective number of codes as a tensor, 0 before `fit`.
        tracking: a `fields.runtime.tracking.Tracking` that a long fit logs to, or None.
        resume_dir: folder where a long fit saves its state, to continue after an interruption; None = no folder.
        slow_to_fit: a fit takes minutes, so a report does not fit the same kind again at other sizes.
        seen: sample of the signals it was fitted on, "" if unknown; see `fields.signals.seen`.
        preserves_weights: decoding returns a row close to the encoded one; if not, another row of the same function.
    """

    slots: Tensor
    n_codes: Tensor
    resume_dir: Path | None = None
    tracking: Any = None
    history: list[dict]
    slow_to_fit: bool = False
    seen: str = ""
    preserves_weights: bool = True

    def __init__(self, config: Any):
        super().__init__()
        if not getattr(config, "field", None):
            name, kind = type(self).__name__, type(self).__init__.__annotations__["config"].__name__
            raise ValueError(
                f"{name} needs a {kind} with the field of its rows; {name}.for_field(field, vocab_size=16) makes both."
            )
        self.config = config
        self.field = FieldConfig.from_dict(config.field)
        self.standardizer = Standardizer(config.standardize, self.field.size)
        self.register_buffer("n_codes", torch.zeros((), dtype=torch.int64))
        self.register_buffer("slots", self._slots(), persistent=False)

    @classmethod
    def for_field(cls, field: FieldConfig, **options: Any) -> Self:
        """An unfitted tokenizer of the rows of a field; `options` are those of its config, such as `vocab_size`."""
        return cls(cls.__init__.__annotations__["config"](field=field.to_dict(), **options))

    def __repr__(self) -> str:
        codes = f"{self.codes} codes" if self.is_fitted else f"not fitted, {self.config.vocab_size} codes asked for"
        return f"{type(self).__name__}({codes}, {self.tokens_per_field} tokens per field, field {self.field})"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `.to`, `.cuda` and `.half` call: devices change, the precision of the vocabulary does not.

        Rounded to bfloat16, a tenth of a scalar vocabulary's ids would be others.
        """

        def move(value: Tensor) -> Tensor:
            moved = fn(value)
            return moved if moved.dtype == value.dtype else value.to(moved.device)

        return super()._apply(move, recurse)

    # -- what a kind of tokenizer gives ---------------------------------------------------------------------------

    def _slots(self) -> Tensor:
        """(T, S) int64, known from the config alone."""
        return layout.slots(self.field)

    def _fit(self, rows: Tensor, held_out: Tensor | None) -> int:
        """Learn from checked rows (n, P) float32, the standardizer being fitted; return the number of codes."""
        raise NotImplementedError

    def _encode(self, weights: Tensor) -> Tensor:
        """(N, P) checked float32 -> (N, T) int64."""
        raise NotImplementedError

    def _decode(self, ids: Tensor) -> Tensor:
        """(N, T) checked int64 -> (N, P) float32."""
        raise NotImplementedError

    @property
    def code_vectors(self) -> Tensor | None:
        """(V, D): codes with close vectors have similar meanings at every position; None where positions differ."""
        return torch.arange(self.codes)[:, None] if self.has_ordered_codes else None

    # -- what refit needs (`tokenizers.refit`) ----------------------------------------------------------------------

    @property
    def has_ordered_codes(self) -> bool:
        """Whether codes are ordered numbers: each id is the rank of one number of `to_latents` among ascending codes."""
        return False

    def to_latents(self, weights: Tensor) -> Tensor:
        """(N, P) weights -> latents: the continuous numbers that are rounded to ids."""
        return self.standardizer(weights)

    def round_latents(self, latents: Tensor) -> Tensor:
        """Latents -> (N, T) ids of the nearest codes."""
        return self._encode(self.standardizer.invert(latents))

    def latent_gradient(self, gradient: Tensor, ids: Tensor) -> Tensor:
        """Gradient with respect to decoded weights (N, P) -> with respect to the latents, at the ids."""
        return gradient * self.standardizer.std

    def canonical_ids(self, ids: Tensor) -> Tensor:
        """(N, T) ids -> those that `encode` would give for the same content; refit ends with it."""
        return ids

    def code_spacing(self) -> float:
        """Typical distance of neighbouring codes, in the units of the latents."""
        return 0.3

    # -- the protocol ---------------------------------------------------------------------------------------------

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` was called, or a fitted one loaded."""
        return int(self.n_codes) > 0

    @property
    def codes(self) -> int:
        """Effective number of codes, V: at most `config.vocab_size`."""
        self._check_fitted()
        return int(self.n_codes)

    @property
    def tokens_per_field(self) -> int:
        """T, the same for every field of the architecture."""
        return len(self.slots)

    @property
    def slot_sizes(self) -> list[int]:
        """For each column of `slots`, one more than its largest entry."""
        return (self.slots.amax(0) + 1).tolist()

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of config and buffers."""
        state = self.state_dict()
        return digest(self.config.settings(), *[part for name in sorted(state) for part in (name, state[name])])

    def set_reference(self, row: Tensor | None) -> Self:
        """Set the row (P,) that the fits started from, before `fit`; only `standardize="delta"` needs it."""
        self.standardizer.set_reference(row)
        return self

    def check_reference(self) -> None:
        """Refuse settings that need a reference row if none was set."""
        self.standardizer.check_reference()

    @torch.no_grad()
    def fit(self, weights: Tensor | np.ndarray | Rows | Iterable[Tensor], *, held_out: Tensor | None = None) -> Self:
        """Learn the vocabulary.

        Args:
            weights: (N, P) training rows (a tensor, an array or `Rows`), or an iterable of such batches.
            held_out: rows on which learned tokenizers are evaluated while they train; never learnt from.
        Raises:
            ValueError: for no rows, rows of another layout, or non-finite ones (the first is named).
        """
        self.check_reference()
        batches: Any = [weights] if isinstance(weights, (Tensor, np.ndarray, Rows)) else weights
        if not isinstance(batches, Iterable):
            raise ValueError(
                f"fit takes (N, P) rows, or batches of them, got {type(weights).__name__}; of a WeightDataset, weights('train')."
            )
        held_out = None if held_out is None else self._check_weights(held_out)
        checked = (self._check_weights(batch, offset) for offset, batch in _offsets(batches))
        rows, moments = gather(checked, self.field.size, self.config.fit_values, self.config.seed)
        self.standardizer.fit(moments)
        self.n_codes.fill_(self._fit(rows, held_out))
        return self

    @torch.no_grad()
    def encode(self, weights: Tensor) -> Tensor:
        """(N, P) weights -> (N, T) int64 ids in [0, codes). Each row's ids depend on that row alone.

        Raises:
            RuntimeError: before `fit`.
            ValueError: for rows of another layout, or non-finite ones.
        """
        self._check_fitted()
        weights = self._check_weights(weights).to(self.n_codes.device)
        if len(weights) == 0:
            return torch.zeros(0, self.tokens_per_field, dtype=torch.int64, device=weights.device)
        return self._encode(weights)

    @torch.no_grad()
    def decode(self, ids: Tensor) -> Tensor:
        """(N, T) int64 ids -> (N, P) float32 weights.

        Raises:
            RuntimeError: before `fit`.
            ValueError: for another T, or an id outside [0, codes).
        """
        self._check_fitted()
        ids = self._check_ids(ids).to(self.n_codes.device)
        if len(ids) == 0:
            return torch.zeros(0, self.field.size, device=ids.device)
        return self._decode(ids)

    # -- checks ---------------------------------------------------------------------------------------------------

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            name = type(self).__name__
            raise RuntimeError(
                f"{name} is not fitted. Call fit(weights), or load one with {name}.from_pretrained(path)."
            )

    def _check_weights(self, weights: Tensor | np.ndarray | Rows, offset: int = 0) -> Tensor:
        """Rows as finite float32; `offset` is the number of rows before this batch."""
        weights = weights.weights if isinstance(weights, Rows) else weights
        weights = torch.from_numpy(weights) if isinstance(weights, np.ndarray) else weights
        if not isinstance(weights, Tensor) or not weights.is_floating_point():
            raise ValueError(
                f"weights must be a float tensor, got {getattr(weights, 'dtype', type(weights).__name__)}."
            )
        if weights.ndim != 2 or weights.shape[1] != self.field.size:
            raise ValueError(
                f"weights must have shape (N, {self.field.size}), got {tuple(weights.shape)}. This tokenizer reads "
                f"rows of the field {self.field}; build another tokenizer for other fields."
            )
        weights = weights.detach().to(torch.float32)
        with one_thread():
            finite = weights.numel() == 0 or all(bool(x.isfinite()) for x in weights.aminmax())  # NaN passes through
        if not finite:
            bad = (~weights.isfinite().all(1)).nonzero().flatten()
            raise ValueError(
                f"row {offset + int(bad[0])} of the weights is not finite ({len(bad)} such rows in its batch). "
                "Leave diverged fits out."
            )
        return weights

    def _check_ids(self, ids: Tensor | np.ndarray | list) -> Tensor:
        ids = torch.as_tensor(ids) if isinstance(ids, (np.ndarray, list)) else ids
        if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise ValueError(f"ids must be an integer tensor, got {getattr(ids, 'dtype', type(ids).__name__)}.")
        if ids.ndim != 2 or ids.shape[1] != self.tokens_per_field:
            raise ValueError(f"ids must have shape (N, {self.tokens_per_field}), got {tuple(ids.shape)}.")
        ids = ids.to(torch.int64)
        bad = ((ids < 0) | (ids >= self.codes)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            value = int(ids[row, column])
            name = {self.codes: "SOS", self.codes + 1: "EOS", self.codes + 2: "PAD"}.get(value)
            found = f"{value} ({name} of a vocabulary of these codes)" if name else str(value)
            raise ValueError(
                f"ids must lie in [0, {self.codes}), got {found} at row {row}, token {column}. "
                "Strip SOS, EOS, PAD and labels before decoding."
            )
        return ids

    # -- saving and loading ---------------------------------------------------------------------------------------

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, saved in SAVED_AS.items():
            destination[prefix + saved] = destination.pop(prefix + name)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        for name, saved in SAVED_AS.items():
            if prefix + saved in state_dict:
                state_dict[prefix + name] = state_dict.pop(prefix + saved)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _save_pretrained(self, save_directory: Path) -> None:
        from safetensors.torch import save

        self._check_fitted()
        state = {name: value.detach().cpu().contiguous().clone() for name, value in self.state_dict().items()}
        with write_atomic(Path(save_directory) / "model.safetensors") as temporary:
            temporary.write_bytes(
                save(state, metadata={"format": "pt"})
            )  # save_file makes it readable by its owner only
        write_json(Path(save_directory) / "config.json", self.describe())

    def describe(self) -> dict:
        """What config.json holds: the config, and the resulting sizes."""
        sizes: dict[str, Any] = {"tokens_per_field": self.tokens_per_field, "codes": self.codes}
        sizes |= {"seen": self.seen} if self.seen else {}
        return {**plain(asdict(self.config)), "format": FORMAT, "fingerprint": self.fingerprint, **sizes}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *, strict: bool = True, **kwargs: Any) -> Self:
        """Load a folder, or `user/name[@revision]` from the Hub (or with `revision=`). A folder never touches the network.

        Raises:
            FileNotFoundError: if a local folder, or a file in it, is missing; with the command that makes it.
            ValueError: if the files are damaged or belong to another kind.
        """
        path = pretrained_model_name_or_path
        path = fetch(path, "model", revision=kwargs.get("revision"), patterns=FILES, flag=kwargs.get("flag", ""))
        config = read_config(path)
        kind = cls.__init__.__annotations__["config"]
        if config["kind"] != kind.kind:
            raise ValueError(f"{path} holds a {config['kind']} tokenizer, not {kind.kind}. Use load_tokenizer(path).")
        if not (path / "model.safetensors").is_file():
            raise FileNotFoundError(f"{path}/model.safetensors not found. {HINT.format(path=path)}")
        try:
            tokenizer = cls(config_of(path / "config.json", config, kind, HINT.format(path=path)))
        except (TypeError, KeyError, ArithmeticError, RuntimeError) as error:
            raise ValueError(
                f"{path}/config.json does not describe a tokenizer ({str(error)[:200]}). {HINT.format(path=path)}"
            ) from None
        cls._load_as_safetensor(tokenizer, f"{path}/model.safetensors", kwargs.get("map_location", "cpu"), strict)
        tokenizer.eval()
        tokenizer.seen = config["seen"]
        if config.get("fingerprint") not in (None, tokenizer.fingerprint):
            raise ValueError(
                f"{path}: config.json and model.safetensors do not belong together (fingerprint "
                f"{config['fingerprint']} recorded, {tokenizer.fingerprint} found). Fetch or build the tokenizer again."
            )
        return tokenizer

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        from safetensors import SafetensorError

        try:
            return super()._load_as_safetensor(model, model_file, map_location, strict)
        except (SafetensorError, RuntimeError) as error:  # a bare "invalid header length", or keys and shapes
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{model_file} is damaged or has another configuration ({reason}). Build or fetch it again."
            ) from None

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = False, revision: str | None = None, **options: Any
    ) -> Any:
        """Publish as `user/name`, with a card, as `scripts/publish.py tokenizer` does. Options: `PublishTokenizer`."""
        from tokenizers.hub import push_tokenizer

        return push_tokenizer(self, repo_id, private=private, revision=revision, **options)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """A short card; `scripts/publish.py` writes the full one."""
        c = self.describe()
        return ModelCard(
            f"---\ntags: [neural-fields, {c['kind']}]\n---\n\n# A {c['kind']} tokenizer of neural-field weights\n\n"
            f"{c['codes']} codes, {c['tokens_per_field']} tokens per field. Field: {self.field}.\n\n"
            f'```python\nfrom tokenizers import load_tokenizer\n\ntokenizer = load_tokenizer("PATH")\n```\n'
        )


def _offsets(batches: Iterable[Tensor]):
    """(rows before, batch) of each batch."""
    seen = 0
    for batch in batches:
        yield seen, batch
        seen += len(batch)


@dataclass
class ConfigFile:
    """`config.json` of every kind of tokenizer."""

    kind: str
    field: dict[str, Any]
    vocab_size: int = 512
    format: str = FORMAT
    fingerprint: str | None = None
    tokens_per_field: int | None = None
    codes: int | None = None
    seen: str = ""


def read_config(path: Path) -> dict:
    """config.json of a tokenizer folder, checked to be one."""
    config = read_json(path / "config.json", HINT.format(path=path), ConfigFile)
    if config["format"] != FORMAT:
        raise ValueError(
            f"{path}/config.json has format {config['format']!r}, this code reads {FORMAT!r}. Update the code."
        )
    return config
