"""Draw new fields from a GPT:  python scripts/sample.py --model runs/mnist/gpt --n 64 --out runs/mnist/samples"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from gpt.sampling.options import SampleConfig

if __name__ == "__main__":
    run_cli("gpt.sampling.sample:sample", SampleConfig)
