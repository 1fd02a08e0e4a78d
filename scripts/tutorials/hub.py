"""From an image dataset of the Hugging Face Hub to a published model: every stage by its command, every artefact by its name.

A notebook in percent format: run it as a script, or cell by cell in an editor that knows `# %%`. It writes into the folder
given as its argument, `runs/tutorials` by default. It publishes to the Hub that HF_ENDPOINT names, as the user of HF_TOKEN;
without a token it stops after the first cells and says so. Give `--signals user/name` of your own as the second argument.
"""

# %% The root of the checkout comes first on the path (README, "Names")
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/tutorials").resolve() / "hub"
out.mkdir(parents=True, exist_ok=True)


def command(*words):
    """A command of this project, as you would type it."""
    words = [str(word) for word in words]
    print("$ python", *words, flush=True)
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


# %% Who are you there? Everything below carries your name
from huggingface_hub import HfApi, get_token

if get_token() is None:
    raise SystemExit("no token: run `hf auth login`, or set HF_TOKEN; or point HF_ENDPOINT at a Hub of your own")
user = HfApi().whoami()["name"]

# %% A dataset: small coloured pictures of three classes with official splits, pushed as `datasets` does it
import datasets
import numpy as np
from PIL import Image

CLASSES = ["disc", "ring", "cross"]
rng = np.random.default_rng(0)
y, x = np.mgrid[0:16, 0:16] / 15 - 0.5


def picture(label):
    """A shape of random place, size and colour on a dark ground of another colour."""
    dx, dy, r = *rng.uniform(-0.12, 0.12, 2), rng.uniform(0.2, 0.35)
    far = np.hypot(x - dx, y - dy)
    thin = np.minimum(abs(x - dx), abs(y - dy))
    inside = [far < r, abs(far - r) < 0.09, (thin < 0.08) & (np.maximum(abs(x - dx), abs(y - dy)) < r)][label]
    ink, ground = rng.uniform(0.5, 1, 3), rng.uniform(0, 0.3, 3)
    return Image.fromarray((255 * np.where(inside[..., None], ink, ground)).astype(np.uint8))


features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
signals = f"{user}/small-shapes"
if len(sys.argv) > 2:
    signals = sys.argv[2]
else:
    tables = {}
    for split, n in (("train", 300), ("test", 40)):
        labels = [int(i) for i in rng.integers(0, 3, n)]
        rows = {"image": [picture(label) for label in labels], "label": labels}
        tables[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(tables).push_to_hub(signals)

# %% Fields of its pictures, read row by row: official splits stay, a tenth of the training pictures becomes the validation
options = ["--stream", "--resize", "16", "--crop", "--field.hidden", "16", "16", "--field.octaves", "2"]
one = ["--threads", 1]  # so little work is not worth sharing among cores
command("scripts/fit_fields.py", "--signals", signals, *options, "--steps", 80, "--meta-steps", 40, *one, "--out", out / "fields")  # fmt: skip

# %% The fields themselves become a dataset of the Hub that its viewer shows
command("scripts/publish.py", "fields", out / "fields", f"{user}/small-shapes-fields")

# %% From here on the Hub is where the fields come from: a vocabulary and a GPT, each by the dataset's name
fields = f"{user}/small-shapes-fields"
command("-m", "tokenizers.build", "regions", "--fields", fields, "--grid", 4, 4, "--vocab-size", 64, "--steps", 150, "--batch", 64,
        "--hidden", 128, "--encoder", 32, "--probe-rows", 0, *one, "--out", out / "regions")  # fmt: skip
command("scripts/train_gpt.py", "--fields", fields, "--tokenizer", out / "regions", "--labels", "--steps", 120, "--batch", 32,
        "--model.n-layer", 2, "--model.n-head", 2, "--model.n-embd", 64, *one, "--out", out / "gpt")  # fmt: skip

# %% New fields and their evaluation, so that the model's card has numbers
command("scripts/sample.py", "--model", out / "gpt", "--n", 32, "--fields", fields, "--out", out / "samples")
command("scripts/evaluate.py", "--samples", out / "samples", "--fields", out / "fields", "--model", out / "gpt", *one, "--out", out / "evaluation")  # fmt: skip

# %% The model with its tokenizer, its curves and these numbers, under your name
command("scripts/publish.py", "model", out / "gpt", f"{user}/small-shapes-gpt")

# %% Whoever knows the name draws new pictures from it
command(
    "scripts/sample.py", "--model", f"{user}/small-shapes-gpt", "--n", 16, "--label", "ring", "--out", out / "rings"
)
print(
    f"published as {user}/small-shapes-gpt at {os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}; pictures are in {out}"
)
