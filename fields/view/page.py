"""A report as one HTML file that opens from disk: tables with explained headings, pictures, notes, how it was made.

The file asks for nothing else: no network, no script, pictures inside; its own policy forbids the rest. Every text passes
through `html.escape`, for names come from data. `Page` is given results; it computes none.
"""

import base64
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from fields.runtime.records import read_json
from fields.runtime.runs import write_atomic
from fields.runtime.text import one_line, scrub
from fields.view.glossary import explain, in_use

TYPES = {b"\x89PNG": "image/png", b"GIF8": "image/gif", b"RIFF": "image/webp"}
"""First bytes of the pictures that a page takes -> their type."""
PROSE = 32
"""Characters from which on a cell is a text that may be broken into lines, not a number."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --soft: #666; --line: #ddd; --page: #fff; --mark: #fff3e6; --tip: #222; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --soft: #a0a0a0; --line: #3a3a3a; --page: #161616; --mark: #33261a; --tip: #eee; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
p.lead, figcaption, footer { color: var(--soft); }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; background: linear-gradient(to left, var(--page) 1.5rem, transparent) right / 3rem 100% no-repeat local, linear-gradient(to left, var(--line), transparent) right / 1.2rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; overflow-wrap: normal; }
th { vertical-align: bottom; font-weight: 600; }
thead th { white-space: normal; min-width: 4.5rem; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--page); white-space: normal; min-width: 8.5rem; max-width: 15rem; }
td.prose { white-space: normal; text-align: left; min-width: 14rem; vertical-align: top; }
tr.main > * { background: var(--mark); font-weight: 600; }
tr.main > :first-child { background: var(--mark); }
[data-tip] { text-decoration: underline dotted var(--soft); text-underline-offset: .2em; cursor: help; }
[data-tip]:hover::after, [data-tip]:focus::after { content: attr(data-tip); position: fixed; z-index: 2; left: 50%; bottom: 1rem; transform: translateX(-50%); width: max-content; max-width: min(40rem, calc(100vw - 2rem)); padding: .6rem .9rem; border-radius: .4rem; background: var(--tip); color: var(--page); font: 400 .9rem/1.4 system-ui, sans-serif; text-align: left; white-space: normal; box-shadow: 0 .2rem 1rem #0006; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: none; background: #fff; }
figure.fit img { max-width: 100%; height: auto; }
figure.wide img { max-width: max(100%, 45rem); height: auto; }
.row { display: flex; flex-wrap: wrap; gap: .75rem; }
.row figure { margin: 0; width: 11rem; font-size: .8rem; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); border-radius: .4rem; font-size: .85rem; white-space: pre-wrap; }
ul { padding-left: 1.2rem; }
dl { columns: 24rem; column-gap: 2rem; }
dt { font-weight: 600; break-after: avoid; }
dd { margin: 0 0 .5rem; color: var(--soft); break-inside: avoid; }
@page { size: landscape; margin: 1cm; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --mark: #f3f3f3; } body { max-width: none; font-size: .8rem; } table { font-size: .6rem; } th, td { padding: .15rem .2rem; } thead th { min-width: 0; } .scroll { overflow: visible; background: none; } figure img { max-width: 100%; max-height: 16cm; width: auto; height: auto; } figure, tr { break-inside: avoid; } h2 { break-after: avoid; } [data-tip] { text-decoration: none; } [data-tip]::after { display: none; } }
:focus-visible { outline: .15rem solid #2b6cb0; outline-offset: .1rem; }
.warning { border-left: .25rem solid #c1440e; padding-left: .75rem; }
""".strip()


@dataclass(frozen=True)
class Cell:
    """A cell whose text has an explanation, an interval or a note of its own."""

    text: str
    tip: str = ""


@dataclass
class Page:
    """A report that is put together from the top down and written once.

    For example:
        page = Page("Evaluation", "200 new fields against 200 held-out ones")
        page.table(["", "1-NNA L2"], [["samples", Cell("0.57 ±0.02", "95 % interval 0.55 to 0.59")]], main=[0])
        page.picture(Path("samples.png"), "samples, each with its nearest training field")
        page.made_by(Path("run.json"))
        page.write(Path("report.html"))
    """

    title: str
    lead: str = ""
    parts: list[str] = field(default_factory=list)
    """HTML of the body, escaped already."""
    said: list[str] = field(default_factory=list)
    """Texts whose words the page explains at its end."""

    def heading(self, text: str) -> None:
        """Begin a section."""
        self.parts.append(f"<h2>{_text(text)}</h2>")

    def text(self, text: str, *, warning: bool = False) -> None:
        """A paragraph."""
        self.said.append(text)
        self.parts.append(f"<p{' class=warning' if warning else ''}>{_text(text)}</p>")

    def notes(self, lines: Sequence[str]) -> None:
        """A list."""
        self.said += lines
        if lines:
            self.parts.append("<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>")

    def table(
        self, head: Sequence[str | Cell], rows: Sequence[Sequence[str | Cell]], *, main: Sequence[int] = ()
    ) -> None:
        """A table; headings and names of rows that the glossary knows are explained when pointed at or touched.

        Args:
            head: one text per column; the first column names the rows.
            rows: as many texts each.
            main: positions of the rows that the report is about.
        """
        self.said += [cell.text if isinstance(cell, Cell) else cell for cell in [*head, *(row[0] for row in rows)]]
        lines = ["<tr>" + "".join(_cell("th", cell, known=True) for cell in head) + "</tr>"]
        for i, row in enumerate(rows):
            cells = [_cell("td", cell, known=j == 0) for j, cell in enumerate(row)]
            lines.append(f"<tr{' class=main' if i in main else ''}>{''.join(cells)}</tr>")
        self.parts.append(
            f'<div class="scroll" tabindex="0" role="region" aria-label="table"><table><thead>{lines[0]}</thead><tbody>{"".join(lines[1:])}</tbody></table></div>'
        )

    def picture(self, image: Path | bytes, caption: str, *, pixels: bool = False) -> None:
        """A picture as wide as the window, but never so small that its text is lost: then it scrolls.

        Args:
            image: a PNG, GIF or WebP, a file or its bytes. A file that is not there is left out.
            caption: shown under it, and read aloud instead of it.
            pixels: keep its own size: a sheet, whose pixels are the signals' own.
        """
        if (html := _figure(image, caption, "own" if pixels else "wide")) is not None:
            self.said.append(caption)
            self.parts.append(html)

    def gallery(self, images: Sequence[bytes], captions: Sequence[str]) -> None:
        """Small pictures, as many beside each other as the window takes."""
        figures = [_figure(image, text, "fit") for image, text in zip(images, captions, strict=True)]
        self.parts.append(f'<div class="row">{"".join(f for f in figures if f)}</div>')

    def made_by(self, run: Path) -> None:
        """The command, seed, commit, versions and inputs that a `run.json` records."""
        if not run.is_file():
            return
        values: dict[str, Any] = read_json(run, schema=dict)
        self.heading("How it was made")
        self.parts.append(f"<pre>{escape(command_line(values.get('command') or []))}</pre>")
        facts = {"seed": values.get("seed"), "commit": values.get("commit"), **(values.get("versions") or {})}
        facts |= {f"{name} (fingerprint)": value for name, value in (values.get("parents") or {}).items()}
        known = [[name, one_line(str(value), 80)] for name, value in facts.items() if value is not None]
        self.table(["", "value"], known)

    def html(self) -> str:
        """The whole document."""
        words = in_use(self.said)
        parts = list(self.parts)
        if words:
            terms = "".join(f"<dt>{_text(word)}</dt><dd>{_text(meaning)}.</dd>" for word, meaning in words.items())
            parts.append(f"<h2>Words</h2><dl>{terms}</dl>")
        lead = f'<p class="lead">{_text(self.lead)}</p>' if self.lead else ""
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(self.title)}</title>\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{_text(self.title)}</h1>\n{lead}\n" + "\n".join(parts)
        ) + "\n</body>\n</html>\n"

    def write(self, path: Path) -> Path:
        """Write the file, all of it or nothing."""
        with write_atomic(path) as temporary:
            temporary.write_text(self.html(), encoding="utf-8")
        return path


def command_line(words: Sequence[str]) -> str:
    """The words of `sys.argv` as one line for a shell, without access tokens."""
    return scrub(shlex.join(["python", *(one_line(str(word)) for word in words)])) if words else "(not recorded)"


def value_under(row: Any, key: str) -> Any:
    """What lies under a dotted key, None where there is nothing."""
    for part in key.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def number_under(row: Any, key: str) -> float | None:
    """The number under a dotted key, of an estimate its value."""
    found = value_under(row, key)
    return found["value"] if isinstance(found, dict) else found


def cell_under(row: Any, key: str, form: str, *, classifier: bool = False) -> str:
    """What lies under a dotted key, an estimate or a number, as `estimate_text`."""
    found = value_under(row, key)
    return estimate_text(found if isinstance(found, dict) else {"value": found}, form, classifier=classifier)


def estimate_text(value: dict[str, Any], form: str = ".3f", *, classifier: bool = False) -> str:
    """An estimate in a table: its number, half of its interval, and a star where there is a note.

    Args:
        value: what `Estimate.to_dict` gives.
        form: of the number.
        classifier: name the classifier and the N that it depends on.
    """
    if value.get("value") is None:
        return "n/a"
    text = format(value["value"], form)
    if value.get("low") is not None:
        text += f" ±{format((value['high'] - value['low']) / 2, form)}"
    if classifier and "classifier" in value:
        text += f" ({value['classifier'][:8]}, {value['n']})"
    return text + ("*" if value.get("note") else "")


def estimate_tip(value: dict[str, Any], digits: int = 3) -> str:
    """What stands behind an estimate of a table: its interval, N, classifier and note."""
    parts = []
    if value.get("low") is not None:
        parts.append(f"95 % interval {value['low']:.{digits}f} to {value['high']:.{digits}f}")
    if value.get("n") is not None:
        parts.append(f"N = {value['n']}")
    if value.get("classifier"):
        parts.append(f"classifier {value['classifier']}")
    if value.get("note"):
        parts.append(str(value["note"]))
    return "; ".join(parts)


def _text(text: str) -> str:
    """Text as HTML that shows as it is, control characters as escapes."""
    return escape(one_line(text))


def _cell(tag: str, cell: str | Cell, *, known: bool) -> str:
    text, tip = (cell.text, cell.tip) if isinstance(cell, Cell) else (cell, "")
    tip = tip or (explain(text) if known else "")
    inner = (
        f'<span tabindex="0" data-tip="{_text(tip)}" aria-description="{_text(tip)}">{_text(text)}</span>'
        if tip
        else _text(text)
    )
    wide = ' class="prose"' if tag == "td" and len(text) > PROSE else ""
    return f"<{tag}{wide}>{inner}</{tag}>"


def _figure(image: Path | bytes, caption: str, kind: str) -> str | None:
    if isinstance(image, Path):
        if not image.is_file():
            return None
        image = image.read_bytes()
    found = next((name for first, name in TYPES.items() if image.startswith(first)), None)
    if found is None:
        raise ValueError("a report takes pictures as PNG, GIF or WebP; these bytes are none of these formats.")
    data = f"data:{found};base64,{base64.b64encode(image).decode()}"
    shown = f'<img src="{data}" alt="{_text(caption)}">'
    shown = (
        shown if kind == "fit" else f'<div class="scroll" tabindex="0" role="region" aria-label="picture">{shown}</div>'
    )
    return f'<figure class="{kind}">{shown}<figcaption>{_text(caption)}</figcaption></figure>'
