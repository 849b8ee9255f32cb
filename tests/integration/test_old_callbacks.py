"""Callbacks from before they had a queue of their own, on a worker of the family whose queue they lie in."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from shared.ledger.client import Ledger
from tests.support.ledgers import entry, record
from tests.support.servers.receivers import receiving
from tests.support.servers.services import Server, wait_for
from tests.support.servers.workers import crew

pytestmark = pytest.mark.integration

SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"
JOB, CALLBACK = "0192f0c1-2a4b-7c3d-8e5f-0123456789ab", "0192f0c1-2a4b-7c3d-8e5f-0123456789ac"
PARAMS = f'{{"job_id":"{JOB}"}}'
# What a keeper of version 0.1.0 put on the list `maintenance`, word for word.
MESSAGE = {
    "body": (
        "W1tdLCB7ImpvYl9pZCI6IjAxOTJmMGMxLTJhNGItN2MzZC04ZTVmLTAxMjM0NTY3ODlhYiJ9LCB7ImNhbGxiYWNrcyI6IG51bGws"
        "ICJlcnJiYWNrcyI6IG51bGwsICJjaGFpbiI6IG51bGwsICJjaG9yZCI6IG51bGx9XQ=="
    ),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {
        "lang": "py",
        "task": "maintenance.deliver_callback",
        "id": CALLBACK,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [75.0, 60.0],
        "root_id": CALLBACK,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": PARAMS,
        "origin": "gen21801@vm",
        "ignore_result": None,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    },
    "properties": {
        "correlation_id": CALLBACK,
        "reply_to": "a0503228-e322-35fb-886f-c5043ded70e1",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "maintenance"},
        "priority": 5,
        "body_encoding": "base64",
        "delivery_tag": CALLBACK,
    },
}


def test_a_maintenance_worker_runs_a_callback_that_lies_in_its_queue(
    empty_valkey: Server, ledger: Ledger, accept: Callable[..., Any], tmp_path: Path
) -> None:
    """An upgrade strands no callback: no worker of the family callbacks is there, and the end is told."""
    with receiving() as receiver:
        env = {
            "CELERY_BROKER_URL": empty_valkey.redis_url,
            "CELERIAC_WEBHOOK_SECRET": SECRET,
            "CELERIAC_HTTP_ALLOW_HOSTS": f"127.0.0.1:{receiver.port}",
            "WORKER_FAMILIES": "maintenance",
        }
        with crew(tmp_path, **env) as workers:
            accept(entry(id=JOB, retention_ms=3_600_000, options=json.dumps({"callback_url": receiver.url})))
            ledger.cancel(JOB, reason="nobody needs it")
            accept(
                entry(
                    id=CALLBACK,
                    kind="maintenance.deliver_callback",
                    queue="maintenance",
                    params=PARAMS,
                    retention_ms=3_600_000,
                    message=json.dumps(MESSAGE),
                )
            )
            workers.start()
            wait_for(lambda: record(ledger, CALLBACK).state == "succeeded", "the callback")
    ((headers, body),) = receiver.got
    told = Webhook(SECRET).verify(body, headers)
    assert (told["type"], told["data"]["id"]) == ("job.cancelled", JOB)
