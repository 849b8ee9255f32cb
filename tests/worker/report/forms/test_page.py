"""The page is one safe file that stands for itself."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.errors import TaskFailure
from tests.support.datasets import HOSTILE, document, sales
from worker.pages.forms.page import refusing_fetcher, write_page, write_pdf

_VOID = {"meta", "br", "path", "use", "rect"}
REVENUE = {"revenue": {"function": "sum", "column": "value"}}
CHARTS: list[dict[str, Any]] = [
    {"kind": "line", "title": "Line", "x": "at", "x_unit": "day", "y": REVENUE, "split_by": "shop"},
    {"kind": "bar", "title": "Bar", "x": "category", "y": REVENUE},
    {"kind": "histogram", "title": "Histogram", "x": "value"},
    {"kind": "scatter", "title": "Scatter", "x": "weight", "y": "value"},
    {"kind": "box", "title": "Box", "x": "shop", "y": "weight"},
    {"kind": "heat_map", "title": "Heat", "x": "shop", "y": "category"},
]


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"] and data.strip():
            self.words.append(data.strip())

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.tags for name, value in attrs.items() if name == attribute and value]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def rendered(folder: Path, frame: pd.DataFrame, *blocks: dict[str, Any], for_paper: bool = False, **more: Any) -> Page:
    with document(folder, frame, *blocks, **more) as made:
        write_page(made, folder / "report.html", for_paper=for_paper)
    return Page(folder / "report.html")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Return a page with every chart, a table and a text."""
    listing = {"kind": "table", "title": "Orders", "limit": 3, "columns": [{"column": "count", "total": "sum"}]}
    text = {"kind": "text", "text": "All **shops**"}
    return rendered(tmp_path_factory.mktemp("page"), sales(2_000), text, *CHARTS, listing, lang="de-AT")


def test_the_page_asks_for_nothing(page: Page) -> None:
    """No script, no link, no address but the names of XML; and a policy that forbids to fetch."""
    assert {"script", "link", "iframe", "img", "a", "form", "object", "embed"} & {tag for tag, _ in page.tags} == set()
    assert set(re.findall(r"https?://[^\s\"'<>)]+", page.text)) <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in page.text
    assert [address for address in re.findall(r"url\(([^)]*)\)", page.text) if not address.startswith("#")] == []
    (policy,) = [attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_page_is_well_formed(page: Page) -> None:
    """Every tag is closed, every id is unique, and every reference has its aim."""
    assert page.open == []
    ids = page.values("id")
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    wanted = [name for attribute in ("aria-labelledby", "aria-describedby") for name in page.values(attribute)]
    wanted += [address.removeprefix("#") for address in page.values("href")]
    wanted += re.findall(r"url\(#([^)]*)\)", page.text)
    assert set(wanted) - set(ids) == set()


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    """Language, headings in order, captions, column headings, words and figures for each chart."""
    assert [attrs["lang"] for tag, attrs in page.tags if tag == "html"] == ["de-AT"]
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[:2] == [1, 2]
    assert all(after - before <= 1 for before, after in pairwise(headings))
    assert page.count("figure") == page.count("details") == len(CHARTS)
    assert page.count("caption") == page.count("table") == len(CHARTS) + 1
    assert [attrs.get("scope") for tag, attrs in page.tags if tag == "th"] == ["col"] * page.count("th")
    assert len([attrs for _, attrs in page.tags if attrs.get("role") == "img"]) == 2 * len(CHARTS)
    assert any(words.startswith("Histogram of 1,9") for words in page.words)


def test_the_page_is_light_or_dark_and_prints(page: Page) -> None:
    """Colours are variables that follow the reader's setting; paper is always light."""
    assert "@media screen and (prefers-color-scheme: dark)" in page.text
    assert "@media print" in page.text
    assert "@page" in page.text
    assert "#0100" not in page.text
    assert "var(--c0)" in page.text


def test_paper_has_no_page_of_leftovers(page: Page) -> None:
    """The facts are below the title, so that no footer is alone on a page; headings, rows and charts stay together."""
    assert page.count("footer") == 0
    header, _, rest = page.text.partition("</header>")
    assert '<dl class="facts">' in header
    assert '<dl class="facts">' not in rest
    printed = page.text.partition("@media print")[2]
    assert re.search(r"h1, h2, h3, caption, thead, tbody tr:first-child \{ break-after: avoid", printed)
    assert re.search(r"tbody tr:last-child, tfoot \{ break-before: avoid", printed)
    assert re.search(r"figure, tr, \.tile, \.tiles, \.brief \{ break-inside: avoid", printed)
    assert page.text.count('class="scroll brief"') > 0


def test_the_table_says_how_much_of_it_is_shown(page: Page) -> None:
    """A cut-off table names both numbers, and its total is over all rows."""
    assert "3 of 2,000 rows. The totals include all rows." in page.words
    assert f"{sales(2_000)['count'].sum():,}" in page.words


def test_hostile_values_are_text(tmp_path: Path) -> None:
    """Markup in titles, column names, cells, categories, units and texts is shown, not understood."""
    attribute = '" onmouseover="alert(1)'
    frame = pd.DataFrame({HOSTILE: [HOSTILE, attribute, "$x^2$", "</svg><img src=x>"], "n": [1, 2, 3, 4]})
    value = {HOSTILE: {"function": "sum", "column": "n"}}
    shown: dict[str, Any] = {"title": HOSTILE, "format": {"unit": "</style>"}, "caption": HOSTILE, "x_label": HOSTILE}
    page = rendered(
        tmp_path,
        frame,
        {"kind": "text", "text": f"{HOSTILE} **{HOSTILE}**"},
        {"kind": "table", "title": attribute},
        {"kind": "bar", "x": HOSTILE, "y": value, "split_by": HOSTILE, **shown},
        {"kind": "heat_map", "x": HOSTILE, "y": HOSTILE, **shown},
        title=HOSTILE,
        subtitle=attribute,
    )
    assert page.count("script") == 0
    assert page.count("img") == 0
    assert [name for _, attrs in page.tags for name in attrs if name.startswith("on")] == []
    assert HOSTILE in page.words
    assert "$x^2$" in page.words
    assert page.count("style") == 1


@pytest.mark.parametrize("rows", [0, 1])
def test_hardly_any_rows(tmp_path: Path, rows: int) -> None:
    """Nothing and one row make a page that says so."""
    frame = sales(rows).assign(category="tools", value=2.5)
    page = rendered(tmp_path, frame, *CHARTS, {"kind": "table", "title": "T"}, for_paper=True)
    assert ("No rows" in page.words) == (rows == 0)
    assert ("No rows to draw" in page.words) == (rows == 0)
    assert page.count("figure") == len(CHARTS)


def test_extreme_values_are_drawn_or_left_out(tmp_path: Path) -> None:
    """Not-a-number, infinities, huge and tiny numbers, and long names in any script."""
    values = [np.nan, np.inf, -np.inf, 1e300, -1e300, 5e-324, 0.0, 1.0]
    frame = pd.DataFrame({"n": values, "k": ["名" * 300, "ש" * 80, "", " ", "\x07", "e\u0301", "🙂", "-"]})
    sums = {"s": {"function": "sum", "column": "n"}}
    page = rendered(
        tmp_path,
        frame,
        {"kind": "bar", "title": "B", "x": "k", "y": sums},
        {"kind": "line", "title": "L", "x": "n", "y": sums},
        {"kind": "scatter", "title": "S", "x": "n", "y": "n"},
        {"kind": "histogram", "title": "H", "x": "n"},
        {"kind": "box", "title": "X", "x": "k", "y": "n"},
        {"kind": "heat_map", "title": "M", "x": "k", "y": "k", "value": sums["s"]},
        {"kind": "table", "title": "T"},
        for_paper=True,
    )
    assert "3 rows without a finite value are left out." in page.words
    assert "∞" in page.words


def test_a_pdf_is_made_and_fetches_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """WeasyPrint renders the page without its network: an address in the data is text."""
    try:
        import weasyprint  # noqa: PLC0415 - Pango, which it loads, may be missing
    except OSError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"WeasyPrint cannot load Pango (Debian: libpangoft2-1.0-0): {missing}")
    (tmp_path / "image.svg").write_text("<svg/>")
    hostile = f'<img src="http://127.0.0.1:9/x.png"><img src="{(tmp_path / "image.svg").as_uri()}">'
    weasyprint.HTML(string=hostile, url_fetcher=refusing_fetcher(weasyprint)).write_pdf(str(tmp_path / "hostile.pdf"))
    assert [record.getMessage().count("disallowed protocol") for record in caplog.records] == [1, 1]
    frame = pd.DataFrame({"k": ["http://127.0.0.1:9/x.png", "b"], "n": [1, 2]})
    bar = {"kind": "bar", "title": "B", "x": "k", "y": {"n": {"function": "sum", "column": "n"}}}
    with document(tmp_path, frame, bar, {"kind": "table", "title": "T"}) as made:
        write_pdf(made, tmp_path / "report.pdf", tmp_path)
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")


def test_without_the_extra_a_pdf_is_refused_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure names what to install."""
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with document(tmp_path, sales(3), {"kind": "table", "title": "T"}) as made, pytest.raises(TaskFailure) as refused:
        write_pdf(made, tmp_path / "report.pdf", tmp_path)
    assert refused.value.code == "pdf_not_installed"
    assert "celeriac[report-pdf]" in refused.value.remedy
