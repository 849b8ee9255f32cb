"""What versions of the service have written to Redis, as readable files beside this module.

A file has jobs in several states (`jobs`: their ids) and the whole database, with the bodies of messages decoded.
`python -m tests.shared.ledger.golden.database PORT FILE` writes that of this version, on an empty Valkey on 127.0.0.1.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from shared import __version__
from shared.broker.messages import Composer
from shared.broker.settings import BrokerSettings
from shared.contract.options import SubmissionOptions
from shared.ledger.client import Ledger
from shared.ledger.records import Claim, Entry, Submission
from shared.workflows.planning import Planner, prepare
from tests.acme.contracts import NoteMany, TakeNote

FOLDER = "/golden"  # where the jobs write; tests put one of their own in its place
_TIME = re.compile(r"\b\d{13}\b")  # milliseconds since 1970
_AGO_MS = 3_600_000
_KEPT_S = 600  # for which a restored key that expires is there
_ERROR = json.dumps({"code": "busy", "message": "Busy.", "remedy": "Wait.", "retryable": True, "details": {}})


def written(client: redis.Redis) -> dict[str, Any]:
    """Write jobs in several states to an empty database as this version does, and return them with the database."""
    where = client.connection_pool.connection_kwargs
    settings, ledger = BrokerSettings(broker_url=f"redis://127.0.0.1:{where['port']}/0"), Ledger(client)
    planner = Planner(settings, Composer(settings))

    def accepted(job: Any, **options: Any) -> Entry:
        entry = planner.entry(prepare(job, SubmissionOptions(**options)))
        ledger.accept(Submission([entry]))
        return entry

    def note(**params: Any) -> TakeNote:
        return TakeNote(notebook=f"{FOLDER}/notes.txt", **params)

    def claimed(entry: Entry, owner: str) -> str:
        text: Any = client.lpop("etl\x06\x165")
        claim = ledger.claim(entry.id, owner=owner, worker=f"{owner}@host", lease_s=20, message=text)
        assert isinstance(claim, Claim)
        return claim.token

    succeeded = accepted(note())
    token = claimed(succeeded, "w1")
    ledger.progress(succeeded.id, token=token, progress='{"current": 1, "total": 2, "unit": "rows", "message": ""}')
    ledger.succeed(succeeded.id, token=token, result='{"line_count": 1}')
    running = accepted(note())
    claimed(running, "gone")
    retrying = accepted(note(behave="well"))
    ledger.retry(retrying.id, token=claimed(retrying, "w1"), delay_s=5, error=_ERROR)
    jobs = {
        "succeeded": succeeded,
        "running": running,
        "retrying": retrying,
        "scheduled": accepted(note(), delay_s=60),
        "queued": accepted(note()),
        "wished": accepted(note(lasts_s=0.5), tags=["nightly"], priority=9, time_limit_s=40),
        "workflow": accepted(NoteMany(notebook=f"{FOLDER}/notes.txt", binder=f"{FOLDER}/bound.txt")),
    }
    return {
        "written_by": f"version {__version__}",
        "jobs": {name: entry.id for name, entry in jobs.items()},
        "database": {name: _dumped(client, name) for name in sorted(client.scan_iter())},
    }


def restore(client: redis.Redis, golden: dict[str, Any], folder: Path) -> None:
    """Put what a file has into the database, as if written an hour ago; the jobs write to `folder`."""
    text = json.dumps(golden["database"]).replace(FOLDER, str(folder))
    later_ms = time.time_ns() // 1_000_000 - _AGO_MS - min(int(at_ms) for at_ms in _TIME.findall(text))
    for name, key in json.loads(_TIME.sub(lambda at_ms: str(int(at_ms[0]) + later_ms), text)).items():
        match key["type"], key["value"]:
            case "string", value:
                client.set(name, value)
            case "hash", value:
                client.hset(name, mapping={field: _text(one) for field, one in value.items()})
            case "list", value:
                client.rpush(name, *map(_text, value))
            case "set", value:
                client.sadd(name, *value)
            case "zset", value:
                client.zadd(name, value)
            case "stream", value:
                for entry_id, fields in value:
                    client.xadd(name, fields, id=entry_id)
        if key["expires"]:
            client.expire(name, _KEPT_S)


def _dumped(client: Any, name: str) -> dict[str, Any]:
    kind = client.type(name)
    read: dict[str, Callable[[], Any]] = {
        "string": lambda: client.get(name),
        "hash": lambda: {field: _readable(text) for field, text in sorted(client.hgetall(name).items())},
        "list": lambda: [_readable(text) for text in client.lrange(name, 0, -1)],
        "set": lambda: sorted(client.smembers(name)),
        "zset": lambda: dict(client.zrange(name, 0, -1, withscores=True)),
        "stream": lambda: client.xrange(name),
    }
    return {"type": kind, "expires": client.ttl(name) > 0, "value": read[kind]()}


def _readable(text: str) -> Any:
    """Return a message with its body as JSON, another text as it is."""
    if not text.startswith('{"body"'):
        return text
    message = json.loads(text)
    return message | {"body": json.loads(base64.b64decode(message["body"]))}


def _text(value: Any) -> str:
    """Return the text of which `_readable` has made `value`."""
    if isinstance(value, str):
        return value
    return json.dumps(value | {"body": base64.b64encode(json.dumps(value["body"]).encode()).decode()})


if __name__ == "__main__":
    port, file = sys.argv[1:]
    with redis.Redis(port=int(port), decode_responses=True) as given:
        Path(file).write_text(json.dumps(written(given), indent=1) + "\n")
