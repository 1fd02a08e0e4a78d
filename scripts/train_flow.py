"""Train a rectified flow over weights or over a tokenizer's latents:

python scripts/train_flow.py --fields runs/mnist/fields --labels --out runs/mnist/flow
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from gpt.continuous.options import TrainFlowConfig

if __name__ == "__main__":
    run_cli("gpt.continuous.train_flow:train_flow", TrainFlowConfig)
