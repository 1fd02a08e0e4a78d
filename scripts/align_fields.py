"""Match the neurons of all fields to one:  python scripts/align_fields.py --fields DIR --out DIR"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.fitting.options import AlignConfig
from fields.runtime.launch import run_cli

if __name__ == "__main__":
    run_cli("fields.fitting.align:align_dataset", AlignConfig, alone="python scripts/align_fields.py")
