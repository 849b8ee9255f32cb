"""What a client's workflow becomes, and what is wrong with those that become nothing."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from shared.broker.messages import Composer
from shared.broker.settings import BrokerSettings
from shared.contract.catalogue import catalogue
from shared.contract.options import YEAR_S, RunOptions
from shared.workflows.assembly import CanvasContract
from shared.workflows.definition import WorkflowContract
from shared.workflows.feeding import feed, feeding_problems, gives
from shared.workflows.nodes import (
    MAX_DEPTH,
    Chain,
    Chord,
    Group,
    Node,
    PlanRefused,
    StepPlan,
    lay_out,
    message_bytes,
    without,
)
from shared.workflows.planning import Planner, prepare

SOURCE = {"kind": "http", "url": "https://example.com/a.csv"}
STAGE = {"kind": "etl.extract_data", "params": {"source": SOURCE}}
CLEAN = {"kind": "etl.transform_data", "params": {"steps": [{"op": "drop_missing"}]}}
COMBINE: dict[str, Any] = {"kind": "etl.combine_datasets"}
URI = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet"


def workflow(primitive: str, **params: Any) -> CanvasContract:
    made = catalogue()[f"workflow.{primitive}"].model_validate(params)
    assert isinstance(made, CanvasContract)
    return made


def within(primitive: str, **params: Any) -> dict[str, Any]:
    return {"kind": f"workflow.{primitive}", "params": params}


def steps(node: Node) -> dict[str, tuple[str, ...]]:
    """Return the names of the steps, each with those of the steps it waits for."""
    numbers = iter(range(100_000))
    planned = lay_out(node, lambda: str(next(numbers)))
    names = {step.id: step.plan.name for step in planned}
    return {step.plan.name: tuple(names[before] for before in step.after) for step in planned}


def problems(contract: CanvasContract) -> list[tuple[str, str]]:
    with pytest.raises(PlanRefused) as refused:
        contract.plan()
    return [("/".join(map(str, path)), message) for path, message in refused.value.problems]


def test_names_are_unique_and_paths() -> None:
    """A name is the kind's verb and noun, numbered where it is taken; within a nested workflow it is a path."""
    chain = workflow("chain", steps=[STAGE, CLEAN, CLEAN, within("chain", steps=[CLEAN, {**CLEAN, "name": "again"}])])
    assert steps(chain.plan()) == {
        "extract_data": (),
        "transform_data": ("extract_data",),
        "transform_data_2": ("transform_data",),
        "chain/transform_data": ("transform_data_2",),
        "chain/again": ("chain/transform_data",),
    }


def test_a_kind_that_is_a_workflow_itself_takes_its_place() -> None:
    """Its steps get the element's name; what follows waits for the last of them."""
    pipeline = {"kind": "etl.run_pipeline", "params": dict(catalogue()["etl.run_pipeline"].spec.examples[0])}
    assert steps(workflow("chain", steps=[STAGE, pipeline, STAGE]).plan()) == {
        "extract_data": (),
        "run_pipeline/extract": ("extract_data",),
        "run_pipeline/transform": ("run_pipeline/extract",),
        "run_pipeline/load": ("run_pipeline/transform",),
        "extract_data_2": ("run_pipeline/load",),
    }


def test_a_step_is_told_what_was_given_without_what_is_fed() -> None:
    """Neither the parameter that the step before gives nor a default is among the step's own."""
    (_, clean) = lay_out(workflow("chain", steps=[STAGE, CLEAN]).plan(), iter("abc").__next__)
    assert clean.plan.params == CLEAN["params"]


def test_a_parameter_that_is_given_is_not_fed() -> None:
    """Then nothing has to fit: the step merely follows."""
    given = {"kind": "etl.combine_datasets", "params": {"datasets": [URI]}}
    chain = workflow("chain", steps=[STAGE, given])
    assert [dict(step.plan.params)["datasets"] for step in lay_out(chain.plan(), iter("ab").__next__)[1:]] == [[URI]]


def test_every_problem_is_named_at_once() -> None:
    """An unknown kind, a wrong parameter deep inside, and a missing one: each with its path."""
    bad = {"kind": "etl.transform_data", "params": {"steps": [{"op": "drp"}]}}
    found = problems(workflow("chain", steps=[CLEAN, within("group", steps=[bad, {"kind": "etl.load_dat"}])]))
    assert [path for path, _ in found] == [
        "steps/0/params/dataset",
        "steps/1/params/steps/0/params/steps/0",
        "steps/1/params/steps/1/kind",
    ]
    assert found[0][1] == "etl.transform_data: Field required. No previous step can feed it."
    assert "Did you mean 'etl.load_data'?" in found[2][1]


def test_a_neighbour_that_does_not_fit_is_named_with_both_types() -> None:
    """A load gives no dataset for a transformation."""
    load = {"kind": "etl.load_data", "params": {"destination": {"kind": "table", "connection": "w", "table": "t"}}}
    ((path, message),) = problems(workflow("chain", steps=[STAGE, load, CLEAN]))
    assert path == "steps/2"
    assert message == (
        "'transform_data' (etl.transform_data) takes a dataset for 'dataset'; before it, 'load_data' (etl.load_data) "
        "gives nothing. Set the parameter, or change the order."
    )


def test_one_parameter_cannot_take_several_results() -> None:
    """After a group a step needs a list parameter, or one that is given."""
    ((path, message),) = problems(workflow("chain", steps=[within("group", steps=[STAGE, STAGE]), CLEAN]))
    assert (path, "only one" in message) == ("steps/1", True)
    assert steps(workflow("chain", steps=[within("group", steps=[STAGE, STAGE]), COMBINE]).plan())


def test_depth_and_size_are_bounded() -> None:
    """Nesting and the number of steps have limits, also where chunks or nested groups make the steps."""
    deep: dict[str, Any] = STAGE
    for _ in range(MAX_DEPTH + 2):
        deep = within("chain", steps=[deep])
    assert f"at most {MAX_DEPTH} deep" in problems(workflow("chain", steps=[deep]))[0][1]
    groups = [within("group", steps=[STAGE] * 600)] * 2
    assert "at most 1000 steps" in problems(workflow("group", steps=groups))[0][1]
    items = [[SOURCE]] * 1_100
    chunks = workflow("chunks", kind="etl.extract_data", parameters=["source"], items=items, chunk_size=1)
    assert "at most 1000 steps" in problems(chunks)[0][1]


def test_items_of_a_map_are_checked_one_by_one() -> None:
    """The path names the item; a workflow cannot be mapped."""
    found = problems(workflow("map", kind="etl.extract_data", parameter="source", items=[SOURCE, {"kind": "http"}]))
    assert found == [("items/1/source/url", "etl.extract_data: Field required.")]
    (refused,) = problems(workflow("map", kind="etl.run_pipeline", parameter="source", items=[SOURCE]))
    assert refused[0] == "kind"


def test_may_fail_is_for_single_steps() -> None:
    """A nested workflow does not support `may_fail`."""
    chain = workflow("chain", steps=[{**within("chain", steps=[STAGE]), "may_fail": True}])
    assert problems(chain)[0][0] == "steps/0/may_fail"


@pytest.mark.parametrize("kind", [kind for kind, c in catalogue().items() if issubclass(c, WorkflowContract)])
def test_the_steps_of_every_workflow_fit(kind: str) -> None:
    """In every example of every workflow each step gets what it takes from those before it."""
    for example in catalogue()[kind].spec.examples:
        workflow = catalogue()[kind].model_validate(example)
        assert isinstance(workflow, WorkflowContract)
        numbers = iter(range(10_000))
        assert list(feeding_problems(lay_out(workflow.plan(), lambda: str(next(numbers))))) == []  # noqa: B023 - used at once


def step(name: str) -> StepPlan:
    return StepPlan(name, catalogue()["etl.extract_data"], {})


@pytest.mark.parametrize(
    ("done", "left"),
    [
        ("", {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ("d",)}),
        ("a", {"b": (), "c": (), "d": ("b", "c"), "e": ("d",)}),
        ("ab", {"c": (), "d": ("c",), "e": ("d",)}),
        ("abc", {"d": (), "e": ("d",)}),
        ("abcd", {"e": ()}),
    ],
)
def test_what_is_done_drops_out(done: str, left: dict[str, tuple[str, ...]]) -> None:
    """A workflow without some of its steps runs the others in the same order."""
    node = without(Chain(step("a"), Chord([step("b"), step("c")], step("d")), step("e")), set(done))
    assert node is not None
    assert steps(node) == left


def test_nothing_is_left_where_everything_is_done() -> None:
    """An empty workflow is None."""
    assert without(Group(step("a"), Chain(step("b"))), {"a", "b"}) is None


def test_gives_says_the_roles_of_a_result() -> None:
    """The type of a result's field says what it gives."""
    assert gives(catalogue()["etl.transform_data"]) == {"dataset": False}
    assert gives(catalogue()["etl.load_data"]) == {}


def test_feeding_leaves_out_what_failed_and_may() -> None:
    """A list takes the results there are, those of a map's items, too; one parameter takes exactly one."""
    dataset = {"role": "dataset", "uri": URI}
    upstream = [{"dataset": dataset}, None, {"results": [{"dataset": dataset}, {"dataset": dataset}]}]
    assert feed(catalogue()["etl.combine_datasets"], {}, upstream) == {"datasets": [URI] * 3}
    assert feed(catalogue()["etl.transform_data"], {"sql": "x"}, upstream[:2]) == {"sql": "x", "dataset": URI}
    with pytest.raises(ValueError, match="needs one dataset for 'dataset'; the previous steps gave 3"):
        feed(catalogue()["etl.transform_data"], {}, upstream)
    with pytest.raises(ValueError, match="gave none"):
        feed(catalogue()["etl.transform_data"], {}, [None])
    with pytest.raises(ValueError, match="needs a dataset for 'datasets'; the previous steps gave none"):
        feed(catalogue()["etl.combine_datasets"], {}, [None, None])


def test_the_bytes_of_messages_are_those_that_celery_makes(broker: BrokerSettings) -> None:
    """What is refused as too large is too large: the estimate is a little more than the messages that go out first."""
    clean = {"kind": "etl.transform_data", "params": {"steps": [{"op": "drop_missing"}], "dataset": URI}}
    wide = workflow("chain", steps=[within("group", steps=[STAGE] * 12), within("group", steps=[clean] * 3), COMBINE])
    entry = Planner(broker, Composer(broker)).entry(prepare(wide, RunOptions()))
    made = sum(len(step.message or "") for step in entry.steps)
    assert made < message_bytes(wide.plan()) < 2 * made


def test_parameters_are_not_repeated_without_bound() -> None:
    """Each item of a map is checked with what all share, so a small request could mean gigabytes."""
    shared = {"options": {"delimiter": "x" * 20_000}}
    chunks = {"kind": "etl.extract_data", "params": shared, "parameters": ["source"], "chunk_size": 100}
    assert problems(workflow("chunks", items=[[SOURCE]] * 1_000, **chunks))[0] == (
        "params",
        "they are too large for this many items. Put large values into a file.",
    )


def test_the_items_of_a_map_may_have_a_time_limit(broker: BrokerSettings) -> None:
    """It goes with the message, with a tenth of it to clean up; a message without one is as before."""

    def options(**given: Any) -> list[dict[str, Any]]:
        items = {"kind": "etl.extract_data", "parameters": ["source"], "items": [[SOURCE]] * 2}
        chunks = workflow("chunks", **items, chunk_size=1, **given)
        entry = Planner(broker, Composer(broker)).entry(prepare(chunks, RunOptions()))
        bodies = [json.loads(base64.b64decode(json.loads(step.message or "")["body"])) for step in entry.steps]
        return [kwargs["task"]["options"] for _, kwargs, _ in bodies]

    named = {"celeriac_parameters": ["source"]}
    assert options() == [named] * 2
    assert options(item_time_limit_s=20) == [{**named, "celeriac_item_limits": [18, 20]}] * 2


@pytest.mark.parametrize("limit_s", [0, -1, 0.5, math.inf, math.nan, YEAR_S + 1, "5", True])
def test_a_time_limit_of_an_item_is_a_positive_number_of_seconds(limit_s: Any) -> None:
    """At least one, like that of a job."""
    with pytest.raises(ValidationError, match="item_time_limit_s"):
        workflow("map", kind="etl.extract_data", parameter="source", items=[SOURCE], item_time_limit_s=limit_s)


def test_a_time_limit_of_an_item_is_within_that_of_its_kind() -> None:
    """Which bounds all items together; the path is right in a nested workflow, too."""
    most_s = catalogue()["etl.extract_data"].spec.limits.hard_s
    one = {"kind": "etl.extract_data", "parameter": "source", "items": [SOURCE]}
    hint = f"Use more than 0 and at most {most_s:g} s: the limit of etl.extract_data bounds all items together."
    assert problems(workflow("map", **one, item_time_limit_s=most_s + 1)) == [("item_time_limit_s", hint)]
    nested = within("map", **one, item_time_limit_s=most_s + 1)
    assert problems(workflow("chain", steps=[nested])) == [("steps/0/params/item_time_limit_s", hint)]
    assert steps(workflow("map", **one, item_time_limit_s=most_s).plan()) == {"map": ()}
