"""Two versions of a contract side by side, as during a deployment, with real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.records import Submission
from tests.support.ledgers import entry
from tests.support.servers.services import Server, gateway_server, wait_for
from tests.support.servers.workers import Crew, Jobs, Worker, crew

pytestmark = pytest.mark.integration

KIND = "chaos.leave_trace"
NEW = {"CELERIAC_CONTRACTS": "tests.chaos.kinds.contracts", "CELERIAC_TASKS": "tests.chaos.kinds.tasks"}
OLD: dict[str, Any] = {
    "CELERIAC_CONTRACTS": "tests.chaos.kinds.older",
    "CELERIAC_TASKS": "tests.chaos.kinds.older_tasks",
}


@dataclass(frozen=True)
class Service:
    """A gateway of the new version, and an old worker on each of two queues: one is patient, one is not."""

    jobs: Jobs
    workers: Crew
    journal: str
    hired: list[Worker]

    def hire_new_worker(self) -> None:
        """Start a worker of the new version, if there is none yet."""
        if not self.hired:
            self.hired.append(self.workers.start(queues="etl,maintenance", CELERIAC_UNKNOWN_KIND_S="600"))

    def job(self, queue: str, **params: Any) -> str:
        return self.jobs.submit(KIND, {"journal": self.journal, "label": "a", **params}, queue=queue)


@pytest.fixture(scope="module")
def service(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("versions")
    env = {**NEW, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
    with crew(folder, **env) as workers, gateway_server(folder, **env) as gateway:
        workers.start(queues="etl", CELERIAC_UNKNOWN_KIND_S="600", **OLD)
        workers.start(queues="ml", CELERIAC_UNKNOWN_KIND_S="0", **OLD)
        yield Service(Jobs(gateway), workers, str(folder / "journal.txt"), [])


def test_a_new_parameter_waits_for_a_new_worker(service: Service) -> None:
    """The old worker runs what it knows, and leaves the others without blame until there is a new one."""
    new, old = service.job("etl", note="new"), service.job("etl")
    assert service.jobs.ended(old)["state"] == "succeeded"
    waits = wait_for(lambda: (found := service.jobs.get(new))["state"] == "retrying" and found, "it is given back")
    assert waits["waiting_reason"] == "no_worker_for_kind"
    assert waits["error"]["code"] == "invalid_parameters"
    service.hire_new_worker()
    done = service.jobs.ended(new)
    assert (done["state"], done["error"]) == ("succeeded", None)
    assert {attempt["outcome"] for attempt in done["attempts"][:-1]} == {"released"}


def test_what_no_worker_can_read_fails_after_a_bounded_time(service: Service) -> None:
    """It says which parameter it is, and what to do."""
    error = service.jobs.ended(service.job("ml", note="new"))["error"]
    assert error["code"] == "invalid_parameters"
    assert "note: Extra inputs are not permitted" in error["message"]
    assert "deploy its version of the contract" in error["remedy"]


def test_wrong_parameters_of_another_celery_client_fail_at_once(service: Service) -> None:
    """No version accepted them, so none is waited for."""
    app = make_celery(BrokerSettings(broker_url=service.workers.env["CELERY_BROKER_URL"]))
    sent = app.send_task(KIND, kwargs={"journal": service.journal, "label": "a", "nota": "?"}, queue="etl")
    job = service.jobs.ended(sent.id)
    assert (job["state"], job["error"]["code"], len(job["attempts"])) == ("failed", "invalid_parameters", 1)


def test_what_this_version_accepted_and_refuses_fails_at_once(service: Service) -> None:
    """A validator may look at a clock, and a step may be fed with what its contract refuses: no version helps."""
    with redis.Redis.from_url(service.workers.env["CELERY_BROKER_URL"], decode_responses=True) as client:
        accepted = service.job("report")  # nobody consumes this queue
        params = json.dumps({"journal": service.journal, "label": "two words"})
        job = entry(
            kind=KIND, queue="maintenance", params=params, contract=client.hget(key("job", accepted), "contract")
        )
        Ledger(client).accept(Submission([job]))
    service.hire_new_worker()
    ended = service.jobs.ended(job.id)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "invalid_parameters")
