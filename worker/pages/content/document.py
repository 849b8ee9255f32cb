"""A report independent of its format: page, workbook and PDF are all made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from shared.jobs.charts import NumberFormat
from worker.pages.content.shapes import Figure
from worker.pages.content.texts import Paragraph

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Heading:
    """A column of a table."""

    label: str
    format: NumberFormat = field(default_factory=NumberFormat)
    align_end: bool = False  # even if its values are texts


@dataclass(frozen=True)
class Table:
    """Rows under headings. Each call of `rows(limit)` starts from the first row; `row_count` is the total."""

    title: str
    headings: list[Heading]
    rows: Callable[[int], Iterator[Row]]
    row_count: int
    limit: int = 1_000_000
    totals: Row | None = None
    note: str = ""

    @property
    def shown_count(self) -> int:
        """The number of rows that the workbook shows."""
        return min(self.row_count, self.limit)


@dataclass(frozen=True)
class Tile:
    """A single figure and its change."""

    label: str
    value: str
    change: str = ""
    mood: Literal["good", "bad", ""] = ""
    hint: str = ""


@dataclass(frozen=True)
class Tiles:
    """Figures side by side."""

    tiles: list[Tile]


@dataclass(frozen=True)
class Text:
    """Paragraphs and lists."""

    paragraphs: list[Paragraph]


Part = Text | Table | Figure | Tiles


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    title: str
    parts: list[Part]


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    sections: list[Section]
    made_at: datetime
    subtitle: str = ""
    lang: str = "en"
    facts: list[tuple[str, str]] = field(default_factory=list)  # shown below the title

    @property
    def figures(self) -> list[Figure]:
        """Its charts, in order."""
        return [part for section in self.sections for part in section.parts if isinstance(part, Figure)]

    @property
    def tables(self) -> list[Table]:
        """Its tables, in order."""
        return [part for section in self.sections for part in section.parts if isinstance(part, Table)]
