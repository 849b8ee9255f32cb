"""A script never stops half way: where a transition answers with an error, nothing in the database has changed.

Every transition is asked with every argument missing or hostile, on every record with a field missing or hostile, and
beside every key of another type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.records import Claim, Submission, step_records
from shared.ledger.script import all_parts, part
from tests.shared.ledger.script.keys_asked import asked_of_keys
from tests.support.ledgers import (
    ERROR,
    RESULT,
    claim,
    claimed,
    entry,
    lapse,
    publish_long_ago,
    record,
    tended,
    workflow,
)
from tests.support.servers.services import Server, valkey_server

NAMES = re.findall(r"^function T\.(\w+)", "\n".join(map(part, all_parts())), re.MULTILINE)
HOSTILE_TEXTS = ("[", "nan")  # neither JSON nor a number; what Lua takes for a number and Redis does not
HOSTILE_VALUES: tuple[Any, ...] = ("[", {}, None, 1e300)


# Everything again, with no lifetime: nothing may end between two looks.
RESTORING = """
redis.call('FLUSHALL')
for n = 1, #ARGV, 2 do redis.call('RESTORE', ARGV[n], 0, ARGV[n + 1]) end
"""


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a database into which nothing else writes: these tests compare it as a whole, and restore it often."""
    with valkey_server(tmp_path_factory.mktemp("valkey"), append_only=False) as server:
        yield server


class House(NamedTuple):
    """A ledger with a job in every situation that a transition deals with."""

    ledger: Ledger
    client: redis.Redis
    flow: str  # the id of a workflow
    asked: dict[str, list[Any]]  # for each transition, arguments with which it does something
    columns: list[str]  # of `accept`

    contents: dict[str, bytes]  # of every key

    def restore(self) -> None:
        named: list[str | bytes] = [part for pair in self.contents.items() for part in pair]
        self.client.eval(RESTORING, 0, *named)

    def digest(self) -> bytes:
        """Return a digest of everything, whatever the order in which a key has its members."""
        found: bytes = self.client.execute_command("DEBUG", "DIGEST")  # type: ignore[no-untyped-call]
        return found

    def refuses(self, name: str, arguments: Any) -> bool:
        """Return whether an error comes back, after which nothing may have changed."""
        return self._ask(name, arguments)[0]

    def changes(self, name: str, arguments: Any) -> bool:
        """Return whether something has changed, which it may not have where an error comes back."""
        return self._ask(name, arguments)[1]

    def _ask(self, name: str, arguments: Any) -> tuple[bool, bool]:
        before = self.digest()
        try:
            self.ledger.call(name, arguments, self.columns if name == "accept" else ())
        except redis.ResponseError:
            is_refused = True
        else:
            is_refused = False
        has_changed = self.digest() != before
        assert not (is_refused and has_changed), f"{name} left half of a change"
        return is_refused, has_changed


def _contents(client: redis.Redis) -> dict[str, bytes]:
    names: list[Any] = sorted(client.scan_iter(count=1_000))
    pipeline: Any = client.pipeline(transaction=False)
    for name in names:
        pipeline.dump(name)
    return {name.decode(): value for name, value in zip(names, pipeline.execute(), strict=True)}


@pytest.fixture(scope="module")
def built(valkey: Server) -> Iterator[House]:
    """Build the house once: each test has it restored."""
    with redis.Redis(port=valkey.port, decode_responses=True) as client, redis.Redis(port=valkey.port) as raw:
        client.flushall()
        flow, asked, columns = _furnished(Ledger(client), client)
        yield House(Ledger(raw), raw, flow, asked, columns, _contents(raw))


@pytest.fixture
def house(built: House) -> Iterator[House]:
    built.restore()
    yield built
    built.client.flushall()


def _furnished(ledger: Ledger, client: redis.Redis) -> tuple[str, dict[str, list[Any]], list[str]]:
    """Make everything; return the id of the workflow, what can be asked, and the columns of `accept`."""

    def accepted(**changes: Any) -> str:
        job = entry(**changes)
        ledger.accept(Submission([job]))
        return job.id

    beat = {"owner": "w1", "about": "{}", "queues": ["etl"], "clock_ms": 1, "lease_ms": 60_000, "keep_ms": 60_000}
    uri = f"artifact://{entry().id}/x"
    runs, holds = accepted(contract="v2", concurrency_key="crm", tags=("t",)), accepted(concurrency_key="crm")
    runs_token = claimed(ledger, runs).token
    claim(ledger, holds)
    rated = _rated(ledger, client)
    stops = accepted()
    stops_token = claimed(ledger, stops).token
    ledger.cancel(stops, reason="no more")
    lost = accepted()
    claimed(ledger, lost, owner="gone")
    waits = accepted(params=json.dumps({"source": uri}), expires_at=9_999_999_999_999, tags=("t",))
    due = accepted(due_at=1)
    expires = accepted(expires_at=1)
    later = accepted(due_at=9_999_999_999_999)
    ends = accepted(options=json.dumps({"callback_url": "https://x.example"}))
    ledger.succeed(ends, token=claimed(ledger, ends).token, result=RESULT)
    flow = workflow(["a", "b", "c"], {"c": ["a", "b"]})
    ledger.accept(Submission([flow], idempotency_key="k", fingerprint="f"))
    first, second = flow.steps[0].id, flow.steps[1].id
    first_token = claimed(ledger, first).token
    ledger.call("pause", {"queue": "ml"})
    _note_rows(ledger, client, ends, runs)
    paused = accepted(queue="ml")
    schedule = {"id": "s1", "document": json.dumps({"source": uri}), "definition": "{}", "restart": True, "most": 9}
    ledger.call("schedule_put", schedule | {"look_at": 1})
    runs_of_schedule = accepted(schedule="s1")
    ledger.call("upload", {"id": "u1", "retention_ms": 1})
    ledger.call("beat", beat | {"jobs": [runs]})
    lapse(client, lost)
    publish_long_ago(client, waits)
    client.zadd(key("due"), {due: 1})
    client.zadd(key("ended"), {ends: 1})
    client.xadd(key("events", "stray"), {"event": "log"})
    tick = {"id": "s1", "revision": "1", "next": 2, "poll_ms": 1, "job_id": entry().id, "overlap": "allow"}
    tick |= {"slot": 9_999_999_999_999}
    grace = {"lock_ms": 5_000, "lease_ms": 10**12, "limit": 100, "grace_ms": 15_000, "outbox_grace_ms": 0}
    put = schedule | {"look_at": 1, "default": "acme.x"}
    stray = [{"what": what, "ids": ["stray", runs], "age_ms": 0} for what in ("events", "results", "steps", "files")]
    plain = [entry(tags=("t",)), entry(tags=("t",)), entry(id=waits, tags=("t",))]
    submission = Submission([entry(retried_from=ends), flow, *plain], idempotency_key="n", fingerprint="f")
    accepting, columns = submission.arguments()
    added = step_records([entry(job_id=flow.id, step="more", after=(first,), params=json.dumps({"source": uri}))])
    asked: dict[str, list[Any]] = {
        "accept": [[accepting]],
        "claim": [
            {"id": job, "owner": "w2", "worker": "w2@h", "lease_ms": 1, "message": "{}", "delivery": "d"}
            for job in (waits, second, holds, lost, due, expires, *rated)
        ]
        + [{"id": "new", "owner": "w", "worker": "w@h", "lease_ms": 1, "message": "{}", "delivery": "d"}],
        "renew": [{"owner": "w1", "ids": [runs, first], "tokens": ["", ""], "lease_ms": 1_000}],
        "progress": [{"id": runs, "token": runs_token, "progress": "{}", "logs": ["{}"], "checkpoint": "{}"}],
        "submit": [{"id": runs, "token": runs_token, "job": entry().record()}],
        "expand": [{"id": first, "token": first_token, "steps": added, "counts_steps": n} for n in (True, False)],
        "finish": [
            {"id": runs, "token": runs_token, "state": "succeeded", "result": "1", "artifacts": "[]"},
            {"id": first, "token": first_token, "state": "succeeded", "result": "1", "artifacts": "[]"},
            {"id": first, "token": first_token, "state": "failed", "error": ERROR, "artifacts": "[]"},
        ],
        "stopped": [{"id": stops, "token": stops_token, "artifacts": "[]"}],
        "retry": [{"id": runs, "token": runs_token, "delay_ms": 1, "error": ERROR}],
        "give_back": [
            {
                "id": runs,
                "token": runs_token,
                "contract": "v1",
                "error": ERROR,
                "for_ms": 9,
                "least_ms": 1,
                "most_ms": 1,
            }
        ],
        "release": [{"id": runs, "owner": "w1", "crashed": crashed} for crashed in (True, False)],
        "cancel": [{"id": job, "reason": "no more"} for job in (waits, runs, flow.id, paused, later)],
        "published": [{"ids": [waits, holds], "publications": [2, 2]}],
        "upload": [{"id": "u2", "retention_ms": 1_000}],
        "callback": [{"id": ends, "job": entry().record()}],
        "read": [{"id": flow.id}],
        "list": [{"indexes": [[key("jobs")], [key("tag", "t")]], "lower": "-", "upper": "+", "limit": 9, "scan": 9}],
        "schedule_put": [put | {"id": "s2"}, put | {"revision": "1"}],
        "schedule_delete": [{"id": "s1"}],
        "schedule": [{"id": "s1"}],
        "schedules": [{"limit": 9}],
        "schedules_due": [{"limit": 9}],
        "schedule_tick": [
            tick | {"job": entry(id=tick["job_id"], schedule="s1").record()},
            tick | {"missed": True},
            tick | {"overlap": "buffer_one"},
            tick | {"trouble": "x"},
        ],
        "clean": [{"ids": [ends, runs], "older_than_ms": 0, "dry_run": False}],
        "stray": [{**each, "dry_run": False} for each in stray],
        "unindex": [{"index": key("jobs"), "ids": ["stray", runs], "dry_run": False}],
        "forget": [{"id": ends, "files_ms": 1}],
        "tend": [{"owner": "k", "round": 1, "remember_ms": 1, **grace}],
        "beat": [beat | {"jobs": [runs]}],
        "leave": [{"owner": "w1"}],
        "workers": [{}],
        "pause": [{"queue": "etl"}],
        "resume": [{"queue": "ml"}],
        "let_go": [{"queue": "ml", "limit": 9}],
        "queues": [{"queues": ["etl", "ml"]}],
        "waiting_lists": [{"queues": ["etl"]}],
        "look": [{"ids": [waits], "list": "etl\x06\x165", "from": 0, "count": 9, "behind": ""}],
        "look_in_hands": [{"ids": [waits], "cursor": "0", "count": 9}],
        "known": [{"ids": [waits, "x"]}],
        "adopt": [
            {"jobs": [{"record": entry(due_at=due_at).record(), "score": 1} for due_at in (None, 9_999_999_999_999)]}
        ],
        "cancel_ahead": [{"ids": ["x", waits, "y"], "reason": "r", "keep_ms": 1}],
        "turns": [{"limit": 9}],
        "discard": [{"id": waits, "files_ms": 1}],
        "want_rows": [{"wanted_ms": 60_000}],
        "rows": [{"owner": "w1", "lock_ms": 9_000, "wanted_ms": 60_000, "limit": 9, "most_bytes": 10**6}],
        "rows_written": [
            {"ids": [ends], "places": ["9"], "deleted": [runs], "deleted_places": ["9"], "refused": refused}
            for refused in (0, 1)
        ],
        "metrics": [{"queues": ["etl"], "states": ["queued"]}],
        **asked_of_keys(ledger),
    }
    assert isinstance(runs_of_schedule, str)
    return flow.id, asked, columns


def _rated(ledger: Ledger, client: redis.Redis) -> list[str]:
    """Make jobs of a rate key: one runs, and the turn of the next has come."""
    jobs = [entry(rate_key="often", rate_interval_ms=60_000, outbox=outbox) for outbox in (False, True, False)]
    for job in jobs:
        ledger.accept(Submission([job]))
    for job in jobs[:2]:
        claim(ledger, job.id)
    client.delete(key("turn", "often"))
    client.zadd(key("turns"), {"often": 1})
    return [job.id for job in jobs]


def _note_rows(ledger: Ledger, client: redis.Redis, ended: str, deleted: str) -> None:
    ledger.call("want_rows", {"wanted_ms": 10**9})
    client.zadd(key("rows"), {ended: 9})
    client.zadd(key("rows_deleted"), {deleted: 9})


def variants(arguments: Any) -> Iterator[Any]:
    """Yield the arguments with each one of them missing, or of another type."""
    if isinstance(arguments, list):
        for n, value in enumerate(arguments):
            yield from ([*arguments[:n], other, *arguments[n + 1 :]] for other in (*HOSTILE_VALUES, *variants(value)))
    elif isinstance(arguments, dict):
        for name, value in arguments.items():
            yield {other: kept for other, kept in arguments.items() if other != name}
            yield from ({**arguments, name: other} for other in HOSTILE_VALUES)
            if name in {"job", "jobs", "alike", "steps"}:
                yield from ({**arguments, name: other} for other in variants(value))


def test_every_transition_is_asked(house: House) -> None:
    """Add a new transition to the list here."""
    assert house.asked.keys() == set(NAMES)
    for name, all_arguments in house.asked.items():
        for arguments in all_arguments:
            assert not house.refuses(name, arguments), (name, arguments)
            house.restore()


@pytest.mark.parametrize("name", NAMES)
def test_hostile_arguments_change_nothing_or_all(house: House, name: str) -> None:
    """Missing, or of another type."""
    for arguments in house.asked[name]:
        for hostile in variants(arguments):
            if house.changes(name, hostile):
                house.restore()


@pytest.mark.parametrize("name", NAMES)
def test_keys_of_other_types_change_nothing_or_all(house: House, name: str) -> None:
    """Every key that there is, one after the other."""
    for arguments in house.asked[name]:
        for wrong, value in house.contents.items():
            house.client.set(wrong, "1")
            if not house.refuses(name, arguments):  # it does not look at this key
                house.restore()
                continue
            house.client.delete(wrong)
            house.client.sadd(wrong, "1")
            if house.changes(name, arguments):
                house.restore()
            else:
                house.client.restore(wrong, 0, value, replace=True)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tend"])
def test_hostile_records_change_nothing_or_all(house: House, name: str) -> None:
    """Each field of each record that the transition reads; a step has a job and later steps."""
    records = [found for found in house.contents if found.startswith(key("job"))]
    for arguments in house.asked[name]:
        text = json.dumps(arguments)
        asked = [found for found in records if found.removeprefix(key("job")) in text]
        if text.count(house.flow) or name in {"finish", "claim"}:
            asked += [found for found in records if found not in asked and house.client.hexists(found, "steps")]
        for found in asked:
            for field in house.client.hkeys(found):
                for hostile in (None, *HOSTILE_TEXTS):
                    if hostile is None:
                        house.client.hdel(found, field)
                    else:
                        house.client.hset(found, field, hostile)
                    if house.changes(name, arguments):
                        house.restore()
                    else:
                        house.client.restore(found, 0, house.contents[found], replace=True)


def test_a_bad_record_stops_no_round_for_the_others(accept: Any, ledger: Ledger, client: redis.Redis) -> None:
    """It is set aside with its reason, counted, and in no work list again; its record stays for an operator."""
    bad, good = entry(due_at=9_999_999_999_999), entry(due_at=9_999_999_999_999)
    lost, fine = entry(), entry()
    accept(bad, good, lost, fine)
    for job in (lost, fine):
        claimed(ledger, job.id)
        lapse(client, job.id)
    client.zadd(key("due"), {bad.id: 1, good.id: 2})
    client.hset(key("job", bad.id), "priority", "urgent")
    client.hset(key("job", lost.id), "attempts", "[")
    told = tended(ledger)
    expected = {("set_aside", bad.id), ("published", good.id), ("set_aside", lost.id), ("republished", fine.id)}
    assert set(told) == expected
    why: dict[str, str] = client.hgetall(key("set_aside"))  # type: ignore[assignment]  # replies are text
    assert why.keys() == {bad.id, lost.id}
    assert why[bad.id].endswith("priority is not a number")
    assert client.hget(key("counters"), "kept|set_aside") == "2"
    assert tended(ledger) == []
    assert client.exists(key("job", bad.id)) == 1
    assert isinstance(claim(ledger, good.id), Claim)
    assert record(ledger, good.id).state == "running"


def test_a_round_that_fails_does_not_stop_the_others(accept: Any, ledger: Ledger, client: redis.Redis) -> None:
    """The keeper gets its name and the reason."""
    job = entry()
    accept(job)
    claimed(ledger, job.id)
    lapse(client, job.id)
    client.set(key("due"), "x")
    told = tended(ledger)
    assert ("republished", job.id) in told
    assert [what.split(":")[0] for action, what in told if action == "failed"] == ["due"]
    client.delete(key("due"))


def test_an_error_of_redis_keeps_its_code(ledger: Ledger, client: redis.Redis) -> None:
    """Workers wait while the store is full; another error is a defect, and they do not."""
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.OutOfMemoryError):
            ledger.accept(Submission([entry()]))
    finally:
        client.config_set("maxmemory", 0)
    with pytest.raises(redis.ResponseError, match=r"^REFUSED "):
        ledger.call("published", {})
    with pytest.raises(redis.ResponseError, match=r"^REFUSED "):
        ledger.call("upload", {})
    assert list(client.scan_iter()) == []
