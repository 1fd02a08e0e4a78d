#!/usr/bin/env bash
# Makes the environment, then runs the pipeline on scikit-learn's digits: fields, tokens, a GPT, and a picture of new fields.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
.venv/bin/python scripts/train_gpt.py "$@"
