"""Commands as a user starts them, also where another package named `tokenizers` is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(p.name for p in (ROOT / "scripts").glob("*.py"))
MODULES = ["tokenizers.build", "tokenizers.encode", "tokenizers.decode", "tokenizers.compare"]


def run(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """One command in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def decoy(tmp_path) -> str:
    """A folder with another `tokenizers` that must never be imported."""
    (tmp_path / "decoy" / "tokenizers").mkdir(parents=True)
    (tmp_path / "decoy" / "tokenizers" / "__init__.py").write_text("raise RuntimeError('the wrong tokenizers')\n")
    return str(tmp_path / "decoy")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_help_beside_a_decoy(script, decoy, tmp_path):
    notebook = "module://a_backend_that_is_not_installed"  # a notebook sets one for its children
    done = run(str(ROOT / "scripts" / script), "--help", cwd=tmp_path, PYTHONPATH=decoy, MPLBACKEND=notebook)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_modules_help_beside_a_decoy(module, decoy):
    done = run("-m", module, "--help", PYTHONPATH=decoy)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_typing_errors_get_a_suggestion():
    done = run("scripts/fit_fields.py", "--stpes", "3")
    assert done.returncode == 2 and "--steps" in done.stderr + done.stdout


def test_wrong_input_is_one_sentence_without_a_trace(tmp_path):
    done = run("scripts/sample.py", "--model", str(tmp_path / "nothing"), "--out", str(tmp_path / "o"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "o").exists()


def test_from_a_notebook_outside_the_checkout(tmp_path):
    """The lines that the README gives."""
    lines = (ROOT / "README.md").read_text().split("<!-- notebook -->")[1].split("```python\n")[1].split("```")[0]
    assert "/path/to/the/checkout" in lines
    (tmp_path / "notebook.py").write_text(lines.replace("/path/to/the/checkout", str(ROOT)))
    done = run("notebook.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tokenizers" in done.stdout and str(ROOT) in done.stdout


@pytest.mark.slow
def test_the_pipeline_in_small(tmp_path, decoy):
    """fit -> build -> encode -> train -> sample -> decode -> evaluate, in an empty folder, then once more at once."""
    import shutil

    for name in ("fields", "tokenizers", "gpt", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / "c" / name, ignore=shutil.ignore_patterns("__pycache__"))
    here = tmp_path / "c"
    steps = [
        ("scripts/fit_fields.py", "--limit", "40", "--steps", "20", "--meta-steps", "5"),
        ("scripts/align_fields.py", "--fields", "runs/digits/fields", "--out", "a"),
        ("-m", "tokenizers.build", "kmeans", "--vocab-size", "8", "--sizes"),
        ("-m", "tokenizers.encode", "--tokenizer", "runs/digits/kmeans", "--fields", "runs/digits/fields", "--out", "t"),
        ("-m", "tokenizers.decode", "--tokenizer", "runs/digits/kmeans", "--tokens", "t", "--out", "w"),
        ("scripts/train_gpt.py", "--fields", "runs/digits/fields", "--tokenizer", "runs/digits/kmeans", "--steps", "10",
         "--model.n-layer", "1", "--model.n-embd", "16", "--samples", "4", "--eval-every", "5"),
        ("scripts/sample.py", "--model", "runs/digits/gpt", "--n", "6", "--out", "s", "--fields", "runs/digits/fields"),
        ("scripts/evaluate.py", "--samples", "s", "--fields", "runs/digits/fields", "--model", "runs/digits/gpt", "--threads", "1",
         "--out", "e"),
    ]  # fmt: skip
    for words in steps:
        done = run(*words, cwd=here, PYTHONPATH="" if words[0] == "-m" else decoy)
        assert done.returncode == 0, (words, done.stdout[-500:], done.stderr[-2000:])
    for made in (
        "runs/digits/gpt/training.png",
        "runs/digits/gpt/samples.png",
        "s/samples.png",
        "e/table.md",
        "w/field.json",
    ):
        assert (here / made).is_file(), made
    assert "is complete" in run(*steps[0], cwd=here).stdout


def test_what_a_command_line_starts_from():
    from gpt.options import DIGITS, PipelineConfig, defaults

    assert defaults(["--steps", "10"]) == DIGITS and DIGITS.labels
    for words in (["--fields", "a", "--tokenizer", "b"], ["--tokenizer=b", "--fields=a"]):
        assert defaults(words) == PipelineConfig() and not PipelineConfig().labels


SEVERAL = {
    "compare_vocabularies.py",
    "fit_fields.py",
    "sample.py",
    "train_flow.py",
    "train_gpt.py",
    "train_regression.py",
}
"""Commands that several processes share; all others are the work of one and refuse more."""


@pytest.mark.parametrize(
    "command", [*(f"scripts/{s}" for s in SCRIPTS), *(f"{m.replace('.', '/')}.py" for m in MODULES)]
)
def test_commands_of_one_process_say_so(command):
    text = (ROOT / command).read_text()
    assert ("alone=" in text) == (Path(command).name not in SEVERAL) and "run_cli(" in text
