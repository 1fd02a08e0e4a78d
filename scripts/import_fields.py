"""Weight files of other projects as a weight dataset:  python scripts/import_fields.py SOURCE PATH --out DIR"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.formats.options import ImportConfig
from fields.runtime.launch import run_cli

if __name__ == "__main__":
    run_cli("fields.formats.importer:main", ImportConfig, alone="python scripts/import_fields.py")
