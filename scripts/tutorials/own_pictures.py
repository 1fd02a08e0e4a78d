"""From pictures in memory to new ones: fields, a vocabulary, a GPT, samples.

A notebook in percent format: run it as a script, or cell by cell in an editor that knows `# %%`. It writes into the folder
given as its argument, `runs/tutorials` by default.
"""

# %% The root of the checkout comes first on the path (README, "Names")
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/tutorials") / "own_pictures"
out.mkdir(parents=True, exist_ok=True)

# %% Pictures: here discs and squares of random place, size and brightness; yours are any (N, H, W) or (N, H, W, 3)
import numpy as np

rng = np.random.default_rng(0)
y, x = np.mgrid[0:16, 0:16] / 15
labels = rng.integers(0, 2, 640)
pictures = np.zeros((640, 16, 16), np.float32)
for i, label in enumerate(labels):
    cx, cy, r = *rng.uniform(0.3, 0.7, 2), rng.uniform(0.15, 0.3)
    far = np.maximum(abs(x - cx), abs(y - cy)) if label else np.hypot(x - cx, y - cy)
    pictures[i] = rng.uniform(0.6, 1) * (far < r)
split = ["train"] * 600 + ["validation"] * 40

# %% A field for every picture: the same small network, other weights; all fits begin from one learnt start
from fields import FieldConfig, fit

field = FieldConfig(hidden=(12, 12), octaves=2)  # few octaves for few pixels: more would invent detail between them
data = fit(
    pictures,
    labels=labels,
    label_names=["disc", "square"],
    split=split,
    field=field,
    steps=150,
    meta_steps=100,
    quiet=True,
)
print(f"{data}; fitted to {float(data.quality('validation').mean()):.1f} dB")

# %% A field has no resolution: the same weights at 16 and at 64 pixels
from fields import render, save_png, sheet

rows = data.weights("validation")[:8]
save_png(out / "fields.png", sheet(render(data.config, rows, 16, 16), 8))
save_png(out / "fields-large.png", sheet(render(data.config, rows, 64, 64), 8, scale=1))

# %% Tokens: what the field says in each of 4 x 4 regions, as one of 64 codes
from tokenizers import make_tokenizer
from tokenizers.learned.options import RegionsConfig

words = RegionsConfig(
    vocab_size=64, grid=(4, 4), steps=250, hidden=128, encoder=32, eval_every=125, field=data.config.to_dict()
)
tokenizer = make_tokenizer(words).set_reference(data.reference.row).fit(data.weights("train"))
ids = tokenizer.encode(data.weights("train"))
print(f"{ids.shape[1]} tokens of {tokenizer.codes} codes, the first field: {ids[0].tolist()}")

# %% What the tokens keep: held-out fields and what their tokens decode to
decoded = tokenizer.decode(tokenizer.encode(rows))
save_png(
    out / "round-trip.png", sheet(render(data.config, rows, 16, 16), 8, neighbours=render(data.config, decoded, 16, 16))
)

# %% A GPT over the tokens, told the label first
from gpt import fit_gpt, sample
from gpt.options import ModelConfig

model = fit_gpt(
    ids,
    tokenizer,
    labels=data.labels("train"),
    steps=150,
    model=ModelConfig(n_layer=2, n_head=2, n_embd=32),
    progress=False,
)

# %% New discs and new squares: fields that no picture was ever given for
for label, name in enumerate(data.label_names):
    new = sample(model, tokenizer, 16, label=label)
    save_png(out / f"new-{name}.png", sheet(render(data.config, new.weights, 16, 16), 8))
print(f"pictures are in {out}")
