"""What earlier versions have written, this one runs; what this one writes, they can read: both orders of deployment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.shared.ledger.golden.database import restore, written
from tests.support.servers.services import Server, gateway_server
from tests.support.servers.workers import ACME_ALONE, Jobs, crew

pytestmark = pytest.mark.integration

GOLDEN = {file.stem: json.loads(file.read_text()) for file in Path(__file__).with_name("golden").glob("*.json")}

# What a version before does not find where it has written it. Without its message, its keeper cannot publish a lost new
# job, and leaves that to one of this version (decision 14); the limit it takes for 1, and reads only where there is a
# concurrency key.
NEW_FORMS = {"message": "envelope", "concurrency_limit": None}
# Headers and properties that differ from job to job, or with the parameters that are set.
OWN_VALUES = {"id", "origin", "correlation_id", "delivery_tag", "reply_to", "root_id", "group", "kwargsrepr"}


@pytest.fixture(scope="module")
def service(own_valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Jobs, Path]]:
    """Yield gateway and worker of this version on what all versions before have left."""
    folder = tmp_path_factory.mktemp("golden")
    env = {**ACME_ALONE, "CELERY_BROKER_URL": own_valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
    with crew(folder, **env) as workers, gateway_server(folder, **env) as gateway:
        with redis.Redis.from_url(own_valkey.redis_url, decode_responses=True) as client:
            for version, golden in GOLDEN.items():
                (folder / version).mkdir()
                restore(client, golden, folder / version)
        workers.start(queues="etl,report", concurrency=2)
        yield Jobs(gateway), folder


@pytest.mark.parametrize("version", GOLDEN)
def test_what_an_earlier_version_left_is_done(service: tuple[Jobs, Path], version: str) -> None:
    """In whatever state it was: queued, due, claimed by a worker that is gone, or a workflow."""
    jobs, folder = service
    ended = {name: jobs.ended(job_id) for name, job_id in GOLDEN[version]["jobs"].items()}
    assert {name: job["state"] for name, job in ended.items()} == dict.fromkeys(ended, "succeeded")
    attempts = {name: [attempt["outcome"] for attempt in job["attempts"]] for name, job in ended.items()}
    assert attempts["running"] == ["lost", "succeeded"]
    assert attempts["retrying"] == ["retrying", "succeeded"]
    assert ended["wished"]["tags"] == ["nightly"]
    assert len((folder / version / "bound.txt").read_text().splitlines()) == 3
    notes = (folder / version / "notes.txt").read_text().splitlines()
    assert len(notes) == 5 + 3  # each once; what had succeeded did not run again


@pytest.mark.parametrize("version", GOLDEN)
def test_what_this_version_writes_an_earlier_one_can_read(version: str, client: redis.Redis) -> None:
    """Records and messages have all that they had, in the same form; what is new is beside it, or a documented form."""
    now, before = written(client), GOLDEN[version]
    for name in before["jobs"]:
        mine, theirs = (found["database"][f"celeriac:job:{found['jobs'][name]}"]["value"] for found in (now, before))
        missing = theirs.keys() - mine.keys()
        assert missing <= NEW_FORMS.keys(), name
        assert {NEW_FORMS[field] for field in missing} - {None} <= mine.keys(), name
        common = theirs.keys() & mine.keys() - {"message", "params", "options", "result"}
        assert {field: form(mine[field]) for field in common} == {field: form(theirs[field]) for field in common}, name
    for queue in ("etl", "etl\x06\x165"):
        mine, theirs = (found["database"][queue]["value"][0] for found in (now, before))
        for part in ("headers", "properties"):
            assert theirs[part].keys() <= mine[part].keys()
            same = theirs[part].keys() - OWN_VALUES
            assert {name: mine[part][name] for name in same} == {name: theirs[part][name] for name in same}
        assert [form(json.dumps(one)) for one in (mine["body"][0], mine["body"][2])] == [
            form(json.dumps(one)) for one in (theirs["body"][0], theirs["body"][2])
        ]


def form(text: str) -> Any:
    """Return what a reader relies on: the names in an object, the form of what is in a list, or the type of a value."""
    try:
        return _form(json.loads(text))
    except ValueError:
        return "text"


def _form(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "its own" if name == "kwargs" else _form(one) for name, one in value.items()}
    return [_form(one) for one in value] if isinstance(value, list) else type(value).__name__
