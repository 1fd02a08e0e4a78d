"""Fit one neural field to every signal:  python scripts/fit_fields.py --signals mnist --out runs/mnist/fields"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.fitting.options import FitConfig
from fields.runtime.launch import run_cli

if __name__ == "__main__":
    run_cli("fields.fitting.fit:main", FitConfig)
