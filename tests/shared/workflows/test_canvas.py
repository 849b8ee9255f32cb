"""A chain becomes the chords that Celery makes of it, in time that grows with its steps."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from celery.canvas import Signature

import shared.workflows.canvas
from shared.broker.messages import Composer
from shared.contract.catalogue import catalogue
from shared.contract.options import RunOptions
from shared.ledger.ids import uuid7
from shared.workflows.nodes import nested_chords
from shared.workflows.planning import Planner, Prepared, prepare

if TYPE_CHECKING:
    from shared.broker.settings import BrokerSettings

ONE = {"kind": "maintenance.deliver_callback", "params": {"job_id": "0192f0c1-2a4b-7c3d-8e5f-0123456789ab"}}
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def chain(*steps: Any) -> dict[str, Any]:
    return {"kind": "workflow.chain", "params": {"steps": list(steps)}}


def group(*steps: Any) -> dict[str, Any]:
    return {"kind": "workflow.group", "params": {"steps": list(steps)}}


def chord(*header: Any, body: Any = ONE) -> dict[str, Any]:
    return {"kind": "workflow.chord", "params": {"header": list(header), "body": body}}


TWO = group(ONE, ONE)
SHAPES = {
    "groups, then a step": chain(TWO, TWO, ONE),
    "groups alone": chain(TWO, TWO, TWO),
    "between steps": chain(ONE, TWO, ONE, ONE, TWO, TWO),
    "a group of one": chain(group(ONE), TWO, group(ONE), TWO),
    "a chain at the head": chain(chain(ONE, TWO), TWO),
    "chains within": chain(ONE, chain(TWO, TWO), chain(ONE, TWO), ONE),
    "chains in a group": chain(group(chain(TWO, ONE), chain(ONE, TWO)), TWO),
    "chords": chain(chord(ONE, ONE), TWO, chord(ONE, ONE), TWO, ONE),
    "a chord's header": chord(chain(TWO, TWO, ONE), ONE),
}


def prepared(element: dict[str, Any]) -> Prepared:
    return prepare(catalogue()[element["kind"]].model_validate(element["params"]), RunOptions())


def messages(broker: BrokerSettings, element: dict[str, Any], job_id: str) -> Any:
    """Return what is sent first, with everything that travels inside; the ids are numbered."""
    entry = Planner(broker, Composer(broker)).entry(prepared(element), job_id=job_id)
    sent = [json.loads(step.message) for step in entry.steps or () if step.message]
    text = json.dumps([{**each, "body": json.loads(base64.b64decode(each["body"]))} for each in sent], sort_keys=True)
    for number, found in enumerate(dict.fromkeys(_UUID.findall(text))):
        text = text.replace(found, f"id {number}")
    return json.loads(text)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_messages_are_those_of_celerys_own_upgrade(
    shape: str, broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the work is less: where the groups stay as they are, Celery makes the same chords of them.

    A chain that travels in a chord's body is upgraded by the worker that starts it: ours is before it travels.
    """
    job_id = uuid7()
    ours = messages(broker, SHAPES[shape], job_id)
    monkeypatch.setattr(shared.workflows.canvas, "_upgraded", lambda steps, *_: list(steps))
    assert ours == messages(broker, SHAPES[shape], job_id)
    assert len(ours) > 0


def test_twice_the_groups_in_a_row_take_twice_the_work(broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery looks at each signature a fixed number of times, however many groups follow it."""
    frozen, freeze = [0], Signature.freeze

    def counted(*args: Any, **more: Any) -> Any:
        frozen[0] += 1
        return freeze(*args, **more)

    monkeypatch.setattr(Signature, "freeze", counted)
    counts = []
    for size in (20, 40):
        frozen[0] = 0
        messages(broker, chain(*[TWO] * size), uuid7())
        counts.append(frozen[0])
    assert 1.8 < counts[1] / counts[0] < 2.2


@pytest.mark.parametrize(
    ("shape", "nested"),
    [
        (chain(ONE, ONE), 0),
        (group(ONE, ONE), 0),
        (chain(TWO, ONE), 1),
        (chain(*[TWO] * 7), 6),
        (chain(TWO, TWO, ONE, TWO, TWO), 2),
        (chain(chain(TWO, TWO), chain(TWO, TWO)), 3),
        (chord(chain(TWO, TWO, ONE), ONE), 3),
        (chord(ONE, ONE, body=chain(TWO, TWO, TWO)), 3),
        (chain(group(chain(TWO, TWO, TWO), ONE), TWO), 2),
    ],
)
def test_what_contains_one_another_is_counted(shape: dict[str, Any], nested: int) -> None:
    """Groups in a row; a single step ends the row."""
    node = prepared(shape).node
    assert node is not None
    assert nested_chords(node) == nested
