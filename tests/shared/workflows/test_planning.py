"""A job is planned once, in time that grows with its steps, and what is found wrong has a place."""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, ValidationError, create_model

import shared.workflows
from shared.broker.messages import Composer
from shared.contract.catalogue import catalogue
from shared.contract.options import RunOptions
from shared.ledger.ids import uuid7
from shared.workflows.elements import Element, named
from shared.workflows.nodes import PlanRefused, message_bytes
from shared.workflows.planning import Planner, Prepared, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from shared.broker.settings import BrokerSettings

CALLBACK = {"kind": "maintenance.deliver_callback", "params": {"job_id": uuid7()}}
STAGE = {"kind": "etl.extract_data", "params": {"source": {"kind": "http", "url": "https://example.com/a.csv"}}}
CLEAN: dict[str, Any] = {"kind": "etl.transform_data", "params": {"steps": [{"op": "drop_missing"}]}}
COMBINE: dict[str, Any] = {"kind": "etl.combine_datasets"}
OURS = str(Path(shared.workflows.__file__).parent)


def within(primitive: str, **params: Any) -> dict[str, Any]:
    return {"kind": f"workflow.{primitive}", "params": params}


def prepared(element: dict[str, Any]) -> Prepared:
    return prepare(catalogue()[element["kind"]].model_validate(element["params"]), RunOptions())


def ran(call: Callable[[], object]) -> Counter[str]:
    """Return how often each function of `shared.workflows` is called by `call`, and under "" the lines that it runs."""
    counts: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        counts["" if event == "line" else frame.f_code.co_name] += event in {"line", "call"}
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return counts


def nest(width: int) -> dict[str, Any]:
    """Return chains in chains, eight deep, with `width` steps in each beside the next."""
    element = within("chain", steps=[CALLBACK] * width)
    for _ in range(7):
        element = within("chain", steps=[element, *[CALLBACK] * width])
    return element


GROWING: dict[str, Callable[[int], dict[str, Any]]] = {
    "chain": lambda size: within("chain", steps=[STAGE, *[CLEAN] * size]),
    "chord": lambda size: within("chord", header=[STAGE] * size, body=COMBINE),
    "group after group": lambda size: within(
        "chain", steps=[within("group", steps=[STAGE] * size), within("group", steps=[COMBINE] * size)]
    ),
    "nest": lambda size: nest(size // 8),
}


@pytest.mark.parametrize("shape", GROWING)
def test_twice_the_steps_take_twice_the_work(shape: str) -> None:
    """Naming, checking, laying out and measuring look at each step a fixed number of times."""

    def plan(element: dict[str, Any]) -> None:
        job = prepared(element)
        assert job.node is not None
        assert message_bytes(job.node) > len(job.steps) * 1_000

    once, twice = (ran(partial(plan, GROWING[shape](size)))[""] for size in (48, 96))
    assert 1.5 < twice / once < 2.2


def test_a_workflow_is_laid_out_once(broker: BrokerSettings) -> None:
    """Whoever measures, names or accepts it takes the steps that `prepare` returned; their ids stay."""
    planner, entries = Planner(broker, Composer(broker)), []
    jobs: list[Prepared] = []

    def accept() -> None:
        job = prepared(GROWING["chord"](5))
        assert job.node is not None
        assert message_bytes(job.node) > 0
        jobs.append(job)
        entries.append(planner.entry(job))

    counts = ran(accept)
    assert (counts["lay_out"], counts["nodes"], counts["place"]) == (1, 0, 7)  # a chord and its six steps
    assert [step.id for step in entries[0].steps] == [step.id for step in jobs[0].steps]


@given(
    names=st.lists(st.sampled_from(["a", "a_2", "a_2_2", "a_3", "b", None, "load_data", "load_data_2"]), max_size=12),
)
def test_each_name_is_the_first_that_is_free(names: list[str | None]) -> None:
    """What was wanted, or else it with the lowest number from 2 that no element before has, whoever chose that."""

    def numbered(wanted: str) -> Iterator[str]:
        yield wanted
        yield from (f"{wanted}_{number}" for number in range(2, 99))

    elements = [Element(kind="etl.load_data", name=name) for name in names]
    expected: list[str] = []
    for name in names:
        expected.append(next(free for free in numbered(name or "load_data") if free not in expected))
    assert [name for _, name in named(elements)] == expected


def test_composing_a_group_leaves_nothing_behind(broker: BrokerSettings) -> None:
    """Celery would subscribe to the result of every step of a group, and keep it, as if somebody waited for it."""
    composer = Composer(broker)
    entry = Planner(broker, composer).entry(prepared(GROWING["chord"](5)))
    assert len([step for step in entry.steps if step.message]) == 5
    with redis.Redis.from_url(broker.ledger_url) as client:
        assert client.pubsub_channels("celery-task-meta-*") == []


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add the kinds of another team to the catalogue."""
    monkeypatch.setenv("CELERIAC_CONTRACTS", "shared.jobs,tests.acme.contracts")
    catalogue.cache_clear()
    yield
    catalogue.cache_clear()


@pytest.mark.usefixtures("acme")
def test_a_kind_can_refuse_its_own_parameters(broker: BrokerSettings) -> None:
    """What a kind's plan refuses is named at its place, also within another workflow; and it cannot be accepted."""
    same = {"kind": "acme.note_many", "params": {"notebook": "a.txt", "binder": "a.txt"}}
    alone, nested = prepared(same), prepared(within("chain", steps=[same]))
    assert [path for path, _ in alone.problems] == [("binder",)]
    assert [path for path, _ in nested.problems] == [("steps", 0, "params", "binder")]
    for job in (alone, nested):
        assert (job.node, job.steps) == (None, ())
        with pytest.raises(PlanRefused, match="another file"):
            Planner(broker, Composer(broker)).entry(job)


@pytest.mark.parametrize("kind", sorted(catalogue()))
def test_only_what_was_given_is_sent(kind: str, broker: BrokerSettings) -> None:
    """A worker of an older version refuses a parameter that it does not know, though it only has its default."""
    contract = catalogue()[kind]
    for example in contract.spec.examples:
        job = contract.model_validate_json(json.dumps(example))
        entry = Planner(broker, Composer(broker)).entry(prepare(job, RunOptions()))
        assert shape(json.loads(entry.params)) == shape(example)
        if entry.message:
            _, kwargs, _ = json.loads(base64.b64decode(json.loads(entry.message)["body"]))
            assert kwargs == json.loads(entry.params)
        for sent in (entry.params, job.model_dump_json()):  # what the version before sent has every default
            assert contract.model_validate_json(sent) == job


def shape(value: Any) -> Any:
    """Return a JSON value with the names of its parameters only."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else None


def test_an_older_worker_runs_what_a_newer_gateway_sends(broker: BrokerSettings) -> None:
    """Its contract lacks the optional parameter, which nobody gave; given, the parameter is refused by its name."""
    older = create_model("Older", __config__=ConfigDict(extra="forbid"), dataset=(str, ...), steps=(list[Any], ...))
    newer, planner = catalogue()["etl.transform_data"], Planner(broker, Composer(broker))
    given: dict[str, Any] = {"dataset": f"artifact://{uuid7()}/1/a.parquet", **CLEAN["params"]}
    sent = planner.entry(prepare(newer.model_validate(given), RunOptions()))
    assert older.model_validate_json(sent.params).model_dump() == given
    sent = planner.entry(prepare(newer.model_validate({**given, "bad_rows": "fail"}), RunOptions()))
    with pytest.raises(ValidationError, match="bad_rows"):
        older.model_validate_json(sent.params)
