"""A document of headings, paragraphs, tables and pictures, as one self-contained HTML file or as Markdown.

All texts are plain: whatever is written into a page is escaped, so that a name cannot become markup. The HTML holds its
pictures and its style, asks the network for nothing, and tells the browser to allow nothing else.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Protocol

from matplotlib.figure import Figure as Drawing

from svgd_monai.report.text import one_line

#: Pixels per inch of the pictures: sharp on a screen of double density.
DPI = 200
_SHORT = 22
_NUMBER = re.compile(r"[+−-]?[\d.,]+( ?%)?( ± [\d.]+)?|–|< [\d.]+")

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; color: #1b1f24; background: #fff;
  max-width: 62rem; margin: 2rem auto 5rem; padding: 0 1.25rem; }
h1 { font-size: 1.8rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-bottom: .25rem; border-bottom: 1px solid #d5dae0; }
p, ul { max-width: 48rem; overflow-wrap: anywhere; }
li { margin: .2rem 0; }
figure { margin: 1.4rem 0; }
img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; color: #4a5560; max-width: 48rem; margin: .4rem 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .75rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e3e7ec; }
th { font-weight: 600; border-bottom: 2px solid #b9c1ca; vertical-align: bottom; }
td.number, th.number { text-align: right; }
td.short { white-space: nowrap; }
summary { cursor: pointer; color: #0b57a4; margin: 1rem 0 .2rem; }
@media print { body { margin: 0; max-width: none; } figure, tr { break-inside: avoid; } }
"""


class Block(Protocol):
    """A part of a page."""

    def html(self) -> str:
        """As HTML."""

    def markdown(self) -> str:
        """As Markdown (CommonMark with GitHub's tables)."""


@dataclass(frozen=True)
class Heading:
    """A heading of level 2."""

    text: str

    def html(self) -> str:
        """As HTML."""
        return f"<h2>{html_text(self.text)}</h2>"

    def markdown(self) -> str:
        """As Markdown."""
        return f"## {markdown_text(self.text)}"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str

    def html(self) -> str:
        """As HTML."""
        return f"<p>{html_text(self.text)}</p>"

    def markdown(self) -> str:
        """As Markdown."""
        return markdown_text(self.text)


@dataclass(frozen=True)
class Items:
    """A list."""

    texts: Sequence[str]

    def html(self) -> str:
        """As HTML."""
        return "<ul>\n" + "\n".join(f"<li>{html_text(text)}</li>" for text in self.texts) + "\n</ul>"

    def markdown(self) -> str:
        """As Markdown."""
        return "\n".join(f"- {markdown_text(text)}" for text in self.texts)


@dataclass(frozen=True)
class Table:
    """A table; columns that hold numbers only stand to the right.

    Attributes:
        caption: what it shows.
        columns: their names.
        rows: the cells, as people read them.
        folded: what to click on to see it, in HTML; None shows it.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: str | None = None

    def html(self) -> str:
        """As HTML."""
        right = self._right()
        side = [' class="number"' if each else "" for each in right]
        head = "".join(f'<th scope="col"{s}>{html_text(c)}</th>' for c, s in zip(self.columns, side, strict=True))
        lines = ["<tr>" + "".join(map(_cell, row, right)) + "</tr>" for row in self.rows]
        body = "\n".join([f"<thead><tr>{head}</tr></thead>", "<tbody>", *lines, "</tbody>"])
        table = (
            f'<figure><figcaption>{html_text(self.caption)}</figcaption>\n<div class="wide"><table>\n{body}\n'
            "</table></div></figure>"
        )
        if self.folded is None:
            return table
        return f"<details><summary>{html_text(self.folded)}</summary>\n{table}\n</details>"

    def markdown(self) -> str:
        """As Markdown."""
        rule = ["--:" if right else "---" for right in self._right()]
        lines = [[markdown_text(cell) for cell in row] for row in (self.columns, *self.rows)]
        table = [lines[0], rule, *lines[1:]]
        return f"{markdown_text(self.caption)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in table)

    def _right(self) -> list[bool]:
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        return [bool(cells) and all(_NUMBER.fullmatch(cell) for cell in cells) for cells in columns]


@dataclass(frozen=True)
class Picture:
    """A picture with a caption.

    Attributes:
        name: its file beside the Markdown.
        png: its content.
        caption: what it shows, with n.
        alt: the same for those who do not see it, in short.
    """

    name: str
    png: bytes
    caption: str
    alt: str

    def html(self) -> str:
        """As HTML."""
        width, height = _size(self.png)
        data = base64.b64encode(self.png).decode("ascii")
        image = (
            f'<img src="data:image/png;base64,{data}" width="{width // 2}" height="{height // 2}" '
            f'alt="{html_text(self.alt)}">'
        )
        return f"<figure>\n{image}\n<figcaption>{html_text(self.caption)}</figcaption>\n</figure>"

    def markdown(self) -> str:
        """As Markdown."""
        return f"![{markdown_text(self.alt)}]({self.name})\n\n{markdown_text(self.caption)}"


@dataclass
class Page:
    """A document.

    Attributes:
        title: of the page.
        blocks: its parts, in their order.
    """

    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block) -> None:
        """Put parts behind those that are there."""
        self.blocks += blocks

    def html(self) -> str:
        """The whole as one HTML file."""
        title = html_text(self.title)
        parts = "\n".join(block.html() for block in self.blocks)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{parts}\n</body>\n</html>\n"
        )

    def markdown(self) -> str:
        """The whole as Markdown; pictures by their file names."""
        return "\n\n".join([f"# {markdown_text(self.title)}", *(block.markdown() for block in self.blocks)]) + "\n"


def _cell(text: str, right: bool) -> str:
    """A cell; a short one stays on its line."""
    classes = " ".join(["number"] * right + ["short"] * (len(text) <= _SHORT))
    return f'<td class="{classes}">{html_text(text)}</td>' if classes else f"<td>{html_text(text)}</td>"


def png(figure: Drawing) -> bytes:
    """A figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing"
        )  # a name in a script that the font lacks: a box stands for it
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def html_text(text: object) -> str:
    """A plain text as HTML."""
    return escape(one_line(text), quote=True)


def markdown_text(text: object) -> str:
    """A plain text as Markdown, in a table too."""
    escaped = re.sub(r"[\\`*\[\]~#$]|(?<![^\W_])_|_(?![^\W_])", lambda found: f"\\{found.group()}", one_line(text))
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;")):
        escaped = escaped.replace(character, entity)
    return re.sub(r"^([-+]|\d+[.)])(?=\s)", lambda found: f"{found.group()[:-1]}\\{found.group()[-1]}", escaped)


def _size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG, from its header (RFC 2083, IHDR)."""
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
