"""A GPT over tokens of pictures, without fields:  python scripts/train_pictures.py --signals digits"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.processes import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import tyro

from fields.runtime.launch import run_cli
from gpt.experiments.picture_tokens import PictureTokensConfig, train_pictures

if __name__ == "__main__":
    run_cli(train_pictures, lambda: tyro.cli(PictureTokensConfig), alone="python scripts/train_pictures.py")
