"""What a contract says of its jobs together, on a real gateway and worker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery.result import AsyncResult
from pydantic import BaseModel, Field

from shared.broker.celery import make_celery
from shared.broker.messages import Composer
from shared.broker.settings import BrokerSettings
from shared.contract.definition import Contract, Limits
from shared.contract.options import SubmissionOptions
from shared.ledger.client import Ledger
from shared.ledger.records import Submission
from shared.workflows.planning import Planner, prepare
from tests.support.servers.services import BOUND_S, Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import Jobs, crew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.integration
KEPT = {
    "CELERIAC_CONTRACTS": "tests.acme.kept",
    "CELERIAC_TASKS": "tests.acme.kept_tasks",
    "CELERIAC_UNKNOWN_KIND_S": "2",
}


class Hailed(BaseModel):
    """What the old contract gave."""

    customer: str = Field(description="The person.")


class HailPerson(
    Contract[Hailed],
    kind="acme.hail_person",
    queue="etl",
    limits=Limits(soft_s=60, hard_s=90),
    examples=[{"customer": "a"}],
):
    """Greet a person, as the version before called it."""

    customer: str = Field(description="The person.")


class Measured(Contract[Hailed]):
    """What all versions before the contract of `acme.weigh_customer` have."""

    customer: str = Field(description="The person.")
    weight_kg: int = Field(description="In kilograms.")


class MeasureFirst(
    Measured,
    kind="acme.measure_customer",
    queue="etl",
    limits=Limits(soft_s=60, hard_s=90),
    examples=[{"customer": "a", "weight_kg": 70}],
):
    """Weigh a customer, in version 1."""


@pytest.fixture(scope="module")
def jobs(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    folder = tmp_path_factory.mktemp("service")
    env = {**KEPT, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
    with crew(folder, **env) as workers, gateway_server(folder, **env) as gateway:
        workers.start(concurrency=2)
        workers.start(concurrency=2)
        yield Jobs(gateway)


@pytest.fixture
def settings(valkey: Server, jobs: Jobs) -> BrokerSettings:  # noqa: ARG001 - the service has emptied the database
    return BrokerSettings(broker_url=valkey.redis_url)


def serving(jobs: Jobs, customer: str, door: Path) -> str:
    return jobs.submit("acme.serve_customer", {"customer": customer, "door": str(door)})


def test_as_many_jobs_of_a_value_run_as_the_contract_says(jobs: Jobs, tmp_path: Path) -> None:
    """Those of other values do not count, and those that wait say why."""
    door = tmp_path / "door"
    first, second, other = (serving(jobs, customer, door) for customer in "aab")
    assert jobs.in_state(other, "running")
    running = wait_for(
        lambda: next((one for one in (first, second) if jobs.get(one)["state"] == "running"), None), "one of a runs"
    )
    waiting = second if running == first else first
    held = wait_for(lambda: jobs.get(waiting)["waiting_reason"] == "concurrency_limited", "the other one is held")
    assert held
    door.touch()
    assert {jobs.ended(one)["state"] for one in (first, second, other)} == {"succeeded"}


def test_steps_of_workflows_count_like_jobs(jobs: Jobs, tmp_path: Path) -> None:
    """The limit holds for what the kind does, however it was asked for."""
    door = tmp_path / "door"
    job_id = jobs.submit("acme.serve_all", {"customer": "c", "door": str(door)})

    def states() -> list[str]:
        return sorted(step["state"] for step in jobs.get(job_id)["steps"])

    def held() -> int:
        queues = http_client.get(f"{jobs.gateway.url}/queues").json()["queues"]
        return sum(queue["concurrency_limited"] for queue in queues)

    wait_for(lambda: held() == 1, "one step is held")
    assert states() == ["queued", "running"]
    door.touch()
    assert jobs.ended(job_id)["state"] == "succeeded"


def starts_of(jobs: Jobs, ids: Sequence[str]) -> list[datetime]:
    """Return when jobs started, in order, once all have succeeded."""
    ended = [jobs.ended(job_id) for job_id in ids]
    assert {job["state"] for job in ended} == {"succeeded"}
    return sorted(datetime.fromisoformat(job["started_at"]) for job in ended)


def test_jobs_start_no_more_often_than_the_contract_says(jobs: Jobs) -> None:
    """Over all workers together; the ledger's clock says when each started."""
    body = [{"kind": "acme.mail_customer", "params": {"customer": str(n)}} for n in range(20)]
    answer = http_client.post(f"{jobs.gateway.url}/jobs/batch", json={"jobs": body})
    starts = starts_of(jobs, [job["id"] for job in answer.json()["jobs"]])
    assert min((later - earlier).total_seconds() for earlier, later in pairwise(starts)) >= 0.1


def test_a_job_of_a_value_whose_turn_has_not_come_says_so(jobs: Jobs, settings: BrokerSettings) -> None:
    """It keeps no process from others, and one that another Celery client sends counts, too."""
    first, other = (jobs.submit("acme.call_customer", {"customer": customer}) for customer in "ab")
    assert {jobs.ended(one)["state"] for one in (first, other)} == {"succeeded"}
    sent = make_celery(settings).send_task("acme.call_customer", kwargs={"customer": "a"}, queue="etl")
    waiting = [sent.id, *(jobs.submit("acme.call_customer", {"customer": "a"}) for _ in range(5))]

    def held() -> list[bool]:
        return [jobs.get(one)["waiting_reason"] == "rate_limited" for one in waiting]

    wait_for(lambda: all(held()), "their turns have not come")
    (etl,) = (q for q in http_client.get(f"{jobs.gateway.url}/queues").json()["queues"] if q["name"] == "etl")
    assert (etl["rate_limited"], etl["depth"], etl["running"]) == (6, 6, 0)
    assert jobs.ended(jobs.submit("acme.call_customer", {"customer": "c"}))["state"] == "succeeded"
    for one in waiting:
        jobs.cancel(one)
        assert jobs.ended(one)["state"] == "cancelled"


def test_a_client_cannot_choose_the_key_of_a_kind_that_has_one(jobs: Jobs) -> None:
    """Otherwise its jobs would not count."""
    body = {
        "kind": "acme.serve_customer",
        "params": {"customer": "a", "door": "x"},
        "options": {"concurrency_key": "k"},
    }
    answer = http_client.post(f"{jobs.gateway.url}/jobs", json=body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/options/concurrency_key"
    assert error["message"] == "Omit it: the kind acme.serve_customer sets how many of its jobs run at once."


def test_a_unique_kind_has_one_job_of_a_value_until_it_ends(jobs: Jobs, valkey: Server, tmp_path: Path) -> None:
    """Of 16 simultaneous submissions to two gateways one makes a job, and all are told its id and state."""
    door = tmp_path / "door"

    def body(customer: str) -> dict[str, Any]:
        return {"kind": "acme.audit_customer", "params": {"customer": customer, "door": str(door)}}

    env = {**KEPT, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "store")}
    with gateway_server(tmp_path, **env) as other, ThreadPoolExecutor(16) as pool:
        urls = [jobs.gateway.url, other.url] * 8
        answers = list(pool.map(lambda url: http_client.post(f"{url}/jobs", json=body("a")), urls))
    assert {answer.status_code for answer in answers} == {202}
    (job_id,) = {answer.json()["id"] for answer in answers}
    assert sorted("Job-Existed" in answer.headers for answer in answers) == [False] + [True] * 15
    url = jobs.gateway.url
    assert jobs.in_state(job_id, "running")
    again = http_client.post(f"{url}/jobs", json=body("a"), headers={"Idempotency-Key": "again"})
    assert (again.json()["id"], again.json()["state"]) == (job_id, "running")
    assert again.json()["created_at"] == jobs.get(job_id)["created_at"]
    batch = http_client.post(f"{url}/jobs/batch", json={"jobs": [body("b"), body("a")]})
    assert (batch.status_code, batch.json()["code"]) == (409, "not_unique")
    assert batch.json()["errors"][0]["pointer"] == "/jobs/1"
    twice = http_client.post(f"{url}/jobs/batch", json={"jobs": [body("b"), body("c"), body("b")]})
    assert (twice.status_code, twice.json()["errors"][0]["pointer"]) == (409, "/jobs/2")
    made = http_client.post(f"{url}/schedules", json={"name": "audit", **body("a"), "interval_s": 86_400}).json()
    ran = http_client.post(f"{url}/schedules/{made['id']}/run")
    assert (ran.json()["id"], ran.headers["Job-Existed"]) == (job_id, "true")
    free = http_client.post(f"{url}/jobs", json=body("b"))
    assert "Job-Existed" not in free.headers
    door.touch()
    assert jobs.ended(job_id)["state"] == "succeeded"
    later = http_client.post(f"{url}/jobs", json=body("a"), headers={"Idempotency-Key": "again"})
    assert "Job-Existed" not in later.headers
    assert jobs.ended(later.json()["id"])["state"] == "succeeded"


def test_a_job_replaces_the_one_before_it_and_starts_when_that_has_ended(jobs: Jobs, tmp_path: Path) -> None:
    """The one that runs is asked to stop, the one that waits is cancelled; a repeated request cancels nothing."""
    door, url = tmp_path / "door", jobs.gateway.url
    body = {"kind": "acme.draw_customer", "params": {"customer": "a", "door": str(door)}}

    def submit(n: int) -> str:
        answer = http_client.post(f"{url}/jobs", json=body, headers={"Idempotency-Key": f"drawing {n}"})
        assert (answer.status_code, "Job-Existed" in answer.headers) == (202, False)
        job_id: str = answer.json()["id"]
        return job_id

    first = submit(1)
    assert jobs.in_state(first, "running")
    second, third = submit(2), submit(3)
    assert (submit(2), submit(1)) == (second, first)
    old, between = jobs.ended(first), jobs.ended(second)
    assert (old["state"], old["replaced_by"]) == ("cancelled", second)
    assert old["error"]["message"] == f"Job {second} replaced it."
    assert (between["state"], between["replaced_by"], between["started_at"]) == ("cancelled", third, None)
    door.touch()
    new = jobs.ended(third)
    assert (new["state"], new["replaced_by"]) == ("succeeded", None)
    assert datetime.fromisoformat(new["started_at"]) >= datetime.fromisoformat(old["finished_at"])


def test_a_schedule_that_is_run_by_hand_answers_like_a_submission(jobs: Jobs, tmp_path: Path) -> None:
    """With the warning of a deprecated kind."""
    url, params = jobs.gateway.url, {"customer": "by hand", "door": str(tmp_path)}
    body = {"name": "draw", "kind": "acme.draw_customer", "params": params, "interval_s": 86_400}
    made = http_client.post(f"{url}/schedules", json=body).json()
    ran = http_client.post(f"{url}/schedules/{made['id']}/run")
    assert ran.headers["Warning"] == '299 celeriac "acme.draw_customer is deprecated. Use acme.serve_customer."'
    assert ran.headers["Location"] == f"/jobs/{ran.json()['id']}"
    assert jobs.ended(ran.json()["id"])["state"] == "succeeded"


def test_a_job_of_a_unique_kind_is_not_rerun_beside_another(jobs: Jobs, tmp_path: Path) -> None:
    """A rerun alone is answered with the other job; of many, that one is refused, and made when the other has ended."""
    door = tmp_path / "door"
    params = {"customer": "again", "door": str(door)}
    cancelled = jobs.submit("acme.audit_customer", params)
    assert jobs.cancel(cancelled) in {200, 202}
    assert jobs.ended(cancelled)["state"] == "cancelled"
    live, url = jobs.submit("acme.audit_customer", params), jobs.gateway.url
    alone = http_client.post(f"{url}/jobs/{cancelled}/rerun")
    assert (alone.json()["id"], alone.headers["Job-Existed"]) == (live, "true")
    (refused,) = http_client.post(f"{url}/jobs/rerun", json={"ids": [cancelled]}).json()["refused"]
    assert (refused["id"], refused["code"]) == (cancelled, "job_live")
    door.touch()
    assert jobs.ended(live)["state"] == "succeeded"
    (rerun,) = http_client.post(f"{url}/jobs/rerun", json={"ids": [cancelled]}).json()["retried"]
    assert jobs.ended(rerun["id"])["state"] == "succeeded"


def test_a_deprecated_kind_says_so(jobs: Jobs) -> None:
    """In the answer to each submission, in the catalogue and in the document."""
    url, expected = jobs.gateway.url, '299 celeriac "acme.greet_person is deprecated. Use acme.serve_customer."'
    body = {"kind": "acme.greet_person", "params": {"customer": "a"}}
    assert http_client.post(f"{url}/jobs", json=body).headers["Warning"] == expected
    assert http_client.post(f"{url}/jobs/batch", json={"jobs": [body]}).headers["Warning"] == expected
    assert http_client.get(f"{url}/job-kinds/acme.greet_person").json()["deprecated"] == "Use acme.serve_customer."
    model = http_client.get(f"{url}/openapi.json").json()["components"]["schemas"]["SubmitAcmeGreetPerson"]
    assert model["properties"]["params"]["deprecated"] is True
    other = {"kind": "acme.serve_customer", "params": {"customer": "z", "door": "/"}}
    assert "Warning" not in http_client.post(f"{url}/jobs", json=other).headers


@pytest.fixture
def accept_old(settings: BrokerSettings) -> Iterator[Callable[..., str]]:
    """Return a function that submits a job of an old kind as a gateway of the version before."""
    planner = Planner(settings, Composer(settings))
    with redis.Redis.from_url(settings.ledger_url) as client:

        def accept(job: Contract[Any], *, version: int | None = None, **options: Any) -> str:
            entry = replace(planner.entry(prepare(job, SubmissionOptions(**options))), version=version)
            Ledger(client).accept(Submission(jobs=[entry]))
            return entry.id

        yield accept


def test_a_message_of_a_replaced_kind_runs_on_the_new_contract(
    jobs: Jobs, settings: BrokerSettings, accept_old: Callable[..., str]
) -> None:
    """One that the ledger accepted before the upgrade, and one of another Celery client."""
    job = jobs.ended(accept_old(HailPerson(customer="old")))
    assert (job["kind"], job["result"]) == ("acme.hail_person", {"customer": "old"})
    sent: AsyncResult[Any] = make_celery(settings).send_task(
        "acme.hail_person", kwargs={"customer": "older"}, queue="etl"
    )
    assert sent.get(timeout=BOUND_S) == {"customer": "older"}


def test_a_replaced_kind_is_submitted_scheduled_and_rerun_as_the_new_one(
    jobs: Jobs, accept_old: Callable[..., str]
) -> None:
    """Clients and schedules need not be changed on the day of the upgrade."""
    job = jobs.ended(jobs.submit("acme.hail_person", {"customer": "b"}))
    assert (job["kind"], job["state"], job["result"]) == ("acme.greet_person", "succeeded", {"customer": "b"})
    url, body = jobs.gateway.url, {"kind": "acme.hail_person", "params": {"customer": "c"}, "interval_s": 86_400}
    made = http_client.post(f"{url}/schedules", json={"name": "greet", **body})
    assert made.status_code == 201, made.text
    ran = http_client.post(f"{url}/schedules/{made.json()['id']}/run")
    assert jobs.ended(ran.json()["id"])["result"] == {"customer": "c"}
    waiting = accept_old(HailPerson(customer="d"), delay_s=3_600)
    assert jobs.cancel(waiting) in {200, 202}
    again = http_client.post(f"{url}/jobs/{waiting}/rerun", json={"params": {"customer": "e"}})
    assert again.status_code == 202, again.text
    job = jobs.ended(again.json()["id"])
    assert (job["kind"], job["result"]) == ("acme.greet_person", {"customer": "e"})


def test_a_job_of_an_earlier_version_runs_in_the_form_of_this_one(jobs: Jobs, accept_old: Callable[..., str]) -> None:
    """As the author says; a rerun, too. One of a middle version, which nothing was changed in, runs as it is."""
    job = jobs.ended(accept_old(MeasureFirst(customer="a", weight_kg=70)))
    assert job["result"] == {"customer": "a: 70000 g"}
    later = accept_old(MeasureFirst(customer="b", weight_kg=80), delay_s=3_600)
    assert jobs.cancel(later) in {200, 202}
    again = http_client.post(f"{jobs.gateway.url}/jobs/{later}/rerun")
    assert again.status_code == 202, again.text
    assert jobs.ended(again.json()["id"])["result"] == {"customer": "b: 80000 g"}
    same = jobs.submit("acme.weigh_customer", {"customer": "c", "mass_g": 9})
    assert jobs.ended(same)["result"] == {"customer": "c: 9 g"}
    assert http_client.get(f"{jobs.gateway.url}/job-kinds/acme.weigh_customer").json()["version"] == 3


@pytest.mark.parametrize(
    ("version", "what"), [(9, "was accepted under version 9"), (2, "accepted under version 2, in version 3")]
)
def test_a_job_of_a_version_that_does_not_fit_waits_for_another_worker_and_then_says_why(
    jobs: Jobs, accept_old: Callable[..., str], version: int, what: str
) -> None:
    """It is put back, like a job of an unknown kind, and its failure says what to do."""
    job_id = accept_old(MeasureFirst(customer="a", weight_kg=70), version=version)
    wait_for(lambda: jobs.get(job_id)["waiting_reason"] == "no_worker_for_kind", "it is put back")
    job = jobs.ended(job_id)
    assert (job["state"], job["attempts"][0]["outcome"]) == ("failed", "released")
    assert what in job["error"]["message"]
    assert "then rerun the job" in job["error"]["remedy"]
