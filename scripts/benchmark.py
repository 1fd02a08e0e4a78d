"""Speed and memory, as ratios measured side by side in one run:  python scripts/benchmark.py fit|tokenizers|shapes|gpt|scale"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.processes import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

from fields.runtime.launch import run_cli
from scripts.benchmarks.commands import parse, run

if __name__ == "__main__":
    run_cli(run, parse, alone="python scripts/benchmark.py")
