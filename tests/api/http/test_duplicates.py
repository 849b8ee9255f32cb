"""A key that an object has twice is refused wherever a JSON body is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.bodies import Body
from api.http.pointers import pointer
from api.http.problems import Problem
from tests.api.http.test_problems import problem

_OPERATIONS = json.loads((Path(__file__).parents[3] / "openapi.json").read_text("utf-8"))["paths"]
TAKING_JSON = [
    (method, path)
    for path, methods in _OPERATIONS.items()
    for method, operation in methods.items()
    if "application/json" in operation.get("requestBody", {}).get("content", {})
    and "{key_id}" not in path  # where there is a key, everybody is asked for one: tests/api/access/test_keys.py
]
ANYTHING: Body[Any] = Body("anything", Any, envelope=0)
_JSON = {"Content-Type": "application/json"}


@pytest.fixture
def cancelled(api: httpx.Client, extraction: dict[str, Any]) -> str:
    """Return the id of a job that can be rerun."""
    job_id = str(api.post("/jobs", json=extraction | {"options": {"delay_s": 3600}}).json()["id"])
    assert api.post(f"/jobs/{job_id}/cancel").status_code == 200
    return job_id


@pytest.mark.parametrize(("method", "path"), TAKING_JSON)
def test_every_route_refuses_it(
    api: httpx.Client, cancelled: str, extraction: dict[str, Any], method: str, path: str
) -> None:
    """Before the fields are looked at, and also where an object lies deep in the body."""
    schedule = {"name": "twice", "crontab": "0 3 * * *", "job": extraction}
    made = api.post("/schedules", json=schedule).json()
    url = path.format(job_id=cancelled, schedule_id=made.get("id", "x"))
    for body, where in (('{"a": 1, "a": 1}', "/a"), ('{"a": [{"b": {}}, {"c~/": 1, "c~/": {}}]}', "/a/1/c~0~1")):
        refused = problem(api.request(method, url, content=body, headers=_JSON), 400, "duplicate_key")
        assert [error["pointer"] for error in refused["errors"]] == [where], path


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ('{"kind": "etl.extract_data", "params": {}, "kind": "maintenance.cleanup_old_data"}', "/kind"),
        ('{"kind": "etl.extract_data", "\\u006bind": "x", "params": {}}', "/kind"),
        (
            '{"kind": "k", "params": {"source": {"kind": "http", "url": "http://a", "url": "http://b"}}}',
            "/params/source/url",
        ),
        ('{"kind": "k", "params": {"": 1, "": 2}}', "/params/"),
        ('{"kind": "k", "params": {"n": 1e400, "n": 2}}', None),
    ],
)
def test_the_pointer_names_the_key(api: httpx.Client, body: str, where: str | None) -> None:
    """Also of one that is written differently; what is not JSON is said first."""
    answer = api.post("/jobs", content=body, headers=_JSON)
    if where is None:
        problem(answer, 400, "malformed_json")
    else:
        assert problem(answer, 400, "duplicate_key")["errors"][0]["pointer"] == where


def test_a_key_of_any_length_has_a_short_answer(api: httpx.Client) -> None:
    """The answer does not repeat what the client sent."""
    key = "k" * 3_000
    answer = api.post("/jobs", content=json.dumps({key: 1})[:-1] + f', "{key}": 2}}', headers=_JSON)
    assert len(problem(answer, 400, "duplicate_key")["errors"][0]["pointer"]) < 1_000


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=15,
)


@given(value=_VALUES, draw=st.data())
def test_one_repetition_anywhere_is_found(value: Any, draw: st.DataObject) -> None:
    """Any JSON without one passes; with one key repeated in any object, its pointer is named."""
    ANYTHING.check(json.dumps(value).encode())
    paths = [path for path, found in _inside(value, ()) if isinstance(found, dict) and found]
    if not paths:
        return
    path = draw.draw(st.sampled_from(paths))
    chosen = _at(value, path)
    key = draw.draw(st.sampled_from(sorted(chosen)))
    whole = json.dumps(chosen)
    twice = f"{whole[:-1]}, {json.dumps(key)}: null}}"
    mark = "\x00 the object \x00"
    with pytest.raises(Problem) as refused:
        ANYTHING.check(json.dumps(_with(value, path, mark)).replace(json.dumps(mark), twice).encode())
    assert (refused.value.status, refused.value.code) == (400, "duplicate_key")
    assert refused.value.errors[0].pointer == pointer((*path, key))


def _inside(value: Any, path: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(path, value), *(found for name, each in inner for found in _inside(each, (*path, name)))]


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        value = value[name]
    return value


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy
