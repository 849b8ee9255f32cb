"""Restrictions: what they allow, and which of two allows more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.access.callers import UNRESTRICTED, Restrictions

PATTERNS = st.lists(st.text("ab*", min_size=1, max_size=4), max_size=3)


@given(mine=PATTERNS, other=PATTERNS, kind=st.text("ab", min_size=1, max_size=4))
def test_a_narrower_key_allows_no_kind_that_the_wider_does_not(mine: list[str], other: list[str], kind: str) -> None:
    """Whatever the patterns are: else a key could make one that allows more than itself."""
    narrower = Restrictions(kinds=other)
    if Restrictions(kinds=mine).exceeded_by(narrower) is None and narrower.allows_kind(kind):
        assert Restrictions(kinds=mine).allows_kind(kind)


@pytest.mark.parametrize(
    ("mine", "other", "exceeded"),
    [
        ({}, {}, None),
        ({"kinds": ["report.*"]}, {"kinds": ["report.compose"]}, None),
        ({"kinds": ["report.*"]}, {"kinds": ["report.*", "etl.*"]}, "kinds"),
        ({"kinds": ["report.*"]}, {}, "kinds"),
        ({"queues": ["etl"]}, {"queues": ["etl", "ml"]}, "queues"),
        ({"queues": ["etl"]}, {"queues": []}, None),
        ({"connections": {"lake": "read"}}, {"connections": {"lake": "write"}}, "connections"),
        ({"connections": {"lake": "write"}}, {"connections": {"lake": "read"}}, None),
        ({"connections": {}}, {}, "connections"),
        ({"max_priority": 4}, {"max_priority": 5}, "max_priority"),
        ({"max_priority": 4}, {"max_priority": 4}, None),
        ({"max_priority": 4}, {}, "max_priority"),
    ],
)
def test_what_exceeds(mine: dict[str, object], other: dict[str, object], exceeded: str | None) -> None:
    assert Restrictions.model_validate(mine).exceeded_by(Restrictions.model_validate(other)) == exceeded


def test_no_restriction_allows_all_and_an_empty_one_nothing() -> None:
    assert UNRESTRICTED.allows_kind("x.y")
    assert UNRESTRICTED.allows_connection("lake", "write")
    nothing = Restrictions(kinds=[], queues=[], connections={}, max_priority=0)
    assert not nothing.allows_kind("x.y")
    assert not nothing.allows_queue("etl")
    assert not nothing.allows_connection("lake", "read")
    assert not nothing.allows_priority(1)


@pytest.mark.parametrize("wrong", [{"kinds": ["a?"]}, {"kinds": ["[ab]"]}, {"connections": {"No!": "read"}}])
def test_other_signs_of_patterns_are_refused(wrong: dict[str, object]) -> None:
    """With `?` or `[` a pattern could match another as text, and allow less than that."""
    with pytest.raises(ValidationError):
        Restrictions.model_validate(wrong)
