"""The HTML of a report: one file that needs nothing else, readable in light and dark."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from feature_matcher_ros.errors import OutputError
from feature_matcher_ros.evaluation.plot_style import COLORS, Plot

_DARK = {
    "ink": "#e8ebf1",
    "muted": "#98a2b4",
    "grid": "#2a3140",
    "blue": "#6a9bff",
    "orange": "#f5a356",
    "green": "#43c78f",
    "red": "#f0718a",
    "purple": "#b08bf2",
    "teal": "#3fc4d6",
    "grey": "#596376",
}

_STYLE = """
:root { color-scheme: light dark; --page: #f5f7fa; --card: #ffffff; --line: #e4e8ee; %LIGHT% }
@media (prefers-color-scheme: dark) { :root { --page: #10141b; --card: #181e28; --line: #2a3140; %DARK% } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 36px 20px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 2px; letter-spacing: -0.005em; }
p { margin: 6px 0; }
.muted, .note { color: var(--muted); }
.subtitle { color: var(--muted); margin-bottom: 22px; overflow-wrap: anywhere; }
.note { font-size: 13px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; margin: 0 0 16px; }
.tile, section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.tile { padding: 13px 16px 11px; }
.tile b { display: block; font-size: 23px; line-height: 1.25; font-weight: 650; letter-spacing: -0.02em; }
.tile span { display: block; font-size: 12.5px; color: var(--muted); }
section { padding: 18px 20px; margin-top: 16px; }
.remarks { border-left: 4px solid var(--orange); }
.remarks ul { margin: 4px 0; padding-left: 20px; }
.keys { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 8px 0 2px; font-size: 13px; color: var(--muted); }
.keys i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit !important; }
figure + figure { margin-top: 18px; }
figcaption { font-size: 13.5px; color: var(--muted); }
figure img { display: block; width: 100%; height: auto; border-radius: 8px; margin-top: 8px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin-top: 8px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--muted); font-size: 12.5px; }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
table.numbers td:not(:first-child), table.numbers th:not(:first-child) { text-align: right; padding: 6px 0 6px 14px; }
table.numbers td:first-child { min-width: 150px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 6px 36px; }
summary { cursor: pointer; font-weight: 600; }
code { font: 13px ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; }
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""


def page(title: str, subtitle: str, body: Iterable[str]) -> str:
    """The whole document; ``body`` is HTML, the rest plain text."""
    light, dark = (" ".join(f"--{name}: {value};" for name, value in colors.items()) for colors in (COLORS, _DARK))
    style = _STYLE.replace("%LIGHT%", light).replace("%DARK%", dark)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<title>{escape(title)}</title><style>{style}</style></head>\n'
        f'<body><main><h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p>\n'
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def tiles(entries: Iterable[tuple[str, str]]) -> str:
    """The few numbers to see first: label and value."""
    cells = (f'<div class="tile"><span>{escape(label)}</span><b>{escape(value)}</b></div>' for label, value in entries)
    return f'<div class="tiles">{"".join(cells)}</div>'


def section(title: str, *content: str, note: str = "") -> str:
    """A card; empty if there is nothing to put in it."""
    if not any(content):
        return ""
    explained = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{explained}{''.join(content)}</section>"


def remarks(sentences: Sequence[str]) -> str:
    """What a reader should know before trusting the numbers."""
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<section class="remarks"><h2>Remarks</h2><ul>{items}</ul></section>'


def figure(plot: Plot | None) -> str:
    """A plot below its legend."""
    if plot is None:
        return ""
    keys = "".join(
        f'<span><i style="background:var(--{name})"></i>{escape(label)}</span>'
        for label, color in plot.keys
        for name, value in COLORS.items()
        if value == color
    )
    note = f'<p class="note">{escape(plot.note)}</p>' if plot.note else ""
    return f'<figure><div class="keys">{keys}</div>{plot.svg}{note}</figure>'


def picture(jpeg: bytes, caption: str) -> str:
    """An image inside the page, below its caption."""
    data = base64.b64encode(jpeg).decode("ascii")
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<img alt="{escape(caption)}" src="data:image/jpeg;base64,{data}"></figure>'
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, all but its first column aligned to the right."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="numbers">{f"<tr>{head}</tr>" if head else ""}{body}</table></div>'


def columns(*blocks: str) -> str:
    """Blocks side by side where there is room."""
    return f'<div class="columns">{"".join(f"<div>{block}</div>" for block in blocks if block)}</div>'


def details(summary: str, content: str) -> str:
    """Something folded away."""
    return f"<section><details><summary>{escape(summary)}</summary>{content}</details></section>"


def write_text(path: Path, text: str) -> Path:
    """Write a file and the folders above it.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"cannot write '{path}' ({error.strerror or error}): "
            "choose a folder on a disk with space and rights to write."
        ) from error
    return path
