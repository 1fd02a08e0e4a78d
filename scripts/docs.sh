#!/usr/bin/env bash
# The API reference, from the docstrings, as pages in runs/docs (or the folder given):  bash scripts/docs.sh [OUT]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="${1:-runs/docs}"
PYTHON_DOCS="${PYTHON_DOCS:-.venv/bin/python}"
"$PYTHON_DOCS" -c 'import pdoc' 2>/dev/null || {
    echo "error: the reference is made by pdoc, which is not installed. Get it with: .venv/bin/python -m pip install -e '.[docs]'" >&2
    exit 1
}
# every module by its name: the packages' contents pages import lazily, so pdoc would not find what lies below them
modules="$(find fields tokenizers gpt -name '*.py' | sort | sed -e 's#/__init__##' -e 's#\.py$##' -e 's#/#.#g')"
"$PYTHON_DOCS" -W ignore -m pdoc --docformat google --no-show-source --footer-text "Neural fields as data" --output-directory "$out" $modules 2>&1 |
    { grep -v -e "but it does not resolve" || true; }
echo "the reference is $out/index.html"
