"""Other people's weight files as a weight dataset:  python scripts/import_fields.py SOURCE PATH --out DIR"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.processes import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

from inspect import getdoc

import tyro

from fields.formats.importer import ImportConfig, main
from fields.runtime.launch import run_cli

if __name__ == "__main__":
    run_cli(
        main, lambda: tyro.cli(ImportConfig, description=getdoc(ImportConfig)), alone="python scripts/import_fields.py"
    )
