"""A model to be looked at in a browser:  python scripts/demo.py --model runs/digits/gpt"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.processes import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import tyro

from fields.runtime.launch import run_cli
from gpt.demo.demo import DemoConfig, demo

if __name__ == "__main__":
    run_cli(demo, lambda: tyro.cli(DemoConfig), alone="python scripts/demo.py")
