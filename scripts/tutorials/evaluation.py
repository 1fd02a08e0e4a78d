"""What the numbers of an evaluation mean, seen on sets whose quality is known beforehand.

A notebook in percent format: run it as a script, or cell by cell in an editor that knows `# %%`. The words are in the glossary
(gpt/evaluation/README.md).
"""

# %% The root of the checkout comes first on the path (README, "Names")
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

# %% 180 training and 180 held-out digits: the pictures inside scikit-learn
import torch

from fields import SignalsConfig, load_signals

digits = load_signals(SignalsConfig("digits"))
shuffled = torch.randperm(1437, generator=torch.Generator().manual_seed(0))[:180]
training, held_out = (digits.images(digits.indices(split)) for split in ("train", "test"))
training = training[shuffled]

# %% The upper reference: real training pictures against held-out ones. 1-NNA near .5: nothing tells the two sets apart
from gpt import evaluate


def numbers(name: str, pictures: torch.Tensor) -> None:
    """One line of a table."""
    found = evaluate(pictures, held_out)["l2"]
    said = ", ".join(f"{key} {found[key]['value']:.3f}" for key in ("1-nna", "cov", "mmd"))
    print(f"{name:32} {said}   (1-NNA's interval {found['1-nna']['low']:.2f} to {found['1-nna']['high']:.2f})")


numbers("training pictures", training)

# %% Noise: a classifier tells the sets apart, so 1-NNA rises
noise = torch.rand(training.shape, generator=torch.Generator().manual_seed(1))
numbers("training pictures + noise", (training + 0.5 * noise).clamp(0, 1))

# %% A generator that makes one picture alone: COV says that nearly nothing is covered, and 1-NNA is 1
numbers("one picture, again and again", training[:1].expand_as(training) + 0.01 * noise)

# %% Copies of the references themselves: 1-NNA far BELOW .5, for each copy's nearest neighbour is its original
numbers("copies of the references", held_out + 0.001 * noise)

# %% So: compare with the upper reference, by intervals and at equal N; and look for copies of TRAINING data separately (Z_U, near copies)
