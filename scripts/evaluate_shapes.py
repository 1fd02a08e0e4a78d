"""Compare new shapes with held-out ones:  python scripts/evaluate_shapes.py --samples DIR --fields DIR --out DIR"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from gpt.options import ShapeEvaluation

if __name__ == "__main__":
    run_cli("gpt.evaluation.shapes:evaluate_shapes", ShapeEvaluation)
