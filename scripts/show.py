"""A picture of anything this project writes:  python scripts/show.py PATH [--size H W] [--n N] [--out FILE.png]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from gpt.sampling.options import ShowConfig

if __name__ == "__main__":
    run_cli("gpt.sampling.show:show", ShowConfig, alone="python scripts/show.py")
