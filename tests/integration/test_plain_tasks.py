"""Plain Celery tasks beside ours: what another application links to a task of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker

from tests.support.servers.services import Server, wait_for
from tests.support.servers.workers import AUTHORS, crew

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def redis_url(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("beside")
    env = {
        **AUTHORS,
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
    }
    with crew(folder, **env) as workers:
        workers.start()
        yield valkey.redis_url


@pytest.mark.parametrize(
    ("queue", "how"), [(None, "well"), ("theirs", "well"), (None, "code_404"), ("theirs", "code_404")]
)
def test_a_callback_after_our_task_goes_where_it_belongs(redis_url: str, queue: str | None, how: str) -> None:
    """To Celery's own default queue, or to the one that it names; it gets our result as JSON values."""
    plain = Celery("plain", broker=redis_url, backend=redis_url, set_as_current=False)
    got: list[Any] = []

    @plain.task(name="plain.take", shared=False)
    def take(*given: Any) -> None:
        got.append(given)

    signature = plain.signature("plain.take", immutable=False)
    callback = signature.set(queue=queue) if queue else signature
    plain.send_task("acme.misbehave", kwargs={"how": how}, queue="etl", link=callback, link_error=callback.clone())
    with redis.Redis.from_url(redis_url) as client:
        wait_for(lambda: client.llen(queue or "celery"), "message of the callback")
        assert client.llen("etl") == 0
    with start_worker(plain, pool="solo", perform_ping_check=False, queues=[queue or "celery"], shutdown_timeout=30):
        wait_for(lambda: got, "callback")
    (given,) = got
    if how == "well":
        assert json.loads(json.dumps(given)) == [{"said": "True True False"}]
