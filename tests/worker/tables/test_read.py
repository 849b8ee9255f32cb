"""A client's query is one statement that reads, or is refused."""

from __future__ import annotations

import pytest

from shared.errors import TaskFailure
from worker.tables.read import single_select


@pytest.mark.parametrize(
    "query",
    [
        "SELECT ';' AS a, \"x;y\" FROM t -- ; \n",
        "/* ; */ SELECT $$;)$$",
        "(SELECT 1) UNION (SELECT 2);",
        "WITH a AS (SELECT 1) SELECT * FROM a ; ",
        "values (1, ')')",
        "SELECT 'it''s ; fine'",
    ],
)
def test_one_statement_passes(query: str) -> None:
    """Semicolons and parentheses in texts, names and comments mean nothing."""
    assert single_select(query).startswith(query.strip()[:6])


@pytest.mark.parametrize(
    "query", ["SELECT 'open", "SELECT (1", "SELECT 1)", "SELECT 1;;SELECT 2", "EXPLAIN SELECT 1", ""]
)
def test_anything_else_is_refused(query: str) -> None:
    """The message says why."""
    with pytest.raises(TaskFailure) as raised:
        single_select(query)
    assert raised.value.code == "query_refused"
