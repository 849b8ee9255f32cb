"""The demo's data is what its figures say, counted independently."""

from __future__ import annotations

import csv
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from cli.demo.sales import HEADER, write_sales

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 20_000


def test_figures_are_those_of_the_file(tmp_path: Path) -> None:
    """Reading the file row by row finds the same rows, flaws and sums as were counted while writing it."""
    figures = write_sales(tmp_path / "sales.csv", rows=ROWS, seed=3)
    with (tmp_path / "sales.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    whole = [row for row in rows if all(cell not in {"", "NA"} for cell in row.values())]
    dated = [row for row in whole if _is_day(row["date"])]
    good = {row["order_id"]: row for row in dated if _is_number(row["value"])}
    assert ",".join(rows[0]) == HEADER
    assert (figures.rows, figures.missing) == (len(rows), len(rows) - len(whole))
    assert figures.bad["date"] == len(whole) - len(dated)
    assert figures.duplicates == len(rows) - len({row["order_id"] for row in rows})
    assert figures.groups == {(row["date"], row["category"]) for row in good.values()}
    for category in figures.cents:
        ours = [row for row in good.values() if row["category"] == category]
        assert figures.value(category) == sum(Decimal(row["value"]) for row in ours)
        assert figures.counts[category] == sum(int(row["count"]) for row in ours)


def test_every_flaw_occurs(tmp_path: Path) -> None:
    """A small file already has rows of every flaw."""
    figures = write_sales(tmp_path / "sales.csv", rows=ROWS, seed=3)
    assert min(figures.missing, figures.duplicates, figures.bad["date"], figures.bad["value"]) > 0


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    """Two runs with one seed are equal, with another they differ."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_sales(tmp_path / name, rows=1_000, seed=seed)
    first, same, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == same
    assert first != other


def _is_day(text: str) -> bool:
    return text.startswith("2025-") and text not in {"2025-02-30", "2025-13-01"}


def _is_number(text: str) -> bool:
    try:
        Decimal(text)
    except InvalidOperation:
        return False
    return True
