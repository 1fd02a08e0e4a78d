"""Train a GPT on the tokens of neural fields; without arguments the pipeline on scikit-learn's digits:

python scripts/train_gpt.py
python scripts/train_gpt.py --fields runs/mnist/fields --tokenizer runs/mnist/kmeans --out runs/mnist/gpt
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

import tyro

from fields.runtime.launch import run_cli
from gpt.options import PipelineConfig, defaults

if __name__ == "__main__":
    run_cli("gpt.pipeline:run", lambda: tyro.cli(PipelineConfig, default=defaults(sys.argv[1:])))
