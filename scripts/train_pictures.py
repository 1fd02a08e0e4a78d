"""A GPT over tokens of pictures, without fields:  python scripts/train_pictures.py --signals digits"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from gpt.experiments.options import PictureTokensConfig

if __name__ == "__main__":
    run_cli(
        "gpt.experiments.picture_tokens:train_pictures", PictureTokensConfig, alone="python scripts/train_pictures.py"
    )
