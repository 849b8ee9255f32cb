"""`make demo`: a real pipeline through gateway, broker and workers, watched through the REST API and checked.

A CSV of about a million rows, some of them dirty, is served by a local HTTP server. `etl.run_pipeline` extracts it,
drops rows with missing values, rejects those whose date or number is none, removes duplicates, sums value and count
per day and category, and loads the sums into a table. Every figure is compared with what was counted while the
file was written. The exit code is not 0 if anything is off.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from rich.table import Table

from cli.gateway import Gateway, Refused, Unreachable
from cli.output import amount, console, duration_s, show_error, show_table
from cli.ports import HOST, CannotStart, free_port, refuse_taken_port
from cli.processes import tethered
from cli.sales import Figures, write_sales
from cli.watch import follow, live_view

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

FOLDER = Path("data/demo")
ROWS, SEED = 1_000_000, 20_250_101
_PORT = 8000
_READY_WITHIN_S = 150.0
_STOPS_WITHIN_S = 60.0
_SHOWN_ROWS = 5
_TABLE = "daily_sales"


class Off(Exception):
    """Something is not as it should be."""


def main() -> int:
    """Run the demo; return the exit code."""
    out = console()
    try:
        _demo(out)
    except (Off, CannotStart, Unreachable, Refused) as off:
        out.print(f"The demo did not come to its end: {off}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        out.print("interrupted")
        return 130
    return 0


def _demo(out: Console) -> None:
    begun = time.monotonic()
    source = FOLDER / "source"
    source.mkdir(parents=True, exist_ok=True)
    figures = write_sales(source / "sales.csv", rows=ROWS, seed=SEED)
    size = amount((source / "sales.csv").stat().st_size, "bytes")
    _say(out, "data", f"{source / 'sales.csv'}: {figures.rows:,} rows, {size}, {_flaws(figures)}", begun)
    with _served(source) as origin, _service(out, origin) as url, Gateway(url) as gateway:
        _say(out, "up", f"broker, gateway, worker and beat run; gateway at {url}, documentation at {url}/docs", begun)
        job = _run_pipeline(gateway, f"{origin}/sales.csv", out)
        _say(out, "job", "succeeded", begun)
        _show_timings(job, out)
        _show_table(out)
        _show_rejects(gateway, job, figures, out)
        _check_sums(figures, out)
        _try_urls(gateway, job, out)
    _say(out, "end", "everything has stopped; `make up` starts it again and keeps it running", begun)
    out.print(f"Kept: {FOLDER} (warehouse.sqlite, artifacts, connections.toml, logs)")


def _run_pipeline(gateway: Gateway, url: str, out: Console) -> dict[str, Any]:
    """Submit the pipeline, show it live, and return the job as it ended."""
    accepted = gateway.post("/jobs", {"kind": "etl.run_pipeline", "params": _pipeline(url)}).document
    out.print(f"POST {gateway.url}/jobs -> 202, {gateway.url}{accepted['links']['self']}")
    with live_view(out) as view:
        job: dict[str, Any] = follow(gateway, accepted["id"], view, timeout_s=300).document
    if job["state"] != "succeeded":
        if job["error"]:
            show_error(job["error"], out)
        raise Off(f"the job is {job['state']}; the logs are in {FOLDER / 'logs'}")
    return job


def _pipeline(url: str) -> dict[str, Any]:
    sums = {name: {"function": "sum", "column": name} for name in ("value", "count")}
    value = {"type": "decimal", "precision": 12, "scale": 2}
    steps = [
        {"op": "drop_missing"},
        {"op": "cast", "columns": {"date": "date", "value": value, "count": "integer"}},
        {"op": "deduplicate", "columns": ["order_id"]},
        {"op": "aggregate", "group_by": ["date", "category"], "measures": {**sums, "orders": {"function": "count"}}},
        {"op": "sort", "by": [{"column": "date"}, {"column": "category"}]},
    ]
    return {
        "source": {"kind": "http", "url": url},
        "transform": {"steps": steps, "bad_rows": "reject"},
        "destination": {"kind": "table", "connection": "warehouse", "table": _TABLE, "mode": "replace"},
    }


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP on a free port of the loopback address; yield the origin."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((HOST, 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def _service(out: Console, origin: str) -> Iterator[str]:
    """Run `celeriac up` until the block ends; yield the gateway's URL. Raises `Off` if it starts or stops badly."""
    port = _free_or(_PORT)
    command = [sys.executable, "-m", "cli.app", "up", "--quiet", "--port", str(port), "--data", str(FOLDER)]
    environment = {**os.environ, "CELERIAC_HTTP_ALLOW_HOSTS": origin.removeprefix("http://")}
    news = FOLDER / "up.log"
    with news.open("wb") as output:
        service = subprocess.Popen(
            tethered(command, signal.SIGTERM), stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        _wait_until_ready(service, news)
        yield f"http://{HOST}:{port}"
    finally:
        out.print("stopping ...")
        service.send_signal(signal.SIGTERM)
        try:
            code = service.wait(_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            service.kill()  # its programs go with it
            service.wait()
            code = -signal.SIGKILL
    if code != 0:
        raise Off(f"`celeriac up` ended with exit code {code}:\n{news.read_text(encoding='utf-8')}")


def _wait_until_ready(service: subprocess.Popen[bytes], news: Path) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while "ready; Ctrl-C" not in (said := news.read_text(encoding="utf-8")):
        if service.poll() is not None:
            raise Off(f"`celeriac up` ended with exit code {service.returncode}:\n{said}")
        if time.monotonic() > deadline:
            raise Off(f"`celeriac up` was not ready within {_READY_WITHIN_S:g} s:\n{said}")
        time.sleep(0.1)


def _free_or(port: int) -> int:
    """Return `port`, or another one where that is taken."""
    try:
        refuse_taken_port(port, "--port")
    except CannotStart:
        return free_port()
    return port


def _show_timings(job: Mapping[str, Any], out: Console) -> None:
    for step in job["steps"]:
        out.print(f"  {step['name']:<10} {duration_s(step) or 0:6.1f} s  {_made(step['result'])}", markup=False)
    out.print(f"  {'in all':<10} {duration_s(job) or 0:6.1f} s")


def _made(result: Mapping[str, Any]) -> str:
    """Return in words what a step of the pipeline made."""
    if "read_bytes" in result:
        return f"{amount(result['read_bytes'], 'bytes')} read, {result['dataset']['row_count']:,} rows staged"
    if "rejected" in result:
        made, rejected = result["dataset"]["row_count"], result["rejected"]["row_count"]
        return f"{result['input_row_count']:,} rows in, {made:,} out, {rejected:,} rejected"
    return f"{result['inserted_count']:,} rows into {result['destination']}"


def _show_table(out: Console) -> None:
    out.print(f"\nFirst rows of {_TABLE} in {FOLDER / 'warehouse.sqlite'}:")
    names, rows = _query(f"SELECT * FROM {_TABLE} ORDER BY date, category LIMIT {_SHOWN_ROWS}")  # noqa: S608 - our own name
    show_table(_grid(names, rows), out)


def _show_rejects(gateway: Gateway, job: Mapping[str, Any], figures: Figures, out: Console) -> None:
    """Fetch the rejected rows through the gateway, show some, and compare their number with the figures."""
    listed = gateway.get(f"/jobs/{job['id']}/artifacts").document["artifacts"]
    rejects = next((item for item in listed if item["artifact"]["role"] == "rejects"), None)
    if rejects is None:
        raise Off("the job has no artifact with the rejected rows")
    local = FOLDER / "rejects.parquet"
    with local.open("wb") as file:
        for part in gateway.download(rejects["href"]):
            file.write(part)
    found = duckdb.read_parquet(str(local))
    out.print(f"\nSome of the rejected rows ({rejects['href']}):")
    show_table(_grid(found.columns, found.limit(_SHOWN_ROWS).fetchall()), out)
    _compare(out, "rejected rows", figures.bad.total(), len(found))


def _check_sums(figures: Figures, out: Console) -> None:
    """Compare the table with the figures, category by category."""
    _, rows = _query(f"SELECT date, category, value, count, orders FROM {_TABLE}")  # noqa: S608 - our own name
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


def _try_urls(gateway: Gateway, job: Mapping[str, Any], out: Console) -> None:
    """Ask for what a person would look at next."""
    out.print("\nTried:")
    paths = [job["links"]["self"], job["links"]["logs"], "/jobs?state=succeeded", "/job-kinds", "/docs", "/readyz"]
    for path in [*paths, "/metrics"]:
        size = sum(len(part) for part in gateway.download(path))
        out.print(f"  200  {gateway.url}{path}  {amount(size, 'bytes')}", markup=False)


def _query(sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(f"file:{FOLDER / 'warehouse.sqlite'}?mode=ro", uri=True)) as warehouse:
        cursor = warehouse.execute(sql)
        return [column[0] for column in cursor.description], cursor.fetchall()


def _grid(names: list[str], rows: list[tuple[Any, ...]]) -> Table:
    grid = Table(*names, box=None, pad_edge=False)
    for row in rows:
        grid.add_row(*(str(value) for value in row))
    return grid


def _flaws(figures: Figures) -> str:
    return (
        f"{figures.missing:,} with missing values, {figures.bad.total():,} with a bad date or number, "
        f"{figures.duplicates:,} duplicates"
    )


def _say(out: Console, what: str, text: str, begun: float) -> None:
    out.print(f"[{time.monotonic() - begun:5.1f} s] {what}: {text}", markup=False)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
