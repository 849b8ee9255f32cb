"""Show and check the results of the demo's pipeline."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import httpx
from rich.table import Table

from cli.pages.output import amount, duration_s, show_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console

    from celeriac.client import Client
    from cli.demo.sales import Figures

TABLE = "daily_sales"
_SHOWN_ROWS = 5


class Off(Exception):
    """A check of the demo failed."""


def show_timings(job: Mapping[str, Any], out: Console) -> None:
    """Print the duration and the result of each step."""
    for step in job["steps"]:
        out.print(f"  {step['name']:<10} {duration_s(step) or 0:6.1f} s  {_made(step['result'])}", markup=False)
    out.print(f"  {'total':<10} {duration_s(job) or 0:6.1f} s")


def _made(result: Mapping[str, Any]) -> str:
    """Return the result of a step in words."""
    if "read_bytes" in result:
        return f"{amount(result['read_bytes'], 'bytes')} read, {result['dataset']['row_count']:,} rows staged"
    if "rejected" in result:
        made, rejected = result["dataset"]["row_count"], result["rejected"]["row_count"]
        return f"{result['input_row_count']:,} rows in, {made:,} out, {rejected:,} rejected"
    return f"{result['inserted_count']:,} rows into {result['destination']}"


def show_loaded(warehouse: Path, out: Console) -> None:
    """Print the first rows of the table, read from the warehouse file."""
    out.print(f"\nFirst rows of {TABLE} in {warehouse}:")
    names, rows = _query(warehouse, f"SELECT * FROM {TABLE} ORDER BY date, category LIMIT {_SHOWN_ROWS}")  # noqa: S608 - our own name
    show_table(_grid(names, rows), out)


def show_rejects(gateway: Client, job: Mapping[str, Any], figures: Figures, folder: Path, out: Console) -> None:
    """Fetch the rejected rows through the gateway, show some, and compare their number with the figures."""
    rejects = next((file for file in gateway.artifacts(job["id"]) if file.artifact.role == "rejects"), None)
    if rejects is None:
        raise Off("the job has no artifact with the rejected rows")
    local = gateway.download(job["id"], rejects.name, folder / "rejects.parquet", step=rejects.step)
    found = duckdb.read_parquet(str(local))
    out.print(f"\nSome of the rejected rows ({rejects.name} of {rejects.step}):")
    show_table(_grid(found.columns, found.limit(_SHOWN_ROWS).fetchall()), out)
    _compare(out, "rejected rows", figures.bad.total(), len(found))


def check_sums(warehouse: Path, figures: Figures, out: Console) -> None:
    """Compare the table with the figures, category by category."""
    _, rows = _query(warehouse, f"SELECT date, category, value, count, orders FROM {TABLE}")  # noqa: S608 - our own name
    out.print("\nSums per category, as counted while the file was written and as loaded:")
    grid = Table(box=None, pad_edge=False)
    for title in ("category", "value written", "value loaded", "count written", "count loaded"):
        grid.add_column(title, justify="left" if title == "category" else "right")
    differing = []
    for category in sorted(figures.cents):
        ours = [row for row in rows if row[1] == category]
        value, count = sum((Decimal(str(row[2])) for row in ours), Decimal(0)), sum(int(row[3]) for row in ours)
        same = (value, count) == (figures.value(category), figures.counts[category])
        differing += [] if same else [category]
        written = (f"{figures.value(category):,}", f"{figures.counts[category]:,}")
        grid.add_row(category, written[0], f"{value:,}", written[1], f"{count:,}", style="" if same else "red")
    show_table(grid, out)
    if differing:
        raise Off(f"the sums of {', '.join(differing)} differ")
    _compare(out, "rows of the table", len(figures.groups), len(rows))
    good = figures.rows - figures.missing - figures.bad.total() - figures.duplicates
    _compare(out, "orders counted", good, sum(int(row[4]) for row in rows))


def _compare(out: Console, what: str, expected: int, actual: int) -> None:
    out.print(f"{what}: {expected:,} expected, {actual:,} found", style="" if expected == actual else "red")
    if expected != actual:
        raise Off(f"{what}: {expected:,} expected, {actual:,} found")


def try_urls(gateway: Client, job: Mapping[str, Any], out: Console) -> None:
    """Request the pages that a person would open next."""
    out.print("\nTried:")
    paths = [job["links"]["self"], job["links"]["logs"], "/jobs?state=succeeded", "/job-kinds", "/docs", "/readyz"]
    for path in [*paths, "/metrics"]:
        page = httpx.get(f"{gateway.url}{path}", trust_env=False).raise_for_status()
        out.print(f"  200  {page.url}  {amount(len(page.content), 'bytes')}", markup=False)


def _query(warehouse: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(f"file:{warehouse}?mode=ro", uri=True)) as connection:
        cursor = connection.execute(sql)
        return [column[0] for column in cursor.description], cursor.fetchall()


def _grid(names: list[str], rows: list[tuple[Any, ...]]) -> Table:
    grid = Table(*names, box=None, pad_edge=False)
    for row in rows:
        grid.add_row(*(str(value) for value in row))
    return grid
