"""What a restricted key may submit: checked for jobs, batches, workflows' steps, schedules and reruns."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from shared.access.callers import Restrictions
from shared.ledger.keys import key
from shared.schedules.timetable import Timetable
from tests.api.access.keys_made import KeyMaker, bearer

SQL = {"kind": "sql", "connection": "warehouse", "table": "sales"}
EXTRACT = {"kind": "etl.extract_data", "params": {"source": SQL}}
LOAD = {
    "kind": "etl.load_data",
    "params": {
        "dataset": {"uri": "artifact://01999999-0000-7000-8000-000000000000/a.parquet"},
        "destination": {"kind": "table", "connection": "warehouse", "table": "sales"},
    },
}
SYNC = {
    "kind": "maintenance.sync_data",
    "params": {
        "source": {"connection": "warehouse", "table": "a"},
        "destination": {"connection": "warehouse", "table": "b"},
        "key": ["id"],
        "mode": {"kind": "full"},
    },
}
BACKUP = {
    "kind": "maintenance.backup_data",
    "params": {
        "source": {"kind": "table", "connection": "warehouse", "table": "a"},
        "keep_at": {"connection": "lake", "path": "a.zip"},
    },
}


def pipeline() -> dict[str, Any]:
    """Return a workflow that reads and writes the warehouse."""
    return {
        "kind": "etl.run_pipeline",
        "params": {
            "source": SQL,
            "transform": {"steps": [{"op": "drop_missing"}]},
            "destination": {"kind": "table", "connection": "warehouse", "table": "sales", "mode": "replace"},
        },
    }


def refused_at(answer: httpx.Response) -> list[str]:
    """Return the pointers of a refusal by restrictions."""
    assert answer.status_code == httpx.codes.FORBIDDEN, answer.text
    assert answer.json()["code"] == "restricted_key"
    return [error["pointer"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("restrictions", "job", "pointers"),
    [
        ({"kinds": ["etl.*"]}, EXTRACT, None),
        ({"kinds": ["report.*"]}, EXTRACT, ["/kind"]),
        ({"kinds": []}, EXTRACT, ["/kind"]),
        ({"queues": ["etl"]}, EXTRACT, None),
        ({"queues": ["ml"]}, EXTRACT, ["/kind"]),
        ({"queues": ["etl"]}, EXTRACT | {"options": {"queue": "ml"}}, ["/options/queue"]),
        ({"queues": ["ml"]}, pipeline(), ["/kind"]),
        ({"max_priority": 4}, EXTRACT | {"options": {"priority": 5}}, ["/options/priority"]),
        ({"max_priority": 5}, EXTRACT | {"options": {"priority": 5}}, None),
        ({"connections": {"warehouse": "read"}}, EXTRACT, None),
        ({"connections": {}}, EXTRACT, ["/params/source/connection"]),
        ({"connections": {"warehouse": "read"}}, SYNC, ["/params/destination/connection"]),
        ({"connections": {"warehouse": "write"}}, SYNC, None),
        ({"connections": {"warehouse": "read"}}, BACKUP, ["/params/keep_at/connection"]),
        ({"connections": {"warehouse": "read", "lake": "write"}}, BACKUP, None),
        ({"connections": {"warehouse": "read"}}, pipeline(), ["/params/destination/connection"]),
        ({"connections": {"warehouse": "write"}}, pipeline(), None),
    ],
)
def test_what_a_restricted_key_may_submit(
    guarded: httpx.Client, keys: KeyMaker, restrictions: dict[str, Any], job: dict[str, Any], pointers: list[str] | None
) -> None:
    """By each way of submitting; checking without accepting says the same, and so does a schedule."""
    mine = bearer(keys.make(restrictions=Restrictions.model_validate(restrictions)))
    schedule = job | {"name": "each day", "interval_s": 86_400}
    calls = [
        ("/jobs", job, ""),
        ("/jobs?validate_only=true", job, ""),
        ("/jobs/validate", job, ""),
        ("/jobs/batch", {"jobs": [job]}, "/jobs/0"),
        ("/jobs/batch/validate", {"jobs": [job]}, "/jobs/0"),
        ("/schedules", schedule, ""),
    ]
    for path, body, base in calls:
        answer = guarded.post(path, json=body, headers=mine)
        if pointers is None:
            assert answer.is_success, (path, answer.text)
        else:
            assert refused_at(answer) == [base + pointer for pointer in pointers], path


def test_every_step_of_a_workflow_is_checked(guarded: httpx.Client, keys: KeyMaker) -> None:
    """Its own kind too, and the pointer is that of the step."""
    steps = [EXTRACT, {"kind": "etl.transform_data", "params": {"steps": [{"op": "drop_missing"}]}}]
    chain = {"kind": "workflow.chain", "params": {"steps": steps}}
    submitted = guarded.post("/jobs/validate", json=chain)
    assert submitted.is_success, submitted.text
    mine = bearer(keys.make(restrictions=Restrictions(kinds=["workflow.*", "etl.extract_data"])))
    (pointer,) = refused_at(guarded.post("/jobs", json=chain, headers=mine))
    assert pointer.startswith("/params/steps/1")
    mine = bearer(keys.make(restrictions=Restrictions(kinds=["etl.*"])))
    assert refused_at(guarded.post("/jobs", json=chain, headers=mine)) == ["/kind"]


def test_what_is_not_for_a_key_is_not_told_about_either(guarded: httpx.Client, keys: KeyMaker) -> None:
    """A connection that does not exist is refused in the same words as one that does."""
    mine = bearer(keys.make(restrictions=Restrictions(connections={})))
    job = {"kind": "etl.extract_data", "params": {"source": SQL | {"connection": "nowhere"}}}
    assert refused_at(guarded.post("/jobs", json=job, headers=mine)) == ["/params/source/connection"]


def test_a_rerun_needs_what_the_job_needs(guarded: httpx.Client, keys: KeyMaker) -> None:
    """One job and many, unchanged and with other parameters."""
    job = guarded.post("/jobs", json=EXTRACT).json()["id"]
    guarded.post(f"/jobs/{job}/cancel")
    mine = bearer(keys.make(restrictions=Restrictions(connections={})))
    assert refused_at(guarded.post(f"/jobs/{job}/rerun", headers=mine)) == ["/params/source/connection"]
    many = guarded.post("/jobs/rerun", json={"ids": [job]}, headers=mine).json()
    assert [refused["code"] for refused in many["refused"]] == ["restricted_key"]
    assert guarded.post(f"/jobs/{job}/rerun").is_success


def test_a_schedule_of_a_revoked_key_runs_no_more(guarded: httpx.Client, keys: KeyMaker) -> None:
    """Its slots say why; who resumes or edits it makes it their own. One whose key has expired goes on."""
    text = keys.make()
    made = guarded.post("/schedules", json=EXTRACT | {"name": "often", "interval_s": 60}, headers=bearer(text)).json()

    def ticked() -> str:
        (planned,) = [one for one in _all(keys) if one.schedule.id == made["id"]]
        slot = planned.schedule.after(planned.cursor_ms)
        return Timetable(keys.ledger).tick(planned, slot, next_ms=slot + 60_000)

    assert ticked() == "free"
    keys.client.hset(key("access_key", text[4:12]), "expires_at", 1)
    assert ticked() == "free"
    keys.ledger.call("key_revoke", {"id": text[4:12]})
    assert ticked() == "troubled"
    shown = guarded.get(f"/schedules/{made['id']}").json()
    assert text[4:12] in str(shown)
    assert text[13:] not in str(shown)
    guarded.post(f"/schedules/{made['id']}/pause")
    assert guarded.post(f"/schedules/{made['id']}/resume").is_success
    assert ticked() == "free"


def _all(keys: KeyMaker) -> list[Any]:
    """Return every schedule, as beat reads it."""
    names: Any = keys.client.zrange(key("redbeat_schedule"), 0, -1)
    keys.client.zadd(key("redbeat_schedule"), dict.fromkeys(names, 1))
    return list(Timetable(keys.ledger).due().planned)
