"""The demo runs a real pipeline, and its checks can fail."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cli.demo import demo
from cli.demo.checks import TABLE, Off, check_sums
from cli.demo.sales import Figures, write_sales
from cli.pages.output import console
from tests.support.up import ROOT

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 20_000


@pytest.mark.integration
@pytest.mark.journey
def test_the_demo_comes_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With fewer rows: exit code 0, every figure compared, everything stopped."""
    monkeypatch.setattr(demo, "FOLDER", tmp_path / "demo")
    monkeypatch.setattr(demo, "ROWS", ROWS)
    assert demo.main() == 0, capfd.readouterr().out
    said = capfd.readouterr().out
    for what in ("rejected rows", "rows of the table", "orders counted", "everything has stopped"):
        assert what in said
    printed = [words(line) for line in said.splitlines()]
    assert [line for line in readme_sample() if words(line) not in printed] == []


def words(line: str) -> list[str]:
    """Return the words of a line; figures, units, ids and folders differ from run to run."""
    return re.findall(r"\b(?!KiB|MiB|\w*\d)[A-Za-z]{2,}", re.sub(r"\S+/(?=artifacts/|source/)|[0-9a-f-]{36}", "", line))


def readme_sample() -> list[str]:
    """Return what README says the demo prints, without what it leaves out and the trials, which go as they go."""
    sample = (ROOT / "README.md").read_text(encoding="utf-8").partition("Abridged:\n\n```text\n")[2].partition("```")[0]
    return [line for line in sample.splitlines() if line != "..." and not re.match(r"\d", line)]


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[Path, Figures]:
    """Return a warehouse with the right sums in one row a group, and the figures."""
    figures = write_sales(tmp_path / "sales.csv", rows=ROWS, seed=1)
    warehouse = tmp_path / "warehouse.sqlite"
    good = figures.rows - figures.missing - figures.bad.total() - figures.duplicates
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute(
            f"CREATE TABLE {TABLE} (date TEXT, category TEXT, value TEXT, count INTEGER, orders INTEGER)"
        )
        told: set[str] = set()
        for day, category in sorted(figures.groups):
            first = category not in told
            value, count = (str(figures.value(category)), figures.counts[category]) if first else ("0", 0)
            connection.execute(
                f"INSERT INTO {TABLE} VALUES (?, ?, ?, ?, ?)",  # noqa: S608 - our own name
                (day, category, value, count, 0 if told else good),
            )
            told.add(category)
    return warehouse, figures


def test_right_sums_pass(loaded: tuple[Path, Figures]) -> None:
    """A table with the figures of the file is accepted."""
    check_sums(*loaded, console())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE {} SET value = value || '1' WHERE category = 'tea' AND value <> '0'", "the sums of tea differ"),
        ("UPDATE {} SET count = count + 1 WHERE category = 'toys'", "the sums of toys differ"),
        ("UPDATE {} SET orders = orders - 1 WHERE orders > 0", "orders counted"),
        ("INSERT INTO {} VALUES ('2025-01-01', 'tea', '0', 0, 0)", "rows of the table"),
    ],
)
def test_a_wrong_figure_is_found(loaded: tuple[Path, Figures], change: str, named: str) -> None:
    """One cent, one piece, one order or one row too many or too few fails the demo."""
    warehouse, figures = loaded
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        assert connection.execute(change.format(TABLE)).rowcount > 0
    with pytest.raises(Off, match=named):
        check_sums(warehouse, figures, console())
