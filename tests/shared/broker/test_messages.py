"""The gateway's own messages, beside those that the installed Celery really sends."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis
import redis.asyncio

from shared.broker.celery import make_celery
from shared.broker.messages import Composer, MessageOptions, publish
from shared.broker.settings import BrokerSettings
from shared.contract.catalogue import catalogue
from shared.contract.options import PRIORITIES
from shared.ledger.aclient import AsyncLedger
from shared.ledger.ids import uuid7
from shared.ledger.records import Entry, Submission
from shared.workflows.canvas import to_canvas, workflow_messages
from shared.workflows.definition import WorkflowContract
from shared.workflows.nodes import PlannedStep, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from shared.contract.definition import AnyContract
    from tests.support.servers.services import Server

SEPARATOR = "\x06\x16"  # kombu.transport.redis.Channel.sep
CHOSEN = {  # names of this process, and what people are shown of the parameters
    "headers": {"origin", "kwargsrepr", "argsrepr"},
    "properties": {"delivery_tag", "reply_to"},
}
CHOSEN_INSIDE = {"kwargsrepr", "argsrepr", "reply_to"}  # of the signatures that travel in a body
KINDS = sorted(catalogue())
SINGLE = [kind for kind in KINDS if not issubclass(catalogue()[kind], WorkflowContract)]
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
WORKFLOWS = [kind for kind in KINDS if issubclass(catalogue()[kind], WorkflowContract)]


@pytest.fixture
def celery_app(broker: BrokerSettings) -> Iterator[Celery]:
    """Return Celery as a client has it who knows tasks by name."""
    app = make_celery(
        broker, backend="shared.broker.messages:SilentBackend"
    )  # it publishes; only nobody waits for results
    yield app
    app.close()


@pytest.fixture
def lists(empty_valkey: Server) -> Iterator[redis.Redis]:
    """Return a client for the broker's lists."""
    with redis.Redis(port=empty_valkey.port, decode_responses=True) as client:
        yield client


def example(kind: str) -> Any:
    """Return an instance of a kind's contract."""
    contract = catalogue()[kind]
    return contract.model_validate_json(json.dumps(contract.spec.examples[0]))


def comparable(message: str) -> dict[str, Any]:
    """Return a message with its body decoded and without what is chosen afresh each time."""
    parts: dict[str, Any] = json.loads(message)
    parts["body"] = _without_reprs(json.loads(base64.b64decode(parts["body"])))
    for section, names in CHOSEN.items():
        for name in names:
            parts[section].pop(name, None)
    return parts


def _without_reprs(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_reprs(v) for k, v in value.items() if k not in CHOSEN_INSIDE}
    return [_without_reprs(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("priority", [0, 4, 9])
@pytest.mark.parametrize("kind", SINGLE)
def test_message_is_what_celery_sends(
    kind: str, priority: int, broker: BrokerSettings, celery_app: Celery, lists: redis.Redis
) -> None:
    """For every kind and priority, each field equals that of `apply_async`, and so does the list."""
    contract, job_id, params = catalogue()[kind], uuid7(), example(kind).model_dump_json()
    limits = MessageOptions(priority, soft_limit_s=50, hard_limit_s=60)

    ours = Composer(broker).message(contract, job_id, params, limits, queue=contract.spec.queue)
    celery_app.signature(kind, kwargs=json.loads(params)).apply_async(
        task_id=job_id,
        queue=contract.spec.queue,
        priority=broker.wire_priority(priority),
        soft_time_limit=50,
        time_limit=60,
    )

    (theirs,) = waiting(lists, list_name(contract.spec.queue, priority))
    for section in ("headers", "properties"):
        assert comparable(theirs)[section] == comparable(ours)[section]
    assert comparable(theirs) == comparable(ours)
    assert json.loads(ours)["headers"].keys() == json.loads(theirs)["headers"].keys()
    assert json.loads(ours)["properties"].keys() == json.loads(theirs)["properties"].keys()


def waiting(lists: redis.Redis, name: str) -> list[str]:
    """Return the messages of a list, the latest first."""
    return cast("list[str]", lists.lrange(name, 0, -1))


async def accept(broker: BrokerSettings, entry: Entry) -> None:
    """Accept a job as the gateway does."""
    async with redis.asyncio.Redis.from_url(broker.ledger_url, decode_responses=True) as client:
        await AsyncLedger(client).accept(Submission([entry]))


def list_name(queue: str, priority: int) -> str:
    """Return the list of a queue for a job's priority: 9, the most urgent, is Redis priority 0."""
    return queue if priority == PRIORITIES - 1 else f"{queue}{SEPARATOR}{PRIORITIES - 1 - priority}"


@pytest.mark.parametrize("priority", range(PRIORITIES))
def test_accept_puts_the_message_on_kombus_list(
    priority: int, broker: BrokerSettings, celery_app: Celery, lists: redis.Redis
) -> None:
    """The ledger's accept and kombu agree on the list of every priority."""
    kind, job_id = SINGLE[0], uuid7()
    contract, params = catalogue()[kind], example(kind).model_dump_json()
    message = Composer(broker).message(contract, job_id, params, MessageOptions(priority, 50, 60), queue="etl")
    entry = Entry(
        id=job_id,
        kind=kind,
        queue="etl",
        priority=priority,
        params=params,
        retention_ms=60_000,
        max_crashes=3,
        max_retries=3,
        message=message,
    )
    asyncio.run(accept(broker, entry))
    celery_app.signature(kind, kwargs=json.loads(params)).apply_async(
        task_id=uuid7(), queue="etl", priority=broker.wire_priority(priority)
    )

    theirs, ours = waiting(lists, list_name("etl", priority))
    numbered = json.loads(message)
    numbered["headers"]["celeriac_publication"] = 1  # Celery reads over it
    assert json.loads(ours) == numbered
    assert job_id == json.loads(ours)["headers"]["id"]
    assert json.loads(theirs)["properties"]["priority"] == json.loads(ours)["properties"]["priority"]


@pytest.mark.parametrize("kind", WORKFLOWS)
def test_workflow_messages_are_what_celery_sends(
    kind: str, broker: BrokerSettings, celery_app: Celery, lists: redis.Redis
) -> None:
    """A chain's or chord's first messages equal those of the same canvas, with everything that travels inside."""
    job_id, node = uuid7(), example(kind).plan()
    planned = lay_out(node, uuid7)
    limits = {step.id: MessageOptions(7, 50, 60) for step in planned}

    def sign(step: PlannedStep) -> tuple[Any, dict[str, Any]]:
        spec = step.plan.contract.spec
        return celery_app.signature(spec.kind, kwargs=step.plan.params, immutable=True), {
            "task_id": step.id,
            "queue": spec.queue,
            "priority": broker.wire_priority(7),
            "time_limit": 60,
            "soft_time_limit": 50,
        }

    ours = workflow_messages(Composer(broker), node, planned, limits, job_id=job_id)
    to_canvas(node, iter(planned), sign, celery_app, job_id=job_id).apply_async(root_id=job_id)

    queues = {step.plan.contract.spec.queue for step in planned}
    sent = [text for queue in queues for text in waiting(lists, list_name(queue, 7))]
    theirs = {json.loads(text)["headers"]["id"]: text for text in sent}
    assert theirs.keys() == ours.keys()
    assert {step.id for step in planned if not step.after} == ours.keys()
    ids = {job_id, *(step.id for step in planned)}
    for step_id, message in theirs.items():
        assert normal(message, ids) == normal(ours[step_id], ids)


def normal(message: str, ours: set[str]) -> Any:
    """Return a comparable message in which the ids that Celery chooses, of groups and chords, are numbered."""
    text = json.dumps(comparable(message), sort_keys=True)
    chosen = [found for found in dict.fromkeys(re.findall(_UUID, text)) if found not in ours]
    for number, found in enumerate(chosen):
        text = text.replace(found, f"chosen {number}")
    return json.loads(text)


def test_publish_sends_the_same_message_through_kombu(
    broker: BrokerSettings, celery_app: Celery, lists: redis.Redis
) -> None:
    """What the outbox publishes arrives as it was composed, whatever broker kombu speaks to."""
    kind, job_id = SINGLE[0], uuid7()
    contract = catalogue()[kind]
    message = Composer(broker).message(
        contract, job_id, example(kind).model_dump_json(), MessageOptions(9, 50, 60), queue="etl"
    )
    with celery_app.connection_for_write() as connection:
        publish(connection.Producer(), celery_app.amqp.queues["etl"], message)
    (arrived,) = waiting(lists, "etl")
    assert comparable(arrived) == comparable(message)


def test_parameters_shown_are_bounded(broker: BrokerSettings) -> None:
    """Events and Flower show the start of the parameters, not a megabyte of them."""
    contract: AnyContract = catalogue()["etl.extract_data"]
    params = json.dumps({"padding": "x" * 100_000})
    message = Composer(broker).message(contract, uuid7(), params, MessageOptions(4, 1, 2), queue="etl")
    assert len(json.loads(message)["headers"]["kwargsrepr"]) == 256
