"""Reports over REST, made by a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.datasets import sales
from tests.support.servers.services import Server, gateway_server, http_client
from tests.support.servers.workers import Jobs, crew

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def jobs(folder: Path, valkey: Server) -> Iterator[Jobs]:
    """Run a gateway and one report worker."""
    env = {"CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
    with gateway_server(folder, **env) as gateway, crew(folder, **env, WORKER_FAMILIES="report") as workers:
        workers.start()
        yield Jobs(gateway)


def test_a_report_and_the_day_on_which_it_was_made(jobs: Jobs, folder: Path) -> None:
    """An uploaded dataset becomes a page; then the service's day has that job in it, and a failed one."""
    frame = sales(500)
    frame.to_parquet(folder / "orders.parquet")
    upload, content = f"{jobs.gateway.url}/uploads?name=orders.parquet", (folder / "orders.parquet").read_bytes()
    uploaded = http_client.post(upload, content=content)
    assert uploaded.status_code == 201, uploaded.text
    bar = {"kind": "bar", "title": "Orders by shop", "x": "shop", "y": {"n": {"function": "count"}}}
    params = {"dataset": uploaded.json()["uri"], "title": "Orders", "sections": [{"blocks": [bar]}]}
    done = jobs.ended(jobs.submit("report.generate_report", params))
    assert done["state"] == "succeeded", done["error"]
    assert done["result"]["charts"][0]["row_count"] == len(frame)
    page = http_client.get(f"{jobs.gateway.url}/jobs/{done['id']}/artifacts/report.html")
    assert "Orders by shop" in page.text
    assert f"{frame['shop'].value_counts().max():,}" in page.text

    wrong = {**params, "sections": [{"blocks": [{**bar, "x": "nowhere"}]}]}
    refused = jobs.ended(jobs.submit("report.generate_report", wrong))
    assert refused["error"]["code"] == "unknown_column"

    today = datetime.now(UTC).date().isoformat()
    day = jobs.ended(jobs.submit("report.generate_daily_report", {"day": today, "formats": ["html", "xlsx"]}))
    assert day["state"] == "succeeded", day["error"]
    assert day["result"]["by_state"] == {"succeeded": 1, "failed": 1, "running": 1}  # the third is this one itself
    assert day["result"]["failure_ratio"] == 0.5
    assert [file["name"] for file in day["result"]["reports"]] == ["report.html", "report.xlsx"]
