"""From signed distances of your own to new shapes: fields in space, tokens, a GPT, surfaces as files.

A notebook in percent format: run it as a script, or cell by cell in an editor that knows `# %%`. It writes into the folder
given as its argument, `runs/tutorials` by default.
"""

# %% The root of the checkout comes first on the path (README, "Names")
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/tutorials") / "own_shapes"
out.mkdir(parents=True, exist_ok=True)

# %% Shapes: here goblets and dumb-bells of random proportions; yours are any function of points, negative inside
import numpy as np
import torch

NAMES = ["goblet", "dumb-bell"]


def capsule(points, low, high, radius):
    """Signed distance to a rod with round ends that stands on the z axis."""
    z = np.clip(points[:, 2], low, high)
    return np.sqrt(points[:, 0] ** 2 + points[:, 1] ** 2 + (points[:, 2] - z) ** 2) - radius


def distance(points, label, size):
    """(M, 3) points of the cube [-1, 1]^3 -> (M,) signed distances; `size` holds four numbers in [0, 1]."""
    wide, high, rod = 0.3 + 0.2 * size[0], 0.35 + 0.2 * size[1], 0.08 + 0.08 * size[2]
    shaft, top = capsule(points, -high, high, rod), points - np.array([0, 0, high])
    ball = np.linalg.norm(top, axis=1) - wide
    if label:
        other = np.linalg.norm(points + np.array([0, 0, high]), axis=1) - wide * (0.6 + 0.4 * size[3])
        return np.minimum(shaft, np.minimum(ball, other))
    bowl = np.maximum(np.maximum(ball, -(ball + 0.12)), top[:, 2])  # the lower half of a hollow ball
    foot = np.maximum(np.hypot(points[:, 0], points[:, 1]) - wide, abs(points[:, 2] + high) - 0.06)
    return np.minimum(np.maximum(shaft, points[:, 2] - high + wide - 0.06), np.minimum(bowl, foot))


# %% Points and values: half of the points near the surface, where the sign is decided, half anywhere
rng = np.random.default_rng(0)
labels = rng.integers(0, 2, 240)
points, values = np.empty((240, 1024, 3), np.float32), np.empty((240, 1024, 1), np.float32)
for i, label in enumerate(labels):
    size, anywhere = rng.uniform(0, 1, 4), rng.uniform(-1, 1, (8192, 3))
    near = anywhere[np.argsort(abs(distance(anywhere, label, size)))[:512]]
    points[i] = np.concatenate([near, anywhere[:512]])
    values[i, :, 0] = distance(points[i], label, size)
split = ["train"] * 200 + ["test"] * 40

# %% A field for every shape: its value is the signed distance; quality is the intersection over union of the insides
from fields import FieldConfig, fit

field = FieldConfig(in_dim=3, hidden=(24, 24), octaves=2, output="linear")
data = fit(
    torch.from_numpy(points),
    torch.from_numpy(values),
    kind="shapes",
    labels=labels,
    label_names=NAMES,
    split=split,
    field=field,
    steps=200,
    meta_steps=60,
    quiet=True,
)
print(f"{data}; held-out shapes are met with IoU {float(data.quality('test').mean()):.3f}")

# %% Shapes have pictures like all signals: a shaded view of each field's surface
from fields import kind_of, save_png, sheet

kind = kind_of(data.config, data.signals)
save_png(out / "fields.png", sheet(kind.thumbnail(data.config, data.weights("test")[:8], ()), 8, scale=1))

# %% Tokens: 64 directions in which the weights differ most, each as one of 32 codes
from tokenizers import PCATokenizer

tokenizer = PCATokenizer.for_field(data.config, components=64, vocab_size=32).fit(data.weights("train"))
ids = tokenizer.encode(data.weights("train"))
print(f"{ids.shape[1]} tokens of {tokenizer.codes} codes")

# %% A GPT over the tokens, told the family first
from gpt import fit_gpt, sample
from gpt.train_gpt import ModelConfig

model = fit_gpt(
    ids,
    tokenizer,
    labels=data.labels("train"),
    steps=200,
    batch=32,
    model=ModelConfig(n_layer=2, n_head=2, n_embd=64),
    progress=False,
)

# %% New shapes: a picture of eight per family, and the first as a file for any viewer of meshes
from fields.view.mesh import mesh_field, save_mesh

for label, name in enumerate(NAMES):
    new = sample(model, tokenizer, 8, label=label).weights
    save_png(out / f"new-{name}.png", sheet(kind.thumbnail(data.config, new, ()), 8, scale=1))
    mesh = mesh_field(data.config, new[0], 64, below=True)
    print(f"{name}: {mesh.outcome}, {len(mesh.faces):,} triangles")
    if mesh.outcome == "surface":
        save_mesh(out / f"new-{name}.glb", mesh)
print(f"pictures and meshes are in {out}")
