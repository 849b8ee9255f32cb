"""From Pydantic's locations to pointers into the body."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from api.http.page_tokens import next_id_of, page_token
from api.http.pointers import SchemaMap, field_errors, pointer
from api.jobs.waiting import preferred_wait_s
from shared.ledger.ids import uuid7


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Leaf(_Strict):
    """A value with a union inside."""

    op: Literal["leaf"]
    value: int | list[str] | None = None
    by_name: dict[str, Annotated[int, Field(gt=0)]] = {}


class Branch(_Strict):
    """A recursive model."""

    op: Literal["branch"]
    left: Node
    right: Node | None = None


Node = Annotated[Leaf | Branch, Field(discriminator="op")]
Branch.model_rebuild()
NODES: TypeAdapter[list[Leaf | Branch]] = TypeAdapter(list[Node])


def pointers(text: str) -> list[str]:
    """Return where `text` is wrong."""
    with pytest.raises(ValidationError) as invalid:
        NODES.validate_json(text)
    _, errors = field_errors(invalid.value.errors(), SchemaMap(NODES.json_schema()))
    return [error.pointer for error in errors]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", [""]),
        ('[{"op": "leef"}]', ["/0/op"]),
        ("[{}]", ["/0/op"]),
        ('[{"op": "leaf", "leaf": 1}]', ["/0/leaf"]),
        ('[{"op": "branch", "left": {"op": "leaf", "by_name": {"leaf": 0}}}]', ["/0/left/by_name/leaf"]),
        ('[{"op": "branch"}]', ["/0/left"]),
        ('[{"op": "branch", "left": {"op": "branch", "left": {"op": "leaf"}, "rigt": 1}}]', ["/0/left/rigt"]),
        ('[{"op": "leaf"}, {"op": "leaf", "value": {}}]', ["/1/value", "/1/value"]),
        ('[{"op": "branch", "left": {"op": "leaf"}, "right": {"op": "leaf", "x": 1}}]', ["/0/right/x"]),
    ],
)
def test_pointer_leads_to_the_field(text: str, expected: list[str]) -> None:
    """Tags of unions and names of types are not part of it, also when a field has the name of a tag."""
    assert pointers(text) == expected


@given(st.lists(st.text()))
def test_pointer_can_be_taken_apart(path: list[str]) -> None:
    """RFC 6901: what was joined is found again."""
    parts = pointer(path).split("/")[1:]
    assert [part.replace("~1", "/").replace("~0", "~") for part in parts] == path


@given(st.text())
def test_page_token_leads_back(filters: str) -> None:
    """A token gives the id it was made of, for the same filters."""
    job_id = uuid7()
    assert next_id_of(page_token(job_id, filters), filters) == job_id


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        (None, 0),
        ("", 0),
        ("wait=30", 30),
        ("respond-async, Wait=5", 5),
        ("respond-async;wait=5", 5),
        ("wait=9999", 60),
        ("wait=-1", 0),
        ("wait=soon", 0),
        ("await=5", 0),
        ("wait=5x", 0),
    ],
)
def test_prefer_wait_is_understood_or_ignored(prefer: str | None, wait_s: float) -> None:
    """RFC 7240: a preference that is not understood is not an error."""
    assert preferred_wait_s(prefer) == wait_s
