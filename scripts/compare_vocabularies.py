"""A GPT over each of several vocabularies, trained equally long and evaluated in the same way:

python scripts/compare_vocabularies.py runs/mnist/kmeans runs/mnist/pca --fields runs/mnist/fields --data-root DIR
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.launch import run_cli
from gpt.experiments.options import CompareVocabulariesConfig

if __name__ == "__main__":
    run_cli("gpt.experiments.compare_vocabularies:compare_vocabularies", CompareVocabulariesConfig)
