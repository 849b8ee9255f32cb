"""What a body says becomes texts and JSON of bounded size, in time that grows with its length only."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.texts import TEXT_LENGTH, plain, redact, redact_field, said

_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text()
    | st.binary()
    | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner) | st.sets(st.text()),
    max_leaves=50,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text() | st.integers(), _ANYTHING))
def test_whatever_is_given_becomes_json(values: dict[Any, Any]) -> None:
    """Valid everywhere: no NaN, nothing that UTF-8 does not have; and a second time it stays as it is."""
    text = json.dumps(plain(values), allow_nan=False, ensure_ascii=False)
    assert plain(json.loads(text)) == json.loads(text.encode("utf-8"))


@pytest.mark.parametrize("values", [{"a": "x" * 10**6}, {"a": [1] * 10**5}, {f"n{n}": "x" * 99 for n in range(10**5)}])
def test_values_are_bounded_in_all(values: dict[str, Any]) -> None:
    """However many there are, and however long."""
    assert len(json.dumps(plain(values))) < 12 * TEXT_LENGTH


@given(st.text(), st.integers(40, 100))
def test_a_text_is_cut(text: str, most: int) -> None:
    """To what was asked for, with the length of the whole."""
    assert len(said(text * 50, most)) <= most


@pytest.mark.parametrize(
    "unit",
    ["a", "a_", "token_", "api-", "a.b+c-", "://", "x://", "a@", "token=", "password='", 'pwd="', "'sig=' ", "\ud83d"],
)
def test_redaction_takes_time_in_proportion(unit: str) -> None:
    """A megabyte of the worst that was found takes under a second of CPU; quadratic, it took half an hour."""
    text, before_s = unit * (1_000_000 // len(unit)) + " =", time.process_time()  # without "=", it looks for no pair
    redact(text)
    assert time.process_time() - before_s < 30


def test_a_text_without_a_pair_takes_next_to_no_time() -> None:
    """Such as most log lines: the search for names took two seconds."""
    text, before_s = "a@" * 2_500_000, time.process_time()
    assert redact(text) == text
    assert time.process_time() - before_s < 0.5


def test_a_secret_that_is_cut_off_before_its_closing_quote_is_hidden() -> None:
    """A driver cuts its message, not we."""
    assert redact("password='hunter2 is my") == "password=***"


@pytest.mark.parametrize(
    ("name", "is_hidden"),
    [
        *((name, True) for name in ("key", "KEY", "sig", "password", "client_secret", "access_token", "X-Api-Key")),
        *((name, True) for name in ("AWS_SECRET_ACCESS_KEY", "private_key", "Authorization", "Set-Cookie")),
        *((name, False) for name in ("sort_key", "keys", "design", "primary key", "author", "monkey", "signal")),
    ],
)
def test_fields_are_hidden_by_their_names(name: str, *, is_hidden: bool) -> None:
    """A key is a secret; in the name of something else, such as a column to sort by, it is not."""
    assert redact_field(name, "k3y") == ("***" if is_hidden else "k3y")
    assert plain({"request": [{name: "k3y"}]})["request"] == [{name: "***" if is_hidden else "k3y"}]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET /maps?key=k3y&zoom=3 failed", "GET /maps?key=***&zoom=3 failed"),
        ("client_secret=k3y, access_token=k3y", "client_secret=*** access_token=***"),
        ("{'user': 'me', 'password': 'k3y'}", "{'user': 'me', 'password': ***}"),
        ('{"api_key": "k3y", "size": 3}', '{"api_key": ***, "size": 3}'),
        ("sort_key=name design='blue'", "sort_key=name design='blue'"),
    ],
)
def test_pairs_in_a_text_are_hidden_by_their_names(text: str, shown: str) -> None:
    """Those of URLs, of log lines, of JSON and of what Python prints; the name may have more words."""
    assert redact(text) == shown
