"""Explore a model in a browser:  python scripts/demo.py --model runs/digits/gpt"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from gpt.demo.options import DemoConfig

if __name__ == "__main__":
    run_cli("gpt.demo.demo:demo", DemoConfig, alone="python scripts/demo.py")
