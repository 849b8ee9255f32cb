"""Nothing that a body says can hurt the service or its own job: on a real worker, read through a real gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.ledger.states import FINAL_STATES
from tests.acme.hostile import HOW
from tests.support.servers.services import Server, http_client
from tests.support.servers.workers import AUTHORS, Jobs, serving

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[3] / "docs" / "authors" / "bodies.md"
ROW = re.compile(
    r"^\| `(?P<how>\w+)` \|[^|]*\| (?P<state>succeeded|failed|retrying) *\|(?P<shown>[^|]*)\|$", re.MULTILINE
)
LARGEST_ANSWER_BYTES = 64_000


@pytest.fixture(scope="module")
def jobs(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with serving(tmp_path_factory.mktemp("hostile"), valkey.redis_url, AUTHORS) as made:
        yield made


def verdicts() -> dict[str, tuple[str, str]]:
    """Return the table of the page: the state in which the job of each body ends, and what it shows."""
    return {row["how"]: (row["state"], row["shown"].strip()) for row in ROW.finditer(PAGE.read_text())}


def test_the_page_lists_every_body() -> None:
    """A verdict for each, so that none is without a test."""
    assert verdicts().keys() == HOW.keys()


@pytest.mark.parametrize("how", HOW)
def test_a_body_hurts_neither_the_service_nor_its_own_job(jobs: Jobs, how: str) -> None:
    """The job ends as the page says, and every reader can read it; the next job of the same process is unharmed."""
    state, shown = verdicts()[how]
    job = jobs.in_state(jobs.submit("acme.misbehave", {"how": how}), *FINAL_STATES, state)
    assert job["state"] == state, job["error"]
    for text in re.findall(r"`([^`]+)`|(…)", shown):
        assert "".join(text) in json.dumps(job, ensure_ascii=False), (text, job)
    jobs.cancel(job["id"])  # of one that waits for its next attempt, the stream of events would not end
    assert json.dumps(job).find("not_runnable") == -1
    url = f"{jobs.gateway.url}/jobs"
    for path in ("", f"?kind={job['kind']}", f"/{job['id']}", f"/{job['id']}/logs", f"/{job['id']}/events"):
        answer = http_client.get(url + path)
        assert (answer.status_code, path) == (200, path)
    assert len(http_client.get(f"{url}/{job['id']}").content) < LARGEST_ANSWER_BYTES
    assert len(http_client.get(f"{url}/{job['id']}/logs").content) < LARGEST_ANSWER_BYTES
    after: dict[str, Any] = jobs.ended(jobs.submit("acme.misbehave", {"how": "well"}))
    assert (after["result"]["said"], after["error"]) == ("True True False", None)
    assert http_client.get(f"{url}/{after['id']}/logs").json()["lines"][-1]["message"].endswith("attempt 1 behaves")
