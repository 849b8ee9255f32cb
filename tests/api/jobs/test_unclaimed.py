"""Jobs of other Celery clients over HTTP: ids of any form, the order of lists, and messages that nobody has claimed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
import redis
from celery import Celery

from shared.broker.adoption import adopted
from shared.broker.settings import BrokerSettings
from shared.broker.unclaimed import adopt_unclaimed
from shared.contract.catalogue import catalogue
from shared.ledger.aclient import AsyncLedger
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.records import Claim, Refusal
from tests.support.ledgers import tended, with_async
from tests.support.servers.services import BOUND_S, gateway_server, http_client

if TYPE_CHECKING:
    from tests.support.servers.services import Server

KIND = "etl.extract_data"
DEFAULT_LIST, LIST_OF_6 = "etl\x06\x165", "etl\x06\x163"  # of messages with the default priority, and with 6
PARAMS = {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}
IDS = (
    "../../x",
    "a/b/cancel",
    "ends in /",
    "käse 🧀?#&%2F",
    "..",
    "x" * 255,
    "f81d4fae-7dec-41d0-a765-00a0c91e6bf6",
    "cancel",
    '"\\',
)


@pytest.fixture(scope="module")
def gateway(own_valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Run a gateway on a Valkey of its own: the lists are compared as a whole."""
    folder = tmp_path_factory.mktemp("unclaimed")
    env = {"CELERY_BROKER_URL": own_valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
    with gateway_server(folder, **env) as server, httpx.Client(base_url=server.url, timeout=BOUND_S) as client:
        yield client


@pytest.fixture
def book(own_valkey: Server) -> Iterator[Ledger]:
    with redis.Redis(port=own_valkey.port, decode_responses=True) as client:
        client.flushall()
        yield Ledger(client)


@pytest.fixture
def celery(own_valkey: Server) -> Iterator[Celery]:
    """Return another Celery application, which knows nothing of the service."""
    app = Celery("somebody", broker=own_valkey.redis_url, backend=own_valkey.redis_url)
    yield app
    app.close()


def send(celery: Celery, job_id: str, **options: Any) -> str:
    celery.send_task(KIND, kwargs=PARAMS, task_id=job_id, queue="etl", **options)
    return job_id


def take(book: Ledger, job_id: str) -> Claim | Refusal:
    """Claim a job as a worker does that has received its message."""
    settings = BrokerSettings(broker_url="redis://x", ledger_url="redis://x")
    entry = adopted(catalogue()[KIND], job_id, params=PARAMS, message="{}", settings=settings)
    return book.claim(job_id, owner="w", worker="w@h", lease_s=60, message="{}", adopt=entry, root=job_id)


def test_a_message_that_a_worker_takes_during_the_search_is_found(
    own_valkey: Server, book: Ledger, celery: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was on its list when the search began, and no message was in a worker's hands."""
    job_id, ask = send(celery, "taken"), AsyncLedger.call

    async def ask_and_take(ledger: AsyncLedger, transition: str, arguments: Any) -> Any:
        reply = await ask(ledger, transition, arguments)
        if transition == "waiting_lists":
            message = json.loads(str(book.client.rpop("etl")))
            book.client.hset("unacked", "tag", json.dumps([message, "", "etl"]))
        return reply

    monkeypatch.setattr(AsyncLedger, "call", ask_and_take)
    settings = BrokerSettings(broker_url=own_valkey.redis_url)
    assert with_async(own_valkey.redis_url, lambda ledger: adopt_unclaimed(ledger, settings, [job_id])) == {}


def url(job_id: str, rest: str = "") -> str:
    return f"/jobs/{quote(job_id, safe='').replace('.', '%2E')}{rest}"


def listed(gateway: httpx.Client, **query: Any) -> list[str]:
    """Return the ids of a list, page by page."""
    ids: list[str] = []
    token = None
    while True:
        page = gateway.get("/jobs", params=query | ({"page_token": token} if token else {}))
        assert page.status_code == 200, page.text
        ids += [job["id"] for job in page.json()["jobs"]]
        token = page.json()["next_page_token"]
        if token is None:
            return ids


def submit(gateway: httpx.Client, **options: Any) -> str:
    return str(gateway.post("/jobs", json={"kind": KIND, "params": PARAMS, "options": options}).json()["id"])


def test_lists_are_in_the_order_of_adoption_whatever_the_ids_are(gateway: httpx.Client, book: Ledger) -> None:
    """Also page by page, for filters by time, state and queue, and for the jobs of a bulk call."""
    expected: list[str] = []
    for number, job_id in enumerate(IDS):
        assert isinstance(take(book, job_id), Claim)
        expected = [*([submit(gateway)] if number % 2 else []), job_id, *expected]
    assert listed(gateway) == expected
    for query in ({"page_size": 1}, {"page_size": 4}, {"queue": "etl", "page_size": 2}, {"kind": KIND}):
        assert listed(gateway, **query) == expected, query
    now = datetime.now(UTC)
    soon, lately = (now + timedelta(minutes=1)).isoformat(), (now - timedelta(minutes=1)).isoformat()
    assert listed(gateway, created_before=soon, created_after=lately) == expected
    assert listed(gateway, created_after=soon) == listed(gateway, created_before=lately) == []
    chosen = gateway.post("/jobs/cancel", json={"filter": {"created_after": lately}, "dry_run": True}).json()
    assert {*chosen["cancelled"], *chosen["requested"]} == set(expected)
    assert listed(gateway, state="running", page_size=2) == list(reversed(IDS))
    book.cancel(IDS[0], reason="r")


@pytest.mark.parametrize("job_id", IDS)
def test_every_route_takes_any_id(gateway: httpx.Client, book: Ledger, job_id: str) -> None:
    """Read, events, logs, files, cancel, rerun, bulk and delete; the URLs in the answers lead there, too."""
    claim = take(book, job_id)
    assert isinstance(claim, Claim)
    job = gateway.get(url(job_id)).json()
    assert (job["id"], job["state"]) == (job_id, "running")
    assert gateway.get(job["links"]["self"].replace("..", "%2E%2E")).json()["id"] == job_id
    assert gateway.post(job["links"]["cancel"]).json() == {
        "id": job_id,
        "state": "cancel_requested",
        "has_started": True,
    }
    assert gateway.delete(url(job_id)).json()["code"] == "job_live"
    book.stopped(job_id, token=claim.token)
    assert "cancelled" in gateway.get(url(job_id, "/events")).text
    assert (
        gateway.get(url(job_id, "/logs")).json()["lines"] == gateway.get(url(job_id, "/artifacts")).json()["artifacts"]
    )
    again = gateway.post(job["links"]["rerun"])
    assert (again.status_code, gateway.get(again.headers["location"]).json()["retried_from"]) == (202, job_id)
    assert gateway.post("/jobs/cancel", json={"ids": [job_id]}).json()["refused"][0]["code"] == "job_ended"
    assert gateway.post("/jobs/rerun", json={"ids": [job_id]}).json()["refused"][0]["code"] == "already_retried"
    assert [gateway.delete(url(job_id)).status_code for _ in range(2)] == [204, 410]
    assert take(book, job_id) == Refusal("unknown", "")
    left = [name for name in book.client.scan_iter() if job_id in name and "binding" not in name]
    assert (left, listed(gateway)) == ([], [again.json()["id"]])


def test_an_id_that_no_job_can_have_is_not_found(gateway: httpx.Client) -> None:
    for path in ("/jobs/%ff", "/jobs/" + "x" * 256):
        answer = gateway.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")


@pytest.mark.parametrize("job_id", IDS)
def test_a_message_that_nobody_has_claimed_is_a_job_as_soon_as_somebody_asks(
    gateway: httpx.Client, book: Ledger, celery: Celery, job_id: str
) -> None:
    """It waits, can be cancelled, and its message then runs nothing; its neighbours are left as they are."""
    mine = [submit(gateway) for _ in range(3)]
    send(celery, job_id)
    mine += [submit(gateway) for _ in range(2)]
    job = gateway.get(url(job_id)).json()
    assert (job["id"], job["state"], job["waiting_reason"], job["params"]) == (job_id, "queued", "no_consumer", PARAMS)
    assert (gateway.get(url(job_id)).json()["created_at"], job["attempts"]) == (job["created_at"], [])
    assert tended(book, grace_s=0) == []  # nothing is taken for lost
    cancelled = gateway.post(url(job_id, "/cancel"))
    assert (cancelled.status_code, cancelled.json()["state"], cancelled.json()["has_started"]) == (
        200,
        "cancelled",
        False,
    )
    assert take(book, job_id) == Refusal("cancelled", "")
    assert str(celery.AsyncResult(job_id).state) == "REVOKED"
    assert [gateway.get(url(each)).json()["state"] for each in mine] == ["queued"] * 5


def test_calls_for_many_ids_find_what_nobody_has_claimed(gateway: httpx.Client, book: Ledger, celery: Celery) -> None:
    """Like the calls for one; what is not there is refused with what is known of it."""
    ids = [send(celery, job_id) for job_id in ("a/b", "käse 🧀", '"\\')]
    celery.send_task("somebody.elses", task_id="theirs", queue="etl")
    chosen = {"ids": ["nobodys", *ids, "theirs"]}
    would = gateway.post("/jobs/cancel", json=chosen | {"dry_run": True}).json()
    assert (would["cancelled"], would["noted"]) == (ids, [])
    assert [(each["id"], each["code"]) for each in would["refused"]] == [
        ("nobodys", "unknown_job"),
        ("theirs", "unknown_job"),
    ]
    assert [part in each["message"] for part, each in zip(("No message", "elses"), would["refused"], strict=True)]
    rerun = gateway.post("/jobs/rerun", json=chosen).json()
    assert {each["id"]: each["code"] for each in rerun["refused"]} == {
        "nobodys": "unknown_job",
        "theirs": "unknown_job",
        **dict.fromkeys(ids, "job_live"),
    }
    assert gateway.post("/jobs/cancel", json=chosen).json()["cancelled"] == ids
    assert [take(book, job_id) for job_id in ids] == [Refusal("cancelled", "")] * 3
    assert {str(celery.AsyncResult(job_id).state) for job_id in ids} == {"REVOKED"}


def test_those_in_the_hands_of_a_worker_are_found_too(gateway: httpx.Client, book: Ledger, celery: Celery) -> None:
    ids = [send(celery, f"taken {n}", countdown=3600) for n in range(20)]
    with celery.connection_for_read() as connection, connection.SimpleQueue("etl") as queue:
        while book.client.hlen("unacked") < len(ids):
            queue.get(timeout=BOUND_S)
        assert gateway.post("/jobs/cancel", json={"ids": [*ids, "nobodys"]}).json()["cancelled"] == ids
        assert take(book, ids[-1]) == Refusal("cancelled", "")


def test_a_message_that_cannot_be_read_keeps_none_of_the_others(
    gateway: httpx.Client, book: Ledger, celery: Celery
) -> None:
    """Whatever lies there under an id that was asked for."""
    whole = send(celery, "whole")
    envelope = json.loads(book.client.lrange("etl", 0, 0)[0])
    headers, properties = envelope["headers"], envelope["properties"]
    maps = {"headers": headers | {"task": "celery.map"}, "body": json.dumps([[], {"task": "x"}, {}])}
    hostile: dict[str, dict[str, Any]] = {
        "no properties": {"properties": None},
        "no delivery": {"properties": {**properties, "delivery_info": {}}},
        "a body of text": {"body": "x", "properties": {**properties, "body_encoding": None}},
        "a map of text": maps | {"properties": {**properties, "body_encoding": "utf-8"}},
        "no task": {"headers": headers | {"task": None}},
    }
    for job_id, changes in hostile.items():
        text = json.dumps({**envelope, **changes})
        book.client.lpush("etl", text.replace('"id": "whole"', f'"id": "{job_id}"'))
    odd = {**envelope, "headers": headers | {"id": "odd"}, "properties": {**properties, "priority": "high"}}
    book.client.rpush("etl", json.dumps(odd))
    told = gateway.post("/jobs/cancel", json={"ids": [*hostile, whole, "odd"]}).json()
    assert told["cancelled"] == [whole, "odd"]
    assert {each["id"]: each["message"].partition(" waits, but ")[2][:12] for each in told["refused"]} == {
        **dict.fromkeys(hostile, "it cannot be"),
        "a map of text": "its task 'ce",
    }


def test_many_that_are_made_jobs_at_once_stay_in_the_order_of_their_messages(
    gateway: httpx.Client, book: Ledger, celery: Celery
) -> None:
    """The keeper would otherwise take those behind them for lost and publish them again."""
    before = [submit(gateway, priority=6) for _ in range(2)]
    with celery.connection_for_write() as connection:
        theirs = [send(celery, f"theirs {n}", priority=3, connection=connection) for n in range(700)]
    after = [submit(gateway, priority=6) for _ in range(2)]
    chosen = {"ids": theirs[::2], "dry_run": True}
    assert gateway.post("/jobs/cancel", json=chosen).json()["cancelled"] == theirs[::2]
    chosen = {"ids": theirs, "dry_run": True}
    assert gateway.post("/jobs/cancel", json=chosen).json()["cancelled"] == theirs
    noted: Any = book.client.zrange(key("published", LIST_OF_6), 0, -1, withscores=True)
    score_of = dict(noted)
    in_order = [score_of[job_id] for job_id in (*before, *theirs, *after)]
    assert in_order == sorted(in_order)
    assert len(noted) == len(in_order)


def test_a_thousand_unknown_ids_are_looked_for_in_one_bounded_search(gateway: httpx.Client, book: Ledger) -> None:
    """What is beyond the bound is told as not known, and its cancel holds."""
    submit(gateway)
    (message,) = book.client.lrange(DEFAULT_LIST, 0, -1)
    for _ in range(20):
        book.client.lpush("etl", *[message] * 1_000)
    ids = [f"mine {n}" for n in range(1_000)]
    for dry_run in (True, False):
        book.client.config_resetstat()
        told = gateway.post("/jobs/cancel", json={"ids": ids, "dry_run": dry_run}).json()
        assert (told["noted"], told["refused"], told["cancelled"]) == (ids, [], [])
        calls = book.client.info("commandstats")["cmdstat_fcall"]["calls"]
        assert calls < len(ids) + 30  # one to read each, and one search
        assert book.client.exists(key("cancelled_ahead", ids[-1])) == (not dry_run)
    refused = gateway.post("/jobs/rerun", json={"ids": ids}).json()["refused"]
    assert [each["id"] for each in refused] == ids
    assert all("not known" in each["message"] for each in refused)
    assert take(book, ids[-1]) == Refusal("cancelled", "")


def test_a_job_that_was_looked_at_runs_when_its_message_is_taken(
    gateway: httpx.Client, book: Ledger, celery: Celery
) -> None:
    """As it was sent: with its queue and priority, once."""
    job_id = send(celery, "nightly/7", priority=3)
    job = gateway.get(url(job_id)).json()
    assert (job["state"], job["priority"], job["queue"]) == ("queued", 6, "etl")
    assert isinstance(take(book, job_id), Claim)
    assert take(book, job_id) == Refusal("busy", "")
    assert gateway.get(url(job_id)).json()["state"] == "running"


def test_a_countdown_says_when(gateway: httpx.Client, book: Ledger, celery: Celery) -> None:
    """Also where a worker has taken the message and keeps it until then."""
    first, second = (send(celery, f"later {n}", countdown=3600) for n in range(2))
    with celery.connection_for_read() as connection, connection.SimpleQueue("etl") as queue:
        while book.client.hlen("unacked") < 2:
            queue.get(timeout=BOUND_S)
        in_an_hour = datetime.now(UTC) + timedelta(hours=1)
        for job_id in (first, second):
            job = gateway.get(url(job_id)).json()
            assert (job["state"], job["waiting_reason"]) == ("scheduled", "scheduled")
            assert abs(datetime.fromisoformat(job["due_at"]) - in_an_hour) < timedelta(minutes=2)
        assert gateway.post(url(first, "/cancel")).status_code == 200
        assert (take(book, first), take(book, second)) == (Refusal("cancelled", ""), Refusal("early", ""))


def test_a_message_that_a_worker_has_taken_and_not_yet_claimed_is_a_job(
    gateway: httpx.Client, book: Ledger, celery: Celery
) -> None:
    """It is on no list: the moment between the two is short, and a request may come in it."""
    job_id = send(celery, "taken")
    with celery.connection_for_read() as connection, connection.SimpleQueue("etl") as queue:
        queue.get(timeout=BOUND_S)
        answer = gateway.get(url(job_id))
        assert (answer.status_code, answer.json().get("state")) == (200, "queued")
        assert isinstance(take(book, job_id), Claim)


def test_what_the_service_cannot_run_is_not_made_a_job(gateway: httpx.Client, book: Ledger, celery: Celery) -> None:
    """The answer names what waits under the id."""
    celery.send_task("somebody.elses", task_id="theirs", queue="etl")
    answer = gateway.get(url("theirs"))
    assert (answer.status_code, "somebody.elses" in answer.json()["detail"]) == (404, True)
    none = gateway.get(url("nobodys"))
    assert (none.status_code, "No message with this id waits" in none.json()["detail"]) == (404, True)
    assert gateway.post(url("nobodys", "/cancel")).status_code == 404
    assert list(book.client.scan_iter(key("job", "*"))) == []


def test_where_not_all_messages_are_looked_at_a_cancel_holds_for_later(gateway: httpx.Client, book: Ledger) -> None:
    """The bound is documented; what is behind it ends as cancelled when a worker takes it."""
    book.client.lpush("etl", *("{}" for _ in range(10_001)))
    answer = gateway.get(url("far back"))
    assert (answer.status_code, "there are more" in answer.json()["detail"]) == (404, True)
    assert gateway.post(url("far back", "/cancel")).json() == {
        "id": "far back",
        "state": "cancel_noted",
        "has_started": False,
    }
    assert take(book, "far back") == Refusal("cancelled", "")
    assert gateway.get(url("far back")).json()["state"] == "cancelled"
    assert list(book.client.scan_iter(key("cancelled_ahead", "*"))) == []


def test_on_another_broker_it_is_not_known_what_waits(own_valkey: Server, book: Ledger, tmp_path: Path) -> None:
    """The answer says so, and cancelling holds."""
    other = own_valkey.redis_url.rsplit("/", 1)[0] + "/1"
    with gateway_server(tmp_path, CELERY_BROKER_URL=other, CELERIAC_LEDGER_URL=own_valkey.redis_url) as server:
        answer = http_client.get(server.url + url("theirs"))
        assert (answer.status_code, "cannot be searched" in answer.json()["detail"]) == (404, True)
        assert http_client.post(server.url + url("theirs", "/cancel")).status_code == 202
    assert take(book, "theirs") == Refusal("cancelled", "")


def test_the_files_of_a_job_with_any_id_have_an_owner(book: Ledger) -> None:
    """A clean-up leaves them alone for as long as the job is there, and they go with it."""
    claim = take(book, "../../x")
    assert isinstance(claim, Claim)
    owner = str(book.client.hget(key("job", "../../x"), "file_owner"))
    ask = {"what": "files", "ids": [owner], "age_ms": 0, "dry_run": True}
    assert book.call("stray", ask) == []
    book.succeed("../../x", token=claim.token, result="{}")
    assert book.client.pttl(key("file_owner", owner)) > 0
    assert book.call("forget", {"id": "../../x", "files_ms": 60_000}) == ["forgotten", owner]
    assert not book.client.exists(key("file_owner", owner))
