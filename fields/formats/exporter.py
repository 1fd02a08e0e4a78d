"""A weight dataset in other projects' formats:  python scripts/export_fields.py DIR --format dwsnets --out DIR2"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fields import layout
from fields.activations import ACTIVATIONS, OUTPUTS
from fields.formats.options import ExportConfig, Format
from fields.formats.sidecars import COLUMNS, SIDECAR
from fields.formats.weight_formats import WEIGHT_FORMATS
from fields.kinds.registry import kind_of
from fields.model import FieldConfig
from fields.runtime import runs
from fields.runtime.console import bar, plural
from fields.runtime.text import file_name, unique
from fields.storage.dataset import WeightDataset

ARENA_ROWS = 5_000  # fields per HDF5 file
IMPORT = {"state-dicts": "generic", "safetensors": "generic", "dwsnets": "dwsnets", "arena": "arena"}


def main(config: ExportConfig) -> None:
    """The command."""
    data = WeightDataset.load(config.fields, flag="FIELDS")
    asked = {"format": config.format, "overwrite": config.overwrite}
    claimed = runs.claim(config.out, asked, parents={"fields": data.fingerprint}, kind="export")
    if claimed and (config.out / "export.json").is_file():
        print(f"{config.out} is complete.")
        return
    report = export(data, config.format, config.out)
    total = sum(len(rows) for rows in data.splits.values())
    print(f"{plural(total, 'field')} in {config.out}, format {config.format}, weight files: {report['files']:,}")
    print(report["says"])
    print(f"to read them again: python scripts/import_fields.py {IMPORT[config.format]} {config.out} --out DIR")


def export(data: WeightDataset, format: Format, out: Path) -> dict:
    """Write all splits, all or nothing.

    Args:
        out: a folder claimed for this; its run.json stays, all else in it is replaced.
    Returns:
        What export.json holds: the number of files, and whether the format's own code computes the same fields.
    """
    said = fidelity(data.config, format)
    with runs.replace_folder(out) as folder:
        files = WRITERS[format](data, folder, out)
        sidecar = {"format": format, "says": said, "field": data.config.to_dict(), "signals": data.signals}
        runs.write_json(folder / SIDECAR, {**sidecar, "reference": data.reference.to_dict(), "files": files})
        report = {"format": format, "files": len(files), "says": said, "fingerprint": data.fingerprint}
        runs.write_json(folder / "export.json", report)
        if (out / "run.json").is_file():
            (folder / "run.json").write_bytes((out / "run.json").read_bytes())
    return report


def fidelity(config: FieldConfig, format: Format) -> str:
    """Whether the format's own code computes these fields, and what it would take for something else, in a line."""
    if format in ("state-dicts", "safetensors"):
        return f"the matrices are plain; how to compute a field from them stands under `field` in {SIDECAR}"
    states, pictures = dict(WEIGHT_FORMATS[format].states), kind_of(config).name == "images"
    if format == "arena":  # a SIREN of any w0 or a ReLU MLP; what they predict is standardised, or a shape's logit
        outputs = ("linear", "offset") if pictures else ("linear", "offset", "logit")
        free = {"activation": ("relu", "sine"), "output": outputs, "w0": None}
        states |= {
            k: getattr(config, k) if v is None or getattr(config, k) in v else " or ".join(v) for k, v in free.items()
        }
    unseen = set() if ACTIVATIONS[config.activation].uses_w0 else {"w0"}
    unseen |= set() if OUTPUTS[config.output].usual else {"output_scale", "output_shift"}
    unseen |= {"coords", "axes"} if not pictures else set()  # they speak of pixels
    wrong = [key for key, value in states.items() if getattr(config, key) != value and key not in unseen]
    theirs = WEIGHT_FORMATS[format].title
    if not wrong and len(set(config.hidden)) == 1:
        return f"the networks of {theirs} compute these very fields"
    shown = ", ".join(f"{key} {getattr(config, key)} (theirs: {states[key]})" for key in wrong) or f"{config}"
    return (
        f"LAYOUT ONLY: the networks of {theirs} do not compute these fields, {shown}. Models can be trained on the "
        f"weights; pictures are only right by the conventions in {SIDECAR}"
    )


# -- what all formats share -------------------------------------------------------------------------------------------


def rows(data: WeightDataset, split: str) -> Iterator[tuple[Tensor, dict[str, list]]]:
    """Batches of (n, P) rows and their columns, with progress."""
    labels, quality = data.labels(split), data.quality(split).tolist()
    known = {"signal_id": data.ids(split), "seed": data.seeds(split).tolist()}
    known["quality"] = [None if value != value else value for value in quality]  # JSON knows no NaN
    known["label"] = [-1] * len(quality) if labels is None else labels.tolist()
    known["extent"] = data.extent(split).tolist()
    known["split"] = [split] * len(quality)
    at = 0
    with bar(total=len(quality), desc=split, unit="field") as shown:
        for batch in data.batches(split, ARENA_ROWS):
            yield batch, {name: known[name][at : at + len(batch)] for name in COLUMNS}
            at += len(batch)
            shown.update(len(batch))


def safe(text: str) -> str:
    """A file's name made of what every system takes, never empty, hidden or a path."""
    return file_name(re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[-100:] or "field")


def state_dicts(config: FieldConfig, batch: Tensor, prefix: str) -> Iterator[dict[str, Tensor]]:
    """One state dict per row."""
    parts = [(f"{prefix}.{i}", layer) for i, layer in enumerate(layout.split(config, batch))]
    for n in range(len(batch)):
        yield {
            f"{name}.{kind}": part[n].clone() for name, layer in parts
            for kind, part in zip(("weight", "bias"), layer, strict=True)
        }  # fmt: skip


# -- the formats ------------------------------------------------------------------------------------------------------


def write_state_dicts(data: WeightDataset, folder: Path, _: Path) -> dict[str, dict]:
    """SPLIT/SIGNAL.pth; returns each file's columns."""
    files = {}
    for split in data.splits:
        (folder / split).mkdir()
        taken: set[str] = set()
        for batch, known in rows(data, split):
            for n, state in enumerate(state_dicts(data.config, batch, "layers")):
                name = f"{split}/{unique(safe(known['signal_id'][n]), taken)}.pth"
                torch.save(state, folder / name)
                files[name] = {k: [v[n]] for k, v in known.items()}
    return files


def write_safetensors(data: WeightDataset, folder: Path, _: Path) -> dict[str, dict]:
    """SPLIT.safetensors with all fields stacked, as torch.func.functional_call under vmap takes them."""
    from safetensors.torch import save_file

    files = {}
    for split in data.splits:
        if not len(data.splits[split]):
            continue
        layers = layout.split(data.config, data.weights(split))
        names = [name for name, _ in layout.shapes(data.config.widths)]
        parts = [part.contiguous() for layer in layers for part in layer]
        meta = {"field": json.dumps(data.config.to_dict()), "stacked": "true"}
        save_file(dict(zip(names, parts, strict=True)), folder / f"{split}.safetensors", meta)
        known = [columns for _, columns in rows(data, split)]
        files[f"{split}.safetensors"] = {name: [v for part in known for v in part[name]] for name in COLUMNS}
    return files


def write_dwsnets(data: WeightDataset, folder: Path, out: Path) -> dict[str, dict]:
    """SET_png_PART_LABEL_ID/checkpoints/model_final.pth and splits.json, whose paths are whole, as DWSNets wants them."""
    files: dict[str, dict] = {}
    taken: set[str] = set()
    listed: dict[str, dict[str, list[str]]] = {name: {"path": [], "label": []} for name in ("train", "val", "test")}
    for split in data.splits:
        into = listed.setdefault({"validation": "val"}.get(split, split), {"path": [], "label": []})
        for batch, known in rows(data, split):
            for n, state in enumerate(state_dicts(data.config, batch, "seq")):
                signal, label = known["signal_id"][n], known["label"][n]
                part = "testing" if split == "test" else "training"
                number = re.search(r"(?:^|/)(\d+)$", signal)
                name = f"{safe(signal.split('/')[0])}_png_{part}_{label}_{number[1] if number else len(files)}"
                name = f"{unique(name, taken)}/checkpoints/model_final.pth"
                (folder / name).parent.mkdir(parents=True)
                torch.save(state, folder / name)
                into["path"].append((out.resolve() / name).as_posix())
                into["label"].append(str(label))
                files[name] = {k: [v[n]] for k, v in known.items()}
    runs.write_json(folder / "splits.json", listed, seal=False)
    return files


def write_arena(data: WeightDataset, folder: Path, _: Path) -> dict[str, dict]:
    """nefs_FROM-TO.hdf5 with params, param_config and labels: the splits one after the other; nef.json, the network."""
    import h5py

    config, at, files = data.config, 0, {}
    network, names = _network(config)
    parts = [(f"{name}.{kind}", shape) for name, (fan_in, fan_out) in names for kind, shape in
             (("bias", [fan_out]), ("kernel", [fan_in, fan_out]))]  # fmt: skip
    for split in data.splits:
        for batch, known in rows(data, split):
            pieces = [p for w, b in layout.split(config, batch) for p in (b, w.transpose(1, 2).flatten(1))]
            name = f"nefs_{at}-{at + len(batch)}.hdf5"
            with h5py.File(folder / name, "w") as file:
                file.create_dataset("params", data=torch.cat(pieces, 1).numpy())
                stated = file.create_dataset("param_config", (1,), dtype=h5py.string_dtype())
                stated[0] = json.dumps(parts)
                if data.label_names is not None:
                    file.create_dataset("labels", data=np.asarray(known["label"], np.int64))
            files[name] = known
            at += len(batch)
    runs.write_json(folder / "nef.json", network, seal=False)
    return files


def _network(config: FieldConfig) -> tuple[dict, list[tuple[str, tuple[int, int]]]]:
    """What fit-a-nef calls the network and its layers: a SIREN for sine, else an MLP."""
    shapes = list(zip(config.widths, config.widths[1:], strict=False))
    width = {"output_dim": config.out_dim, "hidden_dim": config.hidden[0]}
    if config.activation == "sine":
        names = [f"kernel_net_{i}.linear" for i in range(len(config.hidden))] + ["output_linear"]
        params = {**width, "num_layers": len(shapes), "omega_0": config.w0}
        return {"name": "SIREN", "params": params}, list(zip(names, shapes, strict=True))
    names = [f"Dense_{i}" for i in range(len(shapes))]
    return {"name": "MLP", "params": {**width, "num_layers": len(config.hidden)}}, list(zip(names, shapes, strict=True))


WRITERS = {
    "state-dicts": write_state_dicts,
    "safetensors": write_safetensors,
    "dwsnets": write_dwsnets,
    "arena": write_arena,
}
