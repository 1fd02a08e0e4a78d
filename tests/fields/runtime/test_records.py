"""JSON of the right shape, or one sentence."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from fields.runtime.records import add_line, read_json, read_lines


@dataclass
class Part:
    name: str
    share: float | None = None


@dataclass
class Card:
    rows: dict[str, int]
    part: Part
    sizes: list[int] = field(default_factory=list)
    pair: tuple[float, float] = (0.0, 1.0)
    kind: Literal["a", "b"] = "a"
    more: Any = None


GOOD = {"rows": {"train": 3}, "part": {"name": "x", "other": 1}, "pair": [1, 2.5], "later": []}


def read(path, values):
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return read_json(path, "Make it.", Card)


def test_what_is_right_passes_with_defaults(tmp_path):
    assert read(tmp_path / "c.json", GOOD) == {**GOOD, "sizes": [], "kind": "a", "more": None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": {"train": "3"}}, "`rows.train` is '3', expected an integer"),
        ({"rows": {"train": True}}, "`rows.train` is True, expected an integer"),
        ({"rows": {"train": 2**63}}, "`rows.train` is 9223372036854775808, expected an integer"),
        ({"rows": []}, r"`rows` is \[\], expected an object"),
        ({"part": {}}, "`part.name` is missing"),
        ({"part": {"name": "x", "share": float("nan")}}, "`part.share` is nan, expected a finite number"),
        ({"sizes": [1, None]}, r"`sizes\[1\]` is None, expected an integer"),
        ({"pair": [1]}, "`pair` has 1 entries, expected 2"),
        ({"kind": "c"}, "`kind` is 'c', expected one of a, b"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, said):
    with pytest.raises(ValueError, match=f"c.json: {said}. Make it."):
        read(tmp_path / "c.json", GOOD | changes)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5000, "null", "3", '"x"', "[1]", "\ud800"])
def test_other_json_is_refused(tmp_path, text):
    (tmp_path / "c.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ValueError, match="c.json"):
        read_json(tmp_path / "c.json", "", Card)


def test_a_cut_last_line_swallows_nothing(tmp_path):
    path = tmp_path / "m.jsonl"
    add_line(path, json.dumps({"step": 1}))
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    add_line(path, json.dumps({"step": 3}))
    assert [row["step"] for row in read_lines(path)] == [1, 3]


def test_the_mark_that_an_editor_puts_first(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json(tmp_path / "a.json") == {"a": 1}
