"""The former name of `scripts/evaluate.py` for shapes, with its former flags; to be removed after one release."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from gpt.options import EvaluateConfig

OWN = ("reference", "points", "size", "pool", "baselines", "no-baselines")

if __name__ == "__main__":
    print("scripts/evaluate_shapes.py is now scripts/evaluate.py, with --shapes.points and so on", file=sys.stderr)
    renamed = {f"--{name}": f"--shapes.{name}" for name in OWN} | {"--workers": "--threads"}
    sys.argv[1:] = [
        "=".join([renamed.get(name, name), *value]) for name, *value in (w.split("=", 1) for w in sys.argv[1:])
    ]
    run_cli("gpt.evaluation.evaluate:evaluate", EvaluateConfig, alone="python scripts/evaluate.py")
