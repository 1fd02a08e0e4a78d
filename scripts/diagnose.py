"""Find the stage that loses most between signals and samples:  python scripts/diagnose.py --model DIR"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from gpt.options import DiagnoseConfig

if __name__ == "__main__":
    run_cli("gpt.evaluation.diagnose:diagnose", DiagnoseConfig, alone="python scripts/diagnose.py")
