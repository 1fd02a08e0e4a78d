"""Weight files of other projects, written in their exact public formats from rows of ours. No test itself."""

import json
from pathlib import Path

import h5py
import numpy as np
import torch

from fields import layout
from fields.formats.importer import import_fields
from fields.formats.options import ImportConfig
from fields.formats.weight_formats import WEIGHT_FORMATS
from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset


def config_of(source: str, **changes) -> FieldConfig:
    """A small field by a source's conventions."""
    states = WEIGHT_FORMATS[source]
    values = {"hidden": (6, 6), **states.states, **states.by_channels.get(changes.get("out_dim", 1), {})}
    if source == "arena":
        values["activation"] = "sine"
    return FieldConfig(**{**values, **changes})


def state(config: FieldConfig, row: torch.Tensor, key: str) -> dict[str, torch.Tensor]:
    """A PyTorch state dict; `key` has {i} and {kind}."""
    layers = layout.split(config, row[None])
    last = len(layers) - 1
    name = [key.replace(".linear", "") if i == last else key for i in range(last + 1)]
    return {
        name[i].format(i=i, kind=kind): part[0].clone()
        for i, layer in enumerate(layers) for kind, part in zip(("weight", "bias"), layer, strict=True)
    }  # fmt: skip


def save(content, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def nefgpt(root: Path, config, rows, ids, labels) -> None:
    """Checkpoints with their model's configuration."""
    about = {"out_size": 1, "hidden_neurons": list(config.hidden), "use_leaky_relu": False, "output_type": "logits"}
    about |= {"input_dims": 2, "multires": config.octaves, "include_input": False, "weight_init": None}
    for row, i in zip(rows, ids, strict=True):
        made = {"state_dict": state(config, row, "layers.{i}.{kind}"), "model_config": about, "vq_state_dict": {}}
        save(made, root / f"nef_train_{i}.pth")


def dwsnets(root: Path, config, rows, ids, labels, part: str = "training") -> None:
    """One folder per field."""
    for row, i, label in zip(rows, ids, labels, strict=True):
        name = f"mnist_png_{part}_{label}_{i}/checkpoints/model_final.pth"
        save(state(config, row, "seq.{i}.{kind}"), root / name)


def nfn(root: Path, config, rows, ids, labels) -> None:
    """One folder per label; numbers go through the training and test pictures."""
    for row, i, label in zip(rows, ids, labels, strict=True):
        save(state(config, row, "net.{i}.linear.{kind}"), root / f"randinit_smaller_{label}s/net{i}.pth")


def arena(root: Path, config, rows, ids, labels, known: bool = True) -> None:
    """One HDF5 file of consecutive fields, and the network's description."""
    root.mkdir(parents=True, exist_ok=True)
    layers, stated, pieces = layout.split(config, rows), [], []
    for i, (weight, bias) in enumerate(layers):
        name = "output_linear" if i == len(layers) - 1 else f"kernel_net_{i}.linear"
        stated += [(f"{name}.bias", bias.shape[1:]), (f"{name}.kernel", (weight.shape[2], weight.shape[1]))]
        pieces += [bias, weight.transpose(1, 2).flatten(1)]
    with h5py.File(root / f"nefs_{ids[0]}-{ids[-1] + 1}.hdf5", "w") as file:
        file.create_dataset("params", data=torch.cat(pieces, 1).numpy())
        text = file.create_dataset("param_config", (1,), dtype=h5py.special_dtype(vlen=str))
        text[0] = json.dumps(stated)
        file.create_dataset("labels", data=list(labels))
    if known:
        params = {"output_dim": config.out_dim, "hidden_dim": config.hidden[0], "num_layers": 3, "omega_0": config.w0}
        (root / "nef.json").write_text(json.dumps({"name": "SIREN", "params": params}))
        (root / "cfg.json").write_text(json.dumps({"dataset": {"name": "MNIST"}, "seeds": [0]}))


def hyperdiffusion(root: Path, config, rows, ids, labels) -> None:
    """Plain state dicts named by shape."""
    for row, i in zip(rows, ids, strict=True):
        save(state(config, row, "layers.{i}.{kind}"), root / f"occ_{i:x}a_jitter_0_model_final.pth")


def implicit_zoo(root: Path, config, rows, ids, labels) -> None:
    """Label folders; PSNRs in a JSON file beside them."""
    for row, i, label in zip(rows, ids, labels, strict=True):
        content = {"image_idx": i, "params": state(config, row, "seq.{i}.{kind}")}
        save(content, root / f"ckpts/{label:02d}/{i:06d}_0000042.ckpt")
    (root / "0_50000.json").write_text(json.dumps({str(i): 30.0 + i for i in ids}))


def u2ni(root: Path, config, rows, ids, labels) -> None:
    """Keras weight files."""
    root.mkdir(parents=True, exist_ok=True)
    for row, i in zip(rows, ids, strict=True):
        with h5py.File(root / f"{100_000 + i}_sf.h5", "w") as file:
            for k, (weight, bias) in enumerate(layout.split(config, row[None])):
                name = f"dense_{k}/dense_{k}" if k else "dense/dense"
                file[f"{name}/kernel:0"], file[f"{name}/bias:0"] = weight[0].T.numpy(), bias[0].numpy()
            file.attrs["backend"] = "tensorflow"


def niq(root: Path, config, rows, ids, labels) -> None:
    """Numbered operations in an .npz."""
    root.mkdir(parents=True, exist_ok=True)
    for row, i in zip(rows, ids, strict=True):
        arrays, layers = {}, layout.split(config, row[None])
        for k, (weight, bias) in enumerate(layers):
            arrays |= {f"{2 * k:04d}.dense.A": weight[0].T.numpy(), f"{2 * k:04d}.dense.b": bias[0].numpy()}
            if k < len(layers) - 1:
                arrays[f"{2 * k + 1:04d}.{config.activation}._"] = np.zeros(0, np.float32)
        np.savez(root / f"shape{i}.npz", **arrays, **{"0005.squeeze_last._": np.zeros(0, np.float32)})


def generic(root: Path, config, rows, ids, labels) -> None:
    """State dicts with anybody's keys."""
    for row, i in zip(rows, ids, strict=True):
        save(state(config, row, "trunk.{i}.fc.{kind}"), root / f"net_{i}.pt")


WRITERS = {
    "nefgpt": nefgpt,
    "dwsnets": dwsnets,
    "nfn": nfn,
    "arena": arena,
    "hyperdiffusion": hyperdiffusion,
    "implicit-zoo": implicit_zoo,
    "u2ni": u2ni,
    "niq": niq,
    "generic": generic,
}


def bring(source: str, path: Path, out: Path, **kwargs) -> WeightDataset:
    """Import into one dataset."""
    import_fields(ImportConfig(source, path, out, **kwargs))
    return WeightDataset.load(out)
