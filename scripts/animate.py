"""Explanatory animations:  python scripts/animate.py fit|delta|permutation|autoregressive|vocabulary|interpolate|regression"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from scripts.animations.commands import parse

if __name__ == "__main__":
    run_cli("scripts.animations.commands:run", parse, alone="python scripts/animate.py")
