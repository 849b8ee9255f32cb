"""Whether the ledger is what the model says."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.shared.ledger.model.names import CHORD_SIZE, RESULT, key
from tests.shared.ledger.model.places import Message
from tests.shared.ledger.model.snapshot import Snapshot
from tests.shared.ledger.model.tasks import Task
from tests.shared.ledger.model.world import World


def _error_of(record: dict[str, str]) -> tuple[str, str | None] | None:
    if "error" not in record:
        return None
    document = json.loads(record["error"])
    return document["code"], document.get("step")


def _seen(record: dict[str, str], celery: str | None) -> dict[str, Any]:
    return {
        "state": record["state"],
        "held_by": record.get("held_by"),
        "publishes": int(record.get("publishes", 0)),
        "attempt": int(record.get("attempt", 0)),
        "outcomes": [attempt.get("outcome") for attempt in json.loads(record.get("attempts", "[]"))],
        "token": record.get("token"),
        "owner": record.get("owner", ""),
        "retries": int(record.get("retries", 0)),
        "crashes": int(record.get("crashes", 0)),
        "started": "started_at" in record,
        "cancel_requested": "cancel_requested_at" in record,
        "result": record.get("result"),
        "error": _error_of(record),
        "has_message": "message" in record or "envelope" in record,
        "retried_as": record.get("retried_as"),
        "done": int(record.get("done", 0)),
        "tolerated": int(record.get("tolerated", 0)),
        "waits_for": int(record["waits_for"]) if record["state"] == "waiting" else 0,
        "celery": celery,
    }


def _expected(task: Task) -> dict[str, Any]:
    return {
        "state": task.state,
        "held_by": task.held_by,
        "publishes": task.publishes,
        "attempt": len(task.outcomes),
        "outcomes": task.outcomes,
        "token": task.token,
        "owner": task.owner,
        "retries": task.retries,
        "crashes": task.crashes,
        "started": task.started,
        "cancel_requested": task.cancel_requested,
        "result": task.result,
        "error": task.error,
        "has_message": task.has_message,
        "retried_as": task.retried_as,
        "done": sum(step.is_done for step in task.steps),
        "tolerated": sum(step.is_tolerated for step in task.steps),
        "waits_for": task.waits_for if task.state == "waiting" else 0,
        "celery": task.celery,
    }


def records_are_as_predicted(found: Snapshot, world: World) -> None:
    """Find every job and step, and no other, each in its state, with its attempts, outcome and Celery's result."""
    records = found.records
    assert set(records) == set(world.tasks)
    for task_id, task in world.tasks.items():
        stored = found.strings.get(RESULT + task_id)
        assert _seen(records[task_id], stored and json.loads(stored)["status"]) == _expected(task), task_id


def events_are_as_predicted(found: Snapshot, world: World) -> None:
    """Find that each job tells all of its and its steps' changes, once, in order."""
    streams = found.having(found.streams, "events")
    told: dict[str, list[tuple[str, str | None, str | None]]] = {}
    for job_id in world.events:
        begins = found.records[job_id].get("begins")
        told[job_id] = [("state", None, begins)] if begins else []
        told[job_id] += [
            (
                entry["event"],
                entry.get("step"),
                json.loads(entry["data"])["state"] if entry["event"] == "state" else None,
            )
            for entry in streams.get(job_id, [])
        ]
    assert told == world.events


def counters_are_as_predicted(found: Snapshot, world: World) -> None:
    """Compare the metrics with what the model counted; of durations their number, whatever bucket they are in."""
    counted: Counter[str] = Counter()
    for field, value in found.hashes.get(key("counters"), {}).items():
        what, *labels = field.split("|")
        if what == "ran":
            counted[f"ran|{labels[0]}"] += int(value)
        elif what != "ran_ms":
            counted[field] += int(value)
    assert counted == world.counters


def _message(parts: dict[str, Any]) -> Message:
    return Message(parts["headers"]["id"], parts["headers"].get("celeriac_publication"))


def the_brokers_lists_are_as_predicted(found: Snapshot, world: World) -> None:
    """Find whose messages are on which list, in which order, and what is to be published elsewhere."""
    lists = {name: [_message(json.loads(text)) for text in messages] for name, messages in found.lists.items()}
    assert lists == {name: messages for name, messages in world.lists.items() if messages}
    assert set(found.zsets.get(key("outbox"), ())) == {each for each, task in world.tasks.items() if task.in_outbox}
    chords = {CHORD_SIZE.format(group): str(size) for group, size in world.chords.items()}
    assert {
        name: size for name, size in found.strings.items() if name.startswith(CHORD_SIZE.split("{", 1)[0])
    } == chords


def promises_are_as_predicted(found: Snapshot, world: World) -> None:
    """Compare what was forgotten, what is to be told, whose turn it is, and under which keys jobs were accepted."""
    assert set(found.zsets.get(key("gone"), ())) == world.gone
    assert set(found.zsets.get(key("uploads"), ())) == world.left_files
    assert set(found.zsets.get(key("callbacks"), ())) == {job.id for job in world.jobs() if job.awaits_callback}
    admitted = {each for members in found.having(found.zsets, "admitted-key").values() for each in members}
    assert admitted == {each for each, task in world.tasks.items() if task.admitted}
    assert found.sets.get(key("held-queues"), set()) == world.held_queues
    assert found.sets.get(key("limited-keys"), set()) == world.limited_keys
    assert set(found.hashes.get(key("paused"), ())) == world.paused
    kept = {name: json.loads(text) for name, text in found.having(found.strings, "idempotency").items()}
    assert {name: (promise["fingerprint"], promise["ids"]) for name, promise in kept.items()} == world.promises


AGREEMENT = (
    records_are_as_predicted,
    events_are_as_predicted,
    counters_are_as_predicted,
    the_brokers_lists_are_as_predicted,
    promises_are_as_predicted,
)
