"""Speed and memory, as ratios measured side by side in one run:  python scripts/benchmark.py fit|tokenizers|shapes|gpt|scale"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from scripts.benchmarks.commands import parse

if __name__ == "__main__":
    run_cli("scripts.benchmarks.commands:run", parse, alone="python scripts/benchmark.py")
