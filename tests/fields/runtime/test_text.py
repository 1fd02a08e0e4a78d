"""Names and texts from data, made safe."""

import pytest

from fields.runtime.text import (
    check_split,
    code,
    escape_markdown,
    file_name,
    inside,
    markdown_table,
    one_line,
    scrub,
    unique,
)

BAD = ["", ".", "..", "../../evil", "a/b", "a\\b", "CON", "nul.txt", "com1", "a:b", "x\0y", "\x1b[31m", "\u202egnp", "-rf",
       " . ", "é" * 300, "\ud800"]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_file_names_are_storable(tmp_path, text):
    name = file_name(text)
    (tmp_path / name).touch()
    assert (tmp_path / name).parent == tmp_path and name not in (".", "..") and not name.startswith("-")
    assert not set(name) & set('/\\:*?"<>|\0\x1b') and len(name.encode()) <= 200
    assert name.split(".")[0].lower() not in ("con", "nul", "com1") and name == name.strip(" .")


def test_file_names_stay_apart():
    taken: set[str] = set()
    assert [unique(file_name(x), taken) for x in ("A", "a", "a/", "a:")] == ["A", "a-2", "a_", "a_-2"]


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", ".", "a b", "a\n", None, "x" * 300])
def test_names_of_splits(name):
    assert check_split("train") == "train" and check_split("test_2") == "test_2"
    with pytest.raises(ValueError, match="the name of a split is"):
        check_split(name)


def test_nothing_leads_out_of_a_folder(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    (tmp_path / "secret").touch()
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "good").touch()
    assert inside(folder, "good") == folder / "good"
    for name in ("../secret", "/etc/passwd", "a/../../secret", "link", "..\\secret", "c:\\x", "a\0b"):
        with pytest.raises(ValueError, match="is outside"):
            inside(folder, name)


def test_markdown_shows_what_was_written():
    text = "[x](http://evil) <script> | a\n# b ![i](u) `c` **d** &amp;"
    made = escape_markdown(text)
    assert "\n" not in made and "<" not in made and "](" not in made and "://" not in made
    assert "\\|" in made and "\\`c\\`" in made
    assert (
        escape_markdown("unconditioned-fields of b/8x8 (test), 0.5*") == "unconditioned-fields of b/8x8 (test), 0.5\\*"
    )
    assert escape_markdown("# a_b _c_ $x$ www.evil.example") == "\\# a_b \\_c\\_ \\$x\\$ www\u200b.evil.example"
    assert markdown_table(["name", "N"], [["a|b\n", 3]]) == "| name | N |\n| --- | ---: |\n| a\\|b | 3 |"
    assert code("a`b").startswith("`` ") and code("x") == "`x`"


def test_messages_hold_no_controls_and_no_secrets(monkeypatch):
    assert one_line("a\x1b[2J\nb\u202e") == "a\\x1b[2J b\\x202e" and len(one_line("x" * 99, 20)) == 20
    monkeypatch.setenv("HF_TOKEN", "my-own-secret")
    for text in (
        "hf_abcdefghijklmnop",
        "Bearer abcdefgh.ijk",
        "https://me:pass@host/x",
        "token=abcdefgh",
        "my-own-secret",
    ):
        shown = scrub(f"said {text} again")
        assert "***" in shown and shown.endswith(" again") and text not in shown
