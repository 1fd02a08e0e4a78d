"""Reports as HTML: nothing from outside, every text escaped, headings explained, pictures inside."""

import html.parser
import json
import re
from pathlib import Path

import pytest
import torch

from fields.view.glossary import WORDS, explain, table
from fields.view.page import Cell, Page, command_line, estimate_tip
from fields.view.render import save_png, webp

ROOT = Path(__file__).resolve().parents[3]
NASTY = "<script>alert(1)</script>\" onmouseover='x' &amp; https://example.org\x1b[2J"


class Tags(html.parser.HTMLParser):
    """All tags with their attributes, and what is still open at the end."""

    def __init__(self, text: str):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def made(tmp_path) -> str:
    """A page of everything, every text of it hostile."""
    save_png(tmp_path / "a.png", torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0)))
    run = {
        "command": ["scripts/evaluate.py", "--name", NASTY],
        "seed": 0,
        "versions": {NASTY: NASTY},
        "parents": {"p": NASTY},
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = Page(NASTY, NASTY)
    page.heading(NASTY)
    page.text(NASTY, warning=True)
    page.notes([NASTY])
    page.table(["", "1-NNA L2", NASTY], [[NASTY, Cell(NASTY, NASTY), ""], ["samples", "1", "2"]], main=[1])
    page.picture(tmp_path / "a.png", NASTY)
    page.picture(tmp_path / "not-there.png", "left out")
    page.gallery([webp([torch.zeros(8, 8, 3), torch.ones(8, 8, 3)])], [NASTY])
    page.made_by(tmp_path / "run.json")
    return page.write(tmp_path / "report.html").read_text()


def test_texts_are_escaped_and_nothing_is_loaded(made):
    tags = Tags(made)
    assert not tags.open
    assert {tag for tag, _ in tags.found}.isdisjoint({"script", "link", "iframe", "object", "a", "form"})
    for tag, attributes in tags.found:
        assert not any(name.startswith("on") for name in attributes)
        if "src" in attributes:
            assert tag == "img" and attributes["src"].startswith("data:image/")
    style = re.search("<style>(.*)</style>", made, re.S).group(1)
    assert "url(" not in style and "@import" not in style and "\x1b" not in made
    assert sum(tag == "img" for tag, _ in tags.found) == 2
    assert any("default-src 'none'" in (a.get("content") or "") for _, a in tags.found)
    assert any("width=device-width" in (a.get("content") or "") for _, a in tags.found)


def test_headings_names_and_numbers_are_explained(made):
    tips = [a["data-tip"] for _, a in Tags(made).found if "data-tip" in a]
    assert any(tip.startswith("1-NNA: ") and "L2: " in tip for tip in tips) and any("alert(1)" in tip for tip in tips)
    assert "<dt>1-NNA</dt>" in made and "<dt>samples</dt>" in made and "<dt>Chamfer</dt>" not in made
    assert estimate_tip({"value": 1.0, "low": 0.5, "high": 1.5, "n": 7, "classifier": "ab", "note": "few"}) == (
        "95 % interval 0.500 to 1.500; N = 7; classifier ab; few"
    )


def test_explanations_take_whole_words():
    assert explain("FID of the unigram").startswith("FID: ") and "unigram: " in explain("FID of the unigram")
    assert explain("n") == "" and "N: " in explain("N") and explain("restarted") == ""


def test_commands_hide_access_tokens():
    line = command_line(["scripts/x.py", "--to", "hf_abcdefghijklmnop", "two words"])
    assert line == "python scripts/x.py --to hf_*** 'two words'" and command_line([]) == "(not recorded)"


def test_bytes_that_are_no_picture_are_refused():
    with pytest.raises(ValueError, match="PNG, GIF or WebP"):
        Page("a").picture(b"<svg onload=x>", "b")


def test_the_glossary_stands_in_the_readme():
    assert table() in (ROOT / "gpt" / "evaluation" / "README.md").read_text(encoding="utf-8") and len(WORDS) >= 30
