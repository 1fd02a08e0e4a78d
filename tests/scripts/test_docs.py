"""The API reference: made by one command, a page per module, and no link leads nowhere."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Names(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.anchors = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.add(attrs.get("id"))
        if tag == "a" and attrs.get("href"):
            self.links.add(attrs["href"])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("pdoc") is None, reason="no pdoc: pip install -e '.[docs]'")
def test_the_reference_is_made_and_its_links_lead_somewhere(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON_DOCS": sys.executable}
    command = ["bash", str(ROOT / "scripts" / "docs.sh"), str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    pages = {path.resolve(): Names(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("*.html")}
    for name in ("fields/model", "tokenizers/base", "gpt/demo/studio"):
        assert (tmp_path / f"{name}.html").resolve() in pages
    for path, page in pages.items():
        for link in page.links:
            if link.startswith(("http", "mailto:")):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target in pages, f"{path}: {link}"
            assert not anchor or anchor in pages[target].anchors, f"{path}: {link}"
