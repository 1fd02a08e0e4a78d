"""How many fields can a regression transformer memorise?  python scripts/train_regression.py --signals mnist"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.processes import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import tyro

from fields.runtime.launch import run_cli
from gpt.experiments.memorise import MemoriseConfig, memorise

if __name__ == "__main__":
    run_cli(memorise, lambda: tyro.cli(MemoriseConfig))
