#!/usr/bin/env bash
# Environment, style, types, then all tests, the slow ones too. Arguments go to pytest:  bash scripts/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy
.venv/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal "$@"
