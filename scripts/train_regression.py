"""How many fields can a regression transformer memorise?  python scripts/train_regression.py --signals mnist"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from gpt.experiments.options import MemoriseConfig

if __name__ == "__main__":
    run_cli("gpt.experiments.memorise:memorise", MemoriseConfig)
