# Makes .venv/ at the root of the checkout, once; sourced by quickstart.sh and test.sh. PYTHON chooses the interpreter.
PYTHON="${PYTHON:-python3}"
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: Python 3.11 or newer is needed, '$PYTHON' is $("$PYTHON" --version 2>&1). Set PYTHON=/path/to/python3.11." >&2
    exit 1
fi
stamp=".venv/.installed"
wanted="$(sha256sum pyproject.toml 2>/dev/null || shasum -a 256 pyproject.toml)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "environment: installing the dependencies into .venv/ (a few minutes, once)"
    [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
    echo "$wanted" >"$stamp"
fi
