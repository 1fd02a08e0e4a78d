"""Publish on the Hugging Face Hub:  python scripts/publish.py fields|tokens|tokenizer|model DIR user/name [--dry-run]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from gpt.publishing import parse

if __name__ == "__main__":
    run_cli("gpt.publishing:run", parse, alone="python scripts/publish.py")
