"""The demo's data: sales with the flaws of real exports, and the figures of a correct pipeline."""

from __future__ import annotations

import math
import random
from array import array
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "order_id,date,category,value,count"
MISSING = ("", "NA")  # cells without a value
_CATEGORIES = ("books", "coffee", "garden", "games", "music", "office", "sports", "tea", "tools", "toys")
_DAYS = [str(date(2025, 1, 1) + timedelta(days=day)) for day in range(365)]
_BAD_DATES = ("2025-02-30", "31/12/2025", "soon", "2025-13-01")
_BAD_NUMBERS = ("12,50", "n.a.", "$4", "1.2.3")
# One draw of 64 random bits makes a row; each part of a row uses different bits. Some slots of 1024 have a flaw.
_FLAWS = ("missing",) * 12 + ("date",) * 4 + ("value",) * 4 + ("twice",) * 10
_CHUNK = 50_000
_SATURDAY = 5  # 2025 begins on a Wednesday, which is 2


def _level(which: int, day: int) -> int:
    """Return the price level of a category on a day, in 1/256: it depends on category, season and weekend."""
    own, season, weekend = (
        0.5 + 0.13 * which,
        1 + 0.3 * math.sin(2 * math.pi * (day / 365 + which / 10)),
        (day + 2) % 7 >= _SATURDAY,
    )
    return round(256 * own * season * (1.2 if weekend else 1))


_LEVELS = [[_level(which, day) for day in range(len(_DAYS))] for which in range(len(_CATEGORIES))]


@dataclass
class Figures:
    """The content of the file, counted while it is written."""

    rows: int = 0
    missing: int = 0  # rows with a missing value
    duplicates: int = 0  # rows that repeat another
    bad: Counter[str] = field(default_factory=Counter)  # rows with an invalid value, by column
    cents: Counter[str] = field(default_factory=Counter)  # sum of `value` over good rows, by category
    counts: Counter[str] = field(default_factory=Counter)  # sum of `count` over good rows, by category
    groups: set[tuple[str, str]] = field(default_factory=set)  # (date, category) of good rows

    def value(self, category: str) -> Decimal:
        """Return the exact sum of `value` in a category."""
        return Decimal(self.cents[category]).scaleb(-2)


def write_sales(path: Path, *, rows: int, seed: int) -> Figures:
    """Write about `rows` rows of CSV to `path`, plus duplicates, and return the figures.

    The same seed gives the same file.
    """
    rng, figures = random.Random(seed), Figures()  # noqa: S311 - reproducible data, not a secret
    with path.open("w", encoding="utf-8", newline="") as out:
        out.write(HEADER + "\n")
        for first in range(0, rows, _CHUNK):
            lines = _chunk(rng, figures, first, min(_CHUNK, rows - first))
            figures.rows += len(lines)
            out.write("\n".join(lines) + "\n")
    return figures


def _chunk(rng: random.Random, figures: Figures, first_id: int, size: int) -> list[str]:
    lines: list[str] = []
    kinds = len(_CATEGORIES)
    cents_of, counts_of, seen = [0] * kinds, [0] * kinds, bytearray(kinds * len(_DAYS))
    draws = array("Q", rng.randbytes(8 * size))
    for order_id, bits in enumerate(draws, start=first_id):
        day, count = (bits & 0xFFFF) % len(_DAYS), 1 + (bits >> 30 & 7)
        which, slot = (bits >> 33 & 0xFFFF) % kinds, bits >> 54
        cents = 99 + ((bits >> 16 & 0x3FFF) * _LEVELS[which][day] >> 8)
        line = f"{order_id},{_DAYS[day]},{_CATEGORIES[which]},{cents // 100}.{cents % 100:02d},{count}"
        flaw = _FLAWS[slot] if slot < len(_FLAWS) else ""
        if flaw and flaw != "twice":
            line = _flawed(rng, figures, flaw, line.split(","))
        else:
            cents_of[which] += cents
            counts_of[which] += count
            seen[which * len(_DAYS) + day] = 1
        lines.append(line)
        if flaw == "twice":
            figures.duplicates += 1
            lines.insert(rng.randrange(len(lines)), line)
    figures.cents.update(dict(zip(_CATEGORIES, cents_of, strict=True)))
    figures.counts.update(dict(zip(_CATEGORIES, counts_of, strict=True)))
    figures.groups.update(
        (_DAYS[place % len(_DAYS)], _CATEGORIES[place // len(_DAYS)]) for place, met in enumerate(seen) if met
    )
    return lines


def _flawed(rng: random.Random, figures: Figures, flaw: str, cells: list[str]) -> str:
    """Return a line with one bad cell."""
    if flaw == "missing":
        figures.missing += 1
        cells[rng.randrange(1, len(cells))] = rng.choice(MISSING)
    elif flaw == "date":
        figures.bad["date"] += 1
        cells[1] = rng.choice(_BAD_DATES)
    else:
        figures.bad["value"] += 1
        cells[3] = f'"{rng.choice(_BAD_NUMBERS)}"'
    return ",".join(cells)
