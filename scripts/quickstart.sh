#!/usr/bin/env bash
# Environment, then the pipeline on the embedded digits: fields, tokens, a GPT, and a picture of fields that never existed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
.venv/bin/python scripts/train_gpt.py "$@"
