"""Surfaces of 3-D fields as files:  python scripts/mesh.py --fields runs/solids/samples --out runs/solids/meshes"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.formats.options import MeshConfig
from fields.runtime.launch import run_cli

if __name__ == "__main__":
    run_cli("fields.formats.surfaces:main", MeshConfig, alone="python scripts/mesh.py")
