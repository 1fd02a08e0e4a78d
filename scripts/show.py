"""A picture of anything this project writes:  python scripts/show.py PATH [--size H W] [--n N] [--out FILE.png]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.processes import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import tyro

from fields.runtime.launch import run_cli
from gpt.sampling.show import ShowConfig, show

if __name__ == "__main__":
    run_cli(show, lambda: tyro.cli(ShowConfig), alone="python scripts/show.py")
