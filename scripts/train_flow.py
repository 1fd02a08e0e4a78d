"""Train a rectified flow over weights, without tokens:

python scripts/train_flow.py --fields runs/mnist/fields --labels --out runs/mnist/flow
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.processes import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import tyro

from fields.runtime.launch import run_cli
from gpt.continuous.train_flow import TrainFlowConfig, train_flow

if __name__ == "__main__":
    run_cli(train_flow, lambda: tyro.cli(TrainFlowConfig))
