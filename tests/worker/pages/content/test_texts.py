"""A little Markdown."""

from __future__ import annotations

import pytest

from worker.pages.content.texts import Paragraph, Span, parse, plain


def test_paragraphs_lists_and_styles() -> None:
    """Empty lines part paragraphs; lines with dashes are a list; three styles are known."""
    text = "One **two** three\nfour\r\n\r\n- a *b*\n- `c`\n\n"
    assert parse(text) == [
        Paragraph(is_list=False, lines=[[Span("plain", "One "), Span("strong", "two"), Span("plain", " three\nfour")]]),
        Paragraph(is_list=True, lines=[[Span("plain", "a "), Span("em", "b")], [Span("code", "c")]]),
    ]


@pytest.mark.parametrize(
    "text", ["<b>x</b>", "[a](javascript:b)", "a * b * c", "**open", "![x](http://a/b)", "2*3*4 = 24"]
)
def test_everything_else_is_text(text: str) -> None:
    """No markup is lost or understood beyond the three styles."""
    (paragraph,) = parse(text)
    assert "".join(plain(paragraph)).replace("*", "") == text.replace("*", "")


def test_nothing_is_nothing() -> None:
    """A blank text has no paragraphs."""
    assert parse(" \n\n ") == []
