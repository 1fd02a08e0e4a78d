"""Every README: its Python lines run, its links lead somewhere, and the first one stays short."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READMES = sorted(
    p
    for top in ("README.md", "fields", "tokenizers", "gpt", "scripts", "tests")
    for p in ([ROOT / top] if top.endswith(".md") else (ROOT / top).rglob("README.md"))
)
LONGEST = 250
"""Lines of the README at the top."""
PICTURES = 3_000_000
"""Bytes of all pictures that it shows."""


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def links(path: Path) -> list[str]:
    """What a README links to or shows, web pages aside, without the anchor."""
    found = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    return [link for link in found if not link.startswith(("http", "mailto:"))]


def anchors(path: Path) -> set[str]:
    """The headings of a file as GitHub's anchors."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_a_readme_names_the_modules_beside_it():
    packages = [p for p in READMES if (p.parent / "__init__.py").is_file() or p.parent == ROOT / "scripts"]
    missing = [
        f"{path.relative_to(ROOT)}: {module.stem}"
        for path in packages
        for module in path.parent.glob("*.py")
        if module.stem != "__init__" and not re.search(rf"\b{module.stem}\b", path.read_text(encoding="utf-8"))
    ]
    assert len(packages) > 20 and not missing


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """An empty folder with the small results of the digits that the READMEs' lines read."""
    here = tmp_path_factory.mktemp("readmes")
    quiet = {"cwd": here, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "check": True, "capture_output": True}
    run = [sys.executable, str(ROOT / "scripts" / "fit_fields.py"), "--limit", "60", "--steps", "30", "--fits", "1"]
    subprocess.run([*run, "--meta-steps", "20", "--threads", "1"], **quiet)
    words = ["regions", "--grid", "2", "2", "--vocab-size", "8", "--steps", "10", "--hidden", "16", "--threads", "1"]
    words += ["--fields", "runs/digits/fields"]
    subprocess.run(
        [sys.executable, "-m", "tokenizers.build", *words],
        **{**quiet, "env": {**quiet["env"], "PYTHONPATH": str(ROOT)}},
    )
    run = [sys.executable, str(ROOT / "scripts" / "train_gpt.py"), "--fields", "runs/digits/fields", "--tokenizer"]
    small = ["--model.n-layer", "1", "--model.n-embd", "16", "--model.n-head", "2", "--samples", "0", "--threads", "1"]
    subprocess.run(
        [*run, "runs/digits/regions", "--out", "runs/digits/gpt", "--steps", "10", "--labels", *small], **quiet
    )
    return here


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in READMES if blocks(p, "python")], ids=lambda p: str(p.relative_to(ROOT)))
def test_python_lines_run(path, workplace):
    """All blocks of one README, one after the other, in a process of their own."""
    lines = "\n".join(blocks(path, "python")).replace("/path/to/the/checkout", str(ROOT))
    script = workplace / "lines.py"
    script.write_text(lines, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], cwd=workplace, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", READMES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for link in links(path):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{path}: {link}"


def test_the_first_readme_is_short_and_light():
    path = ROOT / "README.md"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST
    shown = {(path.parent / link).resolve() for link in links(path) if link.endswith((".png", ".gif", ".webp", ".svg"))}
    assert sum(p.stat().st_size for p in shown) <= PICTURES


def test_all_pictures_together_are_light():
    assert sum(p.stat().st_size for p in (ROOT / ".assets").iterdir()) <= PICTURES


def test_every_room_says_what_it_holds():
    """A README in each package and sub-package, and a line for each folder in the map of the first README."""
    top = (ROOT / "README.md").read_text(encoding="utf-8")
    for package in ("fields", "tokenizers", "gpt"):
        rooms = [p for p in (ROOT / package).iterdir() if p.is_dir() and (p / "__init__.py").is_file()]
        for room in [ROOT / package, *rooms]:
            assert (room / "README.md").is_file(), f"{room} has no README.md"
            assert f"{room.name}/" in top, f"{room.name}/ is missing from the map in README.md"
