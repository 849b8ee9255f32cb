"""A subset of Markdown: paragraphs, lists, strong, emphasis and code. Other markup is shown as plain text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from worker.pages.content.values import printable

_SPAN = re.compile(r"\*\*(?P<strong>[^*\n]+)\*\*|\*(?P<em>[^*\s][^*\n]*)\*|`(?P<code>[^`\n]+)`")
_MOST = 20_000


@dataclass(frozen=True)
class Span:
    """A part of a text with one style."""

    style: Literal["plain", "strong", "em", "code"]
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph (one line of spans), or a list (one line of spans per item)."""

    is_list: bool
    lines: list[list[Span]]


def parse(text: str) -> list[Paragraph]:
    """Return the paragraphs of `text`, separated by empty lines; lines that all start with ``- `` are a list."""
    found = []
    for block in re.split(r"\n[ \t]*\n", printable(text.replace("\r\n", "\n"), _MOST).strip()):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        if lines and all(line.startswith("- ") for line in lines):
            found.append(Paragraph(is_list=True, lines=[_spans(line[2:]) for line in lines]))
        elif lines:
            found.append(Paragraph(is_list=False, lines=[_spans("\n".join(lines))]))
    return found


def plain(paragraph: Paragraph) -> list[str]:
    """Return the lines of a paragraph without their styles."""
    return ["".join(span.text for span in line) for line in paragraph.lines]


def _spans(text: str) -> list[Span]:
    spans, end = [], 0
    for found in _SPAN.finditer(text):
        if found.start() > end:
            spans.append(Span("plain", text[end : found.start()]))
        style: Literal["strong", "em", "code"] = "strong" if found["strong"] else "em" if found["em"] else "code"
        spans.append(Span(style, found[style]))
        end = found.end()
    if end < len(text):
        spans.append(Span("plain", text[end:]))
    return spans
