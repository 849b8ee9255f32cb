"""What must be true of the ledger whatever has happened: it agrees with itself.

Nothing here knows the model. Every set and index is made again from the records, and compared as a whole, so that a
member too many is found like one that is missing, and a key that no record accounts for like one that is not there.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable

from shared.ledger.ids import id_listed
from shared.ledger.states import FINAL_STATES, State
from tests.shared.ledger.model.names import HELD_BY_KEY, HELD_BY_PAUSE, RESULT, key, list_of
from tests.shared.ledger.model.snapshot import Snapshot

Record = dict[str, str]
BAND = 2**42  # of the scores of a priority
_FINAL = {*FINAL_STATES, "skipped"}
_ARTIFACT = re.compile(r"artifact://([0-9a-f-]{36})/")


def _is_step(record: Record) -> bool:
    return "job_id" in record


def _is_workflow(record: Record) -> bool:
    return "steps" in record


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for name, member in pairs:
        groups[name].add(member)
    return dict(groups)


def _members(found: Snapshot, name: str) -> dict[str, set[str]]:
    return {of: set(members) for of, members in found.having(found.zsets, name).items()}


def _ids(records: dict[str, Record], *states: str) -> set[str]:
    return {each for each, record in records.items() if record["state"] in states}


def waiting_sets_agree(found: Snapshot) -> None:
    """Find every queued job or step in exactly one waiting set, in its order; every running one among the running."""
    tasks = {each: record for each, record in found.records.items() if not _is_workflow(record)}
    queued = {each: record for each, record in tasks.items() if record["state"] == "queued"}
    names = {None: "backlog", HELD_BY_PAUSE: "held", HELD_BY_KEY: "limited", "over_rate": "rated"}
    seen: list[str] = []
    for held_by, name in names.items():
        expected: dict[str, dict[str, float]] = defaultdict(dict)
        for each, record in queued.items():
            if record.get("held_by") == held_by:
                expected[record["queue"]][each] = (9 - int(record["priority"])) * BAND + int(record["queued_at"])
        assert found.having(found.zsets, name) == expected, name
        seen += [each for members in expected.values() for each in members]
    assert sorted(seen) == sorted(queued)
    running = {each: record for each, record in tasks.items() if record["state"] == "running"}
    assert _members(found, "running") == _grouped((record["queue"], each) for each, record in running.items())
    assert not set(seen) & set(running)


def work_lists_agree(found: Snapshot) -> None:
    """Find what is published, claimed, due and expiring to be what the records say, with the same times."""
    records = found.records
    tasks = {each: record for each, record in records.items() if not _is_workflow(record)}
    with_broker = {
        each: record for each, record in tasks.items() if record["state"] == "queued" and "held_by" not in record
    }
    assert _members(found, "published") == _grouped(
        (list_of(record["queue"], int(record["priority"])), each)
        for each, record in with_broker.items()
        if "outbox" not in record
    )
    assert set(found.zsets.get(key("outbox"), ())) <= {
        each for each, record in with_broker.items() if "outbox" in record
    }
    steps = {each: 0.0 for each, record in records.items() if _is_step(record) and record["state"] not in _FINAL}
    assert found.zsets.get(key("open_steps"), {}) == steps
    running = {each: float(tasks[each]["claim_until"]) for each in _ids(tasks, "running")}
    assert found.zsets.get(key("claims"), {}) == running
    assert {each for each, record in records.items() if "token" in record} == set(running)
    assert {each for each, record in records.items() if "owner" in record} == set(running)
    waiting = {each: float(records[each]["due_at"]) for each in _ids(records, "scheduled", "retrying")}
    assert found.zsets.get(key("due"), {}) == waiting
    assert {each for each, record in records.items() if "due_at" in record} == set(waiting)
    assert found.zsets.get(key("expiring"), {}) == {
        each: float(record["expires_at"])
        for each, record in records.items()
        if "expires_at" in record and "started_at" not in record and record["state"] not in _FINAL
    }


def concurrency_keys_agree(found: Snapshot) -> None:
    """Find the places of a key neither overbooked nor left empty while somebody waits for one."""
    tasks = {
        each: record
        for each, record in found.records.items()
        if "concurrency_key" in record and not _is_workflow(record)
    }
    running = _grouped((tasks[each]["concurrency_key"], each) for each in _ids(tasks, "running"))
    limited = _grouped(
        (record["concurrency_key"], each) for each, record in tasks.items() if record.get("held_by") == HELD_BY_KEY
    )
    admitted = _members(found, "admitted-key")
    assert found.having(found.sets, "running-key") == running
    assert _members(found, "limited-key") == limited
    assert set(limited) <= found.sets.get(key("limited-keys"), set())
    for of_key, members in admitted.items():
        assert all(tasks[each]["state"] == "queued" and "held_by" not in tasks[each] for each in members), of_key
    for record in tasks.values():
        name, limit = record["concurrency_key"], int(record["concurrency_limit"])
        assert len(running.get(name, ())) <= limit
        if name in limited:
            assert len(running.get(name, ())) + len(admitted.get(name, ())) >= limit


def unique_keys_agree(found: Snapshot) -> None:
    """Find each unique key at the only job that has it and has not ended; no ended one keeps it."""
    holders = [
        (record["unique_key"], each)
        for each, record in found.records.items()
        if "unique_key" in record and "replaced_by" not in record and record["state"] not in _FINAL
    ]
    assert sorted(holders) == sorted(found.having(found.strings, "unique").items())


def indexes_agree(found: Snapshot) -> None:
    """Find each list that clients read to say what the records say, and every job in exactly one state."""
    jobs = {each: record for each, record in found.records.items() if not _is_step(record)}
    places = {record.get("listed_as", each): record for each, record in jobs.items()}
    assert set(found.zsets.get(key("jobs"), ())) == set(places)
    for name, field in (("state", "state"), ("kind", "kind"), ("queue", "queue"), ("schedule", "schedule")):
        expected = _grouped((record[field], place) for place, record in places.items() if field in record)
        assert _members(found, name) == expected, name
    assert _members(found, "tag") == _grouped(
        (tag, place) for place, record in places.items() for tag in json.loads(record["tags"])
    )
    sizes = {state: len(found.zsets.get(key("state", state), ())) for state in State}
    assert sum(sizes.values()) == len(jobs)
    assert set(found.zsets.get(key("ended"), ())) == _ids(jobs, *FINAL_STATES)
    assert found.having(found.sets, "references") == _grouped(
        (named, each)
        for each, record in jobs.items()
        if record["state"] not in _FINAL
        for named in _ARTIFACT.findall(record["params"])
    )


def records_are_whole(found: Snapshot) -> None:
    """Find one outcome and a time of its end with what has ended, and none with what has not."""
    for each, record in found.records.items():
        is_final = record["state"] in _FINAL
        assert ("finished_at" in record) == is_final, each
        assert ("result" in record) == (record["state"] == "succeeded"), each
        if is_final:
            assert ("error" in record) == (record["state"] != "succeeded"), each
            assert "attempt_open" not in record, each
        assert "held_by" not in record or record["state"] == "queued", each
        if _is_step(record):
            job = found.records[record["job_id"]]
            assert each in json.loads(job["steps"])
            if job["state"] in _FINAL:
                assert is_final or (record["state"] == "running" and "cancel_requested_at" in record), each
                assert "message" not in record or record["state"] == "running", each
        if record["state"] in {"queued", "scheduled", "retrying", "running"} and not _is_step(record):
            assert "message" in record or "envelope" in record or _is_workflow(record), each


def celerys_results_agree(found: Snapshot) -> None:
    """Find what somebody's AsyncResult says of a job that has ended to be what its record says."""
    statuses = {"succeeded": "SUCCESS", "failed": "FAILURE", "quarantined": "FAILURE"}
    for each, record in found.records.items():
        if record["state"] in _FINAL:
            stored = json.loads(found.strings[RESULT + each])
            assert stored["status"] == statuses.get(record["state"], "REVOKED"), each
            assert stored["task_id"] == each
            if record["state"] == "succeeded":
                assert stored["result"] == json.loads(record["result"])
            else:
                (message,) = stored["result"]["exc_message"]
                document = json.loads(record["error"])
                assert message == f"{document['code']}: {document['message']}"


def every_key_has_an_owner(found: Snapshot) -> None:
    """Find what belongs to a job to be there as long as the job, and to lapse by itself once it has ended."""
    records = found.records
    jobs = {each for each, record in records.items() if not _is_step(record)}
    streams = set(found.having(found.streams, "events"))
    assert streams <= jobs
    assert {each for each in jobs if "begins" not in records[each]} <= streams
    results = {name.removeprefix(RESULT) for name in found.strings if name.startswith(RESULT)}
    assert results <= set(records)
    for each, record in records.items():
        root = records[record.get("job_id", each)]
        has_ended = root["state"] in _FINAL
        assert (found.ttl_ms[key("job", each)] > 0) == has_ended, each
        if root["id"] in streams:
            assert (found.ttl_ms[key("events", root["id"])] > 0) == has_ended, each
    assert all(found.ttl_ms[RESULT + each] > 0 for each in results)
    for name, members in found.zsets.items():
        if name not in {
            key("gone"),
            key("uploads"),
            key("binding_deadlines"),
        }:  # kombu's: gateways of other tests use this Valkey
            assert {id_listed(member) for member in members} <= set(records), name
    lasting = {
        key(name)
        for name in ("counters", "gone", "held-queues", "jobs", "limited-keys", "lists", "paused", "tended_at", "token")
    }
    lasting |= {key(name) for name in ("callbacks", "claims", "due", "ended", "expiring", "outbox")}
    for name in set(found.ttl_ms) - lasting - set(found.lists):
        if name.startswith((RESULT, key("job"), key("events"))):
            continue  # seen above
        if name.startswith((key("binding"), key("binding_permanent"))):
            continue  # kombu's
        if name in found.zsets or name.startswith((key("references"), key("running-key"), key("unique"))):
            continue  # their members are
        assert found.ttl_ms[name] > 0, f"{name} is nobody's and stays"


CONSISTENCY = (
    waiting_sets_agree,
    work_lists_agree,
    concurrency_keys_agree,
    unique_keys_agree,
    indexes_agree,
    records_are_whole,
    celerys_results_agree,
    every_key_has_an_owner,
)
