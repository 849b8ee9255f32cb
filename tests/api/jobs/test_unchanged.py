"""What polling with `If-None-Match` costs the ledger, on a real gateway process and a real Valkey."""

from __future__ import annotations

import json
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import redis

from shared.ledger.client import Ledger
from shared.ledger.keys import key
from tests.support.ledgers import claimed

if TYPE_CHECKING:
    import httpx

    from tests.support.servers.services import Server

PROGRESS = json.dumps({"current": 1, "total": None, "unit": "rows", "message": ""})


def test_an_unchanged_job_costs_the_ledger_one_look_at_its_version(
    api: httpx.Client, extraction: dict[str, Any], valkey: Server
) -> None:
    """While it runs and once it has ended; each change that a client sees is another version, and no other is."""
    job_id = api.post("/jobs", json=extraction).json()["id"]

    def commands(tag: str) -> tuple[int, list[str]]:
        with redis.Redis(port=valkey.port, decode_responses=True) as client, client.monitor() as seen:
            status = api.get(f"/jobs/{job_id}", headers={"If-None-Match": tag}).status_code
            client.echo(job_id)
            told = [one["command"] for one in takewhile(lambda one: one["command"] != f"ECHO {job_id}", seen.listen())]
        return status, [command for command in told if job_id in command]

    def tag() -> str:
        return str(api.get(f"/jobs/{job_id}").headers["etag"])

    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        ledger, tags = Ledger(client), [tag()]
        token = claimed(ledger, job_id).token
        looked = [f"HMGET {key('job', job_id)} state revision"]
        tags.append(tag())
        assert commands(tags[-1]) == (304, looked)
        ledger.renew([job_id], owner="w1", lease_s=60)  # no client sees that
        assert commands(tags[-1]) == (304, looked)
        for change in (
            lambda: ledger.progress(job_id, token=token, progress=PROGRESS),
            lambda: ledger.cancel(job_id, reason="r"),
            lambda: ledger.stopped(job_id, token=token),
        ):
            change()
            status, asked = commands(tags[-1])
            assert (status, len(asked) > 1) == (200, True)
            tags.append(tag())
            assert commands(tags[-1]) == (304, looked)
    assert len(set(tags)) == len(tags)
    api.post(f"/jobs/{job_id}/rerun")
    assert commands(tags[-1])[0] == 200  # it says by which job it was rerun
    assert api.get(f"/jobs/{job_id}", headers={"If-None-Match": tag()}).status_code == 304
    api.delete(f"/jobs/{job_id}")
    assert commands(tags[-1])[0] == 410


def test_a_workflow_that_has_ended_is_another_when_one_of_its_steps_is(
    api: httpx.Client, pipeline: dict[str, Any], valkey: Server
) -> None:
    """A step that ran at the end stops later, and its job shows that."""
    job_id = api.post("/jobs", json=pipeline).json()["id"]
    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        ledger, first = Ledger(client), api.get(f"/jobs/{job_id}").json()["steps"][0]["id"]
        token = claimed(ledger, first).token
        running = api.get(f"/jobs/{job_id}").headers["etag"]
        assert api.get(f"/jobs/{job_id}", headers={"If-None-Match": running}).status_code == 304
        api.post(f"/jobs/{job_id}/cancel")
        ended = api.get(f"/jobs/{job_id}").headers["etag"]
        assert api.get(f"/jobs/{job_id}", headers={"If-None-Match": ended}).status_code == 304
        ledger.stopped(first, token=token)
        shown = api.get(f"/jobs/{job_id}", headers={"If-None-Match": ended})
    assert (shown.status_code, shown.json()["steps"][0]["state"]) == (200, "cancelled")
