"""Progress without a terminal, tables, counts."""

import time

import pytest

from fields.runtime import console


def test_without_a_terminal_progress_is_plain_lines(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in console.bar(range(100), desc="fit", unit="field"):
        now[0] += 2
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert "\r" not in said and 10 <= len(lines) <= 101
    assert lines[:2] == ["fit: 1 of 100 fields, 3.3 min left", "fit: 6 of 100 fields, 3.1 min left"]
    assert lines[-1] == "fit: 100 fields in 3.3 min"


def test_short_work_says_nothing_and_quiet_work_neither(capsys):
    for quiet in (False, True):
        with console.bar(desc="x", unit="y", total=3, quiet=quiet) as shown:
            shown.update(3)
            shown.set_postfix_str("1 dB")
    assert capsys.readouterr().err == ""


def test_counts_and_times():
    assert [console.plural(n, "field") for n in (0, 1, 2000)] == ["0 fields", "1 field", "2,000 fields"]
    several = [console.plural(2, unit) for unit in ("class", "mesh", "batch", "vocabulary", "byte")]
    assert several == ["2 classes", "2 meshes", "2 batches", "2 vocabularies", "2 bytes"]
    assert [console.duration(s) for s in (3.2, 100, 9000)] == ["3 s", "1.7 min", "2.5 h"]


@pytest.mark.parametrize("width", [30, 100])
def test_tables_fit(width):
    rows = [("k-means with a long name " * 3, 12, "3.5%"), ("pca", 1234, "n/a")]
    lines = console.text_table(["tokenizer", "codes", "loss"], rows, width).splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= width
    assert lines[1].endswith("3.5%") and lines[2].startswith("pca") and lines[2].rstrip().endswith("n/a")
