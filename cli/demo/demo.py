"""`make demo`: real jobs through gateway, broker and workers, watched through the REST API and checked.

A CSV of about a million rows, some of them dirty, is served by a local HTTP server. `etl.run_pipeline` extracts it,
drops rows with missing values, rejects those with an invalid date or number, removes duplicates, sums value and
count per day and category, and loads the sums into a table. Every figure is compared with the counts made while the
file was written. A workflow then extracts that table, trains a model on it, searches for a better one with a chord
of trials, and renders a report; another job makes the daily report. The exit code is not 0 if a check fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celeriac.client import Client, Refused, Unreachable
from celeriac.ports import HOST, free_port
from cli.demo.checks import TABLE, Off, check_sums, show_loaded, show_rejects, show_timings, try_urls
from cli.demo.sales import MISSING, Figures, write_sales
from cli.demo.study import run_job, show_models, show_reports, study
from cli.local.ports import CannotStart, refuse_taken_port
from cli.local.tether import tethered
from cli.pages.output import amount, console
from shared.ledger.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

FOLDER = Path("data/demo")
ROWS, SEED = 1_000_000, 20_250_101
_PORT = 8000
_READY_WITHIN_S = 150.0
_STOPS_WITHIN_S = 60.0


def main() -> int:
    """Run the demo; return the exit code."""
    out = console()
    try:
        _demo(out)
    except (Off, CannotStart, Unreachable, Refused) as off:
        out.print(f"The demo failed: {off}", style="red", markup=False)
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
    with _served(source) as origin, _service(out, origin) as url, Client(url) as gateway:
        _say(out, "up", f"broker, gateway, workers and beat run; gateway at {url}, documentation at {url}/docs", begun)
        job = _run_pipeline(gateway, f"{origin}/sales.csv", out)
        _say(out, "job", State.SUCCEEDED, begun)
        show_timings(job, out)
        show_loaded(FOLDER / "warehouse.sqlite", out)
        show_rejects(gateway, job, figures, FOLDER, out)
        check_sums(FOLDER / "warehouse.sqlite", figures, out)
        _say(out, "study", "train a model on the table, tune one with a chord, render a report", begun)
        studied = study(gateway, out)
        show_models(studied, FOLDER, out)
        out.print("\nReports (open them in a browser):")
        show_reports(studied, FOLDER, out)
        show_reports(run_job(gateway, "report.generate_daily_report", {"day": _today()}, out), FOLDER, out)
        try_urls(gateway, job, out)
    _say(out, "end", "everything has stopped; `make up` starts it again and keeps it running", begun)
    out.print(f"Kept: {FOLDER} (warehouse.sqlite, artifacts, connections.toml, logs)")


def _run_pipeline(gateway: Client, url: str, out: Console) -> dict[str, Any]:
    """Submit the pipeline, show it live, and return the job as it ended."""
    return run_job(gateway, "etl.run_pipeline", _pipeline(url), out)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


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
        "source": {"kind": "http", "url": url, "layout": {"null_values": MISSING}},
        "transform": {"steps": steps, "bad_rows": "reject"},
        "destination": {"kind": "table", "connection": "warehouse", "table": TABLE, "mode": "replace"},
    }


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP on a free port of the loopback address; yield the origin."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer((HOST, 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def _service(out: Console, origin: str) -> Iterator[str]:
    """Run `celeriac up` until the block ends; yield the gateway's URL. Raises `Off` if it fails to start or stop."""
    out.print("starting broker, gateway, workers and beat ...")
    port = _free_or(_PORT)
    command = [sys.executable, "-m", "cli.app", "up", "--quiet", "--port", str(port), "--data", str(FOLDER)]
    environment = {**os.environ, "CELERIAC_HTTP_ALLOW_HOSTS": origin.removeprefix("http://")}
    news = FOLDER / "up.log"
    with news.open("wb") as output:
        service = subprocess.Popen(
            tethered(command, signal.SIGTERM),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C goes to the demo, which stops the service
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
            service.kill()  # its programs end with it
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
    """Return `port`, or another one if it is taken."""
    try:
        refuse_taken_port(port, "--port")
    except CannotStart:
        return free_port()
    return port


def _flaws(figures: Figures) -> str:
    return (
        f"{figures.missing:,} with missing values, {figures.bad.total():,} with a bad date or number, "
        f"{figures.duplicates:,} duplicates"
    )


def _say(out: Console, what: str, text: str, begun: float) -> None:
    out.print(f"[{time.monotonic() - begun:5.1f} s] {what}: {text}", markup=False)
