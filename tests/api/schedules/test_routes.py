"""Schedules over REST, on a real gateway process and a real Valkey; no beat runs here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import redis

from api.http.page_tokens import page_token
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.schedules.defaults import default_schedules
from shared.schedules.timetable import Timetable

if TYPE_CHECKING:
    import httpx

    from tests.support.servers.services import Server

NINE = {"crontab": {"minute": "0", "hour": "9"}, "time_zone": "Europe/Berlin"}


@pytest.fixture
def wanted(extraction: dict[str, Any]) -> dict[str, Any]:
    """Return a valid schedule of a single job."""
    return {"name": "Sales", **extraction, **NINE}


@pytest.fixture
def made(api: httpx.Client, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return a schedule that was made."""
    response = api.post("/schedules", json=wanted)
    assert response.status_code == 201, response.text
    return dict(response.json())


def errors_of(response: httpx.Response) -> dict[str, str]:
    """Return what is wrong with which field. Fails unless the answer is a problem document."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    return {error["pointer"]: error["message"] for error in response.json()["errors"]}


def test_a_schedule_is_found_where_location_says(api: httpx.Client, wanted: dict[str, Any]) -> None:
    """201 has a Location; the schedule shows its terms with defaults, its parameters as given, and no job yet."""
    response = api.post("/schedules", json=wanted | {"options": {"priority": 7}})
    made = response.json()
    assert (response.status_code, response.headers["location"]) == (201, f"/schedules/{made['id']}")
    assert api.get(response.headers["location"]).json() == made
    assert made["params"] == wanted["params"]
    assert (made["options"], made["missed"], made["overlap"]) == ({"priority": 7}, "skip", "skip")
    assert (made["last_job"], made["last_slot_at"], made["skipped_count"], made["paused"]) == (None, None, 0, False)
    assert made["id"] in [schedule["id"] for schedule in api.get("/schedules").json()["schedules"]]


def test_the_next_five_times_are_wall_clock_times(made: dict[str, Any]) -> None:
    """Nine o'clock in Berlin is seven or eight UTC, on five days in a row."""
    times = [datetime.fromisoformat(time) for time in made["next_run_times"]]
    assert len(times) == 5
    assert {time.hour for time in times} <= {7, 8}
    gaps = {later - earlier for earlier, later in pairwise(times)}
    assert gaps <= {timedelta(hours=hours) for hours in (23, 24, 25)}


def test_an_intervals_times_count_from_its_start(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """Every ninety seconds, the first time one interval after it was made."""
    made = api.post("/schedules", json={"name": "x", **extraction, "interval_s": 90}).json()
    start = datetime.fromisoformat(made["created_at"])
    times = [datetime.fromisoformat(time) for time in made["next_run_times"]]
    assert times == [start + n * timedelta(seconds=90) for n in range(1, 6)]


@pytest.mark.parametrize(
    ("change", "field", "complaint"),
    [
        ({"crontab": {"minute": "60"}}, "/crontab/minute", "0 to 59"),
        ({"crontab": {"minute": "0", "day_of_week": "7"}}, "/crontab/day_of_week", "sun to sat"),
        ({"crontab": {"minute": "0", "seconds": "1"}}, "/crontab/seconds", "no such field"),
        ({"crontab": {"hour": "1"}}, "/crontab/minute", "missing"),
        ({"crontab": {"minute": "0", "day_of_month": "31", "month_of_year": "feb"}}, "/crontab", "never occurs"),
        ({"time_zone": "Europe/Berln"}, "/time_zone", "such as Europe/Berlin"),
        ({"time_zone": "../../etc/passwd"}, "/time_zone", "no time zone"),
        ({"crontab": None, "interval_s": 0.5}, "/interval_s", "greater than or equal to 1"),
        ({"interval_s": 60}, "", "either 'crontab' or 'interval_s'"),
        ({"missed": "twice"}, "/missed", "'skip' or 'run_once'"),
        ({"overlap": "queue"}, "/overlap", "'skip', 'allow' or 'buffer_one'"),
        ({"name": ""}, "/name", "at least 1 character"),
        ({"params": {}}, "/params/source", "missing"),
        ({"options": {"delay_s": 5}}, "/options/delay_s", "no such field"),
        ({"options": {"queue": "elt"}}, "/options/queue", "Did you mean 'etl'?"),
        ({"options": {"time_limit_s": 1e6}}, "/options/time_limit_s", "Use at most"),
        ({"every": 5}, "/every", "no such field"),
    ],
)
def test_a_wrong_field_is_named(
    api: httpx.Client, wanted: dict[str, Any], change: dict[str, Any], field: str, complaint: str
) -> None:
    """422 with the pointer into the body, for making and for editing alike."""
    response = api.post("/schedules", json=wanted | change)
    assert response.status_code == 422, response.text
    assert complaint in errors_of(response)[field]


def test_an_unknown_kind_is_refused_as_for_jobs(api: httpx.Client, wanted: dict[str, Any]) -> None:
    """With the same code, and the nearest name."""
    response = api.post("/schedules", json=wanted | {"kind": "etl.extract_dat"})
    assert (response.status_code, response.json()["code"]) == (422, "unknown_kind")
    assert "etl.extract_data" in errors_of(response)["/kind"]


def test_an_unknown_connection_is_refused_as_for_jobs(api: httpx.Client, pipeline: dict[str, Any]) -> None:
    """With the same code, the pointer, and the names that there are."""
    pipeline["params"]["destination"]["connection"] = "warehous"
    response = api.post("/schedules", json={"name": "x", **pipeline, **NINE})
    assert (response.status_code, response.json()["code"]) == (422, "unknown_connection")
    assert "warehouse" in errors_of(response)["/params/destination/connection"]


def test_an_edit_replaces_the_terms(api: httpx.Client, made: dict[str, Any], wanted: dict[str, Any]) -> None:
    """PUT gives it other terms; it stays the same schedule, and stays paused if it was."""
    url = made["links"]["self"]
    api.post(made["links"]["pause"])
    del wanted["crontab"]
    edited = api.put(url, json=wanted | {"name": "Often", "interval_s": 60}).json()
    assert edited == api.get(url).json()
    assert (edited["id"], edited["created_at"]) == (made["id"], made["created_at"])
    assert (edited["name"], edited["interval_s"], edited["crontab"], edited["paused"]) == ("Often", 60, None, True)
    assert api.put(url, json=wanted | {"interval_s": 60, "paused": False}).json()["paused"] is False
    assert errors_of(api.put(url, json=wanted | {"interval_s": 0}))["/interval_s"]


def test_edits_at_the_same_time_all_succeed_or_say_so(
    api: httpx.Client, made: dict[str, Any], wanted: dict[str, Any]
) -> None:
    """None is lost silently: every 200 was written, over what the one before wrote."""
    names = [f"n{n}" for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: api.put(made["links"]["self"], json=wanted | {"name": name}), names))
    assert {answer.status_code for answer in answers} <= {200, 409}
    written = [name for name, answer in zip(names, answers, strict=True) if answer.status_code == 200]
    assert api.get(made["links"]["self"]).json()["name"] in written


def test_pause_and_resume(api: httpx.Client, made: dict[str, Any]) -> None:
    """A paused one has no next times; both can be asked for twice."""
    for _ in range(2):
        paused = api.post(made["links"]["pause"]).json()
        assert (paused["paused"], paused["next_run_times"]) == (True, [])
    for _ in range(2):
        resumed = api.post(made["links"]["resume"]).json()
        assert (resumed["paused"], resumed["next_run_times"]) == (False, made["next_run_times"])


def test_run_now_makes_a_job_that_knows_its_schedule(api: httpx.Client, wanted: dict[str, Any]) -> None:
    """202 as for a submission; the job has the schedule's options, and each finds the other."""
    made = api.post("/schedules", json=wanted | {"paused": True, "options": {"tags": ["nightly"]}}).json()
    response = api.post(made["links"]["run"])
    accepted = response.json()
    assert (response.status_code, response.headers["location"]) == (202, f"/jobs/{accepted['id']}")
    job = api.get(response.headers["location"]).json()
    assert (job["schedule"], job["tags"], job["state"]) == (made["id"], ["nightly"], "queued")
    assert [found["id"] for found in api.get(made["links"]["jobs"]).json()["jobs"]] == [job["id"]]
    last = api.get(made["links"]["self"]).json()["last_job"]
    assert last == {"id": job["id"], "state": "queued", "url": f"/jobs/{job['id']}"}
    api.post(job["links"]["cancel"])
    assert api.get(made["links"]["self"]).json()["last_job"]["state"] == "cancelled"


def test_the_same_key_runs_it_once(api: httpx.Client, made: dict[str, Any]) -> None:
    """A client that did not get the answer asks again with its Idempotency-Key, and no second job is made."""
    key = {"Idempotency-Key": f"run {made['id']}"}
    first, again = (api.post(made["links"]["run"], headers=key) for _ in range(2))
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
    assert len(api.get(made["links"]["jobs"]).json()["jobs"]) == 1


def test_a_workflow_runs_now_too(api: httpx.Client, pipeline: dict[str, Any]) -> None:
    """Its job has its steps."""
    made = api.post("/schedules", json={"name": "x", **pipeline, **NINE}).json()
    job = api.get(api.post(made["links"]["run"]).headers["location"]).json()
    assert (job["schedule"], job["steps_total"] > 1) == (made["id"], True)


def test_a_deleted_schedule_is_gone_and_its_jobs_are_not(api: httpx.Client, made: dict[str, Any]) -> None:
    """204, then 404 for every call; the job that it made can still be read and listed."""
    job_url = api.post(made["links"]["run"]).headers["location"]
    assert api.delete(made["links"]["self"]).status_code == 204
    for method, link in [("GET", "self"), ("DELETE", "self"), ("POST", "pause"), ("POST", "resume"), ("POST", "run")]:
        answer = api.request(method, made["links"][link])
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_schedule")
    assert api.get(job_url).json()["schedule"] == made["id"]
    assert len(api.get(made["links"]["jobs"]).json()["jobs"]) == 1


@pytest.mark.parametrize(
    "schedule_id", ["nonsense", ":schedule", "%3Aschedule", "01a20345-1a1c-723e-801b-ade4ec4da5f0"]
)
def test_an_unknown_id_is_404(api: httpx.Client, schedule_id: str) -> None:
    """Also one that is not a UUID, such as the name of another key of Redis."""
    answer = api.get(f"/schedules/{schedule_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_schedule")


def test_the_sync_that_comes_with_the_service_waits_for_its_connections(api: httpx.Client, valkey: Server) -> None:
    """It is there, paused, with the reason; resuming or running it is refused with the connections that are missing."""
    (sync,) = [made for made in default_schedules(1_800_000_000_000) if made.kind == "maintenance.sync_data"]
    elsewhere = {"source": {"connection": "elsewhere", "table": "orders"}}  # the tests' gateway knows what it names
    sync = sync.model_copy(update={"params": sync.params | elsewhere})
    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        client.srem(key("redbeat_defaults"), sync.kind)
        assert Timetable(Ledger(client)).put(sync, default=sync.kind) == "ok"
    shown = api.get(f"/schedules/{sync.id}").json()
    assert (shown["paused"], "resume it" in shown["note"]) == (True, True)
    for call in ("resume", "run"):
        refused = api.post(shown["links"][call])
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_connection"), refused.text
        assert all(pointer.startswith("/params/") for pointer in errors_of(refused))
    terms = {name: shown[name] for name in ("name", "kind", "crontab", "params")}
    params = terms["params"] | {"source": {"connection": "warehouse", "table": "mirror"}}
    edited = api.put(shown["links"]["self"], json=terms | {"params": params})
    assert (edited.status_code, edited.json()["note"]) == (200, None), edited.text


def test_the_list_goes_page_by_page(api: httpx.Client, wanted: dict[str, Any]) -> None:
    """The newest first, each once; a token of another list is refused."""
    made = [api.post("/schedules", json=wanted | {"paused": True}).json()["id"] for _ in range(3)]
    listed, token = list[str](), ""
    while True:
        page = api.get("/schedules", params={"page_size": 2} | ({"page_token": token} if token else {})).json()
        listed += [schedule["id"] for schedule in page["schedules"]]
        if not (token := page["next_page_token"]):
            break
    assert (listed[:3], listed) == (made[::-1], sorted(set(listed), reverse=True))
    foreign = page_token(made[0], "of jobs")
    assert api.get("/schedules", params={"page_token": foreign}).json()["code"] == "invalid_page_token"


def test_a_list_of_a_thousand_is_the_most(api: httpx.Client, valkey: Server, wanted: dict[str, Any]) -> None:
    """The one more is a 409 that says so."""
    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        fillers = {key("redbeat", f"filler-{n}"): -1 for n in range(1_000)}
        client.zadd(key("redbeat_schedule"), fillers)
        refused = api.post("/schedules", json=wanted)
        client.zrem(key("redbeat_schedule"), *fillers)
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_schedules")
