"""A page's HTML and Markdown: nothing that is written into it becomes markup."""

import base64
import io
import re
from html.parser import HTMLParser
from unittest.mock import Mock

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from svgd_monai.files import write_csv
from svgd_monai.report.page import (
    _NUMBER,
    Heading,
    Items,
    Page,
    Paragraph,
    Picture,
    Table,
    html_text,
    markdown_text,
    png,
)
from svgd_monai.report.text import csv_cell, number, p_text, shorten

HOSTILE = [
    "<script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "a|b",
    "two\nlines\r\nand\ttabs",
    "# heading",
    "- item",
    "1. item",
    "[link](http://example.org)",
    "![image](http://example.org/x.png)",
    "`code` *bold* _it_ ~~gone~~ $x$",
    "back\\slash",
    "&amp; &#60;",
    "\x00\x1b[31m\u202e\ud800",
    "=1+1",
]


class Reader(HTMLParser):
    """Every tag and the text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    return reader


def figure():
    drawing = Figure(figsize=(2, 1))
    drawing.subplots().plot([0, 1], [1, 0])
    return drawing


def page(text):
    content = Page(text)
    content.add(
        Heading(text), Paragraph(text), Items([text, text]), Table(text, [text, "n"], [[text, "5"]], folded=text),
        Picture("a.png", png(figure()), text, text),
    )  # fmt: skip
    return content


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_stays_a_text_in_html(text):
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    harmless = "x" * len(shown)
    plain, hostile = read(page(harmless).html()), read(page(text).html())
    assert hostile.tags == plain.tags
    assert [name for name, _ in hostile.attributes] == [name for name, _ in plain.attributes]
    assert hostile.text.count(shown) == plain.text.count(harmless) > 5
    page(text).html().encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_stays_a_text_in_markdown(text):
    plain, hostile = page("name").markdown(), page(text).markdown()
    assert hostile.count("\n") == plain.count("\n")
    for mine, theirs in zip(plain.splitlines(), hostile.splitlines(), strict=True):
        assert theirs.count("|") == mine.count("|")
    assert "<" not in hostile
    assert not re.search(r"(?<!\\)[`*~$]", hostile)
    assert re.findall(r"(?<!\\)\]\((.*?)\)", hostile) == ["a.png"]
    for start in ("# ", "## ", "- "):
        assert sum(line.startswith(start) for line in hostile.splitlines()) == plain.count(f"\n{start}") + (
            start == "# "
        )


def test_names_as_people_give_them_stay_readable():
    assert markdown_text("svgd/entropy_mi/delete") == "svgd/entropy_mi/delete"
    assert html_text("a < b & c") == "a &lt; b &amp; c"


def test_the_html_needs_no_network_and_allows_none():
    html = page("name").html()
    reader = read(html)
    assert {"script", "link", "iframe", "object"}.isdisjoint(reader.tags)
    sources = [value for name, value in reader.attributes if name in ("src", "href")]
    assert sources
    assert all(value.startswith("data:image/png;base64,") for value in sources)
    assert "url(" not in html
    assert "@import" not in html
    assert ("http-equiv", "Content-Security-Policy") in reader.attributes
    assert any(value and "default-src 'none'" in value for name, value in reader.attributes if name == "content")


def test_a_picture_is_shown_at_half_its_pixels_and_is_the_figure():
    content = png(figure())
    html = Picture("a.png", content, "caption", "alt").html()
    inlined = base64.b64decode(re.search(r"base64,([^\"]+)", html).group(1))
    assert inlined == content
    assert Image.open(io.BytesIO(inlined)).size == (400, 200)
    assert 'width="200" height="100"' in html
    assert png(figure()) == content  # the same bytes, so that a committed report does not change by itself


def test_columns_of_numbers_stand_to_the_right():
    table = Table("caption", ["name", "value"], [["a", "−0.5 ± 0.1"], ["b", "–"]])
    assert table.markdown().splitlines()[3] == "| --- | --: |"
    assert table.html().count('class="number') == 3
    assert Table("caption", ["name"], []).markdown().splitlines()[3] == "| --- |"


def test_each_cell_of_a_table_is_looked_at_once(monkeypatch):
    """The ledger of a long labelling has a row for each label."""
    numbers = Mock(wraps=_NUMBER)
    monkeypatch.setattr("svgd_monai.report.page._NUMBER", numbers)
    Table("caption", ["value"], [[str(value)] for value in range(50)]).html()
    assert numbers.fullmatch.call_count == 50


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@sum", " =1", "\t=1", "\r=1"])
def test_a_cell_that_a_spreadsheet_would_run_is_a_text(text, tmp_path):
    write_csv(tmp_path / "table.csv", ["name"], [{"name": csv_cell(text)}])
    assert (tmp_path / "table.csv").read_text() == f"name\n'{text.strip()}\n"


@pytest.mark.parametrize("value", [-1.5, 3, None, True, "svgd/random", "a-b"])
def test_numbers_and_plain_texts_stay_as_they_are(value):
    assert csv_cell(value) is value or csv_cell(value) == value


def test_a_number_that_is_none_is_an_empty_cell():
    assert csv_cell(float("nan")) is csv_cell(np.float64("inf")) is None


def test_numbers_are_written_for_people():
    assert number(-0.01234) == "−0.0123"
    assert number(0.5, 1, sign=True) == "+0.5"
    assert number(None) == number(float("nan")) == "–"
    assert [p_text(p) for p in (0.0625, 1e-9, float("nan"))] == ["0.0625", "< 0.0001", "–"]
    assert shorten("svgd/a_very_long_name_of_a_strategy/delete", 20) == "svgd/a_ve…egy/delete"
    assert len(shorten("x" * 100)) == 34
