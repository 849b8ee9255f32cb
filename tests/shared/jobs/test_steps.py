"""What the step and expression models accept and refuse, before any row is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from shared.contract.checking.fields import result_faults
from shared.jobs.data.expressions import MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_NODES
from shared.jobs.data.steps import Step
from shared.jobs.etl import CombineDatasets, TransformData, TransformSpec

URI = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet"
COLUMN = {"op": "column", "name": "a"}
ONE = {"op": "literal", "value": 1}
STEP: TypeAdapter[Any] = TypeAdapter(Step)


def nested(levels: int) -> dict[str, Any]:
    """Return a condition that is `levels` deep, in the form that costs most JSON levels."""
    expression: dict[str, Any] = {"op": "is_missing", "value": COLUMN}
    for _ in range(levels - 2):
        expression = {"op": "and", "conditions": [expression, {"op": "literal", "value": True}]}
    return expression


def refusal(step: dict[str, Any]) -> str:
    """Return the message with which a step is refused."""
    with pytest.raises(ValidationError) as refused:
        STEP.validate_json(json.dumps(step))
    return str(refused.value)


def json_depth(value: Any) -> int:
    """Return how deep arrays and objects nest in a JSON value: 0 for a scalar."""
    depth, level = 0, [value]
    while level:
        nested = [v for v in level if isinstance(v, (dict, list))]
        level = [item for v in nested for item in (v.values() if isinstance(v, dict) else v)]
        depth += bool(nested)
    return depth


@pytest.mark.parametrize(
    "step",
    [
        {"op": "select", "columns": ["a"]},
        {"op": "rename", "columns": {"a": "b"}},
        {"op": "cast", "columns": {"a": "integer", "b": {"type": "date", "format": "%d.%m.%Y"}}},
        {"op": "cast", "columns": {"a": {"type": "decimal", "precision": 10, "scale": 2}}},
        {"op": "filter", "where": {"op": "gt", "left": COLUMN, "right": ONE}},
        {"op": "drop_missing"},
        {"op": "fill_missing", "columns": {"a": 0, "b": "none", "c": True, "d": 1.5}},
        {"op": "deduplicate", "columns": ["a"], "keep": "last", "order_by": [{"column": "b"}]},
        {"op": "derive", "columns": {"b": {"op": "add", "left": COLUMN, "right": ONE}}},
        {"op": "aggregate", "group_by": [], "measures": {"n": {"function": "count"}}},
        {"op": "sort", "by": [{"column": "a", "order": "desc", "missing": "first"}]},
        {"op": "limit", "count": 10, "offset": 5},
        {"op": "window", "order_by": [{"column": "a"}], "columns": {"r": {"function": "rank"}}},
    ],
    ids=lambda step: step["op"],
)
def test_each_step_survives_the_way_to_a_worker(step: dict[str, Any]) -> None:
    """A step that is dumped as JSON and read again is the same step."""
    first = STEP.validate_json(json.dumps(step))
    assert STEP.validate_json(STEP.dump_json(first)) == first


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"op": "explode"}, "Input tag 'explode'"),
        ({"op": "select", "columns": []}, "at least 1 item"),
        ({"op": "select", "columns": ["a", "a"]}, "'a' is named more than once"),
        ({"op": "limit", "count": "10"}, "valid integer"),
        ({"op": "limit", "count": False}, "valid integer"),
        ({"op": "limit", "count": -1}, "greater than or equal to 0"),
        ({"op": "drop_missing", "colums": ["a"]}, "Extra inputs"),
        ({"op": "cast", "columns": {"a": "int"}}, "'integer'"),
        ({"op": "cast", "columns": {"a": {"type": "integer", "format": "%Y"}}}, "'format' has no meaning"),
        ({"op": "cast", "columns": {"a": {"type": "date", "scale": 2}}}, "they are for 'decimal'"),
        ({"op": "cast", "columns": {"a": {"type": "decimal", "precision": 2, "scale": 3}}}, "'scale' (3) is larger"),
        ({"op": "cast", "columns": {"a": {"type": "date", "format": "%Q"}}}, "'%Q'"),
        ({"op": "aggregate", "group_by": [], "measures": {"n": {"function": "sum"}}}, "'sum' needs 'column'"),
        ({"op": "aggregate", "group_by": [], "measures": {"n": {"function": "quantile", "column": "a"}}}, "'quantile'"),
        ({"op": "aggregate", "group_by": [], "measures": {"n": {"function": "first", "column": "a"}}}, "'order_by'"),
        ({"op": "window", "order_by": [], "columns": {"r": {"function": "rank"}}}, "at least 1 item"),
        ({"op": "window", "order_by": [{"column": "a"}], "columns": {"r": {"function": "lag"}}}, "needs 'column'"),
        (
            {
                "op": "window",
                "order_by": [{"column": "a"}],
                "columns": {"r": {"function": "moving_sum", "column": "a"}},
            },
            "set 'rows' for",
        ),
        ({"op": "filter", "where": "a > 1"}, "dict_type"),
        ({"op": "filter", "where": {"op": "sql", "text": "1=1"}}, "Input tag 'sql'"),
        ({"op": "select", "columns": ["a\nb"]}, "printable"),
    ],
)
def test_a_wrong_step_is_refused_with_the_reason(step: dict[str, Any], says: str) -> None:
    """A step that cannot be meant is refused at submission, and the message says why."""
    assert says in refusal(step)


def test_expressions_are_as_deep_as_promised() -> None:
    """The deepest allowed expression fits into a job's body; one level more is refused."""
    deepest = {"op": "filter", "where": nested(MAX_EXPRESSION_DEPTH)}
    STEP.validate_json(json.dumps(deepest))
    body = {"jobs": [{"kind": "etl.run_pipeline", "params": {"transform": {"steps": [deepest]}}}]}
    assert json_depth(body) <= 32
    assert "levels deep" in refusal({"op": "filter", "where": nested(MAX_EXPRESSION_DEPTH + 1)})


def test_expressions_are_bounded_in_size() -> None:
    """Many operands in few levels are refused, too."""
    hundred = {"op": "concat", "values": [COLUMN] * 100}
    wide = {"op": "concat", "values": [hundred] * (MAX_EXPRESSION_NODES // 100)}
    assert "parts" in refusal({"op": "derive", "columns": {"b": wide}})


def test_very_deep_json_is_refused_and_not_a_crash() -> None:
    """Nesting far beyond any limit ends in a validation error."""
    text = '{"op":"not","condition":' * 5_000 + "true" + "}" * 5_000
    with pytest.raises(ValidationError):
        STEP.validate_json('{"op":"filter","where":' + text + "}")


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "exactly one of 'steps' and 'sql'"),
        ({"steps": [{"op": "drop_missing"}], "sql": "SELECT 1"}, "exactly one of 'steps' and 'sql'"),
        ({"sql": "SELECT 1", "inputs": {"Input": URI}}, "'input' is reserved for the dataset"),
        ({"sql": "SELECT 1", "inputs": {"a": URI, "A": URI}}, "differ by more than case"),
        ({"steps": [{"op": "join", "input": "b", "on": {"a": "a"}}]}, "steps[0] joins 'b'"),
    ],
)
def test_a_specification_is_consistent(params: dict[str, Any], says: str) -> None:
    """Steps or SQL, and joins with what `inputs` names, are checked at submission."""
    with pytest.raises(ValidationError) as refused:
        TransformSpec.model_validate_json(json.dumps(params))
    assert says in str(refused.value)


def test_every_field_is_described() -> None:
    """The document explains every field of every step, the recursive ones included."""
    schema = TransformSpec.model_json_schema()
    described = [
        (name, field)
        for name, definition in [*schema["$defs"].items(), ("TransformSpec", schema)]
        for field, value in definition.get("properties", {}).items()
        if "description" not in value
    ]
    assert described == []
    assert list(result_faults(TransformSpec)) == []
    assert {"Compare", "Case", "When", "JoinStep"} <= set(schema["$defs"])


def test_the_schema_refers_to_recursive_parts_by_name() -> None:
    """Recursion is plain $ref, which the client generators accept."""
    schema = TransformSpec.model_json_schema()
    assert schema["$defs"]["Not"]["properties"]["condition"]["discriminator"]["mapping"]["not"] == "#/$defs/Not"


@pytest.mark.parametrize("contract", [TransformData, CombineDatasets])
def test_contracts_carry_the_specification(contract: type[BaseModel]) -> None:
    """Both kinds that transform take the same steps."""
    assert "Step" in json.dumps(contract.model_json_schema())
