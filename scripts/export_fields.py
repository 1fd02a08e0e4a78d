"""A weight dataset in other projects' formats:  python scripts/export_fields.py DIR --format dwsnets --out DIR2"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.formats.options import ExportConfig
from fields.runtime.launch import run_cli

if __name__ == "__main__":
    run_cli("fields.formats.exporter:main", ExportConfig, alone="python scripts/export_fields.py")
